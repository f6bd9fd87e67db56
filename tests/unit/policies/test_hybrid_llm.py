"""Hybrid LLM: the choice by hand, the labels by hand, and what few outcomes find."""

from __future__ import annotations

from math import exp, log, pi, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import ArmId, Arms, Compared, Context, Floats, Neighbour, Outcome
from policies._logistic import Heads, sigmoid
from policies.hybrid_llm import HybridLLM, _Gaps, choose_t
from tests.unit.policies.given import A, B, C, neighbour, query, rewarded

PRICE = np.array([1.0, 0.5, 0.1])
THREE = Arms((A, B, C), 0.01 * PRICE, PRICE)  # a is the large one, c the cheapest
TWO = Arms((A, B), 0.01 * PRICE[:2], PRICE[:2])
PAPER = HybridLLM(compare_on="quality", label="deterministic", alpha=0.0, comparison_weight=0.0)


def state_of(*p: float, known: float = 0.0) -> _Gaps:
    """Heads of b (and c) against a that give the query (0,) these probabilities."""
    level = np.array(p)
    theta = np.column_stack([np.zeros(level.size), np.log(level / (1.0 - level))])
    rows = dict(zip((B, C), range(level.size), strict=False))
    heads = Heads(rows, theta, np.full(theta.shape, known), np.ones(level.size))
    return _Gaps({A: heads}, features=2)


def shares(policy: HybridLLM, state: _Gaps, arms: Arms = THREE) -> list[float]:
    found: list[float] = policy.propose(state, query(0.0), arms).propensities.tolist()
    return found


@pytest.mark.parametrize(
    ("p", "wanted"),
    [
        ((0.9, 0.6), [0, 0, 1]),
        ((0.9, 0.4), [0, 1, 0]),
        ((0.4, 0.4), [1, 0, 0]),
        ((0.4, 0.5), [0, 0, 1]),
    ],
)
def test_the_cheapest_that_is_good_enough_or_else_the_large(
    p: tuple[float, float], wanted: list[int]
) -> None:
    """A p of exactly the threshold is enough."""
    assert shares(PAPER, state_of(*p)) == wanted


@pytest.mark.parametrize(("threshold", "small"), [(0.0, 1), (0.69, 1), (0.71, 0), (1.0, 0)])
def test_of_two_arms_it_is_the_papers_rule(threshold: float, small: int) -> None:
    policy = HybridLLM(alpha=0.0, threshold=threshold)
    assert shares(policy, state_of(0.7), TWO) == [1 - small, small]


def test_of_those_that_cost_the_same_the_likeliest_is_taken() -> None:
    alike = Arms((A, B, C), np.array([0.02, 0.01, 0.01]), np.array([1.0, 0.5, 0.5]))
    assert shares(PAPER, state_of(0.7, 0.8), alike) == [0.0, 0.0, 1.0]
    assert shares(PAPER, state_of(0.7, 0.7), alike) == [0.0, 0.5, 0.5]


def test_one_draw_serves_all_arms() -> None:
    """g is 0.7 for b, 0.3 for c, the cheapest: c 0.3, b the 0.4 that it has more, a the rest.

    What is unsure of the logit is 1, so g = σ(π/√3·logit p), which p is made for here.
    """
    p = [1.0 / (1.0 + exp(-log(g / (1.0 - g)) * sqrt(3.0) / pi)) for g in (0.7, 0.3)]
    assert shares(HybridLLM(alpha=1.0), state_of(*p)) == pytest.approx([0.3, 0.4, 0.3])
    assert shares(HybridLLM(alpha=1.0), state_of(*p[::-1])) == pytest.approx([0.3, 0.0, 0.7])


def test_where_nothing_is_known_the_cheapest_and_the_large_share() -> None:
    assert shares(HybridLLM(), _Gaps()) == pytest.approx([0.5, 0.0, 0.5])


def test_what_is_known_better_is_drawn_from_less() -> None:
    unsure, sure = (
        shares(HybridLLM(alpha=1.0), state_of(0.7, known=known), TWO) for known in (0.0, 1e4)
    )
    assert 0.8 < unsure[1] < 0.9
    assert sure[1] > 1.0 - 1e-9


def test_which_arm_is_the_large_one() -> None:
    """By list price; or by name, where it is eligible."""
    state = _Gaps()
    named = HybridLLM(large="b", alpha=0.0, threshold=1.0)
    assert shares(named, state) == [0.0, 1.0, 0.0]
    without = Arms((A, C), 0.01 * PRICE[[0, 2]], PRICE[[0, 2]])
    assert shares(named, state, without) == [1.0, 0.0]
    cheap_today = Arms((A, B, C), np.array([0.001, 0.005, 0.002]), PRICE)
    assert shares(HybridLLM(alpha=0.0, threshold=1.0), state, cheap_today) == [1.0, 0.0, 0.0]


