"""What an answer cost, from the usage that its provider reports. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandit_service.core.events import ArmSpec
from bandit_service.core.outcomes import MAX_COST_USD

_MOST = 10**12
"""More tokens than any answer has: beyond it a number is taken for nonsense."""


def cost_usd(usage: object, spec: ArmSpec) -> float | None:
    """(prompt · price in + completion · price out) / 10⁶; None where no usage was reported.

    Cached prompt tokens cost `usd_per_mtok_cached_in` where the arm has that price, those that the
    provider now keeps `usd_per_mtok_cache_write`. Reasoning tokens cost what an answer's do. OpenAI
    and Anthropic count them in `completion_tokens`; xAI and Gemini beside it, so that only
    `total_tokens` has them: what is billed is the larger of completion and total − prompt. A usage
    beyond what an outcome may cost is taken for a provider's mistake: it is none, lest it empty
    every budget.

    >>> arm = ArmSpec(id="a", usd_per_mtok_in=2.0, usd_per_mtok_out=8.0, usd_per_mtok_cached_in=0.5)
    >>> cost_usd({"prompt_tokens": 1000, "completion_tokens": 100,
    ...           "prompt_tokens_details": {"cached_tokens": 400}}, arm)
    0.0022
    """
    if not isinstance(usage, Mapping):
        return None
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if prompt is None and completion is None:
        return None
    prompt, completion = prompt or 0, completion or 0
    completion = max(completion, (_count(usage, "total_tokens") or 0) - prompt)
    details = usage.get("prompt_tokens_details")
    cached = min(_count(details, "cached_tokens") or 0, prompt)
    written = _count(details, "cache_creation_tokens") or _count(details, "cache_write_tokens")
    kept = min(written or 0, prompt - cached)
    paid = (
        (prompt - cached - kept) * spec.usd_per_mtok_in
        + cached * _or_in(spec.usd_per_mtok_cached_in, spec)
        + kept * _or_in(spec.usd_per_mtok_cache_write, spec)
        + completion * spec.usd_per_mtok_out
    )
    return paid / 1e6 if paid / 1e6 <= MAX_COST_USD else None


def cached_tokens(usage: object) -> int:
    """How many prompt tokens the provider had cached."""
    details = usage.get("prompt_tokens_details") if isinstance(usage, Mapping) else None
    return _count(details, "cached_tokens") or 0


def saved_usd(usage: object, spec: ArmSpec) -> float:
    """What the cached tokens would have cost more: cached · (price in − cached price) / 10⁶."""
    if spec.usd_per_mtok_cached_in is None:
        return 0.0
    return cached_tokens(usage) * (spec.usd_per_mtok_in - spec.usd_per_mtok_cached_in) / 1e6


def completion_tokens(usage: object) -> int | None:
    """How many tokens the answer has."""
    return _count(usage, "completion_tokens")


def _or_in(price: float | None, spec: ArmSpec) -> float:
    return spec.usd_per_mtok_in if price is None else price


def _count(value: Any, name: str) -> int | None:
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, int) and 0 <= found <= _MOST else None
