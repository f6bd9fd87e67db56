"""The policies that a router must beat."""

from __future__ import annotations

import numpy as np
import pytest

from policies import ArmId, Arms, Compared
from policies.epsilon_greedy import EpsilonGreedy
from policies.fixed import Fixed
from policies.uniform import Uniform
from tests.unit.policies.given import A, B, C, arms, query, rewarded


def test_uniform() -> None:
    state = Uniform().learn(Uniform().init(), rewarded(A, 1.0))
    assert Uniform().propose(state, query(), arms(A, B, C)).propensities.tolist() == [1 / 3] * 3


@pytest.mark.parametrize(
    ("arm", "propensities"),
    [("a", [1.0, 0.0, 0.0]), ("", [0.0, 0.5, 0.5]), ("retired", [0.0, 0.5, 0.5])],
)
def test_fixed_takes_its_arm_or_the_cheapest(arm: str, propensities: list[float]) -> None:
    pool = Arms((A, B, C), np.array([0.3, 0.1, 0.1]), np.ones(3))
    proposal = Fixed(arm).propose(Fixed().init(), query(), pool)
    assert proposal.propensities.tolist() == propensities


def test_epsilon_greedy_counts_the_prior_as_one_reward() -> None:
    """a: (1 + 0.5 + 0.3)/3 = 0.6; b: (1 + 0.8)/2 = 0.9; unseen 1. 0.9 on it, 0.1 shared."""
    policy = EpsilonGreedy()
    state = policy.init()
    for arm, reward in ((A, 0.5), (A, 0.3), (B, 0.8)):
        state = policy.learn(state, rewarded(arm, reward))
    proposal = policy.propose(state, query(), arms(A, B))
    assert proposal.scores.tolist() == pytest.approx([0.6, 0.9], abs=1e-5)
    assert proposal.propensities.tolist() == pytest.approx([0.05, 0.95])
    wider = policy.propose(state, query(), arms(A, B, C))
    assert wider.propensities.tolist() == pytest.approx([1 / 30, 1 / 30, 28 / 30])


def test_epsilon_greedy_without_a_prior_is_the_sample_mean() -> None:
    policy = EpsilonGreedy(prior_count=0.0, prior_mean=0.25)
    state = policy.learn(policy.init(), rewarded(A, 0.5))
    assert policy.propose(state, query(), arms(A, B)).scores.tolist() == [0.5, 0.25]


def test_a_comparison_is_half_a_reward_to_epsilon_greedy() -> None:
    """Winner (1 + 0.5·1)/1.5 = 1, loser (1 + 0.5·0)/1.5 = 2/3, tied (1 + 0.5·0.5)/1.5 = 5/6."""
    policy = EpsilonGreedy()
    won = policy.learn(policy.init(), Compared(query(), A, B))
    tied = policy.learn(policy.init(), Compared(query(), A, B, tie=True))
    assert policy.propose(won, query(), arms(A, B)).scores.tolist() == pytest.approx([1.0, 2 / 3])
    assert policy.propose(tied, query(), arms(A, B)).scores.tolist() == pytest.approx([5 / 6] * 2)


def test_a_name_that_is_no_arm_is_no_error() -> None:
    """Arms come and go, so an arm that is not there yet is not a mistake of configuration."""
    proposal = Fixed("later").propose(Fixed().init(), query(), arms(ArmId("later")))
    assert proposal.propensities.tolist() == [1.0]
