"""A confidence sequence for a quantile and a comparison of two, from histograms.

How many of t numbers are at most the p-quantile is a sum of coins of chance p, which stays within
the beta-binomial boundary (`binomial`) at all t at once; so the quantile lies between the numbers
of these ranks (Howard & Ramdas, arXiv 1906.09712, section 3). The numbers must be independent of
each other given what they are of: where one unit gives many, the interval is too narrow.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from itertools import accumulate

from bandit_service.statistics import binomial
from bandit_service.statistics.special import bisect, lowest

_WITHIN = 0.01  # of a rank


def interval(
    buckets: Mapping[int, int], step: float, p: float, alpha: float
) -> tuple[float, float, float] | None:
    """(quantile, low, high) of a histogram whose bucket i counts [step^i, step^(i+1)).

    None before the first number; low is 0 and high infinite while too little is known.
    """
    t = sum(buckets.values())
    if not t:
        return None
    goal = math.log(1.0 / alpha)
    least = most = None
    if binomial.of_count(0.0, t, p) > goal:
        least = bisect(lambda count: goal - binomial.of_count(count, t, p), 0.0, t * p, _WITHIN)
    if binomial.of_count(float(t), t, p) > goal:
        most = bisect(lambda count: binomial.of_count(count, t, p) - goal, t * p, float(t), _WITHIN)
    at = _value(buckets, step, t * p, 0.5)
    low = 0.0 if least is None else _value(buckets, step, least, 0.0)
    high = math.inf if most is None else _value(buckets, step, most, 1.0)
    return at, low, high


def compare(
    a: Mapping[int, int], b: Mapping[int, int], p: float, t_opt: float = binomial.T_OPT
) -> float:
    """p-value at any time of two histograms of the same buckets having the same p-quantile.

    1 over the product of both mixtures at the value where it is least (arXiv 1906.09712, section
    6). 1 where one is empty.
    """
    if not a or not b:
        return 1.0
    one, two = _Ranks(a, p, t_opt), _Ranks(b, p, t_opt)
    low, high = sorted((one.best, two.best))  # both grow outside of these, so nothing is less there
    least = min(one.beyond(at) + two.beyond(at) for at in {*a, *b} if low <= at <= high)
    return math.exp(-max(0.0, least))


class _Ranks:
    """How far a value is from being the quantile, by one histogram."""

    def __init__(self, buckets: Mapping[int, int], p: float, t_opt: float) -> None:
        self._buckets = sorted(buckets)
        self._below = [0, *accumulate(buckets[each] for each in self._buckets)]
        self._t, self._p, self._t_opt = self._below[-1], p, t_opt
        self._best = lowest(self._mixture, 0.0, float(self._t), 1e-5)
        self.best = self._buckets[max(0, bisect_left(self._below, self._best) - 1)]

    def beyond(self, at: int) -> float:
        """The least log mixture of the counts below the quantile that `at` allows."""
        low = self._below[bisect_left(self._buckets, at)]
        high = self._below[bisect_right(self._buckets, at)]
        return self._mixture(min(max(self._best, low), high))

    def _mixture(self, count: float) -> float:
        return binomial.of_count(count, self._t, self._p, self._t_opt)


def _value(buckets: Mapping[int, int], step: float, rank: float, within: float) -> float:
    seen = 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= rank:
            return float(step ** (bucket + within))
    return float(step ** (max(buckets) + 1))
