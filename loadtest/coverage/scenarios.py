"""One run each of what an experiment may meet, looked at again and again. Pure but for the seed.

A run says whether the difference was ever called (`called`, and after how many units, `when`),
whether the interval covered the truth at every look (`covered`), and whether the usual test, looked
at as often, called it (`usual`).
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field

import numpy as np

from bandit_service.core import events as ev
from bandit_service.core.experiments.conclusions import shown_difference
from bandit_service.core.experiments.steering import breaches
from bandit_service.core.experiments.trial import LATENCY_STEP, latency_bucket
from bandit_service.core.experiments.variant_stats import gap_of
from bandit_service.statistics import calibration, quantiles, srm
from loadtest.coverage.played import Played, limit, two

Z95, Z999 = 1.959964, 3.290527
LEAST = 100
"""Units of each variant before anything is said, by either method."""


@dataclass
class Run:
    """What one run came to. path: (units, low, high) along the way, for a plot."""

    called: bool = False
    covered: bool = True
    usual: bool = False
    when: float = math.nan
    path: list[tuple[float, float, float]] = field(default_factory=list)

    def look(self, n: float, low: float, high: float, truth: float, usual: bool) -> None:
        """One look at an interval for a difference."""
        if not low <= 0.0 <= high and not self.called:
            self.called, self.when = True, n
        self.covered &= low <= truth <= high
        self.usual |= usual


def fixed(seed: int, effect: float, units: int, *, path: bool = False) -> Run:
    """One answer of each unit, right or wrong, and an even split; a look after every unit."""
    rng, played, run = np.random.default_rng(seed), Played(two(min_units=LEAST)), Run()
    sides, chance = rng.integers(0, 2, units), rng.random(units)
    for i, side in enumerate(sides.tolist()):
        event = played.decide(str(i), "ab"[side])
        played.value(event, float(chance[i] < 0.7 + effect * side))
        _look(played, run, effect, path)
    return run


def returning(seed: int, effect: float, answers: int) -> Run:
    """Four of five answers are of a unit that came before, and units differ from each other.

    The usual test takes answers for independent.
    """
    rng, played, run = np.random.default_rng(seed), Played(two(min_units=LEAST)), Run()
    known: list[tuple[str, int, float]] = []
    sums = np.zeros((2, 2))
    for i in range(answers):
        if not known or rng.random() < 0.2:
            known.append((str(i), int(rng.integers(0, 2)), float(rng.uniform(0.4, 0.9))))
        unit, side, worth = known[int(rng.integers(0, len(known)))]
        y = float(rng.random() < worth + effect * side)
        played.value(played.decide(unit, "ab"[side]), y)
        sums[side] += 1.0, y
        mean = sums[:, 1] / np.maximum(1.0, sums[:, 0])
        error = math.sqrt(float((mean * (1.0 - mean) / np.maximum(1.0, sums[:, 0])).sum()))
        gap = shown_difference(played.spec, played.trial, played.spec.served[1])
        if gap is not None:
            usual = abs(float(mean[1] - mean[0])) > Z95 * error
            run.look(played.trial.sides["a"].units * 2, gap.low, gap.high, effect, usual)
    return run


def champion(seed: int, effect: float, units: int, drift: float = 0.0, late: int = 0) -> Run:
    """Weights follow what does better, as the service moves them; both sides drift alike.

    late: outcomes come up to so many units later, in another order. The usual test is of the plain
    means.
    """
    spec = two(mode="champion", floor=0.05, min_units=LEAST)
    rng, played, run = np.random.default_rng(seed), Played(spec), Run()
    waiting: list[tuple[int, int, ev.Decided, float]] = []
    for i in range(units):
        side = int(rng.random() >= played.weights[0])
        y = float(rng.random() < 0.6 + drift * i / units + effect * side)
        when = i + int(rng.integers(0, late + 1))
        heapq.heappush(waiting, (when, i, played.decide(str(i), "ab"[side]), y))
        while waiting and waiting[0][0] <= i:
            played.value(*heapq.heappop(waiting)[2:])
        if i % 25 == 24:
            played.steer()
        _look(played, run, effect, path=False)
    return run


def split(seed: int, share: float, units: int, every: int = 100) -> Run:
    """An even split that comes as `share`; the usual test is Pearson's, at 0.001 too."""
    rng, run, p = np.random.default_rng(seed), Run(), 1.0
    took = np.cumsum(rng.random(units) < share)
    for n in range(every, units + 1, every):
        epoch = ([0.5, 0.5], [int(took[n - 1]), n - int(took[n - 1])])
        p = min(p, srm.sequential_p([epoch]))
        if p < srm.ALPHA and not run.called:
            run.called, run.when = True, n
        chi = srm.chi_square_p([epoch])
        run.usual |= chi is not None and chi < srm.ALPHA
    return run


