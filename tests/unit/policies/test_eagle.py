"""Elo and Eagle, by pencil. A lead of 400 is an expectation of 10/11, no lead is one of 1/2."""

from __future__ import annotations

import pytest

from policies import ArmId, Compared, Comparison, Context, Neighbour
from policies._elo import elo_expected, elo_match
from policies.eagle import Eagle
from tests.unit.policies.given import A, B, C, arms, neighbour, query, rewarded


def test_expectation() -> None:
    assert elo_expected(1000.0, 1000.0) == 0.5
    assert elo_expected(1400.0, 1000.0) == pytest.approx(10 / 11)
    assert elo_expected(1000.0, 1400.0) == pytest.approx(1 / 11)
    assert elo_expected(0.0, 1e9) == pytest.approx(0.0, abs=1e-200)


@pytest.mark.parametrize(
    ("score", "gain"), [(1.0, 32 * 1 / 11), (0.5, -32 * 9 / 22), (0.0, -32 * 10 / 11)]
)
def test_a_match_with_a_lead_of_400(score: float, gain: float) -> None:
    """K = 32: a win gains 32·(1 − 10/11), a tie 32·(1/2 − 10/11), a defeat 32·(0 − 10/11)."""
    ratings = {A: 1200.0, B: 800.0}
    elo_match(ratings, A, B, score, 32.0, 1000.0)
    assert ratings[A] == pytest.approx(1200.0 + gain)
    assert ratings[B] == pytest.approx(800.0 - gain)


def test_comparisons_are_learned_as_they_are() -> None:
    """1000:1000, a wins 16; a tie at a lead of 32 then takes 32·(E − 1/2) from a.

    E = 1/(1 + 10^−0.08) = 1/1.8317638 = 0.5459219, so 1.4695012 go back.
    """
    policy = Eagle()
    state = policy.learn(policy.init(), Compared(query(), A, B))
    assert state.ratings == {A: 1016.0, B: 984.0}
    state = policy.learn(state, Compared(query(), A, B, tie=True))
    assert state.ratings[A] == pytest.approx(1014.5304988)
    assert state.ratings[B] == pytest.approx(985.4695012)
    assert state.outcomes == {A: 2, B: 2}


def _voted(order: str) -> tuple[Eagle, Context]:
    """A near query on which b won and a far, later one on which a won; K = 400."""
    near = [
        Neighbour(1, 0.9, comparisons=(Comparison(B, A),)),
        Neighbour(2, 0.5, comparisons=(Comparison(A, B),)),
    ]
    return Eagle(compare_on="off", trial=0, k_factor=400.0, order=order), query(near=near)


def test_local_replay_and_blend_farthest_first() -> None:
    """a wins 200 and leads by 400; then b wins 400·10/11 = 363.636.

    local = (836.364, 1163.636), global = (1000, 1000), blended half and half.
    """
    policy, context = _voted("farthest_first")
    proposal = policy.propose(policy.init(), context, arms(A, B))
    assert proposal.scores.tolist() == pytest.approx([918.181818, 1081.818182])
    assert proposal.propensities.tolist() == [0.0, 1.0]


def test_local_replay_and_blend_oldest_first() -> None:
    """The other way round: b leads by 400, and a wins 363.636 back and ahead."""
    policy, context = _voted("oldest_first")
    proposal = policy.propose(policy.init(), context, arms(A, B))
    assert proposal.scores.tolist() == pytest.approx([1081.818182, 918.181818])


def test_local_ratings_begin_at_the_global_ones() -> None:
    """Global (1200, 800), b wins nearby with K = 32: 320/11 change hands; P = 0.25."""
    policy = Eagle(compare_on="off", trial=0, blend=0.25)
    state = policy.init()
    state.ratings.update({A: 1200.0, B: 800.0})
    near = [Neighbour(1, 0.9, comparisons=(Comparison(B, A),))]
    proposal = policy.propose(state, query(near=near), arms(A, B))
    moved = 0.75 * 320 / 11
    assert proposal.scores.tolist() == pytest.approx([1200.0 - moved, 800.0 + moved])
    assert state.ratings == {A: 1200.0, B: 800.0}


