"""Matrix factorization online: what one step moves, and what many find."""

from __future__ import annotations

from math import cos, sin

import numpy as np
import pytest

from bandit_service.core import codec
from policies import ArmId, Arms, Compared, Context
from policies._factorization import drawn, gradients
from policies.routellm_mf import RouteLLMMF
from tests.unit.policies.given import A, B, C, arms, neighbour, query, rewarded

SMALL = RouteLLMMF(dim=4, trial=0, weight_decay=0.0, learning_rate=0.01)
NEW = ArmId("new")


def test_the_first_step_is_the_rate_against_the_slope() -> None:
    """Both arms begin at one vector, so only they have a slope, and each the other's reversed."""
    context = query(0.6, 0.8)
    state = SMALL.learn(SMALL.init(), Compared(context, A, B))
    begun = drawn(1, 2, 4, np.random.default_rng(0))
    both = drawn(1, 2, 4, np.random.default_rng(0))
    both.arms = np.repeat(both.arms, 2, axis=0)
    _, (slope, projection, head) = gradients(
        both,
        context.embedding[None].astype(np.float64),
        np.array([0]),
        np.array([1]),
        np.ones(1),
        np.ones(1),
    )
    assert not projection.any()
    assert not head.any()
    moved = state.model.arms - begun.arms
    assert moved[0] == pytest.approx(-0.01 * np.sign(slope[0]), abs=1e-6)
    assert moved[1] == pytest.approx(-moved[0], abs=1e-6)
    assert not moved[2].any(), "the row of arms never seen moved"
    assert np.array_equal(state.model.projection, begun.projection)
    assert np.array_equal(state.model.head, begun.head)


def test_the_winner_is_ahead_and_a_stranger_between() -> None:
    state = SMALL.learn(SMALL.init(), Compared(query(0.6, 0.8), A, B))
    scores = SMALL.propose(state, query(0.6, 0.8), arms(A, B, NEW)).scores
    assert scores[0] == 1.0
    assert 0.5 > scores[2] > scores[1]


def test_which_arm_suits_which_query_is_found() -> None:
    """a wins on the right, b on the left, c never; 400 comparisons."""
    policy = RouteLLMMF(dim=16, trial=0, learning_rate=0.01)
    rng, state = np.random.default_rng(3), policy.init()
    for i in range(400):
        angle = float(rng.uniform(0.0, 6.3))
        context = query(cos(angle), sin(angle))
        better, worse = (A, B) if cos(angle) > 0 else (B, A)
        pair = ((better, worse), (better, C), (worse, C))[i % 3]
        state = policy.learn(state, Compared(context, *pair))
    for angle in (0.0, 0.8, -0.8):
        right = policy.propose(state, query(cos(angle), sin(angle)), arms(A, B, C))
        left = policy.propose(state, query(-cos(angle), sin(angle)), arms(A, B, C))
        assert right.propensities.tolist() == [1.0, 0.0, 0.0]
        assert left.propensities.tolist() == [0.0, 1.0, 0.0]


def test_without_an_embedding_the_mean_query_stands_in() -> None:
    state = SMALL.init()
    for x in ((0.6, 0.8), (0.8, 0.6), (1.0, 0.0)):
        state = SMALL.learn(state, Compared(query(*x), A, B))
    assert state.mean.tolist() == pytest.approx([0.8, 1.4 / 3])
    mean = Context(state.mean.astype(np.float32), 0, 0.1)
    blind = SMALL.propose(state, query(0.0, 0.0), arms(A, B))
    assert blind.scores.tolist() == pytest.approx(
        SMALL.propose(state, mean, arms(A, B)).scores.tolist(), abs=1e-6
    )
    assert blind.propensities.tolist() == [1.0, 0.0]


def test_a_query_without_an_embedding_teaches_nothing_but_a_trial() -> None:
    state = SMALL.learn(SMALL.init(), Compared(query(0.0, 0.0), A, B))
    assert (state.queries, state.rows, state.outcomes) == (0, {}, {A: 1, B: 1})


def test_one_reward_on_the_same_query_is_a_comparison() -> None:
    context = query(0.6, 0.8, near=[neighbour(1, 1.0, (B, 0.5))])
    by_reward = SMALL.learn(SMALL.init(), rewarded(A, 0.8, context=context))
    by_vote = SMALL.learn(SMALL.init(), Compared(context, A, B))
    assert codec.dump(by_reward.model) == codec.dump(by_vote.model)
    assert (by_reward.outcomes, by_vote.outcomes) == ({A: 1}, {A: 1, B: 1})


