"""The alarm that nested has for each of its arms: when it goes off, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest

import policies
from bandit_service.core import codec
from policies import ArmId, Arms, Context, OwnAlarms, Rewarded
from policies._cells import Cells
from policies.nested import Nested

A, B = ArmId("a"), ArmId("b")
ARMS = Arms((A, B), np.zeros(2), np.ones(2))
QUERY = Context(np.array([1, 0], np.float32), tokens=10, willingness_to_pay=0.1)


def _taught(policy: Nested, state: Cells, arm: ArmId, qualities: list[float]) -> Cells:
    for quality in qualities:
        event = Rewarded(QUERY, arm, 0.5, 1.0, 0.0, quality=quality, reward=quality)
        state = policy.learn(state, event)
    return state


def _until_the_drop(policy: Nested) -> Cells:
    state = _taught(policy, policy.init(), A, [1.0, 1.0, 1.0, 0.8] * 20)
    return _taught(policy, state, B, [0.6, 0.4] * 10)


def test_a_drop_is_found_once_counted_and_nearly_forgotten() -> None:
    policy = Nested()
    state = _until_the_drop(policy)
    assert policy.alarms(state) == {}
    before = state.sums.n[state.columns[A]]
    steps = 0
    while not policy.alarms(state):
        state = _taught(policy, state, A, [0.0])
        steps += 1
    assert steps < 10
    # of 80 outcomes and the first low ones a tenth is left, and the one that gave the alarm
    assert state.sums.n[state.columns[A]] == pytest.approx(0.1 * (before + steps - 1) + 1, abs=1e-5)
    assert policy.alarms(state) == {A: OwnAlarms(1, 0)}
    state = _taught(policy, state, A, [0.0] * 8)
    assert policy.alarms(state) == {A: OwnAlarms(1, 8)}
    again = codec.load(codec.dump(state), Cells)
    assert policy.alarms(again) == policy.alarms(state)


def test_without_its_alarm_it_is_the_same_policy_that_nothing_wakes() -> None:
    policy = Nested(explore="ucb", kappa=0.7)
    off = policy.unwatched()
    assert (off.alarm, off.kappa) == (0.0, 0.7)
    assert policies.watches_arms(policy)
    assert not policies.watches_arms(off)
    state = _taught(off, _until_the_drop(off), A, [0.0] * 60)
    assert off.alarms(state) == {}
    assert state.sums.n[state.columns[A]] == 140.0
    # with it the other arm is preferred by then
    woken = _taught(policy, _until_the_drop(policy), A, [0.0] * 10)
    assert policy.propose(woken, QUERY, ARMS).propensities.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("name", policies.names())
def test_only_a_policy_that_can_forget_watches(name: str) -> None:
    policy = policies.load(name)
    assert not policies.watches_arms(policy) or isinstance(policy, policies.Forgetful)
    assert policies.watches_arms(policy) == (name == "nested")
