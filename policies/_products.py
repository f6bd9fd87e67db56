"""Sums of outer products, one pair of them for each arm: A = Σ w·x xᵀ and b = Σ w·y·x.

Of numbers on a grid (`_grid`), so that they are the same bits on every machine, in whatever order
and in what batches outcomes came. Outcomes wait until there are some dozens of an arm, or until A
is asked for, and are added by one product of matrices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np

from policies._checks import finite, within
from policies._grid import (
    FEATURE,
    TARGET,
    WEIGHT,
    carry,
    faded,
    faded_parts,
    gridded,
    rounded,
    target_of,
)
from policies._types import ArmId, Floats

_STEPS_A, _STEPS_B, _STEPS_N = FEATURE * FEATURE * WEIGHT, FEATURE * TARGET * WEIGHT, 2.0**16
_SPAN_A, _SPAN_B = 2.0**20, 2.0**18
"""What a sum may reach before whole spans of it are put aside: half of what float64 holds."""
_WAITING = 64
S = TypeVar("S", bound="Products")


def none(*shape: int) -> Floats:
    """Zeros."""
    return np.zeros(shape)


class Observed(NamedTuple):
    """Features (d,) and a target on the grid, and what of an outcome it counts as, in (0, 1]."""

    x: Floats
    y: float
    weight: float


@dataclass(frozen=True)
class High:
    """The whole spans of one arm's sums: A (d, d), b (d,)."""

    A: Floats
    b: Floats


