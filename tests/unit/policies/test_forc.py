"""FORC: the strategies by hand, and what teaches the predictor."""

from __future__ import annotations

import numpy as np
import pytest

from policies import Arms, Compared, Floats
from policies._logistic import Heads
from policies.forc import FORC, taken
from tests.unit.policies.given import A, B, C, arms, query, rewarded

COST = np.array([0.03, 0.02, 0.01])
THREE = Arms((A, B, C), COST, COST / 0.03)
PAPER = FORC(strategy="threshold", alpha=0.0, prior=0.5, comparison_weight=0.0)


def state_of(*levels: float) -> Heads:
    """Heads that give the query (0,) these qualities: all in the constant."""
    level = np.array(levels)
    theta = np.column_stack([np.zeros(level.size), np.log(level / (1.0 - level))])
    rows = dict(zip((A, B, C), range(level.size), strict=False))
    return Heads(rows, theta, np.full(theta.shape, 1e12), np.ones(level.size))


@pytest.mark.parametrize(
    ("levels", "fallback", "wanted"),
    [
        ((0.9, 0.6, 0.4), "biggest", [0, 1, 0]),
        ((0.9, 0.6, 0.51), "biggest", [0, 0, 1]),
        ((0.9, 0.5, 0.5), "cheapest", [1, 0, 0]),
        ((0.2, 0.4, 0.3), "biggest", [1, 0, 0]),
        ((0.2, 0.4, 0.3), "cheapest", [0, 0, 1]),
        ((0.2, 0.4, 0.3), "best", [0, 1, 0]),
    ],
)
def test_thresholding(levels: tuple[float, ...], fallback: str, wanted: list[int]) -> None:
    """A p of exactly 0.5 does not exceed 0.5."""
    policy = FORC(strategy="threshold", alpha=0.0, prior=0.5, fallback=fallback)
    proposal = policy.propose(state_of(*levels), query(0.0), THREE)
    assert proposal.propensities.tolist() == wanted
    assert proposal.quality == pytest.approx(np.array(levels))


def test_of_the_cheapest_the_likeliest_is_taken() -> None:
    proposal = PAPER.propose(state_of(0.9, 0.6, 0.8), query(0.0), arms(A, B, C))
    assert proposal.propensities.tolist() == [1.0, 0.0, 0.0]
    proposal = PAPER.propose(state_of(0.7, 0.7, 0.6), query(0.0), arms(A, B, C))
    assert proposal.propensities.tolist() == [0.5, 0.5, 0.0]


def test_before_any_answer_the_paper_takes_the_biggest() -> None:
    proposal = PAPER.propose(PAPER.init(), query(0.0), THREE)
    assert proposal.propensities.tolist() == [1.0, 0.0, 0.0]


def test_the_utility_follows_the_price_of_money() -> None:
    """0.9, 0.75, 0.5 less 0.03, 0.02, 0.01 over the willingness to pay."""
    policy, state = FORC(alpha=0.0, prior=0.5), state_of(0.9, 0.75, 0.5)
    wanted = {1.0: [0.87, 0.73, 0.49], 0.05: [0.3, 0.35, 0.3], 0.02: [-0.6, -0.25, 0.0]}
    for pay, scores in wanted.items():
        proposal = policy.propose(state, query(0.0, willingness_to_pay=pay), THREE)
        assert proposal.scores.tolist() == pytest.approx(scores)
        assert proposal.propensities.argmax() == int(np.argmax(scores))


def test_the_mix_of_quality_and_list_price() -> None:
    """½·p − ½·(1, 2/3, 1/3); with w = 1 it is the best."""
    state = state_of(0.9, 0.75, 0.5)
    even = FORC(strategy="mix", alpha=0.0, prior=0.5).propose(state, query(0.0), THREE)
    assert even.scores.tolist() == pytest.approx([-0.05, 0.5 * (0.75 - 2 / 3), 0.5 * (0.5 - 1 / 3)])
    assert even.propensities.tolist() == [0.0, 0.0, 1.0]
    whole = FORC(strategy="mix", quality_weight=1.0, alpha=0.0, prior=0.5)
    best = FORC(strategy="best", alpha=0.0, prior=0.5)
    for policy in (whole, best):
        proposal = policy.propose(state, query(0.0), THREE)
        assert proposal.scores.tolist() == pytest.approx([0.9, 0.75, 0.5])


def test_the_bonus_is_a_standard_deviation_of_the_logit() -> None:
    """Of an arm never seen it is √(‖[x, 1]‖²/λ) = √(2/λ); σ(1) = 0.7310585786."""
    policy = FORC(strategy="best", alpha=1.0, prior=0.5, ridge=2.0)
    proposal = policy.propose(policy.init(), query(0.6, 0.8), arms(A))
    assert proposal.scores.tolist() == pytest.approx([0.7310585786])
    assert proposal.quality is not None
    assert proposal.quality.tolist() == [0.5]


def test_one_answer_by_hand() -> None:
    """‖[x, 1]‖²/λ = 1, so g = 1 − σ(g) = 0.4010581375, and θ = g·[x, 1]/2."""
    policy = FORC(prior=0.5, ridge=2.0)
    event = rewarded(A, 0.9, quality=1.0, context=query(0.6, 0.8))
    state = policy.learn(policy.init(), event)
    g = 0.4010581375
    assert state.theta[0].tolist() == pytest.approx([0.3 * g, 0.4 * g, 0.5 * g], abs=1e-7)
    h = g * (1.0 - g)
    assert state.information[0].tolist() == pytest.approx([0.36 * h, 0.64 * h, h], abs=1e-7)


def test_a_comparison_is_two_labels_of_less_weight() -> None:
    """In x = 0 only the constant learns: g = ½·(1 − σ(g)), as in the heads' own test."""
    policy = FORC(prior=0.5)
    state = policy.learn(policy.init(), Compared(query(0.0), A, B))
    assert state.theta[:, 1].tolist() == pytest.approx([0.2223, -0.2223], abs=1e-4)
    assert state.n.tolist() == [0.5, 0.5]
    tied = policy.learn(policy.init(), Compared(query(0.0), A, B, tie=True))
    assert not tied.theta.any()
    assert tied.information[:, 1].tolist() == pytest.approx([0.125, 0.125])
    deaf = FORC(comparison_weight=0.0)
    assert deaf.learn(deaf.init(), Compared(query(0.0), A, B)).rows == {}


def test_which_arm_suits_which_query_is_found_from_its_own_choices() -> None:
    """a is right where x₁ > 0, b elsewhere; each costs the same; only the chosen one is seen."""
    policy, rng = FORC(), np.random.default_rng(1)
    state, right = policy.init(), []
    for _ in range(600):
        x = rng.normal(size=4)
        context = query(*(x / np.linalg.norm(x)))
        chosen = int(policy.propose(state, context, arms(A, B)).propensities.argmax())
        quality = float((x[0] > 0) == (chosen == 0))
        right.append(quality)
        event = rewarded((A, B)[chosen], quality, quality=quality, context=context)
        state = policy.learn(state, event)
    assert np.mean(right[-200:]) > 0.9


def test_everything_is_taken_when_only_the_best_is_asked_for() -> None:
    low: Floats = np.array([0.1, 0.2])
    assert taken(low, np.array([1.0, 2.0]), 0.5, "best").tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("strategy", "ilp"), ("fallback", "none"), ("prior", 1.0), ("ridge", 0.0), ("alpha", -1.0)],
)
def test_bad_parameters_are_refused(parameter: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{parameter}: must be "):
        FORC(**{parameter: value})  # type: ignore[arg-type]
