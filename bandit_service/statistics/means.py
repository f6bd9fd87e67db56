"""Asymptotic confidence sequences: intervals for means that may be looked at after every unit.

For an estimate with standard error s from N units (Waudby-Smith et al., arXiv 2103.06476, eq. 9),

    estimate ± s · sqrt(2 (Nρ² + 1) / (Nρ²) · log(sqrt(Nρ² + 1) / α)),

which covers the truth at all N at once with probability 1 − α as far as the central limit theorem
holds: it says nothing before about 100 units of each side. ρ is chosen so that it is narrowest at
N = n_star (eq. 161).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

N_STAR = 5_000


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate, its standard error and where the truth is; p: against no difference."""

    estimate: float
    stderr: float
    low: float
    high: float
    p: float

    def excludes(self, value: float = 0.0) -> bool:
        """Whether the truth is not `value`, as far as this can tell."""
        return not self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Sample:
    """What is known of one side: units, their mean, and the variance of one unit."""

    n: int
    mean: float
    variance: float


@cache
def rho(alpha: float, n_star: int = N_STAR) -> float:
    """sqrt((−2 log α + log(1 − 2 log α)) / n*)."""
    l = -2.0 * math.log(alpha)  # noqa: E741
    return math.sqrt((l + math.log(l + 1.0)) / n_star)


def halfwidth(stderr: float, n: int, alpha: float, n_star: int = N_STAR) -> float:
    """The two-sided margin around an estimate from n units in all."""
    t = n * rho(alpha, n_star) ** 2
    return stderr * math.sqrt(2.0 * (t + 1.0) / t * math.log(math.sqrt(t + 1.0) / alpha))


def interval(
    estimate: float, stderr: float, n: int, alpha: float, n_star: int = N_STAR
) -> Interval:
    """The sequence's interval at n units. p is 1 over its e-value against 0, at most 1."""
    margin = halfwidth(stderr, n, alpha, n_star)
    t = n * rho(alpha, n_star) ** 2
    if stderr > 0.0:
        z = estimate / stderr
        exponent = z * z * t / (2.0 * (t + 1.0))
        p = min(1.0, math.sqrt(t + 1.0) * math.exp(-min(exponent, 700.0)))
    else:
        p = 1.0 if estimate == 0.0 else 0.0
    return Interval(estimate, stderr, estimate - margin, estimate + margin, p)


def mean(a: Sample, alpha: float, n_star: int = N_STAR) -> Interval:
    """The mean of one side."""
    return interval(a.mean, math.sqrt(a.variance / a.n), a.n, alpha, n_star)


def difference(a: Sample, b: Sample, alpha: float, n_star: int = N_STAR) -> Interval:
    """b − a, in the metric's unit."""
    stderr = math.sqrt(a.variance / a.n + b.variance / b.n)
    return interval(b.mean - a.mean, stderr, a.n + b.n, alpha, n_star)


def relative(a: Sample, b: Sample, alpha: float, n_star: int = N_STAR) -> Interval:
    """(b − a) / a, by the delta method. ValueError where a's mean is 0.

    The mean is divided by before anything is squared: no power of a tiny one becomes 0.
    """
    if a.mean == 0.0:
        raise ValueError("a.mean: is 0, so nothing is relative to it")
    times = b.mean / a.mean
    stderr = math.sqrt(b.variance / b.n + a.variance / a.n * times * times) / abs(a.mean)
    return interval((b.mean - a.mean) / abs(a.mean), stderr, a.n + b.n, alpha, n_star)