def guardrail(seed: int, mean: float, answers: int, every: int = 5) -> Run:
    """Quality must be 0.7 at least; the usual test is a one-sided t-test."""
    spec = two(guardrails=(limit(0.7),))
    rng, played, run = np.random.default_rng(seed), Played(spec), Run()
    values = rng.beta(4.0 * mean, 4.0 * (1.0 - mean), answers)
    for i, y in enumerate(values.tolist(), 1):
        played.value(played.decide(str(i), "b"), y)
        if i % every:
            continue
        if not run.called and breaches(spec, played.trial):
            run.called, run.when = True, i
        if i >= LEAST:
            seen = values[:i]
            run.usual |= bool(seen.mean() + 1.644854 * seen.std() / math.sqrt(i) < 0.7)
    return run


def quantile(seed: int, answers: int, every: int = 25) -> Run:
    """The 95th centile of log-normal seconds; the usual interval is the binomial one of the ranks.

    `called` is an interval that missed the truth, `usual` the same of the usual one.
    """
    rng, run, truth = np.random.default_rng(seed), Run(), math.exp(1.644854)
    values = np.exp(rng.standard_normal(answers))
    buckets: dict[int, int] = {}
    for i, x in enumerate(values.tolist(), 1):
        bucket = latency_bucket(x)
        buckets[bucket] = buckets.get(bucket, 0) + 1
        if i % every or i < LEAST:
            continue
        told = quantiles.interval(buckets, LATENCY_STEP, 0.95, 0.05)
        missed = told is None or not told[1] <= truth <= told[2]
        run.called, run.covered = run.called or missed, run.covered and not missed
        rank, spread = 0.95 * i, Z95 * math.sqrt(0.95 * 0.05 * i)
        at = np.sort(values[:i])
        low, high = at[max(0, int(rank - spread) - 1)], at[min(i - 1, int(rank + spread))]
        run.usual |= not low <= truth <= high
    return run


def slower(seed: int, factor: float, answers: int, every: int = 50) -> Run:
    """Are the 95th centiles of two variants the same? b takes `factor` times as long."""
    rng, run = np.random.default_rng(seed), Run()
    sides: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for i in range(1, answers + 1):
        for side, by in zip(sides, (1.0, factor), strict=True):
            bucket = latency_bucket(by * math.exp(rng.standard_normal()))
            side[bucket] = side.get(bucket, 0) + 1
        if i % every == 0 and i >= LEAST and not run.called:
            run.called = quantiles.compare(*sides, 0.95) < 0.05
            run.when = 2.0 * i if run.called else math.nan
    return run


def propensities(seed: int, unlogged_floor: float, decisions: int, every: int = 25) -> Run:
    """Four arms; what was drawn had a floor that was not logged. The usual test is a z by arm."""
    rng, told, run = np.random.default_rng(seed), calibration.Calibration(), Run()
    names = ("a", "b", "c", "d")
    for i in range(1, decisions + 1):
        logged = rng.dirichlet((0.6, 0.6, 0.6, 0.6))
        drawn = (1.0 - unlogged_floor) * logged + unlogged_floor / 4.0
        at = min(3, int(np.searchsorted(np.cumsum(drawn), rng.random(), side="right")))
        told.add(zip(names, logged.tolist(), strict=True), names[at])
        if i % every:
            continue
        if not run.called and told.p_value() < calibration.ALPHA:
            run.called, run.when = True, i
        run.usual |= any(abs(s) > Z999 * math.sqrt(v) for s, v in told.sums.values() if v > 0.0)
    return run


def _look(played: Played, run: Run, truth: float, path: bool) -> None:
    """The difference as the product says it, and a z-test of plain means at 5 %."""
    spec, sides = played.spec, played.trial.sides
    if min(sides["a"].units, sides["b"].units) < LEAST:
        return
    gap = shown_difference(spec, played.trial, spec.served[1])
    plain = gap_of(spec, sides["a"], sides["b"], "quality", moved=False)
    if gap is None or plain is None:
        return
    z = plain.mean / math.sqrt(plain.variance / plain.n)
    n = sides["a"].units + sides["b"].units
    run.look(n, gap.low, gap.high, truth, abs(z) > Z95)
    if path:
        run.path.append((n, gap.low, gap.high))
