"""Many observations of a histogram at once: each bucket and the sum are written once.

prometheus_client takes one value at a time, and each takes two locks and a search through the
buckets. So this writes the fields that its `observe` writes; a test holds them to be the same.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from prometheus_client import Histogram, Summary
from prometheus_client.samples import Exemplar

from bandit_service import clock


def observe_times(histogram: Histogram, told: Sequence[tuple[float, int]]) -> None:
    """`observe` each value as many times as it is told."""
    of: Any = histogram
    counts: dict[int, int] = {}
    for value, times in told:
        at = bisect_left(of._upper_bounds, value)
        counts[at] = counts.get(at, 0) + times
    of._sum.inc(sum(value * times for value, times in told))
    for at, count in counts.items():
        of._buckets[at].inc(count)


def sum_many(summary: Summary, values: Sequence[float]) -> None:
    """`observe` each."""
    of: Any = summary
    of._count.inc(len(values))
    of._sum.inc(sum(values))


def observe_many(
    histogram: Histogram, values: Sequence[float], decisions: Sequence[str] = ()
) -> None:
    """`observe` each. decisions: their ids; of each bucket the slowest becomes the exemplar."""
    of: Any = histogram
    bounds: Sequence[float] = of._upper_bounds
    counts: dict[int, int] = {}
    slowest: dict[int, int] = {}
    for i, value in enumerate(values):
        at = bisect_left(bounds, value)
        counts[at] = counts.get(at, 0) + 1
        if decisions and value >= values[slowest.setdefault(at, i)]:
            slowest[at] = i
    of._sum.inc(sum(values))
    for at, count in counts.items():
        of._buckets[at].inc(count)
    for at, i in slowest.items():
        named = {"decision_id": decisions[i]}
        of._buckets[at].set_exemplar(Exemplar(named, values[i], clock.now()))