def test_a_tie_draws_together_or_is_dropped() -> None:
    context = query(0.6, 0.8)
    state, scores = SMALL.init(), []
    for tie in (False, True):
        for _ in range(30):
            state = SMALL.learn(state, Compared(context, A, B, tie=tie))
        scores.append(float(SMALL.propose(state, context, arms(A, B)).scores[1]))
    assert scores[0] < 0.1
    assert scores[1] > 2.0 * scores[0]
    deaf = RouteLLMMF(dim=4, tie_weight=0.0)
    state = deaf.learn(deaf.init(), Compared(context, A, B, tie=True))
    assert (state.queries, state.outcomes) == (0, {A: 1, B: 1})


def test_arms_that_did_not_meet_stay_where_they_are() -> None:
    policy = RouteLLMMF(dim=4)
    state = policy.learn(policy.init(), Compared(query(0.6, 0.8), A, B))
    kept = state.model.arms[state.rows[A]].copy()
    for _ in range(20):
        state = policy.learn(state, Compared(query(0.8, 0.6), B, C))
    assert np.array_equal(state.model.arms[state.rows[A]], kept)
    assert state.moments.steps == 21


def test_the_threshold_prefers_the_cheaper_of_two() -> None:
    """a is dearer and a little ahead after one vote."""
    state = SMALL.learn(SMALL.init(), Compared(query(0.6, 0.8), A, B))
    two = Arms((A, B), np.array([0.02, 0.01]), np.array([1.0, 0.5]))
    for threshold, wanted in ((0.5, [1.0, 0.0]), (0.9, [0.0, 1.0])):
        policy = RouteLLMMF(dim=4, trial=0, threshold=threshold)
        assert policy.propose(state, query(0.6, 0.8), two).propensities.tolist() == wanted


def test_another_seed_begins_elsewhere() -> None:
    event = Compared(query(0.6, 0.8), A, B)
    states = [RouteLLMMF(dim=4, seed=seed) for seed in (0, 0, 1)]
    dumped = [codec.dump(policy.learn(policy.init(), event)) for policy in states]
    assert dumped[0] == dumped[1]
    assert dumped[0] != dumped[2]


@pytest.mark.parametrize("bias", [False, True])
def test_the_state_is_as_large_as_is_said(bias: bool) -> None:
    """128 factors; two arms, and one row for those never seen."""
    policy = RouteLLMMF(bias=bias)
    state = policy.learn(policy.init(), Compared(query(0.6, 0.8), A, B))
    assert [part.shape for part in state.model.parameters()] == [(3, 128), (2 + bias, 128), (128,)]
    assert [part.shape for part in state.moments.second] == [(3, 128), (2 + bias, 128), (128,)]


def test_what_cannot_be_learned_from_is_named() -> None:
    with pytest.raises(ValueError, match=r"^loser: must be another arm"):
        SMALL.learn(SMALL.init(), Compared(query(0.6, 0.8), A, A))
    state = SMALL.learn(SMALL.init(), Compared(query(0.6, 0.8), A, B))
    with pytest.raises(ValueError, match=r"^embedding: must have 2 features, got 3"):
        SMALL.learn(state, Compared(query(0.6, 0.8, 0.0), A, B))
    with pytest.raises(ValueError, match=r"^embedding: must be finite"):
        SMALL.propose(state, query(np.nan, 0.8), arms(A, B))


def test_what_fades_goes_back_to_where_arms_begin() -> None:
    state = SMALL.init()
    for _ in range(9):
        state = SMALL.learn(state, Compared(query(0.6, 0.8), A, B))
    a, b, begun = (row.copy() for row in state.model.arms)
    first, second = (each[0].copy() for each in (state.moments.first[0], state.moments.second[0]))
    shared = state.model.projection.copy()
    state = SMALL.forget(state, A, 0.25)
    assert state.model.arms[0] == pytest.approx(0.25 * a + 0.75 * begun)
    assert state.model.arms[1:].tolist() == [b.tolist(), begun.tolist()]
    assert state.moments.first[0][0] == pytest.approx(0.25 * first)
    assert state.moments.second[0][0] == pytest.approx(0.25 * second)
    assert np.array_equal(state.model.projection, shared)
    assert state.outcomes == {A: 2, B: 9}