def test_of_several_dearest_the_one_with_the_best_record_is_large() -> None:
    """(0.4 + 1)/2 = 0.7 against (0.6 + 1)/2 = 0.8; an arm without a record counts as 1."""
    policy = HybridLLM(threshold=1.0, alpha=0.0)
    same = Arms((A, B), np.array([0.01, 0.01]), np.ones(2))
    assert shares(policy, _Gaps(), same) == [0.5, 0.5]
    state = policy.learn(policy.init(), rewarded(A, 0.4))
    assert shares(policy, state, same) == [0.0, 1.0]
    state = policy.learn(state, rewarded(B, 0.6))
    assert shares(policy, state, same) == [0.0, 1.0]
    state = policy.learn(state, rewarded(B, 0.0))
    assert shares(policy, state, same) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("policy", "ahead", "behind"),
    [
        # b earned 0.1 less than a on the same query; σ(−1) = 0.26894, σ(1) = 0.73106
        (HybridLLM(ridge=2.0), 0.2689414214, 0.7310585786),
        (HybridLLM(ridge=2.0, temperature=0.2), 0.3775406688, 0.6224593312),
        (HybridLLM(ridge=2.0, label="deterministic"), 0.0, 1.0),
        # σ((−0.1 + 0.2)/0.1) = σ(1) and σ((0.1 + 0.2)/0.1) = σ(3) = 0.95257
        (HybridLLM(ridge=2.0, label="transformed", t=0.2), 0.7310585786, 0.9525741268),
    ],
)
def test_labels_of_a_gap(policy: HybridLLM, ahead: float, behind: float) -> None:
    """‖[x, 1]‖²/λ = 1, so each head takes g = y − σ(g) of its label, and θ = g·[x, 1]/2."""
    context = query(0.6, 0.8, near=[neighbour(1, 1.0, (A, 0.5))])
    state = policy.learn(policy.init(), rewarded(B, 0.4, context=context))
    for large, small, y in ((A, B, ahead), (B, A, behind)):
        heads = state.heads[large]
        assert heads.rows == {small: 0}
        g = 2.0 * float(heads.theta[0, 2])
        assert g + sigmoid(g) == pytest.approx(y, abs=1e-7)
        assert heads.theta[0, :2].tolist() == pytest.approx([0.3 * g, 0.4 * g], abs=1e-7)
        assert heads.n.tolist() == [1.0]


def test_near_queries_weigh_less_and_share() -> None:
    """Gaps of −0.1 and 0.3 on two near queries: the mean of σ(−1) and σ(3), of weight ½."""
    near = [neighbour(1, 0.9, (A, 0.5)), neighbour(2, 0.4, (A, 0.1)), neighbour(3, 0.2, (A, 0.9))]
    policy = HybridLLM(ridge=2.0)
    event = rewarded(B, 0.4, context=query(0.6, 0.8, near=near))
    heads = policy.learn(policy.init(), event).heads[A]
    g = 2.0 * float(heads.theta[0, 2])
    y = (0.2689414214 + 0.9525741268) / 2.0
    assert g == pytest.approx(0.5 * (y - sigmoid(g)), abs=1e-7)
    assert heads.n.tolist() == [0.5]


def test_the_same_query_makes_near_ones_needless() -> None:
    near = [neighbour(1, 1.0, (A, 0.5)), neighbour(2, 0.9, (A, 0.0)), neighbour(3, 0.9, (C, 0.0))]
    policy = HybridLLM(ridge=2.0)
    state = policy.learn(policy.init(), rewarded(B, 0.4, context=query(0.6, 0.8, near=near)))
    assert state.heads[A].n.tolist() == [1.0]
    assert state.heads[C].n.tolist() == [0.5]
    assert state.heads[B].rows == {C: 0, A: 1}


def test_gaps_are_of_qualities_where_that_is_asked_for() -> None:
    """a's outcome has a quality 0.1 above its reward; without a quality there is no gap."""
    policy = HybridLLM(compare_on="quality", label="deterministic")
    context = query(0.6, 0.8, near=[neighbour(1, 1.0, (A, 0.5))])
    state = policy.learn(policy.init(), rewarded(B, 0.1, quality=0.65, context=context))
    assert float(state.heads[A].theta[0, 2]) > 0.0
    state = policy.learn(policy.init(), rewarded(B, 0.1, context=context))
    assert state == policy.init()


def test_a_comparison_is_a_gap_of_one_or_none() -> None:
    policy = HybridLLM(ridge=2.0, label="deterministic", comparison_weight=1.0)
    state = policy.learn(policy.init(), Compared(query(0.6, 0.8), A, B))
    g = 0.4010581375  # the root of g = 1 − σ(g)
    assert 2.0 * float(state.heads[B].theta[0, 2]) == pytest.approx(g)  # a against b
    assert 2.0 * float(state.heads[A].theta[0, 2]) == pytest.approx(-g)
    tied = policy.learn(policy.init(), Compared(query(0.6, 0.8), A, B, tie=True))
    for large in (A, B):  # no gap is a gap >= 0, both ways
        assert 2.0 * float(tied.heads[large].theta[0, 2]) == pytest.approx(g)
    deaf = HybridLLM(comparison_weight=0.0)
    assert deaf.learn(deaf.init(), Compared(query(0.6, 0.8), A, B)) == deaf.init()
    votes_only = HybridLLM(compare_on="off")
    assert votes_only.learn(votes_only.init(), rewarded(A, 0.5)) == votes_only.init()


