"""The cost of a call: at most, probably, and by the usage that its provider reports. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from bandit_service.core.events import ArmSpec
from bandit_service.core.fields import MAX_COST_USD
from bandit_service.embedding import estimate_tokens
from bandit_service.gateway.request_size import Size
from bandit_service.gateway.usage import Counts, counts_of, number, plain

_HOUR = 2.0
"""The price of a prompt that is cached for an hour, as a multiple of the price in, if the arm has
none.
"""
_LONG = 4
_FAR, _SMALL_USD = 1000.0, 1.0
"""A provider's bill is believed up to this multiple of the list prices, and up to this many USD."""
_BILLS = frozenset({"cost", "totalcost", "costusd", "totalcostusd"})
_COUNTS = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})
"""A usage of these alone, as most are, has no bill."""


def cost_usd(usage: object, spec: ArmSpec) -> float | None:
    """The provider's own bill if it reports a plausible one, else Σ tokens · price / 10⁶; None
    if it reports neither.

    Cached prompt tokens cost `usd_per_mtok_cached_in` where the arm has that price, those that the
    provider now keeps `usd_per_mtok_cache_write`, and for an hour `usd_per_mtok_cache_write_1h`. A
    cost beyond what an outcome may have is a provider's mistake: it is discarded, so that one bad
    report cannot drain every budget.

    >>> arm = ArmSpec(id="a", usd_per_mtok_in=2.0, usd_per_mtok_out=8.0, usd_per_mtok_cached_in=0.5)
    >>> cost_usd({"prompt_tokens": 1000, "completion_tokens": 100,
    ...           "prompt_tokens_details": {"cached_tokens": 400}}, arm)
    0.0022
    """
    return cost_by(usage, counts_of(usage), spec)


def cost_by(usage: object, counts: Counts | None, spec: ArmSpec) -> float | None:
    """`cost_usd` of a usage whose counts are known."""
    listed = None if counts is None else _listed(counts, spec)
    billed = _bill(usage)
    if billed is not None and _plausible(billed, listed):
        return billed
    return listed if listed is not None and listed <= MAX_COST_USD else None


def max_usd(spec: ArmSpec, size: Size, limit: int | None = None) -> float:
    """The maximum cost of the arm: the prompt, and as many tokens as the answer may have.

    If the client sets no limit, that is the arm's `max_output_tokens`, else `limit`, which is sent
    in its place, else all that its window has left.
    """
    size = size.configured(spec.request)
    prices = [spec.usd_per_mtok_in, spec.usd_per_mtok_cache_write or 0.0]
    dearest = max(*prices, hour_price(spec) if size.hour else 0.0)
    window = max(1, spec.context_window - size.prompt)
    tokens = max(size.limit or spec.max_output_tokens or limit or window, size.other_limit)
    if size.thinking >= tokens:  # so the limit does not include it
        tokens += size.thinking
    tokens += size.extra
    return (size.prompt * dearest + size.answers * tokens * spec.usd_per_mtok_out) / 1e6


def usual_usd(spec: ArmSpec, size: Size) -> float:
    """The maximum cost of a call whose answer is at most four times as long as usual."""
    tokens = _LONG * spec.expected_output_tokens
    return max_usd(spec, msgspec.structs.replace(size, limit=max(tokens, 1)))


def likely_usd(spec: ArmSpec, size: Size, received: int | None = None) -> float:
    """The likely cost of a call without a usage: the prompt and the answer.

    received: bytes of the answer that arrived; None if none was seen, which counts as the arm's
    usual answer.
    """
    size = size.configured(spec.request)
    if received is None:
        usual = spec.expected_output_tokens
        tokens = size.answers * (usual if size.limit is None else min(usual, size.limit))
    else:
        tokens = estimate_tokens(received)
    return (size.prompt * spec.usd_per_mtok_in + tokens * spec.usd_per_mtok_out) / 1e6


def prompt_of(counts: Counts | None, estimate: int) -> tuple[int, int | None]:
    """The tokens of the prompt, and those of them that the provider had cached, as it reports them.

    >>> prompt_of(Counts(fresh=5, cached=4, answer=1), 10), prompt_of(None, 10)
    ((9, 4), (10, None))
    """
    if counts is None or not (prompt := counts.prompt):
        return estimate, None
    return prompt, counts.cached


def saved_usd(counts: Counts | None, spec: ArmSpec) -> float:
    """What the provider's cache saved: cached · (price in − cached price) / 10⁶."""
    if counts is None or not counts.cached or spec.usd_per_mtok_cached_in is None:
        return 0.0
    return counts.cached * (spec.usd_per_mtok_in - spec.usd_per_mtok_cached_in) / 1e6


def hour_price(spec: ArmSpec) -> float:
    """USD for 10⁶ tokens of the prompt that are kept for an hour."""
    if spec.usd_per_mtok_cache_write_1h is not None:
        return spec.usd_per_mtok_cache_write_1h
    return max(_HOUR * spec.usd_per_mtok_in, spec.usd_per_mtok_cache_write or 0.0)


def _listed(counts: Counts, spec: ArmSpec) -> float:
    paid = counts.fresh * spec.usd_per_mtok_in
    if counts.cached or counts.kept or counts.kept_hour:  # which is rare
        paid += counts.cached * _or_in(spec.usd_per_mtok_cached_in, spec)
        paid += counts.kept * _or_in(spec.usd_per_mtok_cache_write, spec)
        paid += counts.kept_hour * hour_price(spec)
    return (paid + counts.answer * spec.usd_per_mtok_out) / 1e6


def _or_in(price: float | None, spec: ArmSpec) -> float:
    return spec.usd_per_mtok_in if price is None else price


def _plausible(billed: float, listed: float | None) -> bool:
    """Whether a bill in USD is plausible for this answer. A bill of 0 counts only if the list price
    is 0 too, since some providers report 0 for an unknown cost.
    """
    if billed > MAX_COST_USD:
        return False
    if not listed:
        return billed > 0.0 or listed is not None
    return listed / _FAR <= billed <= max(_SMALL_USD, listed * _FAR)


def _bill(usage: object) -> float | None:
    """The cost that the provider reports. If it called another one with the client's own key, that
    one's bill is added.
    """
    if not isinstance(usage, dict) or usage.keys() <= _COUNTS:
        return None
    bill = _largest(usage)
    details = usage.get("cost_details")
    if bill is not None and usage.get("is_byok") is True and isinstance(details, dict):
        bill += _usd(details.get("upstream_inference_cost")) or 0.0
    return bill


def _largest(reported: Mapping[str, object]) -> float | None:
    bills = [_usd(value) for name, value in reported.items() if plain(name) in _BILLS]
    return max((each for each in bills if each is not None), default=None)


def _usd(value: object) -> float | None:
    """A sum: a number, the text of one, or the total of an object that lists its parts."""
    if isinstance(value, dict):
        return _largest(value)
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    usd = number(value)
    return float(usd) if usd is not None and 0 <= usd <= MAX_COST_USD * _FAR else None
