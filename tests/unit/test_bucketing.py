"""Assignment against the published tables of other systems, and the laws that all schemes keep."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_service.core import bucketing, hashing
from bandit_service.core.bucketing import SCHEMES
from tests.shared_data import vectors

TEXT = st.text(max_size=20)
SHARES = st.floats(0.0, 1.0)


def _cases(name: str) -> list[list[Any]]:
    found: list[list[Any]] = vectors(name)["cases"]
    assert found
    return found


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


def test_growthbooks_tables() -> None:
    for seed, unit, version, value in _cases("growthbook/hash.json"):
        if value is None:
            with pytest.raises(ValueError, match="version"):
                bucketing.growthbook_hash(seed, unit, version)
        else:
            assert bucketing.growthbook_hash(seed, unit, version) == value
    for name, (count, coverage, weights), ranges in _cases("growthbook/getBucketRange.json"):
        found = bucketing.bucket_ranges(count, coverage, weights)
        rounded = [[round(a, 6), round(b, 6)] for a, b in found]
        assert rounded == ranges, name
    for name, at, ranges, index in _cases("growthbook/chooseVariation.json"):
        chosen = bucketing.choose(at, ranges)
        assert (-1 if chosen is None else chosen) == index, name
    for name, unit, (namespace, start, end), inside in _cases("growthbook/inNamespace.json"):
        found_in = bucketing.in_namespace("growthbook_v2", namespace, unit, (start, end))
        assert found_in is inside, name
    for count, weights in _cases("growthbook/getEqualWeights.json"):
        ranges = bucketing.bucket_ranges(count, 1.0)
        assert [round(b - a, 8) for a, b in ranges] == weights


def test_unleashs_optimizelys_and_eppos_numbers() -> None:
    for unit, group, normalizer, seed, value in _cases("unleash/normalized.json"):
        assert bucketing.unleash_normalized(unit, group, normalizer, seed) == value
    for unit, parent, bucket in _cases("optimizely/bucket.json"):
        assert bucketing.optimizely_bucket(unit, parent) == bucket
    for text, shards, shard in _cases("eppo/md5_shards.json"):
        assert hashing.md5_shard(text, shards) == shard


def _unit(stickiness: str, context: dict[str, Any]) -> str | None:
    """The value that a specification's context holds for a stickiness."""
    if stickiness == "default":
        found = context.get("userId") or context.get("sessionId")
    else:
        found = context.get(stickiness) or context.get("properties", {}).get(stickiness)
    return None if found is None else str(found)


def _holds(constraints: list[dict[str, Any]], context: dict[str, Any]) -> bool:
    for one in constraints:
        value = context.get(
            one["contextName"], context.get("properties", {}).get(one["contextName"])
        )
        if (value in one["values"]) != (one["operator"] == "IN"):
            return False
    return True


def _rolled_out(strategy: dict[str, Any], feature: str, context: dict[str, Any]) -> bool | None:
    """Whether a strategy takes the unit in; None where chance decides."""
    parameters = strategy.get("parameters", {})
    if not _holds(strategy.get("constraints", []), context):
        return False
    match strategy["name"]:
        case "default":
            return True
        case "gradualRolloutUserId" | "gradualRolloutSessionId":
            percent = float(parameters["percentage"])
            unit = context.get("userId" if strategy["name"].endswith("UserId") else "sessionId")
        case "flexibleRollout":
            percent = float(parameters["rollout"])
            unit = _unit(parameters.get("stickiness", "default"), context)
            if unit is None and parameters.get("stickiness") in ("default", "random"):
                return None if 0 < percent < 100 else percent == 100
        case _:
            return None
    if unit is None:
        return False
    group = parameters.get("groupId", feature)
    # the service's own function: in the rollout, whatever the variant
    return SCHEMES["unleash"](group, feature, unit, percent / 100, (1.0,)) is not None


@pytest.mark.parametrize("number", ["03", "04", "10", "12"])
def test_unleashs_rollout_specifications(number: str) -> None:
    found = vectors(f"unleash/{_UNLEASH[number]}")
    features = {one["name"]: one for one in found["state"]["features"]}
    ran = 0
    for case in found["tests"]:
        feature = features[case["toggleName"]]
        verdicts = [
            _rolled_out(one, feature["name"], case["context"]) for one in feature["strategies"]
        ]
        if None in verdicts:
            continue
        ran += 1
        assert any(verdicts) is case["expectedResult"], case["description"]
    assert ran >= 4


@pytest.mark.parametrize("number", ["08", "12", "16"])
def test_unleashs_variant_specifications(number: str) -> None:
    found = vectors(f"unleash/{_UNLEASH[number]}")
    features = {one["name"]: one for one in found["state"]["features"]}
    ran = 0
    for case in found["variantTests"]:
        feature = features.get(case["toggleName"])
        if feature is None:
            continue
        context, group = case["context"], feature["name"]
        chosen: dict[str, Any] | None = None if feature["strategies"] else {}
        variants = feature.get("variants", [])
        for strategy in feature["strategies"]:
            verdict = _rolled_out(strategy, feature["name"], context)
            if verdict:
                chosen = strategy
                break
        if not feature["enabled"]:
            chosen = None
        if chosen is None:
            if not feature["enabled"] or all(_rolled_out(one, feature["name"], context) is False
                   for one in feature["strategies"]):  # fmt: skip
                assert case["expectedResult"]["enabled"] is False, case["description"]
                ran += 1
            continue
        if chosen.get("variants"):
            variants = chosen["variants"]
            group = chosen["parameters"].get("groupId", feature["name"])
        if not variants:
            assert case["expectedResult"]["enabled"] is False, case["description"]
            ran += 1
            continue
        named = [
            one["name"]
            for one in variants
            for each in one.get("overrides", ())
            if context.get(each["contextName"]) in each["values"]
        ]
        if named:  # as our own overrides, which no hash decides
            assert named[0] == case["expectedResult"]["name"], case["description"]
            ran += 1
            continue
        stickiness = variants[0].get(
            "stickiness", chosen.get("parameters", {}).get("stickiness", "default")
        )
        unit = _unit(stickiness, context)
        if unit is None and len(variants) > 1:
            continue  # chance decides
        total = sum(one["weight"] for one in variants)
        weights = [one["weight"] / total for one in variants]
        index = _unleash_variant(group, unit or "", [one["weight"] for one in variants])
        assert variants[index]["name"] == case["expectedResult"]["name"], case["description"]
        if total == 1000:
            assert SCHEMES["unleash"](group, group, unit or "", 1.0, weights) == index
        ran += 1
    assert ran >= 4


def _unleash_variant(group: str, unit: str, weights: Sequence[int]) -> int:
    target = bucketing.unleash_normalized(unit, group, sum(weights), 86_028_157)
    upto = 0
    for i, weight in enumerate(weights):
        upto += weight
        if target <= upto:
            return i
    raise AssertionError("beyond the weights")


_UNLEASH = {
    "03": "03-gradual-rollout-user-id-strategy.json",
    "04": "04-gradual-rollout-session-id-strategy.json",
    "08": "08-variants.json",
    "10": "10-flexible-rollout-strategy.json",
    "12": "12-custom-stickiness.json",
    "16": "16-strategy-variants.json",
}


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
