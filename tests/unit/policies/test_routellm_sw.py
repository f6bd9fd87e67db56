"""Similarity-weighted Bradley-Terry: n wins to one are ln n apart."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest

from policies import Arms, Compared, Comparison, Neighbour
from policies._bradley_terry import fit_bradley_terry
from policies.routellm_sw import RouteLLMSW
from tests.unit.policies.given import A, B, C, neighbour, query, rewarded

PAPER = RouteLLMSW(compare_on="off", trial=0, tie_wins=1.0, ridge=1e-6)
PRICED = Arms((A, B), np.array([0.02, 0.01]), np.array([1.0, 0.5]))


def _beating(policy: RouteLLMSW, near: list[Neighbour], *events: Compared) -> float:
    """P(the weaker arm beats the chosen one), as the scores tell it."""
    state = policy.init()
    for event in events:
        state = policy.learn(state, event)
    return 2.0 * float(policy.propose(state, query(near=near), PRICED).scores.min())


def test_three_wins_to_one() -> None:
    """P(a wins) = 3/4 and a is dearer: taken where that is at least the threshold."""
    won, lost = Compared(query(), A, B), Compared(query(), B, A)
    for threshold, wanted in ((0.5, [1.0, 0.0]), (0.74, [1.0, 0.0]), (0.76, [0.0, 1.0])):
        policy = RouteLLMSW(compare_on="off", trial=0, ridge=1e-6, threshold=threshold)
        state = policy.init()
        for event in (won, won, lost, won):
            state = policy.learn(state, event)
        assert state.wins.tolist() == [[0.0, 3.0], [1.0, 0.0]]
        assert policy.propose(state, query(), PRICED).propensities.tolist() == wanted
    assert _beating(PAPER, [], won, won, lost, won) == pytest.approx(0.25, abs=1e-6)


def test_the_nearest_weighs_gamma_and_half_as_near_its_root() -> None:
    """Each arm won once; b's on the nearest query: 10:1. Then a's at half its cosine: 10:√10."""
    once = Compared(query(), A, B), Compared(query(), B, A)
    near = [Neighbour(1, 0.8, comparisons=(Comparison(B, A),))]
    assert _beating(PAPER, near, *once) == pytest.approx(1 / 11, abs=1e-6)
    near.append(Neighbour(2, 0.4, comparisons=(Comparison(A, B),)))
    found = _beating(PAPER, near, *once)
    assert found == pytest.approx(sqrt(10) / (10 + sqrt(10)), abs=1e-6)
    flat = RouteLLMSW(compare_on="off", trial=0, ridge=1e-6, gamma=1.0)
    assert flat.propose(flat.init(), query(near=near), PRICED).scores.tolist() == [1.0, 0.25]


def test_no_likeness_no_weight() -> None:
    """Neighbours on the other side, as of a query without an embedding, change nothing."""
    once = Compared(query(), A, B), Compared(query(), B, A), Compared(query(), B, A)
    near = [Neighbour(1, -0.2, comparisons=(Comparison(A, B),))]
    assert _beating(PAPER, near, *once) == pytest.approx(1 / 3, abs=1e-6)


@pytest.mark.parametrize("tie_wins", [0.0, 0.5, 1.0])
def test_a_tie_is_so_many_wins_for_each(tie_wins: float) -> None:
    policy = RouteLLMSW(tie_wins=tie_wins)
    state = policy.learn(policy.init(), Compared(query(), A, B, tie=True))
    assert state.wins.tolist() == [[0.0, tie_wins], [tie_wins, 0.0]]
    assert state.outcomes == {A: 1, B: 1}


def test_rewards_are_compared_where_they_meet() -> None:
    """On the same query a win of ½, nearby one of ½·½ and a tie of that among two arms."""
    policy = RouteLLMSW()
    near = [neighbour(1, 1.0, (B, 0.5)), neighbour(2, 0.6, (C, 0.82))]
    state = policy.learn(policy.init(), rewarded(A, 0.8, context=query(near=near)))
    assert state.rows == {A: 0, B: 1, C: 2}
    assert state.wins.tolist() == [[0.0, 0.5, 0.125], [0.0, 0.0, 0.0], [0.125, 0.0, 0.0]]
    assert state.outcomes == {A: 1}


@pytest.mark.parametrize(
    ("near", "weight"),
    [
        ([neighbour(1, 0.8, (A, 0.9)), neighbour(2, 0.8, (B, 0.1))], 4.5),
        ([neighbour(1, 0.8, (A, 0.9), (B, 0.1))], 9.0),
        ([neighbour(1, 0.8, (A, 0.9)), neighbour(2, 0.2, (B, 0.1))], 0.0),
    ],
    ids=["two queries", "one query", "too far"],
)
def test_rewards_of_neighbours_meet_each_other(near: list[Neighbour], weight: float) -> None:
    """γ − 1 = 9 on the nearest; of two queries half of that."""
    found = _beating(RouteLLMSW(trial=0), near)
    strengths = fit_bradley_terry(np.array([[0.0, weight], [0.0, 0.0]]), 1.0)
    ahead = float(strengths[0] - strengths[1])
    assert found == pytest.approx(1.0 / (1.0 + np.exp(ahead)), abs=1e-9)


def test_one_reward_of_a_neighbour_weighs_its_extra_in_all() -> None:
    """a met two others, each of which met a and the other: ½·1·(9/2 + 9/2) for every pair."""
    near = [neighbour(1, 0.8, (A, 0.9), (B, 0.5), (C, 0.1))]
    policy = RouteLLMSW(trial=0)
    three = Arms((A, B, C), np.array([0.03, 0.02, 0.01]), np.ones(3))
    wins = 4.5 * np.triu(np.ones((3, 3)), 1)
    strengths = fit_bradley_terry(wins, 1.0)
    wanted = 0.5 / (1.0 + np.exp(strengths[0] - strengths[1:]))
    scores = policy.propose(policy.init(), query(near=near), three).scores
    assert scores.tolist() == pytest.approx([1.0, *wanted.tolist()], abs=1e-9)


def test_an_arm_on_trial_shares_with_the_chosen_one() -> None:
    policy = RouteLLMSW(trial=1)
    state = policy.learn(policy.init(), Compared(query(), A, B))
    pool = Arms((A, B, C), np.ones(3), np.ones(3))
    assert policy.propose(state, query(), pool).propensities.tolist() == [0.5, 0.0, 0.5]
    state = policy.learn(state, rewarded(C, 0.1))
    assert policy.propose(state, query(), pool).propensities.tolist() == [1.0, 0.0, 0.0]


def test_the_ridge_holds_an_arm_that_always_won() -> None:
    """Ten wins to none at a ridge of 1: 10·(1 − σ(2x)) = x."""
    policy = RouteLLMSW(trial=0)
    beaten = _beating(policy, [], *[Compared(query(), A, B)] * 10)
    x = log(1.0 / beaten - 1.0) / 2.0
    assert 10.0 * beaten == pytest.approx(x, abs=1e-6)


def test_an_arm_is_not_compared_with_itself() -> None:
    with pytest.raises(ValueError, match=r"^loser: must be another arm"):
        PAPER.learn(PAPER.init(), Compared(query(), A, A))


def test_what_fades_is_all_that_the_arm_won_and_lost() -> None:
    policy = RouteLLMSW(compare_on="off")
    state = policy.init()
    for winner, loser in ((A, B), (A, B), (B, A), (B, C), (C, B)):
        state = policy.learn(state, Compared(query(), winner, loser))
    state = policy.forget(state, A, 0.5)
    assert state.wins.tolist() == [[0.0, 1.0, 0.0], [0.5, 0.0, 1.0], [0.0, 1.0, 0.0]]
    assert state.outcomes == {A: 1, B: 5, C: 2}


def test_an_arm_that_faded_whole_is_as_if_it_had_met_nobody() -> None:
    """Without a, b and c are alone with what they won against each other."""
    policy, alone = RouteLLMSW(compare_on="off", trial=0), RouteLLMSW(compare_on="off", trial=0)
    state, other = policy.init(), alone.init()
    for winner, loser in ((A, B), (C, A), (A, B), (B, C), (B, C)):
        state = policy.learn(state, Compared(query(), winner, loser))
        if A not in (winner, loser):
            other = alone.learn(other, Compared(query(), winner, loser))
    state = policy.forget(state, A, 0.0)
    offered = Arms((A, B, C), np.full(3, 0.01), np.ones(3))
    told = policy.propose(state, query(), offered)
    assert told.scores == pytest.approx(alone.propose(other, query(), offered).scores, abs=1e-9)
