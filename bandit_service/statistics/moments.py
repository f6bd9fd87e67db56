"""Count, mean and variance of values as they come. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bandit_service.statistics import means

ENOUGH = 100
"""The number of values before an interval is shown: with fewer the sequences are too wide to be
useful.
"""
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


def moved(before: Moments, after: Moments) -> bool:
    """Whether the means surely differ: Welch's z above 5, as it is looked at all the time, and by
    a tenth of the mean before."""
    if min(before.n, after.n) < 2:
        return False
    spread = before.m2 / (before.n - 1) / before.n + after.m2 / (after.n - 1) / after.n
    apart = abs(after.mean - before.mean)
    return apart > 0.1 * abs(before.mean) and apart > 5.0 * math.sqrt(max(0.0, spread))
