"""An event is looked up once: what it is about, whose it is, and what was known before it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

import policies
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.learner import Learner
from bandit_service.core.resolve import owner_of, resolve
from bandit_service.core.spend import window
from bandit_service.core.world import World, new_world
from policies import ArmId

A = ArmId("a")


def _decided(id: str = "d", **more: str) -> ev.Decided:
    return ev.Decided(
        ts=1.0,
        id=id,
        embedding=b"",
        tokens=1,
        willingness_to_pay=0.1,
        arms=(A,),
        propensities=(0.5,),
        scores=(0.0,),
        drawn=0,
        policy="uniform",
        key="key",
        list_cost_usd=0.1,
        expected_cost_usd=0.1,
        price=0.1,
        tenant="t",
        unit="u",
        **more,  # type: ignore[arg-type]
    )


def _world() -> World:
    world = new_world({"uniform": policies.load("uniform")}, "uniform", 10)
    spec = ev.ArmSpec(id=A, usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
    apply(world, ev.ArmAdded(ts=0.0, arm=spec, source="api"))
    return apply(world, _decided(experiment="e", variant="v"))


def test_a_decision_is_its_own_subject_and_becomes_pending() -> None:
    world, event = _world(), _decided("another")
    what = resolve(world, event)
    assert (what.subject, what.decided, what.arm, what.propensity) == (event, event, A, 0.5)
    assert what.number == world.events + 1
    apply(world, event)
    assert world.pending.decisions["another"] == what.pending


def test_a_reward_has_its_decision_and_what_was_known_before_it() -> None:
    world = _world()
    first = ev.Rewarded(ts=2.0, decision_id="d", quality=0.5, reward=0.4)
    assert (resolve(world, first).before, resolve(world, first).settled) == ({}, None)
    apply(world, first)
    what = resolve(world, ev.Rewarded(ts=3.0, decision_id="d", cost_usd=1.0))
    assert (what.before, what.settled) == ({"quality": 0.5}, 0.4)
    assert (what.arm, what.propensity, what.tenant, what.variant) == (A, 0.5, "t", "e/v")
    assert what.owner == owner_of(world, what.event) == ev.owner_of("t", "u")


def test_what_is_known_before_stays_when_the_event_is_applied() -> None:
    world, event = _world(), ev.Rewarded(ts=2.0, decision_id="d", quality=0.5)
    what = resolve(world, event)
    apply(world, event)
    assert what.before == {}


def test_a_reward_of_its_own_has_the_query_that_it_carries() -> None:
    subject = ev.Subject(embedding=b"", tokens=1, willingness_to_pay=0.1, tenant="t", unit="u")
    event = ev.Rewarded(ts=2.0, decision_id="", subject=subject, arm=A, quality=1.0)
    what = resolve(_world(), event)
    assert (what.subject, what.decided, what.arm, what.propensity) == (subject, None, A, 1.0)
    assert (what.owner, what.variant) == (ev.owner_of("t", "u"), "")


@pytest.mark.parametrize(
    "event",
    [
        ev.Rewarded(ts=2.0, decision_id="left long ago", quality=1.0),
        ev.Forgotten(ts=2.0, owner="owner"),
    ],
)
def test_what_refers_to_nothing_belongs_to_nobody(event: ev.AnyEvent) -> None:
    what = resolve(_world(), event)
    assert owner_of(_world(), event) == ""
    assert (what.pending, what.subject, what.arm, what.owner, what.tenant) == (
        None,
        None,
        "",
        "",
        "",
    )


@pytest.mark.parametrize("ts", [0.0, 3599.9999990, 3599.9999996, 3600.0, 1.7e9, 1.7e9 - 4e-7])
def test_the_window_of_a_moment_is_that_of_its_datetime(ts: float) -> None:
    moment = datetime.fromtimestamp(ts, UTC)
    assert window("hour", ts) == moment.strftime("%Y-%m-%dT%H")
    assert (window("day", ts), window("month", ts)) == (f"{moment:%Y-%m-%d}", f"{moment:%Y-%m}")


def test_another_policy_serves_in_the_place_of_the_one_before() -> None:
    world, knn = _world(), policies.load("knn")
    changed = ev.PolicyChanged(ts=2.0, policy="knn", key="knn-key", parameters=b"{}")
    apply(world, changed)
    assert (world.policy.name, world.serving) == ("knn", "uniform"), "which one is not folded"
    world.learners.serve("knn", "knn-key", Learner(knn, knn.init()))
    assert (world.serving, list(world.learners)) == ("knn", ["knn"])
    assert world.learners.serving_key == "knn-key"
