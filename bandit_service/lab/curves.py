"""Cost-quality curves and their metrics. Pure numpy: points in, numbers out.

A router at one setting of its trade-off is one point: mean cost in USD and mean quality over the
test queries. The pool of single models gives the range [low, high] of the cost axis, the mean
costs of its cheapest and of its dearest model, which is the same for every router compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policies import Floats

GRID = 20_001
SHARES = (np.arange(10) + 0.5) / 10
# RouterBench's grid of willingness to pay as far as Eagle's axis goes (ALGORITHMS 1.3, 1.4).
WILLINGNESS: Floats = np.array(
    [
        *(10.0**power for power in range(-10, -2)),
        *(0.005, 0.01, 0.1, 0.5, 1.0, 1.5, 2.0, 10.0, 50.0, 100.0, 500.0),
        *(1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5),
    ]
)
_EXACT = 1e-12


@dataclass(frozen=True, slots=True)
class Hull:
    """The knots of Q(c), strictly rising in both coordinates; flat right of the last one.

    cost: (h,) USD. quality: (h,).
    """

    cost: Floats
    quality: Floats

    def at(self, cost: Floats | float) -> Floats:
        """Q at these costs; left of the first knot, its quality."""
        return np.asarray(np.interp(cost, self.cost, self.quality), np.float64)

    def cost_of(self, quality: float) -> float:
        """The least cost at which Q reaches `quality`; NaN where it never does."""
        if quality > self.quality[-1] + _EXACT:
            return float("nan")
        return float(np.interp(quality, self.quality, self.cost))


def hull(cost: Floats, quality: Floats, low: float, floor: float) -> Hull:
    """The nondecreasing upper concave hull of points (cost, quality), each (p,).

    The point (low, floor), the cheapest model's cost and quality, is added; points cheaper than
    `low` are moved to it. Points whose quality is not above every cheaper one's are dropped, and
    of the rest the upper concave hull is kept: mixing two settings at random reaches every point
    of a chord, at the mixture of their costs. NaN points are refused by ValueError.
    """
    _check(cost, quality)
    return _concave(np.append(np.maximum(cost, low), low), np.append(quality, floor))


def _check(cost: Floats, quality: Floats) -> None:
    if cost.shape != quality.shape or cost.ndim != 1:
        shapes = f"{cost.shape} and {quality.shape}"
        raise ValueError(f"points: must be two arrays of one length, got {shapes}")
    if not (np.isfinite(cost).all() and np.isfinite(quality).all()):
        raise ValueError("points: must be finite")


def _concave(cost: Floats, quality: Floats) -> Hull:
    order = np.lexsort((-quality, cost))
    kept: list[tuple[float, float]] = []
    for c, q in zip(cost[order].tolist(), quality[order].tolist(), strict=True):
        if kept and q <= kept[-1][1]:
            continue  # no better than a cheaper one: the kept ones rise, the last is the best
        while len(kept) > 1 and _below(kept[-2], kept[-1], (c, q)):
            kept.pop()
        kept.append((c, q))
    knots = np.array(kept)
    return Hull(knots[:, 0], knots[:, 1])


def _below(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Whether b lies on the chord from a to c or below it."""
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])


# --- areas --------------------------------------------------------------------------------


def auc_linear(curve: Hull, low: float, high: float) -> float:
    """1/(high − low) · ∫ Q(c) dc over [low, high], by the trapezoid on 20,001 even points.

    Where all models cost the same there is no range, and Q(low) is the answer.
    """
    if high <= low:
        return float(curve.at(low))
    return float(_mean(curve.at(np.linspace(low, high, GRID))))


def auc_log(curve: Hull, low: float, high: float) -> float:
    """The mean of Q over [low, high] evenly in log cost; NaN where `low` is not positive."""
    if high <= low:
        return float(curve.at(low))
    if low <= 0.0:
        return float("nan")
    return float(_mean(curve.at(np.geomspace(low, high, GRID))))


def aiq(cost: Floats, quality: Floats, low: float, high: float) -> float:
    """RouterBench's average improvement in quality (arXiv 2403.12031, section 3).

    1/(high − low) · ∫ R(c) dc over [low, high], R the non-decreasing convex hull of the router's
    own points (p,) and of the null router, which answers nothing for nothing: (0, 0). So a
    router whose cheapest point costs more than `low` is given the chord from the origin there,
    and its points cheaper than `low` stay where they are, where `auc_linear` gives every router
    the cheapest model's quality at `low` and moves cheaper points there. The released code adds
    no null router, begins at the router's own cheapest point, and divides by the largest cost.
    """
    _check(cost, quality)
    curve = _concave(np.append(cost, 0.0), np.append(quality, 0.0))
    return auc_linear(curve, low, high)


