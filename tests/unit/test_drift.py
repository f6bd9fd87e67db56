"""What is watched for drift and what follows, by values worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import policies
from bandit_service.core import events as ev
from bandit_service.core import snapshot
from bandit_service.core.apply import apply
from bandit_service.core.decide import decide, weigh
from bandit_service.core.drift import (
    ARM_WARM_UP,
    MAX_ALARMS,
    QUERIES,
    QUERIES_WARM_UP,
    WINDOW,
    Drift,
    Track,
    split,
)
from bandit_service.core.exploration import Exploration
from bandit_service.core.query import Query, Recalled
from bandit_service.core.resolved import Resolved
from bandit_service.core.world import World, new_world
from policies import ArmId

A, B = ArmId("a"), ArmId("b")


def _decided(id: str = "d", arm: int = 0, **fields: Any) -> ev.Decided:
    told: dict[str, Any] = {"expected_quality": 0.8, "expected_cost_usd": 0.01} | fields
    return ev.Decided(
        ts=1.0,
        id=id,
        embedding=np.eye(4, dtype=np.float32)[0].tobytes(),
        tokens=1,
        willingness_to_pay=0.1,
        arms=(A, B),
        propensities=(0.5, 0.5),
        scores=(0.0, 0.0),
        drawn=arm,
        policy="p",
        key="k",
        list_cost_usd=0.01,
        price=1.0,
        **told,
    )


def _alarm(arm: ArmId = A, **fields: Any) -> ev.DriftDetected:
    return ev.DriftDetected(
        ts=1.0, arm=arm, detector="adwin", direction="down", before=0.0, after=-0.5, **fields
    )


def _world(name: str = "uniform", **parameters: Any) -> World:
    world = new_world({name: policies.load(name, **parameters)}, name, 10)
    for id in (A, B):
        spec = ev.ArmSpec(id=id, usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
        apply(world, ev.ArmAdded(ts=0.0, arm=spec, source="api"))
    return world


def test_a_residual_is_reward_less_what_quality_and_cost_were_expected() -> None:
    """Expected 0.8 − 0.01/0.1 = 0.7; a reward of 0.4 leaves −0.3, one of −1 is cut at −1."""
    drift = Drift(tracks={A: Track(passed=ARM_WARM_UP)})
    drift.settled(_decided(), 0.4, at=7)
    drift.settled(_decided(), -1.0, at=9)
    assert drift.tracks[A].values == [pytest.approx(-0.3), -1.0]
    assert drift.tracks[A].at == [7, 9]


def test_where_no_quality_is_expected_the_mean_of_the_arms_rewards_stands_in() -> None:
    """Rewards of 0.5 through the warm-up, then 0.1: residual 0.1 − 0.5."""
    drift = Drift()
    for i in range(ARM_WARM_UP):
        drift.settled(_decided(expected_quality=None), 0.5, at=i)
    assert drift.tracks[A].values == []
    drift.settled(_decided(expected_quality=None), 0.1, at=99)
    assert drift.tracks[A].values == [pytest.approx(-0.4)]
    assert list(drift.tracks) == [A]


def test_a_decision_without_its_embedding_says_nothing_of_the_arm_or_the_queries() -> None:
    drift = Drift()
    decided = _decided(fallback="embed: TimeoutError", neighbours=(0,), similarities=(0.5,))
    drift.decided(decided, 1)
    drift.settled(decided, 0.0, 2)
    assert drift.tracks == {}


def test_a_distance_is_measured_by_the_spread_of_those_before() -> None:
    """So far a mean of 0.2 with a deviation of 0.1; 1 − (0.9 + 0.5)/2 = 0.3 is one above."""
    past = Track(passed=401, mean=0.2, squares=400 * 0.01, level=0.2)
    drift = Drift(tracks={QUERIES: past})
    assert past.deviation == pytest.approx(0.1)
    drift.decided(_decided(neighbours=(1, 2), similarities=(0.9, 0.5)), 1)
    drift.decided(_decided(), 2)  # nothing was recalled
    assert past.values == [pytest.approx(0.5)]
    assert past.mean == pytest.approx(0.2 + 0.1 / 402)
    assert past.shown == pytest.approx(0.2 + 0.1 / 100)


def test_many_queries_are_watched_as_one_by_one_also_when_old_values_leave() -> None:
    rng, alone, together = np.random.default_rng(2), Drift(), Drift()
    decided = [
        _decided(neighbours=(1, 2), similarities=tuple(rng.uniform(0.0, 1.0, 2).tolist()))
        for _ in range(QUERIES_WARM_UP + WINDOW + 150)
    ]
    decided[7] = decided[300] = _decided()  # nothing was recalled
    for number, event in enumerate(decided):
        alone.decided(event, number)
    for i in range(0, len(decided), 40):
        some = [Resolved(event, i + j) for j, event in enumerate(decided[i : i + 40])]
        together._decided_many(decided[i : i + 40], some)
    assert together == alone
    assert len(alone.tracks[QUERIES].values) == WINDOW


def test_mean_and_deviation_are_those_of_numpy() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 50)
    track = Track()
    for value in values:
        track.measure(float(value), 0.0)
    assert track.mean == pytest.approx(values.mean())
    assert track.deviation == pytest.approx(values.std(ddof=1))


def test_the_mean_that_is_shown_counts_from_the_first_value_and_then_forgets() -> None:
    """Plain up to 100 values; then each new one weighs a hundredth."""
    track = Track()
    assert track.shown is None
    for value in [0.2, 0.4] * 50:
        track.measure(0.0, value)
    assert track.shown == pytest.approx(0.3)
    track.measure(0.0, 1.3)
    assert track.shown == pytest.approx(0.31)


def test_a_track_keeps_the_newest_values_only() -> None:
    track = Track()
    for i in range(WINDOW + 5):
        track.measure(0.0, 0.0)
        track.add(float(i), i)
    assert (track.count, len(track.values), track.values[0], track.at[-1]) == (
        WINDOW + 5,
        WINDOW,
        5.0,
        WINDOW + 4,
    )


@pytest.mark.parametrize(
    ("values", "before", "after", "first"),
    [([1.0, 1.0, 1.0, 0.0, 0.0], 1.0, 0.0, 3), ([0.5, 0.4], 0.5, 0.4, 1), ([0.0] * 4, 0, 0, 1)],
)
def test_the_change_point_leaves_the_least_squares(
    values: list[float], before: float, after: float, first: int
) -> None:
    found = split(values)
    assert found[:2] == pytest.approx((before, after))
    assert found.first == first


def test_the_change_point_is_where_a_brute_force_search_finds_it() -> None:
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(0.1, 0.3, 40), rng.normal(-0.2, 0.3, 25)])
    left = [values[:k].var() * k + values[k:].var() * (65 - k) for k in range(1, 65)]
    assert split(values.tolist()).first == 1 + int(np.argmin(left))


def test_after_an_alarm_watching_begins_anew_and_the_newest_alarms_are_kept() -> None:
    world = _world()
    world.drift.tracks[A] = Track(passed=80, count=30, values=[0.1] * 30, at=[1] * 30)
    for i in range(MAX_ALARMS + 1):
        apply(world, _alarm(seen=i))
    assert world.drift.tracks[A] == Track()
    assert [alarm.seen for alarm in world.drift.alarms] == list(range(1, MAX_ALARMS + 1))


def test_an_allowance_raises_one_arms_probability_for_so_many_decisions() -> None:
    """Fixed on one arm, floor 0, allowance 0.2 for the other: 0.2 and 0.8, twice."""
    world = _world("fixed", arm="a")
    explore = Exploration(floor=0.0)
    query = Query(np.eye(4, dtype=np.float32)[0], 1, 0.1)
    apply(world, _alarm(B, explore=0.2, decisions=2))
    seen = []
    for i in range(3):
        decided = decide(world, query, Recalled(), str(i), 1.0, explore)
        seen.append(decided.propensities)
        apply(world, decided)
    assert seen == [pytest.approx((0.8, 0.2)), pytest.approx((0.8, 0.2)), (1.0, 0.0)]
    assert world.drift.allowances == {}


def test_an_alarm_of_the_queries_gives_every_arm_its_allowance() -> None:
    world = _world("fixed", arm="a")
    query = Query(np.eye(4, dtype=np.float32)[0], 1, 0.1)
    apply(world, _alarm(QUERIES, explore=0.1, decisions=5))
    apply(world, _alarm(B, explore=0.3, decisions=5))
    found = weigh(world, query, Recalled(), Exploration(floor=0.0)).propensities
    assert found == pytest.approx([0.1 + 0.6, 0.3])


def test_floors_together_take_half_at_most() -> None:
    lifted = policies.lift(np.array([1.0, 0.0, 0.0]), np.array([0.4, 0.4, 0.2]))
    assert lifted == pytest.approx([0.7, 0.2, 0.1])


def test_an_alarm_that_forgets_hides_what_came_before_the_change_and_only_of_that_arm() -> None:
    world = _world("knn")
    for i, arm in enumerate((0, 1, 0)):
        apply(world, _decided(f"d{i}", arm))
        reward = ev.Rewarded(ts=1.0, decision_id=f"d{i}", quality=0.5, reward=0.25 * i)
        apply(world, reward)
    (id,) = world.history.items
    learner = world.learners["knn"]
    assert learner.state.count == {A: 2.0, B: 1.0}
    apply(world, _alarm(A, keep=0.5, begun=world.events - 1))
    (near,) = world.history.neighbours([id], [1.0])
    assert [(one.arm, one.reward) for one in near.outcomes] == [(B, 0.25), (A, 0.5)]
    assert learner.state.count == {A: 1.0, B: 1.0}
    policy = {"knn": policies.load("knn")}
    again = snapshot.restore(snapshot.read(snapshot.dump(world)), policy, "knn")
    assert again.digest() == world.digest()
    assert again.history.neighbours([id], [1.0]) == (near,)
    assert again.drift.alarms == world.drift.alarms


def test_an_alarm_that_keeps_everything_touches_no_policy() -> None:
    world = _world("knn")
    apply(world, _decided())
    apply(world, ev.Rewarded(ts=1.0, decision_id="d", quality=0.5, reward=0.4))
    before = dict(world.learners["knn"].state.count)
    apply(world, _alarm(begun=world.events))
    assert (world.history.faded, world.learners["knn"].state.count) == ({}, before)


@pytest.mark.parametrize(("alarm", "fades"), [(10.0, False), (0.0, True)])
def test_no_change_is_answered_twice_a_policy_with_its_own_alarm_is_left_alone(
    alarm: float, fades: bool
) -> None:
    """Beside it, one without an alarm of its own forgets all the same."""
    learning = {"nested": policies.load("nested", alarm=alarm), "knn": policies.load("knn")}
    world = new_world(learning, "nested", 10)
    spec = ev.ArmSpec(id=A, usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
    apply(world, ev.ArmAdded(ts=0.0, arm=spec, source="api"))
    for i in range(4):
        apply(world, _decided(f"d{i}"))
        apply(world, ev.Rewarded(ts=1.0, decision_id=f"d{i}", quality=0.5, reward=0.5))
    apply(world, _alarm(A, keep=0.5, begun=world.events))
    assert world.learners["knn"].state.count == {A: 2.0}
    assert world.learners["nested"].state.sums.n[0] == (2.0 if fades else 4.0)
    assert (world.learners["nested"].failures, world.learners["knn"].failures) == (0, 0)
