"""Unleash's published tables: its normalized hash, and its clients' specifications with ours.

What Unleash decides beside the hash (constraints, overrides, which of two lists of variants counts)
is no part of the service: it is written here, as its documentation has it, so that every row says
whether a unit would be where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from bandit_service.core.experiments.bucketing import SCHEMES, unleash_normalized
from tests.shared_data import rows, vectors

Record = Mapping[str, Any]
ROLLOUTS = {
    "03-gradual-rollout-user-id-strategy": 6,
    "04-gradual-rollout-session-id-strategy": 6,
    "10-flexible-rollout-strategy": 10,
    "12-custom-stickiness": 5,
}
VARIANTS = {"08-variants": 17, "12-custom-stickiness": 4, "16-strategy-variants": 11}


def _each(tables: Mapping[str, int], key: str) -> list[Any]:
    return [
        pytest.param(table, *one.values, id=f"{table[:2]}-{one.id}", marks=one.marks)
        for table in tables
        for one in rows(f"unleash/{table}.json", key)
    ]


def _features(table: str) -> dict[str, Record]:
    return {one["name"]: one for one in vectors(f"unleash/{table}.json")["state"]["features"]}


def _of(name: str, context: Record) -> str | None:
    found = context.get(name) or context.get("properties", {}).get(name)
    return None if found is None else str(found)


def _unit(stickiness: str, context: Record) -> str | None:
    if stickiness == "default":
        return _of("userId", context) or _of("sessionId", context)
    return _of(stickiness, context)


def _takes(strategy: Record, feature: str, context: Record) -> bool:
    """Whether a strategy takes the unit in. No row needs chance, nor an operator but IN."""
    for one in strategy.get("constraints", ()):
        assert one["operator"] == "IN"
        if _of(one["contextName"], context) not in one["values"]:
            return False
    parameters = strategy.get("parameters", {})
    group = parameters.get("groupId", feature)
    match strategy["name"]:
        case "default":
            return True
        case "gradualRolloutUserId":
            percent, unit = parameters["percentage"], _unit("userId", context)
        case "gradualRolloutSessionId":
            percent, unit = parameters["percentage"], _unit("sessionId", context)
        case "flexibleRollout":
            percent, stickiness = parameters["rollout"], parameters["stickiness"]
            unit = _unit(stickiness, context)
            if unit is None and stickiness == "default":  # by chance, which all and none leave out
                assert percent in ("0", "100")
                return bool(percent == "100")
        case name:
            raise AssertionError(f"the tables have no {name}")
    # the service's own function: in the rollout, whatever the variant
    share = int(percent) / 100
    return unit is not None and SCHEMES["unleash"](group, feature, unit, share, (1.0,)) is not None


def _variant(feature: Record | None, context: Record) -> tuple[str, bool]:
    """The variant's name, and whether the feature is on."""
    if feature is None or not feature["enabled"]:
        return "disabled", False
    name, strategies = feature["name"], feature["strategies"]
    by = next((one for one in strategies if _takes(one, name, context)), None)
    if by is None and strategies:
        return "disabled", False
    parameters = by.get("parameters", {}) if by else {}
    own = by.get("variants") if by else None
    variants = own or feature.get("variants")
    if not variants:
        return "disabled", True
    for one in variants:
        if any(
            _of(each["contextName"], context) in each["values"] for each in one.get("overrides", ())
        ):
            return one["name"], True
    inherited = parameters.get("stickiness", "default") if own else "default"
    unit = _unit(variants[0].get("stickiness", inherited), context)
    assert unit is not None or len(variants) == 1  # else by chance
    group = parameters["groupId"] if own else name
    return variants[_place(group, unit or "", [one["weight"] for one in variants])]["name"], True


def _place(group: str, unit: str, weights: Sequence[int]) -> int:
    """As the service's scheme has it for weights that sum to 1000; the tables' sums are others."""
    at, upto = unleash_normalized(unit, group, sum(weights), 86_028_157), 0
    for i, weight in enumerate(weights):
        upto += weight
        if at <= upto:
            return i
    raise AssertionError("beyond the weights")


@pytest.mark.parametrize(("table", "row"), _each(ROLLOUTS, "tests"))
def test_a_rollout(table: str, row: Record) -> None:
    feature = _features(table)[row["toggleName"]]
    found = any(_takes(one, feature["name"], row["context"]) for one in feature["strategies"])
    assert found is row["expectedResult"]


@pytest.mark.parametrize(("table", "row"), _each(VARIANTS, "variantTests"))
def test_a_variant(table: str, row: Record) -> None:
    told = row["expectedResult"]
    name, on = _variant(_features(table).get(row["toggleName"]), row["context"])
    assert (name, on) == (told["name"], told["feature_enabled"])
    assert told["enabled"] is (name != "disabled")


@pytest.mark.parametrize("row", rows("unleash/normalized.json"))
def test_a_normalized_hash(row: list[Any]) -> None:
    unit, group, normalizer, seed, value = row
    assert unleash_normalized(unit, group, normalizer, seed) == value


def test_the_service_places_units_as_the_tables_do() -> None:
    weights = (200, 300, 500)
    for i in range(2000):
        found = SCHEMES["unleash"]("any", "feature", f"u{i}", 1.0, [one / 1000 for one in weights])
        assert found == _place("feature", f"u{i}", weights)


def test_the_tables_are_whole() -> None:
    for tables, key in ((ROLLOUTS, "tests"), (VARIANTS, "variantTests")):
        for table, count in tables.items():
            assert len(vectors(f"unleash/{table}.json")[key]) == count
    assert len(vectors("unleash/normalized.json")["cases"]) == 2
