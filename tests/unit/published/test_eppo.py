"""Eppo's published tables: its shards, and whole evaluations of flags and bandits with ours.

What Eppo decides beside the shard (rules, the scores and weights of its bandits) is no part of the
service: it is written here, as its documentation has it, so that every subject says whether it
would be where it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from bandit_service.core.experiments.hashing import md5_shard
from tests.shared_data import rows, shared, vectors

Record = Mapping[str, Any]
TABLES = [
    "bandit-cold-start", "bandit-does-not-exist", "bandit-no-actions", "banner-bandit",
    "banner-bandit-uk-only", "banner-bandit-uk-only.dynamic-typing", "banner-bandit.dynamic-typing",
    "car-bandit", "non-bandit-flag", "non-bandit-integer-flag",
]  # fmt: skip
FOLDER = "eppo/ufc/bandit-tests"
SUBJECTS = [
    pytest.param(table, *one.values, id=f"{table}-{one.id}", marks=one.marks)
    for table in TABLES
    for one in rows(f"{FOLDER}/test-case-{table}.json", "subjects")
]


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


@pytest.mark.parametrize("case", rows("eppo/weigh_actions.json"))
def test_the_weights_of_actions(case: Record) -> None:
    found = _weighed(case["scores"], case["gamma"], case["floor"])
    if "each_at_least" in case:
        assert min(found.values()) >= case["each_at_least"] - 1e-12
    else:  # weights, no assignment: Eppo's own test compares them within a tolerance
        assert found == pytest.approx(case["weights"], rel=case.get("rel_tol", 1e-12))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _term(values: Record, numeric: list[Any], categorical: list[Any]) -> float:
    total = 0.0
    for one in numeric:
        value = _number(values["numericAttributes"].get(one["attributeKey"]))
        total += one["missingValueCoefficient"] if value is None else one["coefficient"] * value
    for one in categorical:
        category = values["categoricalAttributes"].get(one["attributeKey"])
        known = one["valueCoefficients"]  # a number among categories is the text of its digits
        total += known.get(str(category), one["missingValueCoefficient"])
    return total


def _action(flag: str, model: Record, subject: Record) -> str:
    scores = {}
    for action in subject["actions"]:
        of = model["coefficients"].get(action["actionKey"])
        scores[action["actionKey"]] = (
            model["defaultActionScore"]
            if of is None
            else (
                of["intercept"]
                + _term(
                    action, of["actionNumericCoefficients"], of["actionCategoricalCoefficients"]
                )
                + _term(
                    subject["subjectAttributes"],
                    of["subjectNumericCoefficients"],
                    of["subjectCategoricalCoefficients"],
                )
            )
        )
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
            shards = [
                (
                    md5_shard(f"{one['salt']}-{subject['subjectKey']}", flag["totalShards"]),
                    one["ranges"],
                )
                for one in split["shards"]
            ]
            if all(any(r["start"] <= at < r["end"] for r in ranges) for at, ranges in shards):
                return str(flag["variations"][split["variationKey"]]["value"])
    return None


@pytest.mark.parametrize(("table", "subject"), SUBJECTS)
def test_a_subject(table: str, subject: Record) -> None:
    case = vectors(f"{FOLDER}/test-case-{table}.json")
    flag = vectors("eppo/ufc/bandit-flags-v1.json")["flags"].get(case["flag"])
    models = vectors("eppo/ufc/bandit-models-v1.json")["bandits"]
    found = None if flag is None else _variation(flag, subject)
    action = None
    if found in models and subject["actions"]:
        action = _action(case["flag"], models[found]["modelData"], subject)
    assert subject["assignment"] == {"variation": found or case["defaultValue"], "action": action}


@pytest.mark.parametrize("row", rows("eppo/md5_shards.json"))
def test_a_shard(row: list[Any]) -> None:
    text, shards, shard = row
    assert md5_shard(text, shards) == shard


def test_the_tables_are_whole() -> None:
    """15 subjects with an action and 12 without, and 8 of the files about types."""
    found = {path.name for path in shared("vectors", FOLDER).glob("*.json")}
    assert found == {f"test-case-{table}.json" for table in TABLES}
    counts = Counter(
        ("typing" in table, subject["assignment"]["action"] is not None)
        for table in TABLES
        for subject in vectors(f"{FOLDER}/test-case-{table}.json")["subjects"]
    )
    assert counts == {(False, True): 15, (False, False): 12, (True, True): 4, (True, False): 4}
    assert len(vectors("eppo/weigh_actions.json")["cases"]) == 5
    assert len(vectors("eppo/md5_shards.json")["cases"]) == 4
