"""Chance is a function of (seed, decision id), used in one place. No generator lives anywhere."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b


def uniform(seed: int, decision_id: str) -> float:
    """A number in [0, 1) that only (seed, decision_id) decide.

    The top 53 bits of BLAKE2b, so that every value is exact in a float and 1.0 is never reached.

    >>> uniform(0, "a") == uniform(0, "a") != uniform(1, "a")
    True
    """
    digest = _keyed(seed).copy()
    digest.update(decision_id.encode())
    return (int.from_bytes(digest.digest(), "big") >> 11) / 2.0**53


@lru_cache(maxsize=16)
def _keyed(seed: int) -> blake2b:
    """The hash after its key, which is half of the work."""
    return blake2b(key=seed.to_bytes(16, "big", signed=True), digest_size=8)
