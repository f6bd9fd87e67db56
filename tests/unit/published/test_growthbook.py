"""GrowthBook's published tables: its hash and ranges, and whole evaluations with ours under them.

What GrowthBook decides beside the hash (conditions, forced variations, its sticky store, the leaves
of its contextual bandit) is no part of the service: it is written here, as its documentation has
it, so that every row says whether a unit would be where it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from bandit_service.core.experiments.bucketing import (
    bucket_ranges,
    choose,
    growthbook_hash,
    in_namespace,
)
from tests.shared_data import rows, vectors

Record = Mapping[str, Any]


def _holds(condition: Record, context: Record, values: Record) -> bool:
    for name, wanted in condition.items():
        found = values.get(name)
        if isinstance(wanted, Mapping):
            ((operator, value),) = wanted.items()
            if not _compared(operator, value, found, context):
                return False
        elif found != wanted:
            return False
    return True


def _compared(operator: str, value: Any, found: Any, context: Record) -> bool:
    match operator:
        case "$in":
            return found in value
        case "$inGroup":
            return found in context["savedGroups"][value]
        case "$gte":
            return found is not None and found >= value
    raise AssertionError(f"the tables have no {operator}")


def _inside(test: Record, context: Record, unit: str) -> bool:
    """Filters, else the namespace; then the conditions and those on other features."""
    attributes = context.get("attributes") or {}
    for one in test.get("filters", ()):
        of = attributes.get(one.get("attribute", "id"), "")
        if choose(growthbook_hash(one["seed"], of, 2), one["ranges"]) is None:
            return False
    namespace = None if "filters" in test else test.get("namespace")
    if namespace and not in_namespace("growthbook_v2", namespace[0], unit, tuple(namespace[1:])):
        return False
    if not _holds(test.get("condition", {}), context, attributes):
        return False
    return all(
        _holds(one["condition"], context, {"value": context["features"][one["id"]]["defaultValue"]})
        for one in test.get("parentConditions", ())
    )


def _bucket(test: Record, unit: str) -> int | None:
    count = len(test["variations"])
    at = growthbook_hash(test.get("seed", test["key"]), unit, test.get("hashVersion", 1))
    ranges = test.get("ranges") or bucket_ranges(
        count, test.get("coverage", 1.0), test.get("weights")
    )
    return choose(at, ranges)


def _run(context: Record, test: Record) -> tuple[int | None, bool]:
    """The variation, None for no part in the experiment; and whether the hash said so."""
    key, count = test["key"], len(test["variations"])
    if count < 2 or not context.get("enabled", True):
        return None, False
    asked = parse_qs(urlsplit(context.get("url", "")).query).get(key)
    if asked:
        return int(asked[0]), False
    if key in context.get("forcedVariations", {}):
        return context["forcedVariations"][key], False
    unit = (context.get("attributes") or {}).get(test.get("hashAttribute", "id"))
    if not test.get("active", True) or not unit or not _inside(test, context, unit):
        return None, False
    found = _bucket(test, unit)
    if found is None:
        return None, False
    if "force" in test:
        return (test["force"] if 0 <= test["force"] < count else None), False
    return (None, False) if context.get("qaMode") else (found, True)


@pytest.mark.parametrize("row", rows("growthbook/run.json"))
def test_an_experiment(row: list[Any]) -> None:
    _, context, test, value, inside, hashed = row
    found, by_hash = _run(context, test)
    assert (found is not None, by_hash) == (inside, hashed)
    assert test["variations"][found or 0] == value


def _sticky(context: Record, key: str, docs: list[Any]) -> tuple[Record | None, Record]:
    """A feature's only rule, and the sticky documents after it."""
    (rule,) = context["features"][key]["rules"]
    test = {"key": key} | rule
    attributes = context["attributes"]
    names = [test["hashAttribute"], test.get("fallbackAttribute")]
    units = {name: attributes[name] for name in names if attributes.get(name)}
    stored = {f"{one['attributeName']}||{one['attributeValue']}": one for one in docs}
    stored = {
        at: one
        for at, one in stored.items()
        if at in {f"{name}||{unit}" for name, unit in attributes.items()}
    }
    name, unit = next(iter(units.items()))
    assigned: dict[str, str] = {}
    for one in reversed(list(units.items())):  # what the hash attribute knows goes before
        assigned |= stored.get(f"{one[0]}||{one[1]}", {"assignments": {}})["assignments"]
    version, sticky = test.get("bucketVersion", 0), not test.get("disableStickyBucketing")
    keys = [each.get("key", str(i)) for i, each in enumerate(test.get("meta", ()))]
    keys += [str(i) for i in range(len(keys), len(test["variations"]))]
    if sticky and any(
        f"{test['key']}__{i}" in assigned for i in range(test.get("minBucketVersion", 0))
    ):
        return None, stored
    kept = assigned.get(f"{test['key']}__{version}") if sticky else None
    found = keys.index(kept) if kept is not None else _bucket(test, unit)
    assert found is not None
    at = growthbook_hash(test.get("seed", test["key"]), unit, test.get("hashVersion", 1))
    if sticky:
        before = stored.get(f"{name}||{unit}", {"assignments": {}})["assignments"]
        after = before | {f"{test['key']}__{version}": keys[found]}
        stored[f"{name}||{unit}"] = {
            "attributeName": name, "attributeValue": unit, "assignments": after,
        }  # fmt: skip
    return {
        "bucket": at, "featureId": key, "hashAttribute": name, "hashUsed": True, "hashValue": unit,
        "inExperiment": True, "key": keys[found], "stickyBucketUsed": kept is not None,
        "value": test["variations"][found], "variationId": found,
    }, stored  # fmt: skip


