"""The metrics of a router on one split, compared with the pool of single arms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandit_service.lab.curves import (
    aiq,
    apgr,
    auc_linear,
    auc_log,
    calls,
    cpt,
    hull,
    log_wtp_auc,
)
from bandit_service.lab.data import Labelled
from bandit_service.lab.routers import (
    Axis,
    BestSingle,
    Trace,
    Uniform,
    ZeroRouter,
    trace,
)
from bandit_service.lab.targets import mean_cost, mean_quality
from policies import Floats


@dataclass(frozen=True, slots=True)
class OfflineRow:
    """One router on one split. Costs are USD per query; NaN where a number does not exist.

    seen: outcomes or comparisons it was taught. train, test: queries. quality, cost: means at its
    first setting, where cost does not matter. auc_linear, auc_log, aiq, log_wtp_auc: see `curves`.
    match_cost: hull cost at which it is as good as the best single arm, chosen on the training
    part, as a share of that arm's cost. at_best_cost, at_uniform_cost: its hull's quality at the
    cost of the best single arm, and at the cost of uniform choice. apgr, cpt50, cpt80: for two
    arms, the strong one being the better on the training part. auc_low, auc_high: 95 % bootstrap
    interval of AUC linear over test queries. gain: AUC linear less the zero router's, gain_low and
    gain_high its interval, paired. fit_s, route_s: wall seconds of the fit and of choosing at all
    settings. points: the curve.
    """

    router: str
    seed: int
    axis: Axis
    seen: int
    train: int
    test: int
    quality: float
    cost: float
    auc_linear: float
    auc_log: float
    aiq: float
    log_wtp_auc: float
    match_cost: float
    at_best_cost: float
    at_uniform_cost: float
    apgr: float
    cpt50: float
    cpt80: float
    auc_low: float
    auc_high: float
    gain: float
    gain_low: float
    gain_high: float
    fit_s: float
    route_s: float
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One router at one setting on one split: mean cost in USD and mean quality.

    setting: on `axis`; NaN off it. strong: share of queries that went to the strong arm, for two
    arms, NaN else. on_hull: whether it is a knot of the router's hull.
    """

    router: str
    seed: int
    axis: Axis
    setting: float
    cost: float
    quality: float
    strong: float
    on_hull: bool


