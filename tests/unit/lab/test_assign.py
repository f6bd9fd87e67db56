"""Assignments of a batch: small ones by hand and by trying everything, larger ones by the bound."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from bandit_service.lab import assign
from bandit_service.lab.assign import Infeasible, Objective
from policies import Floats

QUALITY = np.array([[0.9, 0.8, 0.4], [0.6, 0.7, 0.2], [0.3, 0.45, 0.1], [0.95, 0.9, 0.85]])
COST = np.array([[5.0, 2.0, 1.0], [5.0, 2.0, 1.0], [5.0, 2.0, 1.0], [5.0, 2.0, 1.0]])

# multiples of 1/8, so that sums are exact and a budget can be hit to the bit
eighths = st.integers(0, 8).map(lambda i: i / 8)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Floats, Floats, float]:
    """Up to four queries, up to three arms, some of them not eligible, and a budget."""
    n, k = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    quality = np.array(draw(st.lists(eighths, min_size=n * k, max_size=n * k))).reshape(n, k)
    cost = np.array(draw(st.lists(eighths, min_size=n * k, max_size=n * k))).reshape(n, k)
    quality[draw(st.lists(st.booleans(), min_size=n, max_size=n)), 0] = np.nan
    return quality, cost, draw(st.integers(0, 24)) / 8


def tried(
    quality: Floats,
    cost: Floats,
    objective: Objective,
    penalty: float | None,
    budget: float = np.inf,
    least: float = -np.inf,
) -> float | None:
    """The best value of all assignments that keep to the limits; None if there is none."""
    n, k = quality.shape
    values = []
    for arms in product(range(-1, k), repeat=n):
        choice = np.array(arms)
        answered = np.flatnonzero(choice >= 0)
        if np.isnan(quality[answered, choice[answered]]).any():
            continue
        if penalty is None and len(answered) < n:
            continue
        total = assign.totals(quality, cost, choice)
        if total.cost <= budget and total.quality >= least:
            values.append(valued(total, n, objective, penalty))
    return max(values, default=None)


def valued(total: assign.Totals, n: int, objective: Objective, penalty: float | None) -> float:
    value = {
        "quality": total.quality,
        "cost": -total.cost,
        "mix": 0.5 * total.quality - 0.5 * total.cost,
    }[objective]
    return value - (penalty or 0.0) * (n - total.answered)


def test_one_arm_for_all() -> None:
    assert assign.single(QUALITY, COST, 1).tolist() == [1, 1, 1, 1]
    absent = np.where(np.arange(4)[:, None] == 2, np.nan, QUALITY)
    assert assign.single(absent, COST, 1).tolist() == [1, 1, -1, 1]
    assert assign.best(absent, COST).tolist() == [0, 1, -1, 0]


def test_the_best_whatever_it_costs() -> None:
    choice = assign.best(QUALITY, COST)
    assert choice.tolist() == [0, 1, 1, 0]
    assert assign.totals(QUALITY, COST, choice) == pytest.approx((3.0, 14.0, 4))
    even = np.array([[0.5, 0.5]])
    assert assign.best(even, np.array([[2.0, 1.0]])).tolist() == [1]


@pytest.mark.parametrize(
    ("budget", "wanted"),
    [
        (14.0, [0, 1, 1, 0]),
        (13.9, [0, 1, 1, -1]),
        (8.0, [0, 1, -1, -1]),
        (4.9, [-1, -1, -1, -1]),
    ],
)
def test_greedy_until_the_budget(budget: float, wanted: list[int]) -> None:
    """The costs run 5, 7, 9, 14; what comes after the first that does not fit stays unanswered."""
    assert assign.greedy(QUALITY, COST, budget).tolist() == wanted


def test_greedy_does_not_lose_a_query_to_rounding() -> None:
    cost = np.full((10, 1), 0.1)
    assert assign.greedy(np.ones((10, 1)), cost, 1.0).tolist() == [0] * 10


@pytest.mark.parametrize(
    ("fallback", "wanted"),
    [("biggest", [1, 1, 0, 2]), ("cheapest", [1, 1, 2, 2]), ("best", [1, 1, 1, 2])],
)
def test_thresholding(fallback: assign.Fallback, wanted: list[int]) -> None:
    assert assign.threshold(QUALITY, COST, 0.5, fallback).tolist() == wanted


def test_the_program_by_hand() -> None:
    """11 USD: from b, b, b, b (2.85 for 8) the best step is a for the first: 2.95 for 11."""
    choice = assign.milp(QUALITY, COST, budget=11.0)
    assert choice.tolist() == [0, 1, 1, 1]
    # 4 USD: all answered is c everywhere; else c, b, none, c with 0.4 + 0.7 + 0.85
    assert assign.milp(QUALITY, COST, budget=4.0, penalty=None).tolist() == [2, 2, 2, 2]
    assert assign.milp(QUALITY, COST, budget=4.0).tolist() == [2, 1, -1, 2]
    # none is worth less than c where no answer costs a quality of 1
    assert assign.milp(QUALITY, COST, budget=4.0, penalty=1.0).tolist() == [2, 2, 2, 2]
    # 4 USD buy 1.95 at most, so a quality of 2 costs 5: b, b, none, c with 2.35
    choice = assign.milp(QUALITY, COST, objective="cost", least_quality=2.0)
    assert assign.totals(QUALITY, COST, choice).cost == pytest.approx(5.0)


@pytest.mark.parametrize("objective", ["quality", "cost", "mix"])
@pytest.mark.parametrize("penalty", [None, 0.0, 0.25])
@settings(max_examples=25, deadline=None)
@given(batches(), st.one_of(st.none(), st.integers(0, 16).map(lambda i: i / 8)))
def test_the_program_is_the_best_of_all(
    objective: Objective,
    penalty: float | None,
    batch: tuple[Floats, Floats, float],
    least: float | None,
) -> None:
    quality, cost, budget = batch
    floor = -np.inf if least is None else least
    wanted = tried(quality, cost, objective, penalty, budget, floor)
    if wanted is None:
        with pytest.raises(Infeasible):
            assign.milp(
                quality,
                cost,
                objective=objective,
                budget=budget,
                least_quality=least,
                penalty=penalty,
            )
        return
    choice = assign.milp(
        quality, cost, objective=objective, budget=budget, least_quality=least, penalty=penalty
    )
    total = assign.totals(quality, cost, choice)
    assert total.cost <= budget
    assert total.quality >= floor
    assert valued(total, len(quality), objective, penalty) == pytest.approx(wanted)


@pytest.mark.parametrize("penalty", [None, 0.0, 0.25])
@settings(max_examples=100, deadline=None)
@given(batches())
def test_the_price_loses_at_most_one_query(
    penalty: float | None, batch: tuple[Floats, Floats, float]
) -> None:
    quality, cost, budget = batch
    wanted = tried(quality, cost, "quality", penalty, budget)
    if wanted is None:
        with pytest.raises(Infeasible, match=r"^(budget|penalty): "):
            assign.lagrangian(quality, cost, budget, penalty)
        return
    choice, price = assign.lagrangian(quality, cost, budget, penalty)
    total = assign.totals(quality, cost, choice)
    assert total.cost <= budget * (1.0 + 1e-9)
    most = np.nanmax(quality, initial=0.0) + (penalty or 0.0)
    found = valued(total, len(quality), "quality", penalty)
    assert wanted - most - 1e-9 <= found <= wanted + 1e-9
    assert price >= 0.0


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_both_lie_just_below_the_linear_bound(share: float) -> None:
    """300 queries, five arms, at prices of fractions of a cent; the bound lets x be fractions."""
    rng = np.random.default_rng(4)
    cost = 1e-4 * rng.uniform(0.5, 2.0, (300, 1)) * np.array([1.0, 2.0, 4.0, 8.0, 20.0])
    quality = np.clip(rng.normal([0.4, 0.5, 0.55, 0.6, 0.7], 0.2, (300, 5)), 0.0, 1.0)
    low, high = cost.min(axis=1).sum(), cost[np.arange(300), quality.argmax(axis=1)].sum()
    budget = float(low + share * (high - low))
    solved = optimize.linprog(
        -quality.ravel(),
        A_ub=np.vstack([1e4 * cost.reshape(1, -1), np.kron(np.eye(300), np.ones((1, 5)))]),
        b_ub=np.concatenate([[1e4 * budget], np.ones(300)]),
        bounds=(0.0, 1.0),
    )
    bound = -float(solved.fun or 0.0)
    exact = assign.totals(quality, cost, assign.milp(quality, cost, budget=budget, gap=1e-6))
    fast = assign.totals(quality, cost, assign.lagrangian(quality, cost, budget).choice)
    assert max(exact.cost, fast.cost) <= budget * (1.0 + 1e-6)
    assert bound + 1e-4 >= exact.quality >= fast.quality - 1e-4
    assert fast.quality >= bound - 1.0
    reckless = assign.greedy(quality, cost, budget)
    assert exact.quality > assign.totals(quality, cost, reckless).quality + 5.0


def test_money_that_is_no_object_has_no_price() -> None:
    choice, price = assign.lagrangian(QUALITY, COST, 100.0)
    assert (choice.tolist(), price) == ([0, 1, 1, 0], 0.0)


def test_the_price_is_what_one_more_dollar_buys() -> None:
    """Beyond 8 USD the best step is a for the first query: 0.1 for 3 USD."""
    choice, price = assign.lagrangian(QUALITY, COST, 9.0, penalty=None)
    assert choice.tolist() == [1, 1, 1, 1]
    assert price == pytest.approx(0.1 / 3.0)


def test_what_is_out_of_reach_is_named_with_what_is_not() -> None:
    for solve in (assign.milp, assign.lagrangian):
        with pytest.raises(Infeasible, match=r"^budget: 3 USD .* the minimum budget is 4 USD$"):
            solve(QUALITY, COST, budget=3.0, penalty=None)
    with pytest.raises(Infeasible, match=r"^least_quality: 3.1 .* the highest is 3$"):
        assign.milp(QUALITY, COST, objective="cost", least_quality=3.1)
    # 2.85 is b everywhere, 8 USD
    with pytest.raises(Infeasible, match=r"^budget: 7 USD .* the minimum budget is 8 USD$"):
        assign.milp(QUALITY, COST, budget=7.0, least_quality=2.85)
    nobody = np.array([[0.5], [np.nan]])
    with pytest.raises(Infeasible, match=r"^penalty: query 1 has no eligible arm"):
        assign.milp(nobody, np.ones((2, 1)), budget=5.0, penalty=None)


def test_nothing_to_assign() -> None:
    none = np.zeros((0, 2))
    assert assign.milp(none, none, budget=1.0).tolist() == []
    assert assign.lagrangian(none, none, 1.0).choice.tolist() == []
    assert assign.greedy(none, none, 1.0).tolist() == []


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"^quality: must have shape"):
        assign.best(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match=r"^quality: must be finite"):
        assign.best(np.array([[np.inf]]), np.ones((1, 1)))
    with pytest.raises(ValueError, match=r"^cost: must have shape \(4, 3\)"):
        assign.best(QUALITY, COST[:2])
    with pytest.raises(ValueError, match=r"^cost: must be finite and >= 0"):
        assign.best(QUALITY, -COST)
    with pytest.raises(ValueError, match=r"^budget: must be a number >= 0"):
        assign.greedy(QUALITY, COST, float("nan"))
    with pytest.raises(ValueError, match=r"^arm: must be an index from 0 to 2"):
        assign.single(QUALITY, COST, 3)
    with pytest.raises(ValueError, match=r"^penalty: must be a number >= 0"):
        assign.milp(QUALITY, COST, budget=9.0, penalty=-1.0)
    with pytest.raises(ValueError, match=r"^alpha: must be a number >= 0 and <= 1"):
        assign.milp(QUALITY, COST, objective="mix", alpha=2.0)
    with pytest.raises(ValueError, match=r"^objective: must be"):
        assign.milp(QUALITY, COST, objective="both")  # type: ignore[arg-type]