@pytest.mark.parametrize("row", rows("growthbook/stickyBucket.json"))
def test_a_sticky_bucket(row: list[Any]) -> None:
    _, context, docs, key, result, after = row
    assert _sticky(context, key, docs) == (result, after)


def _leaf(context: Record, rule: Record) -> dict[str, Any] | None:
    """The first leaf of the rule's bandit whose condition holds, as a result tells it."""
    bandit = context.get("contextualBandits", {}).get(rule.get("contextualBanditRef"))
    if bandit is None:
        return None
    attributes = context.get("attributes") or {}
    weights = next(
        (
            (one["leafId"], one["weights"])
            for one in bandit["contexts"]
            if _holds(one["condition"], context, attributes)
        ),
        (-1, rule["weights"]),
    )
    version = {"banditVersion": bandit["banditVersion"]} if "banditVersion" in bandit else {}
    return {"leafId": weights[0], "variationWeights": weights[1]} | version


def _feature(context: Record, key: str) -> Record:
    """What the first rule that takes the unit in makes of a feature."""
    feature, attributes = context["features"][key], context.get("attributes") or {}
    for rule in feature["rules"]:
        if "force" in rule:
            return _told(rule["force"], "force")
        leaf = _leaf(context, rule)
        kept = ("key", "seed", "hashAttribute", "hashVersion", "coverage", "meta", "condition")
        test = {name: rule[name] for name in kept if name in rule}
        test["variations"] = rule.get("contextualVariations") or rule["variations"]
        test["weights"] = rule["weights"] if leaf is None else leaf["variationWeights"]
        found, by_hash = _run(context, test)
        if found is None:
            continue
        name, value = rule.get("hashAttribute", "id"), test["variations"][found]
        result: dict[str, Any] = {
            "key": test["meta"][found]["key"], "featureId": key, "inExperiment": True,
            "hashUsed": by_hash, "variationId": found, "value": value, "hashAttribute": name,
            "hashValue": attributes[name], "stickyBucketUsed": False,
        }  # fmt: skip
        if by_hash:
            at = growthbook_hash(test["seed"], attributes[name], test["hashVersion"])
            result |= {"bucket": at} | (leaf or {})
            test |= {"contextualBandit": leaf} if leaf else {}
        return _told(value, "experiment") | {"experiment": test, "experimentResult": result}
    return _told(feature["defaultValue"], "defaultValue")


def _told(value: Any, source: str) -> dict[str, Any]:
    return {"value": value, "on": bool(value), "off": not value, "source": source, "ruleId": ""}


@pytest.mark.parametrize("row", rows("growthbook/contextualBandit.json"))
def test_a_contextual_bandit(row: list[Any]) -> None:
    _, context, key, result = row
    assert _feature(context, key) == result


@pytest.mark.parametrize("row", rows("growthbook/hash.json"))
def test_a_hash(row: list[Any]) -> None:
    seed, unit, version, value = row
    if value is None:
        with pytest.raises(ValueError, match="version"):
            growthbook_hash(seed, unit, version)
    else:
        assert growthbook_hash(seed, unit, version) == value


@pytest.mark.parametrize("row", rows("growthbook/getBucketRange.json"))
def test_the_ranges_of_buckets(row: list[Any]) -> None:
    _, (count, coverage, weights), ranges = row
    found = bucket_ranges(count, coverage, weights)
    assert [[round(a, 6), round(b, 6)] for a, b in found] == ranges  # the table's own rounding


@pytest.mark.parametrize("row", rows("growthbook/chooseVariation.json"))
def test_a_choice_by_ranges(row: list[Any]) -> None:
    _, at, ranges, index = row
    assert choose(at, ranges) == (None if index == -1 else index)


@pytest.mark.parametrize("row", rows("growthbook/inNamespace.json"))
def test_a_namespace(row: list[Any]) -> None:
    _, unit, (namespace, start, end), inside = row
    assert in_namespace("growthbook_v2", namespace, unit, (start, end)) is inside


@pytest.mark.parametrize("row", rows("growthbook/getEqualWeights.json"))
def test_equal_weights(row: list[Any]) -> None:
    count, weights = row
    assert [round(b - a, 8) for a, b in bucket_ranges(count, 1.0)] == weights  # as above


@pytest.mark.parametrize(
    ("table", "count"),
    [("run", 73), ("stickyBucket", 13), ("contextualBandit", 35), ("hash", 15),
     ("getBucketRange", 13), ("chooseVariation", 13), ("inNamespace", 16), ("getEqualWeights", 6)],
)  # fmt: skip
def test_the_tables_are_whole(table: str, count: int) -> None:
    assert len(vectors(f"growthbook/{table}.json")["cases"]) == count