def test_only_the_nearest_n_are_replayed() -> None:
    policy, context = _voted("farthest_first")
    one = Eagle(compare_on="off", trial=0, k_factor=400.0, neighbours=1)
    assert one.propose(policy.init(), context, arms(A, B)).scores.tolist() == [900.0, 1100.0]


def test_rewards_of_neighbours_meet_each_other() -> None:
    """b's 0.1 loses to a's 0.9 with w·K = 16 at level ratings: 8 locally, 4 blended."""
    near = [neighbour(1, 0.9, (A, 0.9)), neighbour(2, 0.5, (B, 0.1))]
    proposal = Eagle(trial=0).propose(Eagle().init(), query(near=near), arms(A, B))
    assert proposal.scores.tolist() == [1004.0, 996.0]
    off = Eagle(trial=0, compare_on="off")
    assert off.propose(off.init(), query(near=near), arms(A, B)).scores.tolist() == [1000.0] * 2


def test_a_reward_meets_another_arm_on_the_same_query_with_full_k() -> None:
    policy = Eagle()
    context = query(near=[neighbour(1, 1.0, (B, 0.5))])
    state = policy.learn(policy.init(), rewarded(A, 0.8, context=context))
    assert state.ratings == {A: 1016.0, B: 984.0}
    assert state.outcomes == {A: 1}


def test_one_reward_shares_k_among_its_matches() -> None:
    """Two matches, K/2 each: a tie with c nearby moves nothing, b on the same query loses 8."""
    policy = Eagle()
    near = [neighbour(1, 1.0, (B, 0.5)), neighbour(2, 0.6, (C, 0.78)), neighbour(3, 0.9, (A, 0.1))]
    state = policy.learn(policy.init(), rewarded(A, 0.8, context=query(near=near)))
    assert state.ratings == {A: 1008.0, B: 992.0, C: 1000.0}


@pytest.mark.parametrize(
    ("policy", "similarity"),
    [
        (Eagle(similarity=0.7), 0.6),
        (Eagle(compare_on="off"), 1.0),
        (Eagle(compare_on="quality"), 1.0),  # the reward came without one
    ],
)
def test_what_makes_no_match_moves_no_rating(policy: Eagle, similarity: float) -> None:
    context = query(near=[neighbour(1, similarity, (B, 0.5))])
    assert policy.learn(policy.init(), rewarded(A, 0.8, context=context)).ratings == {}


def test_quality_and_reward_may_order_two_arms_differently() -> None:
    """b's quality is 0.6 and its reward 0.5; a's are 0.7 and 0.2, since it is dear."""
    context = query(near=[neighbour(1, 1.0, (B, 0.5))])
    event = rewarded(A, 0.2, quality=0.7, context=context)
    by_reward, by_quality = Eagle(), Eagle(compare_on="quality")
    assert by_reward.learn(by_reward.init(), event).ratings == {A: 984.0, B: 1016.0}
    assert by_quality.learn(by_quality.init(), event).ratings == {A: 1016.0, B: 984.0}


def test_an_arm_on_trial_is_scored_like_the_best() -> None:
    """After three outcomes it stands for itself."""
    policy, state = Eagle(trial=3), Eagle().init()
    state.ratings.update({A: 1100.0, B: 1000.0})
    state.outcomes.update({A: 3, B: 2})
    assert policy.propose(state, query(), arms(A, B)).propensities.tolist() == [0.5, 0.5]
    state = policy.learn(state, rewarded(B, 0.5))
    assert policy.propose(state, query(), arms(A, B)).propensities.tolist() == [1.0, 0.0]
    new = policy.propose(state, query(), arms(A, B, ArmId("new")))
    assert new.propensities.tolist() == [0.5, 0.0, 0.5]
