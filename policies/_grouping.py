"""Weighted k-means in slices: whole numbers only, chance from the state, the same on any machine.

Features are whole numbers up to 2¹², so that products of rows up to norm 3.9·2¹⁰ stay below 2²⁴
and sums of them below 2⁵³: every sum is exact, whatever its order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from policies import _native
from policies._types import Vector

_ROUNDS, _TRIES = 12, 4
_WORK = 4096
"""How many distances a slice computes at least one step of, and at most unless one step is more."""

Int16s: TypeAlias = NDArray[np.int16]
Int64s: TypeAlias = NDArray[np.int64]


def distances(cells: Int16s, middles: Int16s) -> Vector:
    """(n, c) squared distances of cells to middles, less the cells' own norms."""
    to = middles.astype(np.float32)
    found: Vector = np.add.reduce(to * to, axis=1) - 2.0 * (cells.astype(np.float32) @ to.T)
    return found


def nearest(cells: Int16s, middles: Int16s) -> Int64s:
    """(n,) the nearest middle of each cell, the first of several."""
    found: Int64s = distances(cells, middles).argmin(axis=1)
    return found


@dataclass
class Draft:
    """A grouping under way.

    stage: 0 when none is, then the round. count: middles so far. middles: (C, d).
    group: (M,) the group of each cell in the last round, -1 before the first.
    """

    stage: int = 0
    count: int = 0
    middles: Int16s = field(default_factory=lambda: np.zeros((0, 0), np.int16))
    group: Int64s = field(default_factory=lambda: np.zeros(0, np.int64))

    def begin(self, middles: Int16s, count: int) -> None:
        """Start from `count` middles, or from none where they are all zero."""
        self.stage, self.count = 1, count if middles.any() else 0
        self.middles[:] = middles
        self.group[:] = -1

    def advance(self, cells: Int16s, mass: Int64s, most: int, seed: int) -> bool:
        """A slice of the work on (n, d) cells of (n,) mass; True when the middles stand.

        Middles that are wanting are chosen as k-means++ does: of some cells that are drawn by mass
        and distance, the one that brings all nearest; by numbers that follow from `seed`.
        """
        wanted = min(most, max(1, len(cells) // 2))
        self.count = min(self.count, wanted)
        step = len(cells) * wanted
        for _ in range(max(1, _WORK // step)):
            if self.count < wanted:
                self._seed(cells, mass, seed)
            elif self.stage <= _ROUNDS and self._round(cells, mass):
                self.stage += 1
            else:
                self.stage = 0
                return True
        return False

    def _seed(self, cells: Int16s, mass: Int64s, seed: int) -> None:
        exact = cells.astype(np.float64)
        norms = np.add.reduce(exact * exact, axis=1)
        away = np.ones(len(cells))
        if self.count:
            near = distances(cells, self.middles[: self.count]).min(axis=1)
            away = np.maximum(norms + near, 0.0)
        reach = np.cumsum(away * mass + 1.0)
        drawn = [reach[-1] * _uniform(seed, self.count, i) for i in range(_TRIES)]
        tried = np.minimum(np.searchsorted(reach, drawn), len(cells) - 1)
        then = np.maximum(norms[:, None] + distances(cells, cells[tried]), 0.0)
        left = np.add.reduce(np.minimum(then, away[:, None]) * mass[:, None])
        self.middles[self.count] = cells[tried[int(left.argmin())]]
        self.count += 1

    def _round(self, cells: Int16s, mass: Int64s) -> bool:
        """Each middle to the mean of its cells; False when every cell stayed in its group."""
        library = _native.native()
        if library is not None:
            middles, mine = self.middles[: self.count], self.group[: len(cells)]
            changed = library.round(cells, mass, middles, mine)
            if changed is not None:
                return changed
        group = nearest(cells, self.middles[: self.count])
        if np.array_equal(group, self.group[: len(cells)]):
            return False
        self.group[: len(cells)] = group
        weight = (np.arange(self.count)[:, None] == group) * mass.astype(np.float64)
        total = np.add.reduce(weight, axis=1)
        some = total > 0.0
        means = (weight @ cells.astype(np.float64))[some] / total[some, None]
        self.middles[: self.count][some] = np.rint(means)
        return True


def _uniform(*numbers: int) -> float:
    """A number in [0, 1) that follows from `numbers`, mixed as SplitMix64 does."""
    z = 0
    for number in numbers:
        z = (z + number + 0x9E3779B97F4A7C15) & (2**64 - 1)
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        z ^= z >> 31
    return z / 2**64
