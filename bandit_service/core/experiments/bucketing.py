"""Which variant a unit gets, by our own scheme and by those of other systems.

Every scheme is one function `(salt, split_salt, unit, share, weights) -> index | None`, None for a
unit that takes no part. Two laws hold for all: a greater share only adds units, and no unit moves
between variants while the share changes.

native         SHA-256 of (salt, unit) says whether, of (split salt, unit) says which
growthbook_v2  salt is the seed or the experiment's key; a variant's range is cut from its start
unleash        salt is groupId, split salt the feature's name for variants of the feature itself
optimizely     salt is the experiment's id; a variant's range is cut from its start
eppo           salt is that of the traffic's shards, split salt that of the split's

Weights sum to 1 (`experiments.check`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Protocol

from bandit_service.core.experiments.hashing import (
    fnv1a_32,
    md5_shard,
    murmur3_text,
    sha256_fraction,
)

_VARIANT_SEED = 86_028_157
_SHARDS = 10_000
Ranges = Sequence[tuple[float, float]]


class Scheme(Protocol):
    """How one system assigns."""

    def __call__(
        self, salt: str, split_salt: str, unit: str, share: float, weights: Sequence[float], /
    ) -> int | None:
        """The variant's index, or None where the unit takes no part."""
        ...


def native(
    salt: str, split_salt: str, unit: str, share: float, weights: Sequence[float], /
) -> int | None:
    """Two independent fractions: one says whether, the other which."""
    if sha256_fraction(f"share:{salt}", unit) >= share:
        return None
    return _first_above(accumulate(weights), sha256_fraction(f"split:{split_salt}", unit))


def growthbook_v2(
    salt: str, _split_salt: str, unit: str, share: float, weights: Sequence[float], /
) -> int | None:
    """FNV-1a of FNV-1a's decimal digits, of 10,000; a variant's range keeps its start."""
    return choose(growthbook_hash(salt, unit, 2), bucket_ranges(len(weights), share, weights))


def unleash(
    salt: str, split_salt: str, unit: str, share: float, weights: Sequence[float], /
) -> int | None:
    """Gradual rollout by whole percents, then the variants by thousandths."""
    if unleash_normalized(unit, salt, 100) > round(share * 100):
        return None
    parts = [round(weight * 1000) for weight in weights]
    target = unleash_normalized(unit, split_salt, sum(parts), _VARIANT_SEED)
    return next((i for i, upto in enumerate(accumulate(parts)) if target <= upto), None)


def optimizely(
    salt: str, _split_salt: str, unit: str, share: float, weights: Sequence[float], /
) -> int | None:
    """Murmur3, seed 1, as a part of 10,000; ranges as GrowthBook cuts them."""
    bucket = optimizely_bucket(unit, salt)
    ends = [round(end * _SHARDS) for end in accumulate(weights)]
    starts = [0, *ends[:-1]]
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if start <= bucket < start + round((end - start) * share):
            return i
    return None


def eppo(
    salt: str, split_salt: str, unit: str, share: float, weights: Sequence[float], /
) -> int | None:
    """Two shards of 10,000 with a salt each."""
    if md5_shard(f"{salt}-{unit}", _SHARDS) >= round(share * _SHARDS):
        return None
    shard = md5_shard(f"{split_salt}-{unit}", _SHARDS)
    return _first_above((round(end * _SHARDS) for end in accumulate(weights)), shard)


SCHEMES: Mapping[str, Scheme] = {
    "native": native,
    "growthbook_v2": growthbook_v2,
    "unleash": unleash,
    "optimizely": optimizely,
    "eppo": eppo,
}


def in_namespace(scheme: str, namespace: str, unit: str, slots: tuple[float, float]) -> bool:
    """Whether a namespace's hash of the unit lies in [from, to)."""
    if scheme == "growthbook_v2":
        at = growthbook_hash(f"__{namespace}", unit, 1)
    elif scheme == "optimizely":
        at = optimizely_bucket(unit, namespace) / _SHARDS
    else:
        at = sha256_fraction(f"namespace:{namespace}", unit)
    return slots[0] <= at < slots[1]


def same_slots(scheme: str, other: str) -> bool:
    """Whether two schemes place a unit at the same point of a namespace."""
    return scheme == other or not {scheme, other} & {"growthbook_v2", "optimizely"}


def growthbook_hash(seed: str, unit: str, version: int) -> float:
    """GrowthBook's hash in [0, 1): version 1 in thousandths, 2 in ten-thousandths.

    >>> growthbook_hash("", "a", 1), growthbook_hash("seed", "a", 2)
    (0.22, 0.0505)
    """
    if version == 1:
        return fnv1a_32(unit + seed) % 1000 / 1000
    if version == 2:
        return fnv1a_32(str(fnv1a_32(seed + unit))) % 10_000 / 10_000
    raise ValueError(f"version: there is no hash version {version}; expected 1 or 2")


def bucket_ranges(count: int, coverage: float, weights: Sequence[float] | None = None) -> Ranges:
    """[start, end) of each variant, cut to `coverage` of its length from its own start.

    As GrowthBook does it: coverage is cut to [0, 1], and weights that are missing, too many or too
    few, or do not sum to 1 within 0.01, are equal ones.

    >>> bucket_ranges(2, 0.5)
    [(0.0, 0.25), (0.5, 0.75)]
    """
    coverage = min(1.0, max(0.0, coverage))
    if weights is None or len(weights) != count or not 0.99 <= sum(weights) <= 1.01:
        weights = [1.0 / count] * count if count > 0 else []
    starts = [0.0, *accumulate(weights)]
    return [(start, start + coverage * w) for start, w in zip(starts, weights, strict=False)]


def choose(at: float, ranges: Ranges) -> int | None:
    """The index of the first range that `at` lies in."""
    return next((i for i, (start, end) in enumerate(ranges) if start <= at < end), None)


def unleash_normalized(unit: str, group: str, normalizer: int, seed: int = 0) -> int:
    """Unleash's normalized hash, from 1 to `normalizer`."""
    return murmur3_text(f"{group}:{unit}", seed) % normalizer + 1


def optimizely_bucket(unit: str, parent: str) -> int:
    """Optimizely's bucket, from 0 to 9,999."""
    return murmur3_text(f"{unit}{parent}", 1) * _SHARDS >> 32


def _first_above(ends: Iterable[float], at: float) -> int:
    """The index of the first end above `at`; the last one where rounding leaves a gap."""
    i = -1
    for i, end in enumerate(ends):  # noqa: B007
        if at < end:
            break
    return i