@dataclass
class Products:
    """K arms seen so far, d features.

    rows: arm → its row, sorted. A: (K, d, d), without what is in `waiting` and `high`. b: (K, d).
    n: (K,) observations, by weight. waiting: what is not in A yet. high: of arms whose sums grew
    beyond the span. What is kept of it (`folded`) is of one form, whatever came in what order.
    """

    rows: dict[ArmId, int] = field(default_factory=dict)
    A: Floats = field(default_factory=lambda: none(0, 0, 0))
    b: Floats = field(default_factory=lambda: none(0, 0))
    n: Floats = field(default_factory=lambda: none(0))
    waiting: dict[ArmId, list[Observed]] = field(default_factory=dict)
    high: dict[ArmId, High] = field(default_factory=dict)
    _reach: dict[ArmId, float] = field(default_factory=dict)

    # --- how it is kept ---

    def folded(self) -> dict[str, Any]:
        """The sums, in one form: nothing waits, and spans are put aside wherever there are any."""
        for arm in self.rows:
            self._carry(arm)
        kept: dict[str, Any] = {"rows": self.rows, "A": self.A, "b": self.b, "n": self.n}
        if self.high:
            arms = sorted(self.high)
            kept["high"] = arms
            kept["high_A"] = np.array([self.high[arm].A for arm in arms])
            kept["high_b"] = np.array([self.high[arm].b for arm in arms])
        return kept

    @classmethod
    def unfolded(cls: type[S], kept: dict[str, Any]) -> S:
        """The stack of what `folded` returned, also before sums were on a grid.

        Raises ValueError.
        """
        try:
            order = sorted(kept["rows"])
            k = len(order)
            at = np.array([kept["rows"][arm] for arm in order], np.int64)
            A, b, n = (np.asarray(kept[name], np.float64)[at] for name in ("A", "b", "n"))
            high = {
                arm: High(kept["high_A"][i], kept["high_b"][i])
                for i, arm in enumerate(kept.get("high", ()))
            }
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"not the sums of regressions: {error}") from None
        if (A.shape, b.shape, n.shape) != ((k, *A.shape[2:] * 2), (k, *A.shape[2:]), (k,)):
            raise ValueError("not the sums of regressions: shapes do not fit")
        A, b, n = faded(A, 1.0, _STEPS_A), faded(b, 1.0, _STEPS_B), faded(n, 1.0, _STEPS_N)
        return cls({arm: i for i, arm in enumerate(order)}, A, b, n, high=high)

    # --- what is added ---

    def observed(self, x: Floats, y: float, weight: float = 1.0) -> Observed:
        """An observation on the grid. Raises ValueError if this stack cannot take it."""
        y = target_of(finite("reward", y))
        x = gridded(x)
        if self.rows and x.size != self.A.shape[1]:
            raise ValueError(f"embedding: must have {self.A.shape[1]} features, got {x.size}")
        return Observed(x, y, weight)

    def add(self, arm: ArmId, one: Observed) -> int:
        """A ← A + w·x xᵀ, b ← b + w·y·x for one arm, and its row. O(d), every 64th O(64·d²)."""
        row = self.rows.get(arm)
        if row is None:
            row = self._append(arm, one.x.size)
        norm = float(one.x @ one.x)
        most = max(norm / _SPAN_A, abs(one.y) * math.sqrt(norm) / _SPAN_B)
        self._reach[arm] = self._reached(arm) + one.weight * most
        self.b[row] += (one.weight * one.y) * one.x
        self.n[row] += one.weight
        waiting = self.waiting.setdefault(arm, [])
        waiting.append(one)
        if len(waiting) >= _WAITING:
            self._settle(arm)
        if self._reach[arm] > 1.0:
            self._carry(arm)
        return row

    def revise(self, arm: ArmId, x: Floats, before: float, after: float) -> None:
        """b ← b + (after − before)·x for one arm that observed x before; the same A. O(d)."""
        before, after = target_of(finite("reward", before)), target_of(finite("reward", after))
        x, row = gridded(x), self.rows[arm]
        term = (after - before) * x
        most = abs(after - before) * math.sqrt(float(x @ x)) / _SPAN_B
        self._reach[arm] = self._reached(arm) + most
        self.b[row] += term
        if self._reach[arm] > 1.0:
            self._carry(arm)

    def fade(self, arm: ArmId, keep: float) -> None:
        """A, b and n times `keep` for one arm, each entry rounded once to its grid. O(d²)."""
        within("keep", keep, 0.0, 1.0)
        row = self.rows.get(arm)
        if row is None:
            return
        self._carry(arm)
        high = self.high.get(arm)
        if high is None:
            self.A[row] = faded(self.A[row], keep, _STEPS_A)
            self.b[row] = faded(self.b[row], keep, _STEPS_B)
        else:
            self.A[row], high.A[:] = faded_parts(self.A[row], high.A, keep, _STEPS_A, _SPAN_A)
            self.b[row], high.b[:] = faded_parts(self.b[row], high.b, keep, _STEPS_B, _SPAN_B)
            self._carry(arm)
        self.n[row] = rounded(keep * float(self.n[row]), _STEPS_N)

    def total(self, arm: ArmId) -> Floats:
        """A of one arm, (d, d), to the last bit of float64."""
        self._settle(arm)
        A: Floats = self.A[self.rows[arm]]
        return A + self.high[arm].A if arm in self.high else A.copy()

    def total_b(self, arm: ArmId) -> Floats:
        """b of one arm, (d,)."""
        b: Floats = self.b[self.rows[arm]]
        return b + self.high[arm].b if arm in self.high else b.copy()

    def _append(self, arm: ArmId, d: int) -> int:
        """A row of zeros where the arm's place is among the others."""
        if not self.rows:
            self.A, self.b = none(0, d, d), none(0, d)
        order = sorted([*self.rows, arm])
        at = order.index(arm)
        self.A, self.b = np.insert(self.A, at, 0.0, axis=0), np.insert(self.b, at, 0.0, axis=0)
        self.n = np.insert(self.n, at, 0.0)
        self.rows = {each: i for i, each in enumerate(order)}
        self._reach[arm] = 0.0
        return at

    def _settle(self, arm: ArmId) -> None:
        """What waits of one arm into A, which is exact, and so as if it had come one by one."""
        waiting = self.waiting.pop(arm, None)
        if waiting:
            x = np.array([one.x for one in waiting])
            if all(one.weight == 1.0 for one in waiting):
                self.A[self.rows[arm]] += x.T @ x
            else:
                weight = np.array([one.weight for one in waiting])
                self.A[self.rows[arm]] += (x * weight[:, None]).T @ x

    def _reached(self, arm: ArmId) -> float:
        """What no entry of A or b, in spans, exceeds."""
        reach = self._reach.get(arm)
        if reach is None:
            self._settle(arm)
            row = self.rows[arm]
            a, b = float(np.abs(self.A[row]).max()), float(np.abs(self.b[row]).max())
            reach = self._reach[arm] = max(a / _SPAN_A, b / _SPAN_B)
        return reach

    def _carry(self, arm: ArmId) -> None:
        """One arm's sums in their one form: nothing waits, whole spans are in `high`."""
        self._settle(arm)
        high, row = self.high.get(arm), self.rows[arm]
        if high is None:
            if self._reached(arm) <= 0.5:
                return
            high = High(np.zeros_like(self.A[row]), np.zeros_like(self.b[row]))
        carry(self.A[row], high.A, _SPAN_A)
        carry(self.b[row], high.b, _SPAN_B)
        if high.A.any() or high.b.any():
            self.high[arm] = high
        else:
            self.high.pop(arm, None)
        self._reach.pop(arm, None)
