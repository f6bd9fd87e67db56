"""Routes as a fold: state of their own, which nothing else teaches, and no trace where none is."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

import policies
from bandit_service.core import codec, snapshot
from bandit_service.core import events as ev
from bandit_service.core.apply import apply, fold
from bandit_service.core.decide import decide, weigh
from bandit_service.core.drift import ARM_WARM_UP, QUERIES
from bandit_service.core.errors import Unknown
from bandit_service.core.exclusions import ROUTED, why_excluded
from bandit_service.core.exploration import Exploration
from bandit_service.core.history import PER_ITEM, History, View
from bandit_service.core.learner import Fading
from bandit_service.core.query import Query, Recalled
from bandit_service.core.resolve import resolve
from bandit_service.core.world import World, new_world
from bandit_service.runtime.detectors import DriftWatch
from bandit_service.settings.routes import route_mistakes
from policies import ArmId, Comparison, Outcome

A, B, C = ArmId("a"), ArmId("b"), ArmId("c")
BOT, LABEL = "support-bot", "route:support-bot"
UNIT = np.array([1.0, 0.0], np.float32)


def _spec(**more: Any) -> ev.RouteSpec:
    return msgspec.structs.replace(
        ev.RouteSpec(id=BOT, arms=(A, B), policy="knn", parameters={}), **more
    )


def _arms() -> list[ev.AnyEvent]:
    return [
        ev.ArmAdded(
            ts=0.0,
            arm=ev.ArmSpec(id=id, usd_per_mtok_in=1.0, usd_per_mtok_out=1.0),
            source="config",
        )
        for id in (A, B, C)
    ]


def _world(serving: str = "knn") -> World:
    return new_world({serving: policies.load(serving)}, serving, 50)


def _folded(serving: str, events: list[ev.AnyEvent]) -> World:
    world = _world(serving)
    for event in events:
        apply(world, event)
    return world


def _begun(serving: str = "knn", **more: Any) -> tuple[World, list[ev.AnyEvent]]:
    events = [*_arms(), ev.RouteChanged(ts=1.0, route=_spec(**more), key="k1")]
    return _folded(serving, events), events


def _turn(
    world: World, i: int, route: str = "", arm: ArmId = A, quality: float = 1.0
) -> list[ev.AnyEvent]:
    """A decision and its outcome, applied."""
    query = Query(UNIT, 10, 0.1, arms=(arm,), route=route)
    ids = list(world.history.items)
    near = Recalled(ids, [1.0] * len(ids))
    made: list[ev.AnyEvent] = [decide(world, query, near, f"d{i:03}", 2.0 + i, Exploration())]
    apply(world, made[0])
    made.append(
        ev.Rewarded(
            ts=2.5 + i, decision_id=f"d{i:03}", quality=quality, reward=quality, cost_usd=0.0
        )
    )
    apply(world, made[1])
    return made


def _state(world: World, label: str) -> bytes:
    return codec.dump(world.learners[label].state)


def test_without_a_route_the_world_is_written_as_before() -> None:
    world = _folded("knn", _arms())
    assert b"routes" not in codec.dump(world)
    begun, _ = _begun()
    assert b"routes" in codec.dump(begun)
    decided = msgspec.msgpack.decode(ev.encode(_turn(world, 1)[0]))
    assert "route" not in decided


@pytest.mark.parametrize("policy", ["epsilon_greedy", "metallm", "nested", "knn"])
def test_a_routes_outcomes_teach_its_own_policy_and_no_other(policy: str) -> None:
    world, _ = _begun(policy, policy=policy)
    alone, _ = _begun(policy, policy=policy)
    fresh = _state(world, LABEL)
    for i in range(6):
        _turn(world, 2 * i, BOT, quality=0.0)
        _turn(world, 2 * i + 1, "", quality=1.0)
        _turn(alone, 2 * i + 1, "", quality=1.0)
    served = _state(world, policy)
    assert served == _state(alone, policy), "what came by the route taught the serving policy"
    assert _state(world, LABEL) != fresh
    assert _state(alone, LABEL) == fresh


def test_a_policy_that_is_folded_elsewhere_is_taught_of_drift_but_of_no_route() -> None:
    world, _ = _begun("epsilon_greedy")
    for route, taught in ((BOT, 0), ("", 1)):
        query = Query(UNIT, 10, 0.1, route=route)
        made = decide(world, query, Recalled(), f"d{route}", 2.0, Exploration())
        assert fold(world, resolve(world, made)) == []
        came = ev.Rewarded(ts=3.0, decision_id=made.id, quality=1.0, reward=1.0)
        assert len(fold(world, resolve(world, came))) == taught
    drifted = ev.DriftDetected(
        ts=4.0, arm=A, detector="adwin", direction="down", before=1.0, after=0.0, keep=0.5
    )
    assert fold(world, resolve(world, drifted)) == [Fading(A, 0.5)]


def test_a_policy_that_learns_anew_what_is_remembered_learns_nothing_of_a_route() -> None:
    """The state is of another policy, so that it cannot be read, as after another `fold`."""
    world, _ = _begun()
    alone, _ = _begun()
    decided = Query(UNIT, 10, 0.1, arms=(A, B), route=BOT)
    for one, by_route in ((world, True), (alone, False)):
        _turn(one, 1, "", quality=0.5)
        apply(one, decide(one, decided, Recalled(), "by-route", 4.0, Exploration()))
        if by_route:
            apply(one, ev.Rewarded(ts=5.0, decision_id="by-route", quality=1.0, reward=1.0))
            apply(one, ev.Compared(ts=5.0, decision_id="by-route", winner=A, loser=B))
    assert [len(one.outcomes) for one in world.history.items.values()] == [2]
    states = []
    for one in (world, alone):
        kept = snapshot.read(snapshot.dump(one))
        by_label = {"knn": policies.load("metallm")}
        restored, anew = snapshot.restore_before(kept, snapshot.VERSION, by_label, "knn")
        assert anew == ["knn"]
        states.append(_state(restored, "knn"))
    assert states[0] == states[1] != codec.dump(policies.load("metallm").init())


def test_what_comes_by_a_route_is_not_watched_for_drift() -> None:
    """A route that begins beside `auto` with another notion of quality: no arm has changed."""
    world, _ = _begun()
    for i in range(300):
        _turn(world, i, quality=0.9)
    tracks, watch = world.drift.tracks, DriftWatch()
    watched = len(tracks[A].values), len(tracks[QUERIES].values)
    assert watched[0] == 300 - ARM_WARM_UP
    assert watched[1] > 0
    alarms = []
    assert watch.begin(world) == []
    for i in range(300, 500):
        for event in _turn(world, i, BOT, quality=0.0):
            alarms.append(watch.happened(resolve(world, event), world))
    assert not any(alarms)
    assert (len(tracks[A].values), len(tracks[QUERIES].values)) == watched


def test_a_routes_decisions_use_up_what_an_alarm_allows() -> None:
    world, _ = _begun()
    drifted = ev.DriftDetected(
        ts=1.0, arm=A, detector="adwin", direction="down", before=1.0, after=0.0
    )
    apply(world, msgspec.structs.replace(drifted, explore=0.2, decisions=2))
    _turn(world, 1, BOT)
    assert world.drift.allowances[A].left == 1


def test_neighbours_are_shown_to_those_whose_outcomes_they_are() -> None:
    world, _ = _begun()
    _turn(world, 1, BOT, quality=0.0)
    _turn(world, 2, "", quality=1.0)
    (id,) = world.history.items
    for route, quality in ((BOT, 0.0), ("", 1.0)):
        query = Query(UNIT, 10, 0.1, route=route)
        weighed = weigh(world, query, Recalled([id], [1.0]), Exploration())
        assert [one.quality for one in weighed.neighbours[0].outcomes] == [quality]


def test_a_busy_route_pushes_no_outcome_of_others_out_of_a_query() -> None:
    history = History(10)
    told = [("", 1), (LABEL, 20), ("route:other", 2), ("", 1), ("trial/b", 1)]
    at = 0
    for label, count in told:
        for _ in range(count):
            at += 1
            history.remember(UNIT, Outcome(A, 1.0, float(at)), f"of {at}", (at, label))
            history.remember(UNIT, Comparison(A, B, False), f"of {at}", (at, label))
    (item,) = history.items.values()
    kept = [1, *range(14, 22), 22, 23, 24, 25]
    assert [at for at, _ in item.origins] == [at for at, _ in item.compared_in] == kept
    assert [one.reward for one in item.outcomes] == kept
    assert list(item.owners) == list(item.compared_by) == [f"of {at}" for at in kept]
    for _ in range(PER_ITEM):
        at += 1
        history.remember(UNIT, Outcome(A, 1.0, float(at)), "", (at, "trial/b"))
    (item,) = history.items.values()
    assert [at for at, _ in item.origins] == [*range(14, 24), *range(26, 34)]


def test_a_correction_is_of_the_route_whose_outcome_it_corrects() -> None:
    """The same query, arm and outcome came by a route after it had come by none."""
    world, _ = _begun()
    _turn(world, 1, "")
    _turn(world, 2, BOT)
    better = {"decision_id": "d001", "quality": 0.5, "reward": 0.5}
    apply(world, msgspec.convert({"ts": 9.0, "correction": True, **better}, ev.Rewarded))
    (item,) = world.history.items.values()
    assert [one.quality for one in item.outcomes] == [0.5, 1.0]
    for label in ("", LABEL):
        world.history.remember(UNIT, Comparison(A, B, False), "", (9, label))
    assert world.history.recompare(UNIT, Comparison(B, A, False), variant="")
    assert not world.history.recompare(UNIT, Comparison(B, A, False), variant="route:other")
    (item,) = world.history.items.values()
    assert [one.winner for one in item.comparisons] == [B, A]


def test_it_survives_a_replay_and_a_snapshot() -> None:
    world, events = _begun(policy="epsilon_greedy")
    for i in range(5):
        events += _turn(world, i, BOT)
    again = _folded("knn", [ev.decode(ev.encode(event)) for event in events])
    assert again.digest() == world.digest()
    kept = snapshot.read(snapshot.dump(world))
    restored = snapshot.restore(kept, {"knn": policies.load("knn")}, "knn")
    assert restored.digest() == world.digest()
    assert restored.routes.find(BOT) == _spec(policy="epsilon_greedy")
    for one in (world, restored):
        _turn(one, 9, BOT, B)
    assert restored.digest() == world.digest()
    assert _state(restored, LABEL) != _state(_begun(policy="epsilon_greedy")[0], LABEL)


def test_other_arms_or_worth_keep_what_was_learned_and_another_policy_begins_anew() -> None:
    world, _ = _begun(policy="epsilon_greedy")
    _turn(world, 1, BOT)
    knows = _state(world, LABEL)
    wider = _spec(policy="epsilon_greedy", arms=(A, B, C), willingness_to_pay=0.5)
    apply(world, ev.RouteChanged(ts=9.0, route=wider, key="k1"))
    assert (_state(world, LABEL), world.routes.find(BOT)) == (knows, wider)
    apply(world, ev.RouteChanged(ts=9.5, route=wider, key="k2"))
    assert _state(world, LABEL) != knows


@pytest.mark.parametrize("policy", ["epsilon_greedy", "metallm", "nested", "knn"])
@pytest.mark.parametrize("how", ["changed", "removed and added again"])
def test_a_policy_that_begins_anew_takes_back_nothing_that_it_was_not_taught(
    policy: str, how: str
) -> None:
    world, _ = _begun()
    _turn(world, 1, BOT)
    query = Query(UNIT, 10, 0.1, arms=(A,), route=BOT)
    apply(world, decide(world, query, Recalled(), "late", 5.0, Exploration()))
    if how != "changed":
        apply(world, ev.RouteRemoved(ts=9.0, id=BOT))
    apply(world, ev.RouteChanged(ts=9.5, route=_spec(policy=policy), key="k2"))
    _turn(world, 20, BOT, quality=0.5)
    knows, learner = _state(world, LABEL), world.learners[LABEL]
    _correct(world, "d001", 0.0)
    assert (_state(world, LABEL), learner.uncorrected, learner.failures) == (knows, 1, 0)
    again = snapshot.restore(
        snapshot.read(snapshot.dump(world)), {"knn": policies.load("knn")}, "knn"
    )
    for one in (world, again):
        _correct(one, "d001", 0.25)
        assert _state(one, LABEL) == knows, "nor of a second correction, nor after a restart"
    apply(world, ev.Rewarded(ts=99.0, decision_id="late", quality=1.0, reward=1.0))
    taught = _state(world, LABEL)
    _correct(world, "late", 0.0)
    _correct(world, "d020", 1.0)
    assert taught != _state(world, LABEL), "what it was taught, it corrects"
    assert (learner.uncorrected, learner.failures) == (2, 0)


def _correct(world: World, id: str, quality: float) -> None:
    correction = ev.Rewarded(
        ts=100.0, decision_id=id, quality=quality, reward=quality, correction=True
    )
    apply(world, correction)


def test_one_that_is_removed_decides_no_more_and_its_past_stays_hidden() -> None:
    world, _ = _begun()
    _turn(world, 1, BOT, quality=0.0)
    apply(world, ev.RouteRemoved(ts=9.0, id=BOT))
    assert LABEL not in world.learners
    with pytest.raises(Unknown, match="no route 'support-bot'; none is configured"):
        weigh(world, Query(UNIT, 10, 0.1, route=BOT), Recalled(), Exploration())
    ids = list(world.history.items)
    weighed = weigh(world, Query(UNIT, 10, 0.1), Recalled(ids, [1.0]), Exploration())
    assert weighed.neighbours == ()
    assert b"routes" in codec.dump(world)


def test_a_variant_of_an_experiment_that_is_called_like_a_route_is_none() -> None:
    assert ev.is_of_route("route:support-bot")
    assert not ev.is_of_route("route:support-bot/treatment")


def test_a_variant_that_learns_for_itself_sees_no_route_of_its_past() -> None:
    view = View("trial/b", 10)
    shown = [view.shows(origin) for origin in ((5, ""), (5, LABEL), (15, LABEL), (15, "trial/b"))]
    assert shown == [True, False, False, True]


def test_an_estimate_for_the_serving_policy_leaves_a_routes_decisions_out() -> None:
    world, _ = _begun()
    decided, _ = _turn(world, 1, BOT)
    assert isinstance(decided, ev.Decided)
    assert (why_excluded(decided), decided.policy, decided.key) == (ROUTED, "knn", "k1")


def test_a_route_holds_out_on_an_arm_that_it_can_draw() -> None:
    arms = [
        ev.ArmSpec(id=ArmId("a"), usd_per_mtok_in=1.0, usd_per_mtok_out=1.0),
        ev.ArmSpec(id=ArmId("b"), usd_per_mtok_in=1.0, usd_per_mtok_out=1.0, routed=False),
    ]

    def told(arm: str) -> list[str]:
        route = ev.RouteSpec(id="r", policy="knn", holdout_share=0.1, holdout_arm=ArmId(arm))
        return route_mistakes([route], arms)

    assert told("a") == []
    assert told("c") == ["routes[0].holdout_arm: 'c' is no configured arm"]
    assert told("b") == [
        "routes[0].holdout_arm: 'b' has routed = false, so that nothing chooses it"
    ]
