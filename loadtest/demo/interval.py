"""A mean over seeds with its 95 % t-interval; no scipy, which the demo does not need otherwise."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bandit_service.statistics.special import bisect, log_beta

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the ends of its interval, which are NaN for one seed."""

    mean: float
    low: float
    high: float
    seeds: int


def interval(values: Iterable[float]) -> Interval:
    """Mean ± t·s/√n.

    >>> found = interval([1.0, 2.0, 3.0])
    >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3)
    (2.0, -0.484, 4.484)
    """
    found = np.array(list(values), np.float64)
    n = found.size
    half = t_quantile(n - 1) * float(found.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    mean = float(found.mean())
    return Interval(mean, mean - half, mean + half, n)


def t_quantile(freedom: int, level: float = LEVEL) -> float:
    """t so that |T| <= t has this probability, T of Student's distribution.

    >>> round(t_quantile(2), 4), round(t_quantile(9), 4), round(t_quantile(1000), 3)
    (4.3027, 2.2622, 1.962)
    """

    def short(t: float) -> float:
        x = freedom / (freedom + t * t)
        outside = math.exp(log_beta(freedom / 2, 0.5, x) - log_beta(freedom / 2, 0.5))
        return (1.0 - outside) - level

    return bisect(short, 1e-9, 1e3)
