"""The nearest past queries, by pencil."""

from __future__ import annotations

import numpy as np
import pytest

from policies import Arms, Compared, Comparison, Neighbour, Outcome
from policies.knn import KNN
from tests.unit.policies.given import A, B, C, arms, neighbour, query, rewarded

GRID = 1e-5  # qualities are kept in 2⁻¹⁶
ROUTERBENCH = KNN(weighting="uniform", shrinkage=0.0, alpha=0.0, comparison_weight=0.0)


def _quality(policy: KNN, *near: Neighbour) -> list[float]:
    proposal = policy.propose(policy.init(), query(near=near), arms(A, B))
    assert proposal.quality is not None
    return [round(value, 12) for value in proposal.quality.tolist()]


def test_routerbench_is_the_plain_mean_of_the_nearest() -> None:
    """a: 0.4 and 0.6 far and near alike, b: 0.8 once."""
    near = [neighbour(1, 0.9, (A, 0.3), (B, 0.7)), neighbour(2, 0.1, (A, 0.5))]
    assert _quality(ROUTERBENCH, *near) == [0.5, 0.8]


def test_only_the_nearest_k_count() -> None:
    near = [neighbour(1, 0.1, (A, 0.5), (B, 0.5)), neighbour(2, 0.9, (A, 0.3), (B, 0.7))]
    one = KNN(neighbours=1, weighting="uniform", shrinkage=0.0, alpha=0.0)
    assert _quality(one, *near) == [0.4, 0.8]
    assert _quality(KNN(neighbours=0), *near) == [1.0, 1.0]


def test_near_ones_weigh_by_their_cosine() -> None:
    """(0.8·0.5 + 0.2·0.9) / 1.0; a query on the other side says nothing."""
    policy = KNN(shrinkage=0.0, alpha=0.0)
    near = [
        neighbour(1, 0.8, (A, 0.4)),
        neighbour(2, 0.2, (A, 0.8)),
        neighbour(3, -0.5, (A, 0.0)),
    ]
    assert _quality(policy, *near) == [0.58, 1.0]


def test_shrinking_and_bonus() -> None:
    """m = n₀ = 2. a: g = (0.6 + 2)/4 = 0.65, q̂ = (0.5 + 2·0.65)/3 = 0.6, v = 1/3 + (2/3)²/4.

    √v = 2/3. b, never seen: q̂ = 1, v = 1/2 + 1/2. With α = 0.3: 0.8 and 1.3.
    """
    policy = KNN(weighting="uniform", shrinkage=2.0, prior_weight=2.0, alpha=0.3)
    state = policy.init()
    for quality in (0.2, 0.4):
        state = policy.learn(state, rewarded(A, 0.0, quality=quality))
    near = [neighbour(1, 0.5, (A, 0.4))]
    proposal = policy.propose(state, query(near=near), arms(A, B))
    assert proposal.quality is not None
    assert proposal.quality.tolist() == pytest.approx([0.6, 1.0], abs=GRID)
    assert proposal.scores.tolist() == pytest.approx([0.8, 1.3], abs=GRID)
    assert proposal.propensities.tolist() == [0.0, 1.0]


def test_without_a_neighbour_the_mean_over_all_queries_stands() -> None:
    """(0.2 + 0.4 + 2)/4; with no weight on the prior (0.2 + 0.4)/2, and q₀ where nothing came."""
    for weight, wanted in ((2.0, 0.65), (0.0, 0.3)):
        policy = KNN(prior=1.0, prior_weight=weight, shrinkage=0.0, alpha=0.0)
        state = policy.init()
        for quality in (0.2, 0.4):
            state = policy.learn(state, rewarded(A, 0.0, quality=quality))
        proposal = policy.propose(state, query(0.0), arms(A, B))
        assert proposal.scores.tolist() == pytest.approx([wanted, 1.0], abs=GRID)


def test_cost_comes_off_when_it_is_decided() -> None:
    """0.9 less 0.02/0.1, or less 0.02/0.5, against 0.75 for nothing."""
    near = [neighbour(1, 1.0, (A, 0.8), (B, 0.65))]
    two = Arms((A, B), np.array([0.02, 0.0]), np.array([1.0, 0.0]))
    state = ROUTERBENCH.init()
    dear = ROUTERBENCH.propose(state, query(near=near), two)
    assert dear.scores.tolist() == pytest.approx([0.7, 0.75])
    worth = ROUTERBENCH.propose(state, query(near=near, willingness_to_pay=0.5), two)
    assert worth.scores.tolist() == pytest.approx([0.86, 0.75])


def test_a_reward_without_quality_teaches_the_quality_that_explains_it() -> None:
    """0.3 + 0.02/0.1, cut to [0, 1]; the expected cost stands in for one not known."""
    policy = KNN()
    state = policy.learn(policy.init(), rewarded(A, 0.3, cost_usd=0.02))
    assert state.total[A] == pytest.approx(0.5)
    state = policy.learn(policy.init(), rewarded(A, 0.3, expected_cost_usd=0.01))
    assert state.total[A] == pytest.approx(0.4, abs=GRID)
    assert policy.learn(policy.init(), rewarded(A, 0.9, cost_usd=0.02)).total == {A: 1.0}
    assert policy.learn(policy.init(), rewarded(A, -0.9, cost_usd=0.02)).total == {A: 0.0}
    near = [Neighbour(1, 1.0, (Outcome(A, None, 0.3),))]
    proposal = ROUTERBENCH.propose(state, query(near=near), arms(A, cost_usd=0.02))
    assert proposal.quality is not None
    assert proposal.quality.tolist() == pytest.approx([0.5])


def test_comparisons_are_parts_of_outcomes() -> None:
    """Weight ½ by default: 1 for the winner, 0 for the loser, ½ each on a tie."""
    policy = KNN()
    state = policy.learn(policy.init(), Compared(query(), A, B))
    assert (state.total, state.count) == ({A: 0.5, B: 0.0}, {A: 0.5, B: 0.5})
    state = policy.learn(state, Compared(query(), A, B, tie=True))
    assert (state.total, state.count) == ({A: 0.75, B: 0.25}, {A: 1.0, B: 1.0})
    deaf = KNN(comparison_weight=0.0)
    assert deaf.learn(deaf.init(), Compared(query(), A, B)).count == {}


def test_comparisons_of_neighbours() -> None:
    """a: 0.4 once and half a win: (0.4 + 0.5)/1.5; b: half a defeat. Strangers do no harm."""
    policy = KNN(weighting="uniform", shrinkage=0.0, alpha=0.0)
    near = Neighbour(1, 0.9, (Outcome(A, 0.4, 0.3),), (Comparison(A, B), Comparison(C, B)))
    assert _quality(policy, near) == [0.6, 0.0]
    assert _quality(ROUTERBENCH, near) == [0.4, 1.0]


def test_an_arm_is_not_compared_with_itself() -> None:
    with pytest.raises(ValueError, match=r"^loser: must be another arm"):
        KNN().learn(KNN().init(), Compared(query(), A, A))
