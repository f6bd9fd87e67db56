"""Whole evaluations that other systems publish, with our hashes and ranges under them.

What those systems decide beside the hash (conditions, forced variations, their sticky store, their
contextual bandit) is no part of the service: it is written here, as their documentation has it, so
that every row of their tables says whether a unit would be where it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from bandit_service.core.bucketing import bucket_ranges, choose, growthbook_hash, in_namespace
from bandit_service.core.hashing import md5_shard
from tests.shared_data import shared, vectors

Record = Mapping[str, Any]

# --- GrowthBook -----------------------------------------------------------------------------------


def _holds(condition: Record, context: Record, values: Record) -> bool:
    for name, wanted in condition.items():
        found = values.get(name)
        if isinstance(wanted, Mapping):
            if found not in context["savedGroups"][wanted["$inGroup"]]:
                return False
        elif found != wanted:
            return False
    return True


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


def test_growthbooks_experiments() -> None:
    cases = vectors("growthbook/run.json")["cases"]
    assert len(cases) == 73
    for name, context, test, value, inside, hashed in cases:
        found, by_hash = _run(context, test)
        assert (found is not None, by_hash) == (inside, hashed), name
        assert test["variations"][found or 0] == value, name


def _sticky(context: Record, key: str, docs: list[Any]) -> tuple[Record | None, Record]:
    """A feature's only rule, and the sticky documents after it."""
    (rule,) = context["features"][key]["rules"]
    test = {"key": key} | rule
    attributes = context["attributes"]
    names = [test["hashAttribute"], test.get("fallbackAttribute")]
    units = {name: attributes[name] for name in names if attributes.get(name)}
    stored = {f"{one['attributeName']}||{one['attributeValue']}": one for one in docs}
    stored = {at: one for at, one in stored.items()
              if at in {f"{name}||{unit}" for name, unit in attributes.items()}}  # fmt: skip
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


def test_growthbooks_sticky_buckets() -> None:
    cases = vectors("growthbook/stickyBucket.json")["cases"]
    assert len(cases) == 13
    for name, context, docs, key, result, after in cases:
        assert _sticky(context, key, docs) == (result, after), name


# --- Eppo -----------------------------------------------------------------------------------------


def _weighed(scores: Mapping[str, float], gamma: float, floor: float) -> dict[str, float]:
    """Inverse gap weighting (FALCON): the best action, by name among equals, gets the rest."""
    best = min(scores, key=lambda name: (-scores[name], name))
    k = len(scores)
    weights = {
        name: max(floor / k, 1.0 / (k + gamma * (scores[best] - score)))
        for name, score in scores.items()
        if name != best
    }
    return weights | {best: max(0.0, 1.0 - sum(weights.values()))}


def test_eppos_weights_of_actions() -> None:
    cases = vectors("eppo/weigh_actions.json")["cases"]
    assert len(cases) == 5
    for case in cases:
        found = _weighed(case["scores"], case["gamma"], case["floor"])
        if "each_at_least" in case:
            assert min(found.values()) >= case["each_at_least"] - 1e-12
        else:
            assert found == pytest.approx(case["weights"], rel=case.get("rel_tol", 1e-12))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _term(values: Record, numeric: list[Any], categorical: list[Any]) -> float:
    total = 0.0
    for one in numeric:
        value = _number(values["numericAttributes"].get(one["attributeKey"]))
        total += one["missingValueCoefficient"] if value is None else one["coefficient"] * value
    for one in categorical:
        text = values["categoricalAttributes"].get(one["attributeKey"])
        known = one["valueCoefficients"]
        total += known.get(text, one["missingValueCoefficient"])
    return total


def _action(flag: str, model: Record, subject: Record) -> str:
    scores = {}
    for action in subject["actions"]:
        of = model["coefficients"].get(action["actionKey"])
        scores[action["actionKey"]] = model["defaultActionScore"] if of is None else (
            of["intercept"]
            + _term(action, of["actionNumericCoefficients"], of["actionCategoricalCoefficients"])
            + _term(subject["subjectAttributes"], of["subjectNumericCoefficients"],
                    of["subjectCategoricalCoefficients"])
        )  # fmt: skip
    weights = _weighed(scores, model["gamma"], model["actionProbabilityFloor"])
    key = f"{flag}-{subject['subjectKey']}"
    shuffled = sorted(weights, key=lambda name: (md5_shard(f"{key}-{name}", 10_000), name))
    at, upto = md5_shard(key, 10_000) / 10_000, 0.0
    for name in shuffled:
        upto += weights[name]
        if upto > at:
            return name
    return shuffled[-1]


def _variation(flag: Record, subject: Record) -> str | None:
    """The value of the first allocation whose rules hold and one of whose splits has the unit."""
    attributes = subject["subjectAttributes"]
    known = attributes["numericAttributes"] | attributes["categoricalAttributes"]
    for allocation in flag["allocations"]:
        rules = allocation.get("rules") or [{"conditions": []}]
        if not any(
            all(known.get(one["attribute"]) in one["value"] for one in rule["conditions"])
            for rule in rules
        ):
            continue
        for split in allocation["splits"]:
            shards = [(md5_shard(f"{one['salt']}-{subject['subjectKey']}", flag["totalShards"]),
                       one["ranges"]) for one in split["shards"]]  # fmt: skip
            if all(any(r["start"] <= at < r["end"] for r in ranges) for at, ranges in shards):
                return str(flag["variations"][split["variationKey"]]["value"])
    return None


def test_eppos_flags_and_bandits() -> None:
    flags = vectors("eppo/ufc/bandit-flags-v1.json")["flags"]
    models = vectors("eppo/ufc/bandit-models-v1.json")["bandits"]
    subjects = actions = 0
    for path in sorted(shared("vectors", "eppo/ufc/bandit-tests").glob("*.json")):
        if "dynamic-typing" in path.name:
            continue  # how a client guesses types that its caller did not give
        case = json.loads(path.read_text(encoding="utf-8"))
        flag = flags.get(case["flag"])
        for subject in case["subjects"]:
            found = None if flag is None else _variation(flag, subject)
            assert (found or case["defaultValue"]) == subject["assignment"]["variation"], path.name
            subjects += 1
            action = None
            if found in models and subject["actions"]:
                action = _action(case["flag"], models[found]["modelData"], subject)
                actions += 1
            assert action == subject["assignment"]["action"], (path.name, subject["subjectKey"])
    assert (subjects, actions) == (27, 15)
