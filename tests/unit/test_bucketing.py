"""The hashes against their reference answers, and the laws that all schemes of assignment keep.

The published tables of other systems are in `published/`.
"""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_service.core.experiments import bucketing, hashing
from bandit_service.core.experiments.bucketing import SCHEMES
from tests.shared_data import vectors

TEXT = st.text(max_size=20)
SHARES = st.floats(0.0, 1.0)


def test_fnv_and_murmur_know_the_published_answers() -> None:
    known = vectors("hash/known_answers.json")
    for text, value in known["fnv1a_32"]["cases"]:
        assert hashing.fnv1a_32(text.encode()) == value
        assert hashing.fnv1a_32(text) == value
    for data, seed, value in known["murmur3_x86_32"]["cases"]:
        assert hashing.murmur3_32(bytes.fromhex(data), seed) == value


def test_murmur_has_smhashers_verification_value() -> None:
    hashes = b"".join(
        hashing.murmur3_32(bytes(range(i)), 256 - i).to_bytes(4, "little") for i in range(256)
    )
    assert hashing.murmur3_32(hashes, 0) == 0xB0F57EE3


def test_texts_that_are_not_ascii_have_their_own_buckets() -> None:
    """By hand: an emoji is two UTF-16 code units for GrowthBook and four bytes for the others."""
    by_hand = 0x811C9DC5
    for unit in (0xD83D, 0xDE00):
        by_hand = ((by_hand ^ unit) * 0x01000193) % 2**32
    assert hashing.fnv1a_32("😀") == by_hand
    data = (0).to_bytes(8, "big") + (4).to_bytes(8, "big") + "😀".encode()
    whole = int.from_bytes(sha256(data).digest()[:8], "big")
    assert hashing.sha256_fraction("", "😀") == (whole >> 11) / 2**53
    assert hashing.sha256_fraction("", "é") != hashing.sha256_fraction("", "e\u0301")
    for scheme in SCHEMES.values():
        assert scheme("s", "t", "\ud800", 1.0, (0.5, 0.5)) in (0, 1)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(salt=TEXT, split=TEXT, unit=TEXT, low=SHARES, high=SHARES,
       weights=st.lists(st.integers(0, 20), min_size=1, max_size=6).filter(any))  # fmt: skip
def test_a_greater_share_adds_units_and_moves_none(
    scheme: str, salt: str, split: str, unit: str, low: float, high: float, weights: list[int]
) -> None:
    low, high = sorted((low, high))
    parts = [weight / sum(weights) for weight in weights]
    assign = SCHEMES[scheme]
    before, after = assign(salt, split, unit, low, parts), assign(salt, split, unit, high, parts)
    if before is not None:
        assert after == before
        assert weights[before] > 0
    assert assign(salt, split, unit, 0.0, parts) is None
    if scheme in ("native", "unleash", "eppo"):
        assert assign(salt, split, unit, 1.0, parts) is not None


@pytest.mark.parametrize("scheme", SCHEMES)
def test_units_are_split_as_weighted(scheme: str) -> None:
    """Of 20,000 units each share is within five standard errors of what it should be."""
    weights, n = (0.2, 0.3, 0.5), 20_000
    got = [SCHEMES[scheme]("salt", "split", f"user-{i}", 0.6, weights) for i in range(n)]
    for index, p in ((None, 0.4), (0, 0.12), (1, 0.18), (2, 0.3)):
        assert abs(got.count(index) - n * p) < 5 * (n * p * (1 - p)) ** 0.5


@pytest.mark.parametrize("scheme", SCHEMES)
def test_two_namespaces_slots_share_no_unit(scheme: str) -> None:
    for i in range(500):
        first = bucketing.in_namespace(scheme, "ns", f"u{i}", (0.0, 0.4))
        second = bucketing.in_namespace(scheme, "ns", f"u{i}", (0.4, 1.0))
        assert first is not second