@dataclass(frozen=True, slots=True)
class Bench:
    """The references of one split, the same for all routers.

    low, high: USD, mean test costs of the cheapest and of the dearest arm. cheapest: that arm.
    best, uniform: (quality, cost) of the best single arm and of uniform choice.
    strong, weak: indices of the better and the other of two arms, with their test qualities.
    weights: (B, n) of the bootstrap, each row with mean 1. floors, zero: (B,) in each resample,
    the cheapest arm's quality and the zero router's AUC.
    """

    seed: int
    train: int
    test: int
    low: float
    high: float
    floor: float
    best: tuple[float, float]
    uniform: tuple[float, float]
    strong: int | None
    two: tuple[float, float]
    weights: Floats
    floors: Floats
    zero: Floats
    zero_auc: float

    @classmethod
    def of(cls, train: Labelled, test: Labelled, seed: int, bootstrap: int) -> Bench:
        """The yardstick of a split, with `bootstrap` resamples of the test queries."""
        cost, quality = mean_cost(test), mean_quality(test)
        cheapest = int(np.argmin(cost))
        low, high, floor = float(cost[cheapest]), float(cost.max()), float(quality[cheapest])
        weights = _resamples(len(test), bootstrap, seed)
        answered = test.answered[:, cheapest]
        mass = weights[:, answered].sum(axis=1)
        # a resample without any answer of the cheapest arm uses its mean
        floors = np.where(
            mass > 0.0,
            weights[:, answered] @ test.quality[answered, cheapest] / np.maximum(mass, 1e-12),
            floor,
        )
        zero = trace(ZeroRouter().fit(train, seed), test)
        strong = int(np.argmax(mean_quality(train))) if len(test.arms) == 2 else None
        return cls(
            seed=seed,
            train=len(train),
            test=len(test),
            low=low,
            high=high,
            floor=floor,
            best=_first(trace(BestSingle().fit(train, seed), test)),
            uniform=_first(trace(Uniform().fit(train, seed), test)),
            strong=strong,
            two=(math.nan, math.nan)
            if strong is None
            else (float(quality[1 - strong]), float(quality[strong])),
            weights=weights,
            floors=floors,
            zero=_resampled(zero, weights, floors, low, high),
            zero_auc=auc_linear(hull(*zero.points, low, floor), low, high),
        )

    def row(
        self, router: str, traced: Trace, seen: int, fit_s: float, route_s: float
    ) -> OfflineRow:
        """Every number of one traced router."""
        cost, quality = traced.points
        curve = hull(cost, quality, self.low, self.floor)
        area = auc_linear(curve, self.low, self.high)
        resampled = _resampled(traced, self.weights, self.floors, self.low, self.high)
        auc_low, auc_high = _interval(resampled)
        gain_low, gain_high = _interval(resampled - self.zero)
        pgr, at50, at80 = self._two_models(traced)
        share = np.full(cost.size, np.nan) if self.strong is None else traced.shares[:, self.strong]
        knots = set(zip(curve.cost.tolist(), curve.quality.tolist(), strict=True))
        best_quality, best_cost = self.best
        return OfflineRow(
            router=router,
            seed=self.seed,
            axis=traced.axis,
            seen=seen,
            train=self.train,
            test=self.test,
            quality=float(quality[0]),
            cost=float(cost[0]),
            auc_linear=area,
            auc_log=auc_log(curve, self.low, self.high),
            aiq=aiq(cost, quality, self.low, self.high),
            log_wtp_auc=math.nan
            if traced.axis == "threshold"
            else log_wtp_auc(traced.settings, quality, budget=traced.axis == "budget"),
            match_cost=curve.cost_of(best_quality) / best_cost if best_cost > 0.0 else math.nan,
            at_best_cost=float(curve.at(best_cost)),
            at_uniform_cost=float(curve.at(self.uniform[1])),
            apgr=pgr,
            cpt50=at50,
            cpt80=at80,
            auc_low=auc_low,
            auc_high=auc_high,
            gain=area - self.zero_auc,
            gain_low=gain_low,
            gain_high=gain_high,
            fit_s=fit_s,
            route_s=route_s,
            points=tuple(
                CurvePoint(
                    router, self.seed, traced.axis, setting, c, q, s, (max(c, self.low), q) in knots
                )
                for setting, c, q, s in zip(
                    traced.settings.tolist(),
                    cost.tolist(),
                    quality.tolist(),
                    share.tolist(),
                    strict=True,
                )
            ),
        )

    def _two_models(self, traced: Trace) -> tuple[float, float, float]:
        if self.strong is None:
            return math.nan, math.nan, math.nan
        weak, strong = self.two
        curve = calls(traced.shares[:, self.strong], traced.points[1], weak, strong)
        if curve is None:
            return math.nan, math.nan, math.nan
        return apgr(curve), cpt(curve, 0.5), cpt(curve, 0.8)


def _first(traced: Trace) -> tuple[float, float]:
    cost, quality = traced.points
    return float(quality[0]), float(cost[0])


def _resamples(n: int, times: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    drawn: NDArray[np.int64] = rng.integers(0, n, (times, n))
    return np.array([np.bincount(row, minlength=n) for row in drawn], np.float64).reshape(times, n)


def _resampled(traced: Trace, weights: Floats, floors: Floats, low: float, high: float) -> Floats:
    """(B,) AUC linear in each resample, the range being that of the whole test part."""
    n = max(weights.shape[1], 1)
    cost, quality = weights @ traced.cost.T / n, weights @ traced.quality.T / n
    return np.array(
        [
            auc_linear(hull(c, q, low, float(floor)), low, high)
            for c, q, floor in zip(cost, quality, floors, strict=True)
        ],
        np.float64,
    )


def _interval(values: Floats) -> tuple[float, float]:
    if not values.size:
        return math.nan, math.nan
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
