"""LinUCB in two dimensions, by pencil, with λ = 1; what is learned is rounded to the grid."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from policies import Arms, Compared
from policies.metallm import MetaLLM
from tests.unit.policies.given import A, B, arms, query, rewarded

GRID = 2e-5
PAPER = MetaLLM(reward="paper", bias=False, ridge=1.0, alpha=1.0, cost_weight=0.0)
APART = MetaLLM(bias=False, ridge=1.0)


def test_one_observation_along_an_axis() -> None:
    """x = (1, 0), y = 1: A + I = diag(2, 1), θ = (1/2, 0).

    At (0.6, 0.8): mean 0.3, variance 0.36/2 + 0.64 = 0.82. Unseen: mean 0, deviation ‖x‖ = 1.
    """
    state = PAPER.learn(PAPER.init(), rewarded(A, 1.0, quality=1.0, context=query(1.0, 0.0)))
    proposal = PAPER.propose(state, query(0.6, 0.8), arms(A, B))
    assert proposal.scores.tolist() == pytest.approx([0.3 + sqrt(0.82), 1.0], abs=GRID)
    assert proposal.propensities.tolist() == [1.0, 0.0]


def test_an_observation_across_the_axes() -> None:
    """x = (0.6, 0.8), y = 1: A + I = [[1.36, 0.48], [0.48, 1.64]] of determinant 2.

    Its inverse is [[0.82, −0.24], [−0.24, 0.68]], θ = (0.3, 0.4). At (1, 0): 0.3 + √0.82.
    """
    state = PAPER.learn(PAPER.init(), rewarded(A, 1.0, quality=1.0, context=query(0.6, 0.8)))
    proposal = PAPER.propose(state, query(1.0, 0.0), arms(A))
    assert proposal.scores.tolist() == pytest.approx([0.3 + sqrt(0.82)], abs=GRID)


def test_learning_goes_on_after_a_proposal() -> None:
    """diag(2, 1) then x = (0, 1), y = 0.5: diag(2, 2), θ = (0.5, 0.25).

    At (0.6, 0.8): mean 0.3 + 0.2, variance 0.5.
    """
    state = PAPER.learn(PAPER.init(), rewarded(A, 1.0, quality=1.0, context=query(1.0, 0.0)))
    PAPER.propose(state, query(0.6, 0.8), arms(A))
    state = PAPER.learn(state, rewarded(A, 0.5, quality=0.5, context=query(0.0, 1.0)))
    proposal = PAPER.propose(state, query(0.6, 0.8), arms(A))
    assert proposal.scores.tolist() == pytest.approx([0.5 + sqrt(0.5)], abs=GRID)


def test_the_papers_reward_takes_the_price_off_what_is_learned() -> None:
    """p = 0.2, c = 0.5: y = 1 − 0.1, half of it at x after one observation."""
    policy = MetaLLM(reward="paper", bias=False, ridge=1.0, alpha=0.0, cost_weight=0.2)
    event = rewarded(A, 0.0, quality=1.0, price=0.5, context=query(1.0, 0.0))
    proposal = policy.propose(policy.learn(policy.init(), event), query(1.0, 0.0), arms(A))
    assert proposal.scores.tolist() == pytest.approx([0.45], abs=GRID)
    assert proposal.quality is not None
    assert proposal.quality.tolist() == pytest.approx([0.55], abs=GRID)


def test_apart_learns_quality_and_charges_the_cost_of_the_day() -> None:
    """x = (0.6, 0.8), a = 0.5, q₀ = 1: y = −0.5, θ = −x/4, so q = 0.75 at x; variance 1/2.

    score = 0.75 + 0.5·√0.5 − 0.01/0.1; unseen 1 + 0.5 − 0.1. At ten times the willingness to
    pay the cost is a tenth.
    """
    state = APART.learn(APART.init(), rewarded(A, 0.4, quality=0.5, context=query(0.6, 0.8)))
    proposal = APART.propose(state, query(0.6, 0.8), arms(A, B, cost_usd=0.01))
    assert proposal.scores.tolist() == pytest.approx([0.65 + 0.5 * sqrt(0.5), 1.4], abs=GRID)
    assert proposal.quality is not None
    assert proposal.quality.tolist() == pytest.approx([0.75, 1.0], abs=GRID)
    rich = APART.propose(state, query(0.6, 0.8, willingness_to_pay=1.0), arms(A, B, cost_usd=0.01))
    assert rich.scores.tolist() == pytest.approx([0.74 + 0.5 * sqrt(0.5), 1.49], abs=GRID)


def test_a_price_change_acts_at_once() -> None:
    event = rewarded(A, 0.9, quality=0.9, context=query(1.0, 0.0))
    policy = MetaLLM(alpha=0.0)
    state = policy.init()
    for _ in range(50):
        state = policy.learn(state, event)
        state = policy.learn(state, rewarded(B, 0.8, quality=0.8, context=query(1.0, 0.0)))
    for cost, best in (([0.0, 0.0], 0), ([0.02, 0.0], 1)):
        proposal = policy.propose(state, query(1.0, 0.0), Arms((A, B), np.array(cost), np.zeros(2)))
        assert proposal.propensities.argmax() == best


@pytest.mark.parametrize(
    ("reward", "cost", "quality"), [(0.3, 0.02, 0.5), (0.9, 0.05, 1.0), (-0.5, 0.01, 0.0)]
)
def test_a_reward_alone_teaches_the_quality_that_would_explain_it(
    reward: float, cost: float, quality: float
) -> None:
    """Reward + cost / 0.1, cut to [0, 1]; a proper quality teaches the same."""
    alone = rewarded(A, reward, cost_usd=cost)
    said = rewarded(A, reward, quality=quality)
    one, other = APART.learn(APART.init(), alone), APART.learn(APART.init(), said)
    np.testing.assert_allclose(one.b, other.b)


def test_the_expected_cost_stands_in_for_a_cost_not_known() -> None:
    one = APART.learn(APART.init(), rewarded(A, 0.3, expected_cost_usd=0.02))
    np.testing.assert_allclose(one.b, [[0.5 - 1.0]])


def test_a_comparison_is_half_an_observation_of_each() -> None:
    """Loser: A + I = I + ½·x xᵀ, b = −½·x, so its mean at x is −½/1.5; the winner keeps q₀ = 1.

    Variance of both 1/1.5.
    """
    x = query(0.6, 0.8)
    state = APART.learn(APART.init(), Compared(x, winner=A, loser=B))
    proposal = APART.propose(state, x, arms(A, B))
    bonus = 0.5 * sqrt(1 / 1.5)
    assert proposal.scores.tolist() == pytest.approx([1.0 + bonus, 2 / 3 + bonus], abs=GRID)
    assert state.n.tolist() == [0.5, 0.5]
    deaf = MetaLLM(comparison_weight=0.0)
    assert deaf.learn(deaf.init(), Compared(x, winner=A, loser=B)).rows == {}


def test_the_bias_is_a_feature_that_every_query_shares() -> None:
    """x = (1, 0, 1), λ = 1, y = −0.5: θ = −0.5·x/(1 + 2). At (0, 1, 1) the mean is −1/6."""
    policy = MetaLLM(ridge=1.0, alpha=0.0)
    event = rewarded(A, 0.5, quality=0.5, context=query(1.0, 0.0))
    proposal = policy.propose(policy.learn(policy.init(), event), query(0.0, 1.0), arms(A))
    assert proposal.scores.tolist() == pytest.approx([5 / 6], abs=GRID)
    blind = policy.propose(policy.learn(policy.init(), event), query(0.0, 0.0), arms(A))
    assert blind.scores.tolist() == pytest.approx([5 / 6], abs=GRID)


def test_an_embedding_of_another_length_is_refused() -> None:
    state = APART.learn(APART.init(), rewarded(A, 0.5, quality=0.5, context=query(1.0, 0.0)))
    with pytest.raises(ValueError, match="embedding: must have 2 features, got 3"):
        APART.learn(state, rewarded(B, 0.5, quality=0.5, context=query(1.0, 0.0, 0.0)))
    with pytest.raises(ValueError, match="embedding: must have 2 features, got 1"):
        APART.propose(state, query(1.0), arms(A))
