"""What was taught beforehand counts as so many outcomes, and live ones overrule it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import policies
from bandit_service.core import codec, snapshot
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.events import AnyEvent
from bandit_service.core.learner import beside
from bandit_service.core.prior import strength_of, weighing
from bandit_service.core.world import World, new_world
from policies import ArmId

A, B = ArmId("a"), ArmId("b")
SUBJECT = ev.Subject(
    embedding=ev.pack(np.array([0.6, 0.8], np.float32)), tokens=3, willingness_to_pay=0.1
)


def _world(name: str = "epsilon_greedy", **parameters: Any) -> World:
    world = new_world({name: policies.load(name, **parameters)}, name, 100)
    for arm in (A, B):
        spec = ev.ArmSpec(id=arm, usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
        apply(world, ev.ArmAdded(ts=0.0, arm=spec, source="config"))
    return world


def _taught(arm: ArmId, n: int, quality: float = 1.0, prior: bool = True) -> list[AnyEvent]:
    return [
        ev.Rewarded(ts=1.0, subject=SUBJECT, arm=arm, quality=quality, reward=quality, prior=prior)
        for _ in range(n)
    ]


def _folded(world: World, events: list[AnyEvent]) -> World:
    for event in events:
        world = apply(world, event)
    return world


def _weighed(world: World, strength: float) -> ev.PriorWeighed | None:
    event = weighing(world, strength, 2.0)
    if event is not None:
        apply(world, event)
    return event


def _count(world: World, arm: ArmId, label: str = "epsilon_greedy") -> float:
    return float(world.learners[label].state.count[arm])


def _mean(world: World, arm: ArmId) -> float:
    state = world.learners["epsilon_greedy"].state
    return float(state.total[arm] / state.count[arm])


def test_what_was_taught_keeps_its_mean_and_gets_the_weight_asked_for() -> None:
    world = _folded(_world(), [*_taught(A, 30), *_taught(A, 10, 0.0), *_taught(B, 4)])
    event = _weighed(world, 8.0)
    assert event is not None
    assert event.keep == {A: 0.2}  # b counts for less anyhow
    assert _count(world, A) == pytest.approx(8.0)
    assert _count(world, B) == 4.0
    assert _mean(world, A) == pytest.approx(0.75)


def test_so_many_real_outcomes_overrule_it() -> None:
    world = _folded(_world(), _taught(A, 500))
    _weighed(world, 10.0)
    _folded(world, _taught(A, 20, 0.0, prior=False))
    assert _mean(world, A) == pytest.approx(1 / 3)


def test_it_happens_once_also_when_taught_in_parts() -> None:
    at_once, in_parts = _world(), _world()
    _folded(at_once, _taught(A, 100))
    for _ in range(2):
        _folded(in_parts, _taught(A, 50))
        _weighed(in_parts, 7.0)
    _weighed(at_once, 7.0)
    assert _count(in_parts, A) == pytest.approx(_count(at_once, A)) == pytest.approx(7.0)
    assert _weighed(at_once, 7.0) is None
    assert _weighed(in_parts, 7.0) is None
    _folded(in_parts, _taught(A, 300, prior=False))
    assert _weighed(in_parts, 7.0) is None  # what came live is never weakened for its number
    assert _count(in_parts, A) == pytest.approx(307.0)


def test_an_arm_that_learned_by_itself_keeps_the_weight_of_those_outcomes() -> None:
    world = _folded(_world(), [*_taught(A, 20, 0.0, prior=False), *_taught(A, 60)])
    event = _weighed(world, 10.0)
    assert event is not None
    assert event.keep == {A: 30.0 / 80.0}
    assert _count(world, A) == pytest.approx(30.0)
    assert _mean(world, A) == pytest.approx(0.75)


def test_comparisons_and_signals_without_a_reward_count_as_what_they_teach() -> None:
    world = _world()
    comparison = ev.Compared(ts=1.0, winner=A, loser=B, subject=SUBJECT, prior=True)
    apply(world, ev.Rewarded(ts=1.0, subject=SUBJECT, arm=A, cost_usd=0.1, prior=True))
    assert (world.arms[A].weight, world.arms[A].live) == (0.0, 0)
    _folded(world, [comparison, ev.Compared(ts=1.0, winner=A, loser=B, subject=SUBJECT)])
    assert [(world.arms[arm].weight, world.arms[arm].live) for arm in (A, B)] == [(2.0, 1)] * 2


@pytest.mark.parametrize("name", ["nested", "metallm", "knn", "eagle"])
def test_every_policy_that_can_forget_is_moved_and_a_snapshot_between_changes_nothing(
    name: str,
) -> None:
    """`nested` watches its arms itself: what it would not forget at drift, it forgets here."""
    taught = [*_taught(A, 40), *_taught(B, 40, 0.2)]
    rest = _taught(A, 3, 0.0, prior=False)
    full, whole, cut = _folded(_world(name), taught), _world(name), _folded(_world(name), taught)
    event = weighing(full, 5.0, 2.0)
    assert event is not None
    assert set(event.keep) == {A, B}
    _folded(whole, [*taught, event, *rest])
    cut = snapshot.restore(
        snapshot.read(snapshot.dump(apply(cut, event))), {name: policies.load(name)}, name
    )
    _folded(cut, rest)
    assert whole.digest() == cut.digest()
    assert whole.learners[name].failures == 0
    _folded(full, rest)
    states = [codec.dump(world.learners[name].state) for world in (whole, full)]
    assert states[0] != states[1]


def test_nested_counts_as_many_as_asked_for() -> None:
    world = _folded(_world("nested"), _taught(A, 40))
    _weighed(world, 5.0)
    state = world.learners["nested"].state
    assert float(state.n[..., state.columns[A]].sum()) == pytest.approx(5.0, abs=1e-3)


def test_one_that_learns_beside_is_weighed_and_one_that_cannot_forget_stays() -> None:
    world = _world()
    for name in ("epsilon_greedy", "river:EpsilonGreedy"):
        joined = ev.PolicyJoined(ts=0.5, policy=name, key=name, parameters=b"{}")
        apply(world, joined)
    _folded(world, _taught(A, 40))
    before = world.learners[beside("river:EpsilonGreedy")].state
    told = repr(before)
    _weighed(world, 4.0)
    assert _count(world, A, beside("epsilon_greedy")) == pytest.approx(4.0)
    assert repr(world.learners[beside("river:EpsilonGreedy")].state) == told
    assert all(learner.failures == 0 for learner in world.learners.values())


def test_a_hand_made_event_is_total() -> None:
    world = _folded(_world(), _taught(A, 4))
    keep = {A: 1.5, B: float("nan"), ArmId("never"): 0.5}
    apply(world, ev.decode(ev.encode(ev.PriorWeighed(ts=1.0, strength=1.0, keep=keep))))
    assert _count(world, A) == 4.0
    assert world.arms[A].weight == 4.0


def test_outcomes_of_an_older_log_were_not_taught_beforehand() -> None:
    world = _folded(_world(), _taught(A, 40, prior=False))
    assert weighing(world, 1.0, 2.0) is None


@pytest.mark.parametrize("text", ["0", "-3", "nan", "inf", "", "ten", "1e999"])
def test_a_strength_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a number of outcomes above 0, or 'full', got"):
        strength_of(text)
