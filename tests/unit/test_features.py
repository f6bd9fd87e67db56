"""The world is folded feature by feature, and none of them sees another."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from unittest.mock import patch

import numpy as np
import pytest

import policies
from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.core.apply import apply, fold, skip
from bandit_service.core.experiments.spec import Experiment, Rules, Variant
from bandit_service.core.feature import TEACHING
from bandit_service.core.learner import Correction, Fading, Recompared
from bandit_service.core.metric_spec import NamedMetric
from bandit_service.core.resolve import resolve
from bandit_service.core.resolved import Resolved
from bandit_service.core.world import TAKE_IN, TAKERS, World, new_world, taking_in
from policies import ArmId

A, B = ArmId("a"), ArmId("b")
FEATURES = sorted({name for taken in TAKERS.values() for name, _ in taken})


def _arm(id: ArmId, usd: float) -> ev.ArmSpec:
    return ev.ArmSpec(id=id, usd_per_mtok_in=usd, usd_per_mtok_out=usd)


def _embedding(*values: float) -> bytes:
    return ev.pack(np.array(values, np.float32))


def _decided(id: str, **more: typing.Any) -> ev.Decided:
    return ev.Decided(
        ts=3.0,
        id=id,
        embedding=_embedding(1.0, float(len(id))),
        tokens=10,
        willingness_to_pay=0.1,
        arms=(A, B),
        propensities=(0.5, 0.5),
        scores=(0.0, 0.0),
        drawn=0,
        policy="eagle",
        key="key",
        list_cost_usd=0.1,
        expected_cost_usd=0.2,
        price=0.5,
        tenant="t",
        unit="u",
        **more,
    )


SPEC = Experiment(
    id="e",
    variants=(
        Variant(key="now", weight=0.5),
        Variant(key="own", policy="knn", weight=0.5),
        Variant(key="beside", policy="uniform", shadow=True),
    ),
    primary="reward",
)
SHADOW = ev.Shadow(experiment="e", variant="beside", propensities=(0.5, 0.5), expected_cost_usd=0.1)
SUBJECT = ev.Subject(embedding=_embedding(0.5, 0.5), tokens=3, willingness_to_pay=0.1, unit="w")

# Every kind of event, each after what it refers to.
EVENTS: Sequence[ev.AnyEvent] = (
    ev.ArmAdded(ts=1.0, arm=_arm(A, 1.0), source="config"),
    ev.ArmAdded(ts=1.0, arm=_arm(B, 2.0), source="api"),
    ev.ArmUpdated(ts=1.0, arm=_arm(A, 3.0), source="api"),
    ev.PolicyChanged(ts=1.0, policy="eagle", key="key", parameters=b"{}", source="config"),
    ev.PolicyJoined(ts=1.0, policy="knn", key="beside", parameters=b"{}", state=b""),
    ev.RulesChanged(ts=1.0, rules=Rules(holdout_share=0.5, holdout_arm="b"), by="k", why="w"),
    ev.ExperimentChanged(ts=2.0, experiment=SPEC, status="running", by="k", why="w"),
    ev.VariantSeeded(
        ts=2.0, experiment="e", variant="own", policy="knn", parameters=b"{}", state=b"", upto=2
    ),
    _decided("d", experiment="e", variant="own", split=0.5, member="u"),
    _decided("dd"),
    _decided("ddd", similarities=(0.5,), neighbours=(1,)),
    _decided("turn", conversation="talk", prompt_tokens=900),
    _decided("turn 2", conversation="talk", prompt_tokens=950, before=A, cached_tokens=(800, 0)),
    ev.Rewarded(ts=4.0, decision_id="turn", cost_usd=0.1, prompt_tokens=901, cached_tokens=5),
    ev.Redirected(ts=4.0, decision_id="turn 2", model="m", arm=B, prompt_tokens=951),
    ev.Rewarded(ts=4.0, decision_id="turn 2", cost_usd=0.1, prompt_tokens=951, reward=0.5),
    ev.Spent(ts=4.0, decision_id="d", usd=0.5),
    ev.Judged(ts=4.0, decision_id="d", judge="j", basis="00", score=0.7),
    ev.Shadowed(ts=4.0, decision_id="d", shadows=(SHADOW,)),
    ev.Rewarded(ts=4.0, decision_id="d", quality=0.5, reward=0.4, cost_usd=0.1, latency_s=1.0),
    ev.Rewarded(ts=5.0, decision_id="d", quality=0.9, reward=0.8, cost_usd=0.3, correction=True),
    ev.Rewarded(ts=5.0, arm=A, subject=SUBJECT, quality=0.9, reward=0.8, idempotency_key="k"),
    ev.Rewarded(ts=5.0, arm=A, subject=SUBJECT, reward=0.1, prior=True),
    ev.Compared(ts=5.0, winner=A, loser=B, decision_id="dd"),
    ev.Compared(ts=5.0, winner=B, loser=A, decision_id="dd", correction=True),
    ev.DriftDetected(
        ts=6.0,
        arm=A,
        detector="adwin",
        direction="down",
        before=0.1,
        after=-0.4,
        seen=9,
        begun=1,
        keep=0.5,
        explore=0.2,
        decisions=3,
    ),
    ev.PriorWeighed(ts=6.0, strength=1.0, keep={A: 0.5}),
    ev.MetricsChanged(ts=6.0, metrics=(NamedMetric(name="solved"),)),
    ev.Rewarded(ts=6.0, decision_id="d", metrics={"solved": 1.0}),
    ev.MetricsWeighed(ts=6.0),
    ev.ConfigurationChanged(
        ts=6.0,
        revision=1,
        sections={"keys": ({"id": "k", "hash": "ab"},)},
        before={"keys": ({"id": "k", "hash": "cd"},)},
        file={"keys": {"k": "00"}},
    ),
    _decided("said", groups=("g",), request_key="key", request_digest="digest"),
    ev.SessionRewarded(
        ts=6.0,
        group="g",
        signals={"quality": 1.0},
        ids=("said",),
        arms=(A,),
        weights=(1.0,),
        credits=(1.0,),
    ),
    ev.SessionCredited(ts=6.0, group="g", number=1),
    ev.DecisionsExpired(ts=7.0, ids=("dd", "never was", "ddd", "dd"), default_reward=-0.5),
    ev.Forgotten(ts=8.0, owner=ev.owner_of("t", "u")),
    ev.Erased(ts=9.0, owner=ev.owner_of("t", "u")),
    ev.PolicyLeft(ts=9.0, policy="knn"),
    ev.RouteChanged(ts=9.0, route=ev.RouteSpec(id="bot", arms=(A,), policy="knn"), key="key"),
    ev.RouteRemoved(ts=9.0, id="bot"),
    ev.PolicyAnnounced(ts=9.0, policy="knn", key="knn:1", parameters=b"{}"),
    ev.PolicyBuilt(ts=9.0, key="knn:1", replica=1, epoch=2),
    ev.ErasureOrdered(ts=9.0, owner="o", upto=4),
    ev.TrimOrdered(ts=9.0, upto=3),
    ev.PolicyGivenUp(ts=9.0, key="knn:1", replica=1, why="w"),
    ev.BudgetLeased(
        ts=9.0, replica=1, account="service", per="hour", window="1970-01-01T00", usd=1.0
    ),
    ev.BudgetReturned(ts=9.0, replica=1, account="service", per="hour", window="1970-01-01T00"),
    ev.ExperimentDeleted(ts=9.0, id="e", by="k", why="w"),
    ev.ArmRetired(ts=9.0, id=A, source="config"),
)


def _world() -> World:
    return new_world({"eagle": policies.load("eagle")}, "eagle", 10)


def _parts(world: World) -> dict[str, bytes]:
    """Every feature as it is written, but for what only counts."""
    world.history.next_id = 0
    return {name: codec.dump(getattr(world, name)) for name in FEATURES}


def test_there_is_an_event_of_every_kind() -> None:
    assert {type(each) for each in EVENTS} == set(typing.get_args(ev.AnyEvent))


@pytest.mark.parametrize("at", range(len(EVENTS)), ids=lambda at: f"{at} {ev.kind(EVENTS[at])}")
def test_every_event_changes_some_feature(at: int) -> None:
    """One that no feature takes in would be in the log and change nothing."""
    before, after = _world(), _world()
    for event in EVENTS[:at]:
        apply(before, event)
        apply(after, event)
    skip(before)
    apply(after, EVENTS[at])
    assert after.unapplied == 0, after.why_unapplied
    assert _parts(after) != _parts(before)


def test_the_order_of_the_features_does_not_matter() -> None:
    world, other = _world(), _world()
    backwards = {kind: taking_in(taken[::-1]) for kind, taken in TAKERS.items()}
    for event in EVENTS:
        apply(world, event)
        with patch.dict(TAKE_IN, backwards):
            apply(other, event)
        assert other.digest() == world.digest(), ev.kind(event)


def test_every_kind_of_event_is_taken_in() -> None:
    assert set(TAKE_IN) == set(typing.get_args(ev.AnyEvent))


@pytest.mark.parametrize("kind", TAKERS, ids=lambda kind: ev.tag(kind))
def test_each_feature_is_let_to_take_an_event_in_once_and_in_order(kind: type[ev.AnyEvent]) -> None:
    called, event, what = list[str](), object(), object()

    class Feature:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getattr__(self, method: str) -> typing.Any:
            def take(*given: object) -> None:
                assert given == (event, what)
                called.append(f"{self.name}.{method}")

            return take

    class Features:
        def __getattr__(self, name: str) -> Feature:
            return Feature(name)

    TAKE_IN[kind](typing.cast(World, Features()), event, typing.cast(Resolved, what))
    assert called == [f"{feature}.{take.__name__}" for feature, take in TAKERS[kind]]


def test_what_is_said_to_teach_is_all_that_teaches() -> None:
    world, taught = _world(), set()
    for event in EVENTS:
        taught |= {type(event)} if fold(world, resolve(world, event)) else set()
    assert taught == set(TEACHING)


def test_what_was_taught_is_told_in_order() -> None:
    world, taught = _world(), []
    for event in EVENTS:
        taught += [type(lesson) for lesson in fold(world, resolve(world, event))]
    assert taught == [
        policies.Rewarded,
        policies.Rewarded,
        policies.Rewarded,
        Correction,
        policies.Rewarded,
        policies.Rewarded,
        policies.Compared,
        Recompared,
        Fading,
        Fading,
        policies.Rewarded,
        policies.Rewarded,
        policies.Rewarded,
    ]
