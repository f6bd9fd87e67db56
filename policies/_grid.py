"""Numbers on a grid, so that their sums are exact: the same bits in whatever order they are added.

A feature is a whole multiple of 2⁻¹⁴, a target of 2⁻¹⁶, a weight of 2⁻⁴. A product of these is then
a whole multiple of 2⁻³² or 2⁻³⁴, and float64 adds and multiplies such numbers without rounding
while they are below 2⁵³ steps. So a batch may be one product of matrices, with any BLAS.

A sum that grows beyond its span is written in two parts, whole multiples of the span and the rest,
so that it stays exact for ever; which parts those are follows from the sum alone.
"""

from __future__ import annotations

import math

import numpy as np

from policies._types import Floats

FEATURE, TARGET, WEIGHT = 2.0**14, 2.0**16, 2.0**4
LONGEST = 64.0
"""The largest norm of features: it keeps every product, and every sum of 64 of them, exact."""
LARGEST = 1024.0
"""The largest size of a target, from which on it is cut."""


def rounded(value: float, steps: float) -> float:
    """The nearest multiple of 1/steps, a power of two.

    >>> rounded(0.3, 16)
    0.3125
    """
    return round(value * steps) / steps


def weight_of(share: float) -> float:
    """A share of an outcome in sixteenths, 0 where it is below half of one."""
    return rounded(share, WEIGHT)


def target_of(value: float) -> float:
    """A target on the grid, cut to ±LARGEST."""
    return rounded(min(LARGEST, max(-LARGEST, value)), TARGET)


def gridded(features: Floats) -> Floats:
    """Features on the grid. ValueError where one is no finite number, or where all are too large.

    >>> gridded(np.array([0.3])).tolist()
    [0.29998779296875]
    """
    square = float(features @ features)
    if not square <= LONGEST * LONGEST:
        if not np.isfinite(features).all():
            raise ValueError("embedding: must be finite numbers")
        length = math.sqrt(square)
        raise ValueError(f"embedding: must have a norm of at most {LONGEST:g}, got {length:g}")
    steps: Floats = np.rint(features * FEATURE)
    steps *= 1.0 / FEATURE
    return steps


def faded(sums: Floats, keep: float, steps: float) -> Floats:
    """keep·sums on the grid of 1/steps, by one rounding; never −0, which is other bits than 0."""
    kept: Floats = np.rint(sums * keep * steps)
    kept *= 1.0 / steps
    kept += 0.0
    return kept


def carry(low: Floats, high: Floats, span: float) -> None:
    """Move whole spans of `low` into `high`, so that low is in (−span/2, span/2].

    >>> low, high = np.array([5.0, -3.0, -2.0]), np.zeros(3)
    >>> carry(low, high, 4.0)
    >>> low.tolist(), high.tolist()
    ([1.0, 1.0, 2.0], [4.0, -4.0, -4.0])
    """
    whole = np.rint(low / span)
    low -= whole * span
    tie = low == -0.5 * span
    low[tie] += span
    whole[tie] -= 1.0
    high += whole * span


def faded_parts(
    low: Floats, high: Floats, keep: float, steps: float, span: float
) -> tuple[Floats, Floats]:
    """`faded` of a sum in two parts: the new low and high, of the sum low + high."""
    rest, whole = faded(high, keep, steps), np.zeros_like(high)
    carry(rest, whole, span)
    rest += faded(low, keep, steps)
    carry(rest, whole, span)
    return rest, whole
