"""Isotonic regression: the nearest non-decreasing curve, by pooling adjacent violators."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence


def isotonic(weights: Sequence[float], means: Sequence[float]) -> list[float]:
    """(n,) the non-decreasing values with the least Σ weight · (mean − value)². O(n).

    weights: (n,) above 0; means: (n,), both in the order of their abscissas.
    Source: Ayer, Brunk, Ewing, Reid, Silverman (1955), Ann. Math. Statist. 26(4).

    >>> isotonic([1.0, 1.0, 2.0], [0.25, 1.0, 0.625])
    [0.25, 0.75, 0.75]
    """
    blocks: list[list[float]] = []  # sum of weights, weighted sum, number of points
    for weight, mean in zip(weights, means, strict=True):
        blocks.append([weight, weight * mean, 1])
        while len(blocks) > 1 and _mean(blocks[-2]) >= _mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] = [mine + more for mine, more in zip(blocks[-1], last, strict=True)]
    return [_mean(block) for block in blocks for _ in range(int(block[2]))]


def interpolated(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """The value at x on the line through the points; beyond the ends that of the nearest one.

    >>> interpolated([0.0, 0.5], [0.2, 0.4], 0.25), interpolated([0.0, 0.5], [0.2, 0.4], 0.9)
    (0.30000000000000004, 0.4)
    """
    at = bisect_right(xs, x)
    if at == 0:
        return ys[0]
    if at == len(xs):
        return ys[-1]
    share = (x - xs[at - 1]) / (xs[at] - xs[at - 1])
    return ys[at - 1] + share * (ys[at] - ys[at - 1])


def _mean(block: Sequence[float]) -> float:
    return block[1] / block[0]
