"""Detectors of change in a stream of numbers: ADWIN and Page-Hinkley.

Both give the alarms of river's (0.26.1), value for value, which a test compares. river itself
brings scipy, and both are nearly as large as all else that a service needs.
"""

from __future__ import annotations

import math
from typing import Literal

_CLOCK, _ROW, _SHORTEST, _GRACE = 32, 5, 5, 10


class ADWIN:
    """Bifet & Gavaldà, "Learning from Time-Changing Data with Adaptive Windowing", SDM 2007.

    An alarm when two parts of the window, old and new, have means that differ by more than

        ε = √(2 σ² l m) + ⅔ l m,   l = ln(2 ln n / δ),   m = 1/(n₀ − 4) + 1/(n₁ − 4)

    with n, n₀, n₁ the lengths of the window and of its parts, each at least 5, and σ² its variance.
    The window is kept as sums of 1, 2, 4, … values, at most five of a size, and cut between these
    at every 32nd value: O(log n) of memory, O(1) for a value on average. After an alarm it begins
    anew, with the next value.

    delta: δ in (0, 1), the smaller the fewer false alarms.
    """

    def __init__(self, delta: float) -> None:
        self.delta = delta
        self.drift_detected = False
        self._begin()

    def _begin(self) -> None:
        self._n, self._total, self._squares = 0, 0.0, 0.0
        self._rows: list[list[float]] = [[]]  # row i: sums of 2^i values, oldest first

    def update(self, x: float) -> None:
        """One more value; `drift_detected` says whether it gave the alarm."""
        if self.drift_detected:
            self._begin()
        n, newest = self._n, self._rows[0]
        if n:
            apart = x - self._total / n
            self._squares += n * apart * apart / (n + 1)
        self._n = n = n + 1
        self._total += x
        newest.append(x)
        if len(newest) > _ROW:
            self._merge()
        self.drift_detected = n % _CLOCK == 0 and n > _GRACE and self._cut()

    def _merge(self) -> None:
        """Of six sums in a row the two oldest become one of the next row."""
        for i, row in enumerate(self._rows):
            if len(row) <= _ROW:
                return
            if i + 1 == len(self._rows):
                self._rows.append([])
            self._rows[i + 1].append(row[0] + row[1])
            del row[:2]

    def _cut(self) -> bool:
        """Whether the means of the two parts differ at any place between two sums."""
        log = math.log(2 * math.log(self._n) / self.delta)
        variance = self._squares / self._n
        least = (1.0 - 1e-9) * _bound(4.0 / (self._n - 2 * _SHORTEST + 2), variance, log)
        n0, n1, u0, u1 = 0, self._n, 0.0, self._total
        for i in range(len(self._rows) - 1, -1, -1):
            size = 2**i
            for total in self._rows[i]:
                n0, n1, u0, u1 = n0 + size, n1 - size, u0 + total, u1 - total
                if n0 < _SHORTEST or n1 < _SHORTEST:
                    continue
                apart = abs(u0 / n0 - u1 / n1)
                if apart <= least:
                    continue
                m = 1.0 / (n0 - _SHORTEST + 1) + 1.0 / (n1 - _SHORTEST + 1)
                if apart > _bound(m, variance, log):
                    return True
        return False


def _bound(m: float, variance: float, log: float) -> float:
    """ε of two parts; the least one is that of two halves, where m is least."""
    return math.sqrt(2 * m * variance * log) + 2 / 3 * log * m


class PageHinkley:
    """Page, "Continuous Inspection Schemes", Biometrika 1954; Gama et al. 2014, section 3.2.

    m_t = α m_{t−1} + (x_t − x̄_t) ∓ δ, and an alarm when it is more than `threshold` above its least
    (a rise), or below its greatest (a fall), value so far, from the 30th value on. After an alarm
    it begins anew, with the next value. O(1).

    threshold, delta: in units of the values. mode: the change that is looked for.
    """

    _LEAST, _ALPHA = 30, 1 - 0.0001

    def __init__(self, threshold: float, delta: float, mode: Literal["up", "down"]) -> None:
        self.threshold, self.delta, self.mode = threshold, delta, mode
        self.drift_detected = False
        self._begin()

    def _begin(self) -> None:
        self._n, self._mean, self._sum = 0, 0.0, 0.0
        # the greatest begins at −1, as river's does
        self._extreme = math.inf if self.mode == "up" else -1.0

    def update(self, x: float) -> None:
        """One more value; `drift_detected` says whether it gave the alarm."""
        if self.drift_detected:
            self._begin()
        self._n += 1
        self._mean += (1.0 / self._n) * (x - self._mean)
        apart = x - self._mean
        if self.mode == "up":
            self._sum = self._ALPHA * self._sum + apart - self.delta
            self._extreme = min(self._extreme, self._sum)
            gone = self._sum - self._extreme
        else:
            self._sum = self._ALPHA * self._sum + apart + self.delta
            self._extreme = max(self._extreme, self._sum)
            gone = self._extreme - self._sum
        self.drift_detected = self._n >= self._LEAST and gone > self.threshold
