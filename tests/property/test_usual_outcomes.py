"""An outcome that is taken in by one function leaves the world that the features would leave."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from bandit_service.core import events as ev
from bandit_service.core import usual_outcomes
from bandit_service.core.apply import apply, fold
from bandit_service.core.decide import decide
from bandit_service.core.experiments.spec import Experiment, Variant
from bandit_service.core.exploration import Exploration
from bandit_service.core.query import Query, Recalled
from bandit_service.core.resolve import resolve
from bandit_service.core.world import TAKERS, World, new_world
from policies import ArmId

N = 40
POLICIES = {name: policies.load(name) for name in ("nested", "knn")}
DECISIONS: list[dict[str, Any]] = [
    {"unit": "u", "tenant": "t", "caller": "k"},
    {"surface": bytes(range(12))},
    {"route": "r"},
    {"experiment": "e", "variant": "a"},
    {"prompt_tokens": 9, "conversation": "c"},
    {"fallback": "embedding"},
    {"embedding": np.ones(3, np.float32).tobytes()},
    {"embedding": bytes(5)},
    {"embedding": bytes(20)},
    {"drawn": 7},
    {"drawn": -1},
    {"arms": (ArmId("x"), ArmId("y"), ArmId("z"))},
    {"propensities": (1.0,)},
    {"willingness_to_pay": 0.0},
]
"""What a decision may have that is special, or broken."""
OUTCOMES: list[dict[str, Any]] = [
    {"reward": None},
    {"quality": None},
    {"latency_s": 2.0, "explicit": True},
    {"cost_usd": None},
    {"prior": True, "provisional": True},
    {"correction": True},
    {"metrics": {"m": 1.0}},
    {"revoked": ("quality",)},
    {"weighed": True},
    {"session": "s"},
    {"idempotency_key": "k", "digest": "d"},
    {"prompt_tokens": 9, "cached_tokens": 3},
    {"deployment": "eu"},
    {"decision_id": ""},
    {"decision_id": "nobody's"},
]

ALARM = ev.DriftDetected(
    ts=1.0,
    detector="adwin",
    direction="up",
    before=0.1,
    after=0.5,
    arm=ArmId("a"),
    begun=1,
    keep=0.5,
)


def _events(name: str, data: st.DataObject) -> list[ev.AnyEvent]:
    """Decisions and what comes back for them, most of it usual."""
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    world, made = _new(name), list[ev.AnyEvent]()

    def put(event: ev.AnyEvent) -> None:
        made.append(event)
        apply(world, event)

    for id in "abc":
        spec = ev.ArmSpec(id=ArmId(id), usd_per_mtok_in=1.0, usd_per_mtok_out=2.0)
        put(ev.ArmAdded(ts=0.0, arm=spec, source="api"))
    special = data.draw(st.lists(st.integers(0, N - 1), max_size=12))
    for i in range(N):
        query = Query(np.eye(5, dtype=np.float32)[rng.integers(5)] + np.float32(i), 25, 0.1)
        decided = decide(world, query, Recalled(), f"d{i:02d}", float(i), Exploration())
        if i in special:
            decided = msgspec.structs.replace(decided, **data.draw(st.sampled_from(DECISIONS)))
        put(decided)
        of = f"d{int(rng.integers(max(0, i - 3), i + 1)):02d}"
        what = data.draw(st.integers(0, 9)) if i in special else 0
        match what:
            case 1:
                put(ev.Redirected(ts=float(i), decision_id=of, model="m", arm=ArmId("c")))
            case 2:
                put(ev.Spent(ts=float(i), decision_id=of, usd=0.1))
            case 3:
                put(ev.Judged(ts=float(i), decision_id=of, judge="j", basis="b", score=0.5))
            case 4:
                put(ALARM)
            case 5:
                trial = Experiment(
                    id="e", variants=(Variant(key="a", weight=0.5), Variant(key="b", weight=0.5))
                )
                put(ev.ExperimentChanged(ts=float(i), experiment=trial, status="running"))
            case _:
                pass
        value = float(rng.random())
        outcome = ev.Rewarded(
            ts=float(i), decision_id=of, quality=value, cost_usd=value / 100, reward=value
        )
        if what > 5:
            outcome = msgspec.structs.replace(outcome, **data.draw(st.sampled_from(OUTCOMES)))
        put(outcome)
    return made


def _new(name: str) -> World:
    return new_world({name: POLICIES[name]}, name, 30)


@pytest.mark.parametrize("name", sorted(POLICIES))
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_the_usual_way_leaves_the_same_world(name: str, data: st.DataObject) -> None:
    usual, general, blocks = _new(name), _new(name), _new(name)
    with blocks.in_blocks():
        for event in _events(name, data):
            apply(usual, event)
            apply(blocks, event)
            fold(general, resolve(general, event))
    assert usual.digest() == general.digest()
    assert blocks.digest() == general.digest()


def test_only_the_first_outcome_is_usual_and_only_where_no_policy_reads_neighbours() -> None:
    for name, expected in (("nested", [True, False]), ("knn", [False, False])):
        world, found = _new(name), list[bool]()
        for event in _usual(name):
            if isinstance(event, ev.Rewarded):
                found.append(usual_outcomes.settled_by(world, event) is not None)
            apply(world, event)
        assert found == expected, name


def _usual(name: str) -> list[ev.AnyEvent]:
    """An arm, a decision, its outcome, and one more with another value."""
    world, spec = _new(name), ev.ArmSpec(id=ArmId("a"), usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
    added = ev.ArmAdded(ts=0.0, arm=spec, source="api")
    query = Query(np.ones(5, np.float32), 25, 0.1)
    decided = decide(apply(world, added), query, Recalled(), "d", 1.0, Exploration())
    outcome = ev.Rewarded(ts=2.0, decision_id="d", quality=0.5, reward=0.5)
    return [added, decided, outcome, msgspec.structs.replace(outcome, quality=0.6)]


def test_each_feature_that_takes_outcomes_in_was_thought_of() -> None:
    """A new one has to be called for the usual outcome, too, or find nothing in it."""
    called = {"counts", "catalogue", "pending", "spend", "drift", "history", "learners"}
    nothing = {"experiments", "conversations", "named", "judging"}
    assert {feature for feature, _ in TAKERS[ev.Rewarded]} == called | nothing
