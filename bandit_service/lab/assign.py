"""FORC's assignments of a batch of queries to arms, also under a total budget.

All are pure functions of predictions for n queries and K arms:

    quality: (n, K) p̂, finite, NaN where the arm is not eligible for the query. Binarise it
             beforehand, `(quality > 0.5).astype(float)`, for the paper's variant that does so.
    cost:    (n, K) ĉ in USD, finite and >= 0 where the arm is eligible.

and give (n,) indices of arms, −1 for a query left unanswered. `milp` is the paper's integer
program, solved exactly by HiGHS; `lagrangian` gives the same except for one query, in a fraction of
the time, together with its price of money.

Source: arXiv 2308.06077, section 3, and epfl-dlab/forc.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

from policies import Floats

Choice = NDArray[np.int64]
Mask = NDArray[np.bool_]
Fallback = Literal["biggest", "cheapest", "best"]
Objective = Literal["quality", "cost", "mix"]

UNANSWERED = -1
_SLACK = 1e-9


class Infeasible(ValueError):
    """No assignment meets the limits; the message names the nearest limit that can be met."""


class Totals(NamedTuple):
    """Totals of an assignment: Σ p̂, Σ ĉ in USD, and the number of answered queries."""

    quality: float
    cost: float
    answered: int


class Priced(NamedTuple):
    """An assignment, and the quality that one more USD would buy, approximately (μ)."""

    choice: Choice
    price: float


def totals(quality: Floats, cost: Floats, choice: Choice) -> Totals:
    """The predicted quality and cost of an assignment; both are 0 for an unanswered query."""
    rows = np.flatnonzero(choice != UNANSWERED)
    picked = (rows, choice[rows])
    return Totals(float(quality[picked].sum()), float(cost[picked].sum()), len(rows))


def single(quality: Floats, cost: Floats, arm: int) -> Choice:
    """The same arm always; a query for which it is not eligible is unanswered."""
    eligible = _checked(quality, cost)
    if not 0 <= arm < quality.shape[1]:
        raise ValueError(f"arm: must be an index from 0 to {quality.shape[1] - 1}, got {arm}")
    return np.where(eligible[:, arm], arm, UNANSWERED).astype(np.int64)


def best(quality: Floats, cost: Floats) -> Choice:
    """argmax p̂, whatever the cost; on ties the cheapest."""
    eligible = _checked(quality, cost)
    return _first(eligible, -quality, cost)


def greedy(quality: Floats, cost: Floats, budget: float) -> Choice:
    """argmax p̂, query by query, until the next would exceed the budget; then no answer."""
    _at_least("budget", budget, 0.0)
    choice = best(quality, cost)
    paid = np.where(choice == UNANSWERED, 0.0, cost[np.arange(len(choice)), choice])
    # rounding of a sum must not cost the last query of a budget that is just enough
    return np.where(np.cumsum(paid) <= budget * (1.0 + _SLACK), choice, UNANSWERED)


def threshold(
    quality: Floats, cost: Floats, at_least: float = 0.5, fallback: Fallback = "biggest"
) -> Choice:
    """The cheapest arm with p̂ > at_least; if there is none, the fallback.

    "biggest" is the dearest for the query, "cheapest" the cheapest, "best" argmax p̂.
    """
    eligible = _checked(quality, cost)
    if fallback not in ("biggest", "cheapest", "best"):
        raise ValueError(f"fallback: must be biggest, cheapest or best, got {fallback!r}")
    good = eligible & (quality > at_least)
    keys = {"biggest": (-cost, -quality), "cheapest": (cost, -quality), "best": (-quality, cost)}
    otherwise = _first(eligible, *keys[fallback])
    return np.where(good.any(axis=1), _first(good, cost, -quality), otherwise)


def milp(
    quality: Floats,
    cost: Floats,
    *,
    objective: Objective = "quality",
    budget: float | None = None,
    least_quality: float | None = None,
    alpha: float = 0.5,
    penalty: float | None = 0.0,
    gap: float = 0.0,
) -> Choice:
    """The paper's integer program over x_ij in {0, 1}, at most one arm i for each query j.

    objective "quality":  max Σ p̂x − penalty·Σy          mostly with a budget
    objective "cost":     min Σ ĉx + penalty·Σy          mostly with a least quality
    objective "mix":      max Σ (α·p̂ − (1 − α)·ĉ)x − penalty·Σy
    subject to            Σ ĉx <= budget,  Σ p̂x >= least_quality, where they are given

    y_j = 1 − Σ_i x_ij is 1 where a query is left unanswered; with penalty=None none may be. gap:
    the relative gap to the optimum at which the search may stop. Infeasible names the least
    budget, or the highest quality, that can be kept. Beside the solver's own: O(n·K) memory.
    """
    if objective not in ("quality", "cost", "mix"):
        raise ValueError(f"objective: must be quality, cost or mix, got {objective!r}")
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha: must be a number >= 0 and <= 1, got {alpha!r}")
    _at_least("gap", gap, 0.0)
    worth, paid, allowed = _options(quality, cost, penalty)
    refused = 0.0 if penalty is None else penalty
    _check_limits(worth, paid, allowed, budget, least_quality)
    value = {"quality": worth, "cost": -paid, "mix": alpha * worth - (1.0 - alpha) * paid}[
        objective
    ]
    value = value.copy()
    value[:, -1] -= refused
    choice = _solved(value, worth, paid, allowed, budget, least_quality, gap)
    if choice is None:
        assert budget is not None
        least = _solved(-paid, worth, paid, allowed, None, least_quality, gap)
        assert least is not None
        needed = float(paid[np.arange(len(least)), least].sum())
        raise Infeasible(
            f"budget: {budget:.6g} USD cannot buy a quality of {least_quality:.6g}; the minimum "
            f"budget is {needed:.6g} USD"
        )
    return np.where(choice == quality.shape[1], UNANSWERED, choice)


def lagrangian(quality: Floats, cost: Floats, budget: float, penalty: float | None = 0.0) -> Priced:
    """max Σ p̂x − penalty·Σy within the budget, by argmax p̂ − μĉ with the least μ that keeps to it.

    μ is found by bisection; at that price some queries are indifferent between two arms, and those
    are moved to the dearer one as long as it fits. So it can lose against `milp` only what one
    query's dearer arm would have gained. If everything fits, μ is 0. penalty and Infeasible as in
    `milp`. O(n·K) for each of about a hundred prices.
    """
    worth, paid, allowed = _options(quality, cost, penalty)
    _check_limits(worth, paid, allowed, budget, None)
    value = worth.copy()
    value[:, -1] -= 0.0 if penalty is None else penalty
    n = np.arange(len(value))
    limit = budget * (1.0 + _SLACK)

    def at(price: float) -> tuple[Choice, float]:
        choice = _first(allowed, price * paid - value, paid)
        return choice, float(paid[n, choice].sum())

    low, high = 0.0, 1.0 / max(float(paid[allowed].max(initial=0.0)), 1e-12)
    dear, spent = at(low)
    if spent <= limit:
        return Priced(_indices(dear, quality), 0.0)
    cheap, spent = at(high)
    while spent > limit and high < 1e300:
        low, dear, high = high, cheap, 2.0 * high
        cheap, spent = at(high)
    while (middle := 0.5 * (low + high)) not in (low, high):
        choice, cost_then = at(middle)
        if cost_then <= limit:
            high, cheap, spent = middle, choice, cost_then
        else:
            low, dear = middle, choice
    for row in np.flatnonzero(cheap != dear).tolist():
        more = float(paid[row, dear[row]] - paid[row, cheap[row]])
        if spent + more <= limit:
            cheap[row], spent = dear[row], spent + more
    return Priced(_indices(cheap, quality), high)


def _indices(choice: Choice, quality: Floats) -> Choice:
    return np.where(choice == quality.shape[1], UNANSWERED, choice)


def _checked(quality: Floats, cost: Floats) -> Mask:
    """Which arms are eligible, (n, K)."""
    if quality.ndim != 2 or not quality.shape[1]:
        raise ValueError(f"quality: must have shape (n, K) with K > 0, got {quality.shape}")
    if cost.shape != quality.shape:
        raise ValueError(f"cost: must have shape {quality.shape} as quality, got {cost.shape}")
    eligible: Mask = ~np.isnan(quality)
    if np.isinf(quality).any():
        raise ValueError("quality: must be finite, or NaN where the arm is not eligible")
    if not (np.isfinite(cost[eligible]).all() and (cost[eligible] >= 0.0).all()):
        raise ValueError("cost: must be finite and >= 0 where the arm is eligible")
    return eligible


def _options(quality: Floats, cost: Floats, penalty: float | None) -> tuple[Floats, Floats, Mask]:
    """Quality, cost and eligibility with one more column, that of no answer. (n, K + 1) each."""
    eligible = _checked(quality, cost)
    if penalty is not None:
        _at_least("penalty", penalty, 0.0)
    elif not eligible.any(axis=1).all():
        row = int(np.flatnonzero(~eligible.any(axis=1))[0])
        raise Infeasible(f"penalty: query {row} has no eligible arm, so it must be allowed to stay")
    n = len(quality)
    allowed = np.column_stack([eligible, np.full(n, penalty is not None)])
    worth = np.column_stack([np.where(eligible, quality, 0.0), np.zeros(n)])
    paid = np.column_stack([np.where(eligible, cost, 0.0), np.zeros(n)])
    return worth, paid, allowed


def _check_limits(
    worth: Floats, paid: Floats, allowed: Mask, budget: float | None, least_quality: float | None
) -> None:
    if budget is not None:
        _at_least("budget", budget, 0.0)
        least = float(np.where(allowed, paid, np.inf).min(axis=1).sum())
        if budget * (1.0 + _SLACK) < least:
            raise Infeasible(
                f"budget: {budget:.6g} USD cannot answer every query; the minimum budget "
                f"is {least:.6g} USD"
            )
    if least_quality is not None:
        if not np.isfinite(least_quality):
            raise ValueError(f"least_quality: must be a finite number, got {least_quality!r}")
        most = float(np.where(allowed, worth, -np.inf).max(axis=1).sum())
        if least_quality > most + _SLACK * max(1.0, abs(most)):
            raise Infeasible(
                f"least_quality: {least_quality:.6g} is out of reach; the highest is {most:.6g}"
            )


def _solved(
    value: Floats,
    worth: Floats,
    paid: Floats,
    allowed: Mask,
    budget: float | None,
    least_quality: float | None,
    gap: float,
) -> Choice | None:
    """argmax Σ value·x with one option a query, (n,); None where no x keeps to the limits."""
    n, options = value.shape
    if n == 0:
        return np.zeros(0, np.int64)
    if budget is None and least_quality is None:
        return _first(allowed, -value, paid)
    each = sparse.kron(sparse.eye_array(n), np.ones((1, options)), format="csr")
    limits = [optimize.LinearConstraint(each, 1.0, 1.0)]
    # the solver's tolerances are absolute: in USD a whole answer could pass for rounding
    dollar = float(paid[allowed].max(initial=0.0)) or 1.0
    unit = float(np.abs(worth).max()) or 1.0
    if budget is not None:
        limits.append(
            optimize.LinearConstraint(
                sparse.csr_array(paid.reshape(1, -1) / dollar), -np.inf, budget / dollar
            )
        )
    if least_quality is not None:
        limits.append(
            optimize.LinearConstraint(
                sparse.csr_array(worth.reshape(1, -1) / unit), least_quality / unit, np.inf
            )
        )
    scale = float(np.abs(value[allowed]).max(initial=0.0)) or 1.0
    found = optimize.milp(
        -value.ravel() / scale,
        integrality=np.ones(value.size, dtype=np.int64),
        bounds=optimize.Bounds(0.0, allowed.ravel().astype(np.float64)),
        constraints=limits,
        options={"mip_rel_gap": gap},
    )
    if found.status == 2:
        return None
    if found.x is None:
        raise RuntimeError(f"HiGHS found no assignment: {found.message}")
    choice: Choice = found.x.reshape(n, options).argmax(axis=1)
    return choice


def _first(among: Mask, key: Floats, then: Floats) -> Choice:
    """In each row, the marked one with the smallest `key`, then the smallest `then`; −1 if none."""
    keys = np.where(among, key, np.inf)
    least = among & (keys == keys.min(axis=1, keepdims=True))
    chosen = np.where(least, then, np.inf).argmin(axis=1)
    return np.where(among.any(axis=1), chosen, UNANSWERED).astype(np.int64)


def _at_least(name: str, value: float, low: float) -> None:
    if not (np.isfinite(value) and value >= low):
        raise ValueError(f"{name}: must be a number >= {low:g}, got {value!r}")
