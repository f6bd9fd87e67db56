"""A confidence sequence for a quantile, from a histogram.

How many of t numbers are at most the p-quantile is a sum of coins of chance p, whose distance from
tp stays below the two-sided normal mixture with v = t/4 (Hoeffding's variance) at all t at once.
So the quantile lies between the numbers of these ranks (Howard & Ramdas, arXiv 1906.09712, with a
wider boundary than theirs).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from bandit_service.statistics.boundaries import best_rho, normal_bound

T_OPT = 1_000


def interval(
    buckets: Mapping[int, int], step: float, p: float, alpha: float
) -> tuple[float, float, float] | None:
    """(quantile, low, high) of a histogram whose bucket i counts [step^i, step^(i+1)).

    None before the first number; low is 0 and high infinite while too little is known.
    """
    t = sum(buckets.values())
    if not t:
        return None
    margin = normal_bound(t / 4.0, best_rho(T_OPT / 4.0, alpha), alpha) / t
    at = _value(buckets, step, p, t, 0.5)
    low = _value(buckets, step, p - margin, t, 0.0) if p - margin > 0.0 else 0.0
    high = _value(buckets, step, p + margin, t, 1.0) if p + margin < 1.0 else math.inf
    return at, low, high


def _value(buckets: Mapping[int, int], step: float, p: float, t: int, within: float) -> float:
    seen = 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= p * t:
            return float(step ** (bucket + within))
    return float(step ** (max(buckets) + 1))
