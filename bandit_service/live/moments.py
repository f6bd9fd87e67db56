"""Count, mean and variance of values as they come. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bandit_service.statistics import means

ENOUGH = 100
"""Values before an interval is shown: the sequences say nothing before about so many."""
ALPHA = 0.05


@dataclass(slots=True)
class Moments:
    """Welford's running mean; m2 is the sum of the squared distances from it."""

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0

    def add(self, value: float) -> None:
        """One more value."""
        self.n += 1
        before = value - self.mean
        self.mean += before / self.n
        self.m2 += before * (value - self.mean)

    def merge(self, other: Moments) -> None:
        """All values of `other` too (Chan's formula)."""
        if not other.n:
            return
        n, apart = self.n + other.n, other.mean - self.mean
        self.m2 += other.m2 + apart * apart * self.n * other.n / n
        self.mean += apart * other.n / n
        self.n = n

    def without(self, latest: Sequence[float]) -> Moments:
        """All values but these, which are among them (Chan's formula backwards)."""
        gone = Moments()
        for value in latest:
            gone.add(value)
        n = self.n - gone.n
        if n < 1:
            return Moments()
        mean = (self.n * self.mean - gone.n * gone.mean) / n
        apart = gone.mean - mean
        m2 = self.m2 - gone.m2 - apart * apart * n * gone.n / self.n
        return Moments(n, mean, max(0.0, m2))

    def said(self) -> dict[str, Any]:
        """n, the mean, and its 95 % confidence sequence; None for what there is not enough of."""
        if not self.n:
            return {"n": 0, "mean": None, "low": None, "high": None}
        low = high = None
        if self.n >= ENOUGH:
            at = means.interval(
                self.mean, math.sqrt(max(0.0, self.m2) / (self.n - 1) / self.n), self.n, ALPHA
            )
            low, high = at.low, at.high
        return {"n": self.n, "mean": self.mean, "low": low, "high": high}


def moved(all_values: Moments, latest: Sequence[float]) -> tuple[float, float] | None:
    """The mean before the latest values, and theirs, where they surely differ; None elsewhere.

    Surely is Welch's z above 5, since it is looked at all the time, and a tenth of the mean before.
    """
    before, after = all_values.without(latest), Moments()
    for value in latest:
        after.add(value)
    if min(before.n, after.n) < 2:
        return None
    spread = before.m2 / (before.n - 1) / before.n + after.m2 / (after.n - 1) / after.n
    apart = abs(after.mean - before.mean)
    if apart <= 0.1 * abs(before.mean) or apart <= 5.0 * math.sqrt(spread):
        return None
    return before.mean, after.mean
