"""Linear reward-inaction, by pencil and against the textbook's formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import ArmId, Compared, Floats
from policies.pickllm_gradient import PickLLMGradient
from tests.unit.policies.given import A, B, C, arms, query, rewarded

HALF = PickLLMGradient(learning_rate=0.5, reward="service")


def _p(policy: PickLLMGradient, state: Any, *ids: ArmId) -> Floats:
    return policy.propose(state, query(), arms(*ids)).propensities


def test_a_sequence_of_three_rewards() -> None:
    """b = 1/2, two arms. R = 0.8 on a: 0.5 + 0.4·0.5 = 0.7. R = 0.5 on b: 0.3 + 0.25·0.7.

    R = 0 is inaction.
    """
    state = HALF.learn(HALF.init(), rewarded(A, 0.8))
    assert _p(HALF, state, A, B) == pytest.approx([0.7, 0.3])
    state = HALF.learn(state, rewarded(B, 0.5))
    assert _p(HALF, state, A, B) == pytest.approx([0.525, 0.475])
    state = HALF.learn(state, rewarded(A, 0.0))
    assert _p(HALF, state, A, B) == pytest.approx([0.525, 0.475])


@given(
    st.integers(2, 6),
    st.floats(0.001, 1.0),
    st.lists(st.tuples(st.integers(0, 5), st.floats(0.0, 1.0)), max_size=60),
)
@settings(derandomize=True, deadline=None, database=None)
def test_it_is_the_textbooks_automaton_for_a_fixed_set_of_arms(
    k: int, rate: float, rewards: list[tuple[int, float]]
) -> None:
    """p_m ← p_m + b·R·(1 − p_m), p_j ← p_j − b·R·p_j for the others, from uniform."""
    ids = tuple(ArmId(f"arm-{i}") for i in range(k))
    policy = PickLLMGradient(learning_rate=rate, reward="service")
    state, p = policy.init(), np.full(k, 1.0 / k)
    for i, reward in rewards:
        m, r = i % k, min(reward, 1.0 - 1e-9)
        state = policy.learn(state, rewarded(ids[m], r))
        others = p * (1.0 - rate * r)
        p, p[m] = others, p[m] + rate * r * (1.0 - p[m])
    np.testing.assert_allclose(_p(policy, state, *ids), p, atol=1e-12)


def test_what_no_reward_has_claimed_belongs_to_whoever_is_offered() -> None:
    """After R = 0.8 on a at b = 1/2: base 0.6, w_a 0.4."""
    state = HALF.learn(HALF.init(), rewarded(A, 0.8))
    assert _p(HALF, state, A, B, C) == pytest.approx([0.6, 0.2, 0.2])
    assert _p(HALF, state, A, B) == pytest.approx([0.7, 0.3])
    assert _p(HALF, state, B, C) == pytest.approx([0.5, 0.5])


def test_comparisons() -> None:
    """Weight 0.8 at b = 1/2: the winner gains as from R = 0.8; a tie gives R = 0.4 to each."""
    policy = PickLLMGradient(learning_rate=0.5, comparison_weight=0.8)
    state = policy.learn(policy.init(), Compared(query(), A, B))
    assert _p(policy, state, A, B) == pytest.approx([0.7, 0.3])
    tie = policy.learn(policy.init(), Compared(query(), B, A, tie=True))
    assert tie.base == pytest.approx(0.64)
    assert tie.weights == pytest.approx({A: 0.16, B: 0.2})


def test_it_converges_where_the_weight_of_an_arm_says_so() -> None:
    """1 − 0.6ⁿ reaches 0.99 with the tenth reward of 0.8, and not with the ninth."""
    state = HALF.init()
    for _ in range(9):
        state = HALF.learn(state, rewarded(A, 0.8))
    assert HALF.converged(state) is None
    assert HALF.converged(HALF.learn(state, rewarded(A, 0.8))) == A


def test_what_an_arm_gives_up_goes_to_the_others_in_proportion() -> None:
    """base 0.45, a 0.3, b 0.25: a gives up half, so that the rest grows from 0.7 to 0.85."""
    state = HALF.learn(HALF.init(), rewarded(A, 0.8))
    state = HALF.learn(state, rewarded(B, 0.5))
    assert state.base == pytest.approx(0.45)
    assert state.weights == pytest.approx({A: 0.3, B: 0.25})
    state = HALF.forget(state, A, 0.5)
    assert state.weights[A] == pytest.approx(0.15)
    assert state.base == pytest.approx(0.45 * 0.85 / 0.7)
    assert state.weights[B] == pytest.approx(0.25 * 0.85 / 0.7)


def test_an_automaton_that_one_arm_absorbed_is_free_again() -> None:
    """0.04^300 is below every number: nothing is left to be shared out in proportion."""
    policy = PickLLMGradient(learning_rate=1.0, reward="service")
    state = policy.init()
    for _ in range(300):
        state = policy.learn(state, rewarded(A, 0.96))
    assert state.base == 0.0
    state = policy.forget(state, A, 0.1)
    assert _p(policy, state, A, B) == pytest.approx([0.55, 0.45])
    assert state.base + state.weights[A] == pytest.approx(1.0)


def test_the_least_of_what_is_left_is_shared_out_and_stays_finite() -> None:
    state = HALF.init()
    state.base, state.weights = 5e-324, {A: 1.0, B: 5e-324}
    state = HALF.forget(state, A, 0.2)
    assert state.base == pytest.approx(0.4)
    assert state.weights == pytest.approx({A: 0.2, B: 0.4})
