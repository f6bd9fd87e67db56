"""Incomplete gamma and beta functions, as logarithms where the tails are tiny; no scipy needed."""

from __future__ import annotations

import math
from collections.abc import Callable

_TINY, _ENOUGH, _MOST = 1e-300, 1e-16, 100_000


def log_lower_gamma(a: float, x: float) -> float:
    """log P(a, x), the regularised lower incomplete gamma function; a > 0, x > 0."""
    if x < a + 1.0:
        return _log_front(a, x) + math.log(_gamma_series(a, x))
    return math.log1p(-math.exp(_log_front(a, x)) * _gamma_fraction(a, x))


def log_upper_gamma(a: float, x: float) -> float:
    """log Q(a, x), the regularised upper incomplete gamma function; a > 0, x >= 0."""
    if x <= 0.0:
        return 0.0
    if x < a + 1.0:
        return math.log1p(-min(1.0 - _ENOUGH, math.exp(_log_front(a, x)) * _gamma_series(a, x)))
    return _log_front(a, x) + math.log(_gamma_fraction(a, x))


def upper_gamma(a: float, x: float) -> float:
    """Q(a, x); the tail of a chi-square of 2a degrees of freedom above 2x.

    >>> round(upper_gamma(0.5, 3.841459 / 2), 6)
    0.05
    """
    return math.exp(log_upper_gamma(a, x))


def log_beta(a: float, b: float, x: float = 1.0) -> float:
    """log of the incomplete beta function B(x; a, b), which is Euler's beta function at x = 1."""
    whole = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    if x >= 1.0:
        return whole
    front = a * math.log(x) + b * math.log1p(-x)
    if x < (a + 1.0) / (a + b + 2.0):
        return front + math.log(_beta_fraction(a, b, x) / a)
    other = math.exp(front - whole) * _beta_fraction(b, a, 1.0 - x) / b
    return whole + math.log1p(-other)


def bisect(
    function: Callable[[float], float], low: float, high: float, within: float = 0.0
) -> float:
    """Where an increasing function is 0 between `low` and `high`, to 40 bits or to `within`."""
    for _ in range(200):
        middle = 0.5 * (low + high)
        if high - low <= max(within, 1e-12 * max(abs(middle), 1e-12)):
            break
        low, high = (middle, high) if function(middle) < 0.0 else (low, middle)
    return 0.5 * (low + high)


def lowest(
    function: Callable[[float], float], low: float, high: float, within: float = 1e-9
) -> float:
    """Where a function with one valley is least between `low` and `high`: golden section."""
    ratio = 0.5 * (math.sqrt(5.0) - 1.0)
    one, two = high - ratio * (high - low), low + ratio * (high - low)
    at_one, at_two = function(one), function(two)
    while high - low > within * max(1.0, abs(low)):
        if at_one < at_two:
            high, two, at_two = two, one, at_one
            one = high - ratio * (high - low)
            at_one = function(one)
        else:
            low, one, at_one = one, two, at_two
            two = low + ratio * (high - low)
            at_two = function(two)
    return 0.5 * (low + high)


def _log_front(a: float, x: float) -> float:
    return -x + a * math.log(x) - math.lgamma(a)


def _gamma_series(a: float, x: float) -> float:
    term = total = 1.0 / a
    n = a
    while abs(term) > abs(total) * _ENOUGH:
        n += 1.0
        term *= x / n
        total += term
    return total


def _gamma_fraction(a: float, x: float) -> float:
    b = x + 1.0 - a
    c, d = 1.0 / _TINY, 1.0 / b
    h = d
    for i in range(1, _MOST):  # Lentz
        an = -i * (i - a)
        b += 2.0
        d = _off_zero(an * d + b)
        c = _off_zero(b + an / c)
        d = 1.0 / d
        h *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return h


def _beta_fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1.0 / _off_zero(1.0 - (a + b) * x / (a + 1.0))
    h = d
    for m in range(1, _MOST):  # Lentz, two terms a turn
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        for term in (even, odd):
            d = 1.0 / _off_zero(1.0 + term * d)
            c = _off_zero(1.0 + term / c)
            h *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return h


def _off_zero(x: float) -> float:
    return x if abs(x) > _TINY else _TINY
