"""How surprising an arm's latest outcomes are to `nested`, summed up (CUSUM, Page 1954)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies._cells import Cells, Told

COIN = 0.2
"""p(1 - p) where p is not known yet."""
LEAST_COIN = 0.03
_SEEN = 10.0
"""Outcomes of an arm, by weight, up to which it raises no alarm."""


@cache
def _earlier(n: int) -> NDArray[np.bool_]:
    """(n, n) whether the column's outcome came before the row's."""
    return np.tri(n, k=-1, dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class Watch:
    """z = (y − m)/√(v + s²),  U ← max(0, U + z − allowance),  D ← max(0, D − z − allowance)

    m, v: of the arm in its group, by its own outcomes alone, which is cheap. An alarm is where U or
    D exceeds `alarm`.
    """

    prior: float
    prior_variance: float
    alarm: float
    allowance: float

    def sees(self, state: Cells, column: int, group: int, quality: float) -> bool:
        """Take in one outcome, before it is counted; whether it raises an alarm."""
        sums = state.sums
        n, s = float(sums.n[column]), float(sums.s[column])
        group_n, group_s = float(sums.group_n[group, column]), float(sums.group_s[group, column])
        z = self._surprise(state, quality, n, s, group_n, group_s, max, math.sqrt)
        up = max(0.0, float(state.up[column]) + z - self.allowance)
        down = max(0.0, float(state.down[column]) - z - self.allowance)
        state.since[column] += 1.0
        state.up[column], state.down[column] = up, down
        return max(up, down) > self.alarm and n > _SEEN

    def sees_many(self, state: Cells, told: Told) -> int:
        """The same of many, each of which is counted before the next one; how many queries.

        Where that is less than all, an outcome of the next query raises an alarm, and nothing was
        taken in.
        """
        sums, at = state.sums, told.columns
        group = told.group[told.query]
        worths = np.array([told.weight, told.worth]).T
        before = (at[:, None] == at) & _earlier(len(at))
        n, s = (np.array([sums.n[at], sums.s[at]]).T + before.astype(np.float64) @ worths).T
        before &= (group[:, None] == group) & told.counted
        known = np.array([sums.group_n[group, at], sums.group_s[group, at]]).T
        group_n, group_s = (known + before.astype(np.float64) @ worths).T
        z = self._surprise(state, told.quality, n, s, group_n, group_s, np.maximum, np.sqrt)
        up, down, since = state.up.tolist(), state.down.tolist(), state.since.tolist()
        each = zip(at.tolist(), z.tolist(), told.weight.tolist(), (n > _SEEN).tolist(), strict=True)
        for i, (column, surprise, weight, known) in enumerate(each):
            if weight == 1.0:
                above = max(0.0, up[column] + surprise - self.allowance)
                below = max(0.0, down[column] - surprise - self.allowance)
                if known and max(above, below) > self.alarm:
                    return int(told.query[i])
                up[column], down[column] = above, below
                since[column] += 1.0
        state.up[:], state.down[:], state.since[:] = up, down, since
        return len(told.row)

    def _surprise(
        self,
        state: Cells,
        quality: Any,
        n: Any,
        s: Any,
        group_n: Any,
        group_s: Any,
        larger: Callable[[Any, float], Any],
        root: Callable[[Any], Any],
    ) -> Any:
        """z of one outcome or of an array of them, the same bits either way."""
        noise, h = state.noise, state.spread[0]
        k = noise * COIN / self.prior_variance
        m = (s + k * self.prior) / (n + k)
        v = noise * COIN / (n + k)
        k = noise * larger(m * (1.0 - m), LEAST_COIN) / h
        share = k / (group_n + k)
        m = (group_s + k * m) / (group_n + k)
        v = h * share + share * share * v + state.spread[1]
        return (quality - m) / root(v + noise * larger(m * (1.0 - m), LEAST_COIN))
