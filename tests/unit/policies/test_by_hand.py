"""Each policy's formula, with numbers worked out on paper in the docstrings."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from policies import (
    ArmId,
    Arms,
    Compared,
    Comparison,
    Context,
    Neighbour,
    Outcome,
    Rewarded,
    Vector,
    draw,
)
from policies._elo import expected
from policies._linear import RidgeStack
from policies._pickllm import RewardForm
from policies.eagle import Eagle
from policies.epsilon_greedy import EpsilonGreedy
from policies.metallm import MetaLLM
from policies.pickllm_gradient import PickLLMGradient
from policies.pickllm_q import PickLLMQ

A, B, C = ArmId("a"), ArmId("b"), ArmId("c")


def _arms(*ids: ArmId, cost: float = 0.0) -> Arms:
    return Arms(ids, np.full(len(ids), cost), np.zeros(len(ids)))


def _context(*neighbours: Neighbour, x: tuple[float, ...] = (1.0, 0.0)) -> Context:
    vector: Vector = np.array(x, np.float32)
    return Context(vector, 10, 0.1, neighbours)


def _rewarded(
    arm: ArmId, quality: float, context: Context | None = None, **more: float
) -> Rewarded:
    event = Rewarded(
        context or _context(), arm, 0.5, 0.5, 0.0, quality=quality, cost_usd=0.0, reward=quality
    )
    return dataclasses.replace(event, **more)


class TestDraw:
    def test_boundaries_and_arms_without_probability(self) -> None:
        p = np.array([0.0, 0.25, 0.0, 0.75, 0.0])
        assert [draw(p, u) for u in (0.0, 0.2499, 0.25, 0.999999999)] == [1, 1, 3, 3]


class TestEagle:
    def test_a_win_a_tie_and_an_upset(self) -> None:
        """E(1000, 1000) = 1/2, so a win at K = 32 moves 16. Then E(1016, 984) =
        1/(1 + 10^(−32/400)) = 0.545922, so a tie moves 32·(0.5 − 0.545922) = −1.469504."""
        policy = Eagle()
        state = policy.learn(policy.init(), Compared(_context(), A, B))
        assert state.ratings == {A: 1016.0, B: 984.0}
        state = policy.learn(state, Compared(_context(), A, B, tie=True))
        assert state.ratings[A] == pytest.approx(1014.530496, abs=1e-5)
        assert state.ratings[B] == pytest.approx(985.469504, abs=1e-5)

    def test_a_400_point_favourite_is_expected_to_win_ten_of_eleven(self) -> None:
        assert expected(1400.0, 1000.0) == pytest.approx(10 / 11)

    def test_score_blends_global_with_local(self) -> None:
        """Global: a 1016, b 984. One neighbour says b beat a: E(984, 1016) = 0.454078, so b gains
        32·0.545922 = 17.469504: local b 1001.469504, a 998.530496. Blend at P = 1/2:
        a (1016 + 998.530496)/2 = 1007.265248, b (984 + 1001.469504)/2 = 992.734752."""
        policy = Eagle(compare_on="off", trial=0)
        state = policy.learn(policy.init(), Compared(_context(), A, B))
        near = Neighbour(1, 0.9, comparisons=(Comparison(B, A),))
        proposal = policy.propose(state, _context(near), _arms(A, B, C))
        assert proposal.scores == pytest.approx([1007.265248, 992.734752, 1000.0], abs=1e-5)
        assert proposal.propensities.tolist() == [1.0, 0.0, 0.0]

    def test_the_nearest_has_the_last_word_unless_the_oldest_comes_first(self) -> None:
        far = Neighbour(2, 0.4, comparisons=(Comparison(A, B),))
        near = Neighbour(1, 0.9, comparisons=(Comparison(B, A),))
        for order, winner in (("farthest_first", B), ("oldest_first", A)):
            policy = Eagle(order=order, compare_on="off", trial=0, blend=0.0)
            proposal = policy.propose(policy.init(), _context(near, far), _arms(A, B))
            assert proposal.propensities[(A, B).index(winner)] == 1.0

    def test_a_reward_meets_other_arms_on_the_same_and_on_near_queries(self) -> None:
        """b's 0.2 on the same query weighs 1, c's 0.9 at cosine 0.5 weighs 1/2; shared by two
        matches: K = 16 and 8. a (0.8) beats b: ±8. Then a 1008 against c 1000:
        E = 1/(1 + 10^(−8/400)) = 0.511511; a loses 8·0.511511 = 4.092088."""
        same = Neighbour(1, 1.0, outcomes=(Outcome(B, 0.2, 0.2),))
        near = Neighbour(2, 0.5, outcomes=(Outcome(C, 0.9, 0.9), Outcome(A, 0.1, 0.1)))
        far = Neighbour(3, 0.1, outcomes=(Outcome(B, 0.9, 0.9),))
        policy = Eagle(order="oldest_first")
        state = policy.learn(policy.init(), _rewarded(A, 0.8, _context(same, near, far)))
        assert state.ratings[B] == pytest.approx(992.0)
        assert state.ratings[A] == pytest.approx(1003.907912, abs=1e-5)
        assert state.ratings[C] == pytest.approx(1004.092088, abs=1e-5)
        assert state.matches == {A: 2, B: 1, C: 1}

    def test_as_in_the_paper_rewards_make_no_match(self) -> None:
        near = Neighbour(1, 1.0, outcomes=(Outcome(B, 0.2, 0.2),))
        policy = Eagle(compare_on="off")
        assert policy.learn(policy.init(), _rewarded(A, 0.8, _context(near))).ratings == {}

    def test_an_arm_in_few_matches_shares_the_first_place(self) -> None:
        policy = Eagle(trial=1)
        state = policy.learn(policy.init(), Compared(_context(), A, B))
        proposal = policy.propose(state, _context(), _arms(A, B, C))
        assert proposal.propensities.tolist() == [0.5, 0.0, 0.5]


class TestMetaLLM:
    def test_paper_mode_in_two_dimensions(self) -> None:
        """λ = 1, p = 0.2, price 0.5: y = 0.9 − 0.1 = 0.8 at x = (1, 0). A + I = diag(2, 1),
        b = (0.8, 0), θ = (0.4, 0). At x = (0.6, 0.8): mean 0.24, variance 0.36/2 + 0.64 = 0.82.
        Score with α = 1: 0.24 + √0.82 = 1.145539; an arm never seen: 0 + ‖x‖ = 1."""
        policy = MetaLLM(alpha=1.0, ridge=1.0, reward="paper", cost_weight=0.2, bias=False)
        state = policy.learn(policy.init(), _rewarded(A, 0.9))
        proposal = policy.propose(state, _context(x=(0.6, 0.8)), _arms(A, B))
        assert proposal.scores == pytest.approx([1.145539, 1.0], abs=1e-6)

    def test_apart_the_price_of_money_acts_without_relearning(self) -> None:
        """λ = 1, q₀ = 1, bias: x = (1, 0, 1), y = 0.4 − 1 = −0.6. A + I has xᵀ(A+I)⁻¹x =
        2/(1+2) = 2/3, and mean = −0.6·2/3 = −0.4: quality 0.6. Cost 0.01 USD at a worth of
        0.1 takes 0.1, at 0.02 takes 0.5."""
        policy = MetaLLM(alpha=0.0, ridge=1.0)
        state = policy.learn(policy.init(), _rewarded(A, 0.4))
        for worth, score in ((0.1, 0.5), (0.02, 0.1)):
            context = dataclasses.replace(_context(), willingness_to_pay=worth)
            proposal = policy.propose(state, context, _arms(A, cost=0.01))
            assert proposal.scores == pytest.approx([score])
            assert proposal.quality == pytest.approx([0.6])

    def test_a_reward_without_quality_is_taken_back_to_one(self) -> None:
        """reward 0.5 + cost 0.02/0.1 = quality 0.7."""
        policy = MetaLLM(ridge=1e-9, alpha=0.0, bias=False, prior=0.0)
        event = dataclasses.replace(_rewarded(A, 0.5, cost_usd=0.02), quality=None)
        state = policy.learn(policy.init(), event)
        assert policy.propose(state, _context(), _arms(A)).quality == pytest.approx([0.7])

    def test_a_comparison_is_half_an_observation(self) -> None:
        policy = MetaLLM(bias=False)
        state = policy.learn(policy.init(), Compared(_context(), A, B))
        assert state.n.tolist() == [0.5, 0.5]
        assert state.b[:, 0].tolist() == [0.0, -0.5]  # 0.5·(1 − 1) and 0.5·(0 − 1)
        state = MetaLLM(comparison_weight=0.0).learn(RidgeStack(), Compared(_context(), A, B))
        assert state.rows == {}

    def test_the_cache_is_the_inverse_after_two_thousand_updates(self) -> None:
        rng = np.random.default_rng(0)
        stack = RidgeStack()
        stack.observe(A, rng.normal(size=20), 1.0)
        stack.estimate([A], np.ones(20), 12.94)  # from here on the cache is kept
        for _ in range(2000):
            x = rng.normal(size=20)
            stack.observe(A, x / np.linalg.norm(x), float(rng.random()))
        direct = np.linalg.inv(stack.A[0] + 12.94 * np.eye(20))
        assert stack._inverse is not None
        assert np.abs(stack._inverse[0] - direct).max() < 1e-10
        x = rng.normal(size=20)
        mean, deviation = stack.estimate([A], x, 12.94)
        assert mean[0] == pytest.approx(float(x @ direct @ stack.b[0]), rel=1e-9)
        assert deviation[0] == pytest.approx(float(np.sqrt(x @ direct @ x)), rel=1e-5)

    def test_learning_alone_builds_no_cache(self) -> None:
        policy = MetaLLM()
        state = policy.learn(policy.init(), _rewarded(A, 0.4))
        assert state._inverse is None


class TestPickLLM:
    @pytest.mark.parametrize(
        ("form", "latency", "reward"),
        [
            ("ratio", None, 0.7),  # 0.9 − 10·0.02
            ("ratio", 1.0, 0.7),  # log10(1000)/3 = 1
            ("ratio", 0.1, 1.0 - 1e-9),  # log10(100)/3 = 2/3: 0.7·1.5 = 1.05, cut below 1
            ("ratio", 100.0, 0.42),  # log10(10⁵)/3 = 5/3: 0.7·0.6
            ("ratio", 0.0001, 1.0 - 1e-9),  # held at 10 ms: log10(10)/3 = 1/3
            ("additive", 0.1, 0.7 - 2 / 3),
            ("service", 1.0, 0.33),
        ],
    )
    def test_forms_of_the_reward(self, form: str, latency: float | None, reward: float) -> None:
        event = dataclasses.replace(
            _rewarded(A, 0.9, cost_usd=0.02), latency_s=latency, reward=0.33
        )
        assert RewardForm(form, 1.0, 10.0, 1.0, 3.0).of(event) == pytest.approx(reward)
        # without a weight of its own, the query's willingness to pay: 1/0.1 = 10
        assert RewardForm(form, 1.0, None, 1.0, 3.0).of(event) == pytest.approx(reward)

    def test_the_automaton_is_linear_reward_inaction(self) -> None:
        """p_m ← p_m + bR(1 − p_m), p_j ← p_j − bRp_j, written out beside it."""
        policy = PickLLMGradient(learning_rate=0.3, reward="service")
        state, p = policy.init(), np.full(3, 1 / 3)
        arms = _arms(A, B, C)
        for arm, reward in ((A, 0.5), (C, 0.9), (A, 0.0), (B, 0.25), (A, 1.0)):
            state = policy.learn(state, _rewarded(arm, reward))
            m, step = (A, B, C).index(arm), 0.3 * min(reward, 1 - 1e-9)
            moved = p - step * p
            moved[m] = p[m] + step * (1 - p[m])
            p = moved
            assert policy.propose(state, _context(), arms).propensities == pytest.approx(p)

    def test_what_no_reward_has_claimed_is_spread_over_the_arms_offered(self) -> None:
        """bR = 0.4 to a: base 0.6, w_a 0.4. Offered a and b: 0.3 + 0.4 and 0.3. Offered b and c,
        which claimed nothing: half each."""
        policy = PickLLMGradient(learning_rate=0.5, reward="service")
        state = policy.learn(policy.init(), _rewarded(A, 0.8))
        proposal = policy.propose(state, _context(), _arms(A, B))
        assert proposal.propensities == pytest.approx([0.7, 0.3])
        proposal = policy.propose(state, _context(), _arms(B, C))
        assert proposal.propensities == pytest.approx([0.5, 0.5])

    def test_the_automaton_converges(self) -> None:
        policy = PickLLMGradient(learning_rate=0.5, reward="service")
        state = policy.init()
        assert policy.converged(state) is None
        for _ in range(8):  # 1 − 0.5⁸ = 0.996
            state = policy.learn(state, _rewarded(A, 1.0))
        assert policy.converged(state) == A

    def test_q_moves_a_step_towards_each_reward(self) -> None:
        """Q: 0 → 0 + 0.1·0.8 = 0.08 → 0.08 + 0.1·(0.5 − 0.08) = 0.122."""
        policy = PickLLMQ(reward="service", initial=0.0)
        state = policy.learn(policy.init(), _rewarded(A, 0.8))
        state = policy.learn(state, _rewarded(A, 0.5))
        assert state.q[A] == pytest.approx(0.122)
        proposal = policy.propose(state, _context(), _arms(A, B))
        assert proposal.propensities == pytest.approx([0.95, 0.05])

    def test_epsilon_decays_with_settled_rewards_and_the_greedy_arm_converges(self) -> None:
        policy = PickLLMQ(reward="service", epsilon_decay=0.5, patience=3, initial=0.0)
        state = policy.init()
        for _ in range(4):
            assert policy.converged(state) is None
            state = policy.learn(state, _rewarded(A, 0.9))
        assert policy.converged(state) == A
        proposal = policy.propose(state, _context(), _arms(A, B))
        assert proposal.propensities[1] == pytest.approx(0.1 * 0.5**4 / 2)


class TestEpsilonGreedy:
    def test_the_mean_starts_at_the_prior(self) -> None:
        """(1·1 + 0.2 + 0.4)/(1 + 2) = 0.533333."""
        policy = EpsilonGreedy()
        state = policy.init()
        for reward in (0.2, 0.4):
            state = policy.learn(state, _rewarded(A, reward))
        proposal = policy.propose(state, _context(), _arms(A, B))
        assert proposal.scores == pytest.approx([0.533333, 1.0], abs=1e-6)