def _mean(values: Floats) -> float:
    return float((values.sum() - 0.5 * (values[0] + values[-1])) / (values.size - 1))


def log_wtp_auc(prices: Floats, quality: Floats, *, budget: bool = False) -> float:
    """Eagle's AUC as reconstructed: ∫ mean quality d log10(WTP), WTP from 1e-10 to 1e5 USD.

    The trapezoid over RouterBench's grid of willingness to pay, so that it lies in [0, 15]; most
    of the 15 decades are plateau. The paper states neither the transform nor the range
    (arXiv 2409.15518v2; the range is read from its figures).

    prices:  (p,) settings λ = 1/WTP; at 0 cost does not matter. Between two settings quality is
             interpolated in log10 λ, beyond them it is constant, and above the largest WTP of a
             positive λ it is that of λ = 0 if there is one. NaN settings are off the axis and
             are left out.
    budget:  `prices` are budgets in USD in place of λ; at a WTP the largest budget within it
             holds, or the smallest of all. It is how a rule that only masks is put on this axis.
    """
    on_axis = ~np.isnan(prices)
    prices, quality = prices[on_axis], quality[on_axis]
    if not prices.size:
        return float("nan")
    order = np.argsort(prices, kind="stable")
    prices, quality = prices[order], quality[order]
    if budget:
        row = np.searchsorted(prices, WILLINGNESS * (1.0 + _EXACT), side="right") - 1
        values = quality[np.maximum(row, 0)]
    else:
        values = _at_prices(prices, quality, 1.0 / WILLINGNESS)
    return float(np.trapezoid(values, np.log10(WILLINGNESS)))


def _at_prices(prices: Floats, quality: Floats, wanted: Floats) -> Floats:
    positive = prices > 0.0
    free = quality[~positive]
    if not positive.any():
        return np.full(wanted.size, free[0])
    values = np.interp(np.log10(wanted), np.log10(prices[positive]), quality[positive])
    plateau = wanted < prices[positive][0] * (1.0 - _EXACT)
    if free.size and plateau.any():
        values[plateau] = free[0]
    return np.asarray(values, np.float64)


# --- two models ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Calls:
    """PGR against the share of strong calls, piecewise linear from (0, 0) to (1, 1).

    share: (m,) in [0, 1], strictly rising. pgr: (m,).
    """

    share: Floats
    pgr: Floats


def calls(share: Floats, quality: Floats, weak: float, strong: float) -> Calls | None:
    """PGR(c) = (r(c) − r(weak)) / (r(strong) − r(weak)); None where the strong is no better.

    share: (p,) of queries that went to the strong model at each setting, quality: (p,) then.
    Settings of one share count as their mean. RouteLLM, arXiv 2406.18665v4, section 2.2.
    """
    if not strong > weak:
        return None
    _check(share, quality)
    inner = (share > 0.0) & (share < 1.0)
    at, which = np.unique(share[inner], return_inverse=True)
    mean = np.array([quality[inner][which == i].mean() for i in range(at.size)])
    pgr = (mean - weak) / (strong - weak)
    return Calls(np.concatenate([[0.0], at, [1.0]]), np.concatenate([[0.0], pgr, [1.0]]))


def apgr(curve: Calls) -> float:
    """The mean of PGR at ten evenly spaced shares, 5 %, 15 %, …, 95 %; 0.5 for chance."""
    return float(np.interp(SHARES, curve.share, curve.pgr).mean())


def cpt(curve: Calls, target: float) -> float:
    """CPT(x): the least share of strong calls with PGR ≥ x. Always reached, at 1 for x ≤ 1."""
    if target > 1.0:
        raise ValueError(f"target: must be a share of the gap <= 1, got {target!r}")
    if target <= 0.0:
        return 0.0
    reached = int(np.argmax(curve.pgr >= target))  # pgr[0] = 0 is not, pgr[-1] = 1 is
    before, after = curve.pgr[reached - 1], curve.pgr[reached]
    left, right = curve.share[reached - 1], curve.share[reached]
    return float(left + (target - before) / (after - before) * (right - left))
