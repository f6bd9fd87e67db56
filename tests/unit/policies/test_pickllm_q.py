"""Stateless Q-learning, by pencil."""

from __future__ import annotations

import pytest

from policies import Compared
from policies.pickllm_q import PickLLMQ
from tests.unit.policies.given import A, B, arms, query, rewarded

TEXTBOOK = PickLLMQ(learning_rate=0.5, initial=0.0, epsilon=0.2, reward="service")


def test_q_moves_towards_each_reward() -> None:
    """0 → 0.4 → 0.4 → 0.2 at α = 1/2 on rewards 0.8, 0.4, 0; a negative reward counts as 0."""
    state = TEXTBOOK.init()
    for reward, q in ((0.8, 0.4), (0.4, 0.4), (-0.7, 0.2)):
        state = TEXTBOOK.learn(state, rewarded(A, reward))
        assert state.q == pytest.approx({A: q})


def test_greedy_with_epsilon() -> None:
    """0.8 on the better one, 0.2 shared by two."""
    state = TEXTBOOK.learn(TEXTBOOK.init(), rewarded(B, 0.8))
    proposal = TEXTBOOK.propose(state, query(), arms(A, B))
    assert proposal.propensities.tolist() == pytest.approx([0.1, 0.9])
    assert proposal.scores.tolist() == pytest.approx([0.0, 0.4])


def test_an_arm_never_rewarded_is_believed_good() -> None:
    """α = 0.1, 1 + 0.1·(0.5 − 1) = 0.95 < 1."""
    policy = PickLLMQ(reward="service")
    state = policy.learn(policy.init(), rewarded(A, 0.5))
    proposal = policy.propose(state, query(), arms(A, B))
    assert proposal.scores.tolist() == pytest.approx([0.95, 1.0])
    assert proposal.propensities.tolist() == pytest.approx([0.05, 0.95])


def test_epsilon_decays_with_settled_rewards() -> None:
    """ε = 0.4, δ = 1/2, after two rewards 0.1. A signal alone settles nothing."""
    policy = PickLLMQ(epsilon=0.4, epsilon_decay=0.5, reward="service", initial=0.0)
    state = policy.init()
    for reward in (0.5, None, 0.5):
        state = policy.learn(state, rewarded(A, reward))
    proposal = policy.propose(state, query(), arms(A, B))
    assert proposal.propensities.tolist() == pytest.approx([0.95, 0.05])


def test_a_comparison_moves_both_by_its_share_of_the_rate() -> None:
    """Rate 1/2·1/2: the winner from 0 to 0.25, the loser stays; a tie moves both to 0.125."""
    state = TEXTBOOK.learn(TEXTBOOK.init(), Compared(query(), A, B))
    assert state.q == pytest.approx({A: 0.25, B: 0.0})
    state = TEXTBOOK.learn(TEXTBOOK.init(), Compared(query(), A, B, tie=True))
    assert state.q == pytest.approx({A: 0.125, B: 0.125})


def test_it_has_converged_when_the_greedy_arm_stayed() -> None:
    policy = PickLLMQ(learning_rate=0.5, initial=0.0, patience=3, reward="service")
    state = policy.learn(policy.init(), rewarded(A, 0.4))
    for _ in range(2):
        state = policy.learn(state, rewarded(A, 0.4))
        assert policy.converged(state) is None
    assert policy.converged(policy.learn(state, rewarded(A, 0.4))) == A
    state = policy.learn(state, rewarded(B, 0.9))
    assert policy.converged(state) is None