def test_easy_queries_go_to_the_small_arm() -> None:
    """The large arm earns 0.7 always, the small one 0.9 where x₁ > 0 and 0.2 elsewhere.

    Only the chosen arm's outcome is seen, and compared with those on the ten nearest queries.
    """
    policy, rng = HybridLLM(), np.random.default_rng(2)
    state, drawn = policy.init(), []
    seen: list[tuple[Floats, Outcome]] = []
    for i in range(600):
        x = rng.normal(size=3)
        x /= np.linalg.norm(x)
        nearest = sorted(range(len(seen)), key=lambda j: -float(seen[j][0] @ x))[:10]
        near = tuple(Neighbour(j + 1, float(seen[j][0] @ x), (seen[j][1],)) for j in nearest)
        context = Context(x.astype(np.float32), 10, 0.1, near)
        p = policy.propose(state, context, TWO).propensities
        small = int(rng.uniform() < p[1])
        reward = (0.9 if x[0] > 0 else 0.2) if small else 0.7
        arm: ArmId = (A, B)[small]
        state = policy.learn(state, rewarded(arm, reward, quality=reward, context=context))
        seen.append((x, Outcome(arm, reward, reward)))
        if i >= 400 and abs(x[0]) > 0.2:
            drawn.append(small == (x[0] > 0))
    assert np.mean(drawn) > 0.9


@given(
    st.lists(st.lists(st.sampled_from([-0.5, -0.2, 0.0, 0.3]), min_size=2, max_size=2), min_size=1),
    st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5]), min_size=1, max_size=4),
)
def test_the_papers_t_by_its_formula(gaps: list[list[float]], tried: list[float]) -> None:
    """(1/n²) Σ_{i,j} |y_i − y_j| in so many words."""
    grid = np.array(sorted(tried))
    found = choose_t(np.array(gaps), grid)

    def spread(t: float) -> float:
        y = [sum(gap >= -t for gap in row) / len(row) for row in gaps]
        return sum(abs(one - other) for one in y for other in y) / len(y) ** 2

    assert spread(found) == pytest.approx(max(spread(t) for t in grid.tolist()))
    assert found in grid.tolist()


def test_with_one_answer_each_t_balances_the_labels() -> None:
    """Ten gaps 0, −0.1, …, −0.9: y(t) = 0.5 from t = 0.4 on, where 2·y(1 − y) is highest."""
    gaps = -0.1 * np.arange(10.0)
    assert choose_t(gaps, np.array([0.0, 0.2, 0.4, 0.6])) == 0.4
    assert choose_t(gaps) == pytest.approx(0.405, abs=0.006)
    assert choose_t(np.array([0.1, 0.2])) == 0.0


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"^gaps: must be finite"):
        choose_t(np.array([0.1, np.nan]))
    with pytest.raises(ValueError, match=r"^grid: must be finite"):
        choose_t(np.array([0.1]), np.zeros(0))
    for name, value in (("label", "soft"), ("t", -0.1), ("temperature", 0.0), ("threshold", 2.0)):
        with pytest.raises(ValueError, match=f"^{name}: must be "):
            HybridLLM(**{name: value})  # type: ignore[arg-type]
    policy = HybridLLM()
    state = policy.learn(policy.init(), Compared(query(0.6, 0.8), A, B))
    with pytest.raises(ValueError, match=r"^embedding: must have 2 features, got 3"):
        policy.learn(state, Compared(query(0.6, 0.8, 0.0), A, B))


def test_what_fades_are_the_heads_that_an_arm_is_part_of() -> None:
    """Of a it is its head beside b and beside c and theirs beside it; b and c stay as they were."""
    policy = HybridLLM()
    state = policy.init()
    for winner, loser in ((A, B), (B, C), (C, A), (A, B)):
        state = policy.learn(state, Compared(query(0.6, 0.8), winner, loser))
    before = {
        (large, small): heads.information[row].copy()
        for large, heads in state.heads.items()
        for small, row in heads.rows.items()
    }
    state = policy.forget(state, A, 0.5)
    assert len(before) == 6
    for (large, small), information in before.items():
        heads = state.heads[large]
        share = 0.5 if A in (large, small) else 1.0
        assert heads.information[heads.rows[small]] == pytest.approx(share * information)
    assert (state.count, state.total) == ({A: 1.5, B: 3.0, C: 2.0}, {A: 1.0, B: 1.0, C: 1.0})
