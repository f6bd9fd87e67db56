"""What an answer cost, from the usage that its provider reports. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from bandit_service.core.events import ArmSpec
from bandit_service.core.fields import MAX_COST_USD
from bandit_service.gateway.counts import Counts, counts_of, number, plain

_HOUR = 2.0
"""Times the price in: what a prompt kept for an hour costs, where the arm does not say."""
_FAR, _SMALL_USD = 1000.0, 1.0
"""A bill is believed up to so many times what the list prices come to, and up to so many USD."""
_BILLS = frozenset({"cost", "totalcost", "costusd", "totalcostusd"})


def cost_usd(usage: object, spec: ArmSpec) -> float | None:
    """The provider's own bill where it tells a plausible one, else Σ tokens · price / 10⁶; None
    where neither was told.

    Cached prompt tokens cost `usd_per_mtok_cached_in` where the arm has that price, those that the
    provider now keeps `usd_per_mtok_cache_write`, and for an hour `usd_per_mtok_cache_write_1h`. A
    cost beyond what an outcome may have is taken for a provider's mistake: it is none, lest it
    empty every budget.

    >>> arm = ArmSpec(id="a", usd_per_mtok_in=2.0, usd_per_mtok_out=8.0, usd_per_mtok_cached_in=0.5)
    >>> cost_usd({"prompt_tokens": 1000, "completion_tokens": 100,
    ...           "prompt_tokens_details": {"cached_tokens": 400}}, arm)
    0.0022
    """
    counts = counts_of(usage)
    listed = None if counts is None else _listed(counts, spec)
    billed = _bill(usage)
    if billed is not None and _plausible(billed, listed):
        return billed
    return listed if listed is not None and listed <= MAX_COST_USD else None


def cached_tokens(usage: object) -> int:
    """How many prompt tokens the provider had cached."""
    counts = counts_of(usage)
    return 0 if counts is None else counts.cached


def saved_usd(usage: object, spec: ArmSpec) -> float:
    """What the cached tokens would have cost more: cached · (price in − cached price) / 10⁶."""
    if spec.usd_per_mtok_cached_in is None:
        return 0.0
    return cached_tokens(usage) * (spec.usd_per_mtok_in - spec.usd_per_mtok_cached_in) / 1e6


def completion_tokens(usage: object) -> int | None:
    """How many tokens the answer has; None where that was not told."""
    counts = counts_of(usage)
    return None if counts is None else counts.answer or None


def hour_price(spec: ArmSpec) -> float:
    """USD for 10⁶ tokens of the prompt that are kept for an hour."""
    if spec.usd_per_mtok_cache_write_1h is not None:
        return spec.usd_per_mtok_cache_write_1h
    return max(_HOUR * spec.usd_per_mtok_in, spec.usd_per_mtok_cache_write or 0.0)


def _listed(counts: Counts, spec: ArmSpec) -> float:
    paid = (
        counts.fresh * spec.usd_per_mtok_in
        + counts.cached * _or_in(spec.usd_per_mtok_cached_in, spec)
        + counts.kept * _or_in(spec.usd_per_mtok_cache_write, spec)
        + counts.kept_hour * hour_price(spec)
        + counts.answer * spec.usd_per_mtok_out
    )
    return paid / 1e6


def _or_in(price: float | None, spec: ArmSpec) -> float:
    return spec.usd_per_mtok_in if price is None else price


def _plausible(billed: float, listed: float | None) -> bool:
    """Whether a bill may be this answer's, in USD. A bill of nothing is one only where the list
    says so too: some tell 0 for what they do not know.
    """
    if billed > MAX_COST_USD:
        return False
    if not listed:
        return billed > 0.0 or listed is not None
    return listed / _FAR <= billed <= max(_SMALL_USD, listed * _FAR)


def _bill(usage: object) -> float | None:
    """What the provider says that it takes. Where it asked another with the client's own key, that
    one's bill comes on top.
    """
    if not isinstance(usage, Mapping):
        return None
    bill = _largest(usage)
    details = usage.get("cost_details")
    if bill is not None and usage.get("is_byok") is True and isinstance(details, Mapping):
        bill += _usd(details.get("upstream_inference_cost")) or 0.0
    return bill


def _largest(told: Mapping[str, object]) -> float | None:
    found = [_usd(value) for name, value in told.items() if plain(name) in _BILLS]
    return max((each for each in found if each is not None), default=None)


def _usd(value: object) -> float | None:
    """A sum, as a number or the text of one; of an object that lists its parts their total."""
    if isinstance(value, Mapping):
        return _largest(value)
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    found = number(value)
    return float(found) if found is not None and 0 <= found <= MAX_COST_USD * _FAR else None
