"""Cells of similar queries, and groups of cells, in which `nested` counts outcomes.

Features are rounded to whole multiples of 2⁻¹⁰, qualities of 2⁻¹⁶, weights of 2⁻⁴. Sums and dot
products of such numbers are exact in floating point, so a state is the same bits in any order of
addition, on any processor and with any BLAS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import is_
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from policies import _grouping
from policies._grid import TARGET, WEIGHT, rounded
from policies._native import OfState, Pinned
from policies._types import ArmId, Arms, Floats, Vector

GRID = 1024.0
"""Steps of a feature in 1: products of features of norm up to 3.9 stay below 2²⁴, exact in
float32."""
EXACT = 2.0**24
"""Squared norm, in steps, up to which they do."""
_SUM = TARGET * WEIGHT
_HEAVY = 1000
"""At this number of queries a cell's centre forgets half of them, so that it can move."""
_CROWDED = 2**31 // 4096 - 1024
"""From this number of queries on the sum of a cell could leave its 32 bits within a block: with
features of 4096 steps, since their squares are EXACT at most."""
_TWICE = np.float32(2.0)
_SAME = 0.001 * GRID * GRID
"""Squared distance up to which a query joins a cell even if a new cell is possible."""
_DECADES = 1.5
"""The largest distance of an arm's price from the pool's mean for the prior, in powers of ten."""

Int16s: TypeAlias = NDArray[np.int16]
Int32s: TypeAlias = NDArray[np.int32]
Int64s: TypeAlias = NDArray[np.int64]


def on_grid(features: Vector) -> Vector:
    """Whole numbers of 1/GRID as float32; ValueError where a feature is no finite number."""
    if not np.logical_and.reduce(np.isfinite(features), axis=None):
        raise ValueError("embedding: must be finite numbers")
    steps: Vector = np.rint(features * np.float32(GRID))
    return steps


@dataclass(slots=True)
class GroupSums:
    """Sums over the cells. n, s: (K + 1,) by arm. group_n, group_s: (C + 1, K + 1) by group and
    arm; the last row is of no group."""

    n: Floats
    s: Floats
    group_n: Floats
    group_s: Floats


@dataclass(frozen=True, slots=True)
class Told:
    """Outcomes of B queries in order. row, group: (B,) of each query.

    Of each outcome: query: of which it is; columns: of its arm; quality; weight; worth: one times
    the other; counted: whether its row is a cell's.
    """

    row: Int64s
    group: Int64s
    query: Int64s
    columns: Int64s
    quality: Floats
    weight: Floats
    worth: Floats
    counted: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        state: Cells,
        row: Int64s,
        group: Int64s,
        outcomes: Sequence[Sequence[tuple[ArmId, float, float]]],
    ) -> Told:
        """Arms that are new get a column."""
        query = np.array([i for i, some in enumerate(outcomes) for _ in some])
        columns = np.array([state.column(arm) for some in outcomes for arm, _, _ in some])
        quality = np.array([y for some in outcomes for _, y, _ in some])
        weight = np.array([w for some in outcomes for _, _, w in some])
        counted = row[query] < state.used
        return cls(row, group, query, columns, quality, weight, weight * quality, counted)


@dataclass
class Cells:
    """K arms, M cells, C groups, d features. The last column is for any arm never seen, and the
    last row but one for queries that are in no cell yet; both stay zero. The last row is for
    queries without features.

    columns: arm → its column. n, s: (M + 2, K + 1) outcomes by weight, and the sum of their
    qualities; squares: (K + 1,) of their squares. up, down: (K + 1,) how far an arm's latest
    outcomes were above and below what was expected; alarms, since: (K + 1,) how often that was too
    far, and how many outcomes the arm had since. outcomes: how many came; due: at which number the
    cells are grouped again.

    used: how many cells there are. centres: (M, d) where they are, in 1/GRID. mass, sums: (M,) and
    (M, d), how many queries came to each, and their sum. group: (M,) the group of each cell, of
    which there are `groups`. middles: (C, d) the groups' centres. draft: a grouping under way.
    spread: by how much an arm's quality varies between groups, and between the cells of a group.
    special: how much smaller squared errors are if the arms are specialists, when the cells were
    grouped last; faded: that of outcomes which are no longer counted.
    noise: the variance of an outcome, in those of a coin.
    """

    columns: dict[ArmId, int] = field(default_factory=dict)
    n: Floats = field(default_factory=lambda: np.zeros((2, 1)))
    s: Floats = field(default_factory=lambda: np.zeros((2, 1)))
    squares: Floats = field(default_factory=lambda: np.zeros(1))
    up: Floats = field(default_factory=lambda: np.zeros(1))
    down: Floats = field(default_factory=lambda: np.zeros(1))
    alarms: Floats = field(default_factory=lambda: np.zeros(1))
    since: Floats = field(default_factory=lambda: np.zeros(1))
    outcomes: int = 0
    due: int = 0
    used: int = 0
    centres: Int16s = field(default_factory=lambda: np.zeros((0, 0), np.int16))
    mass: Int64s = field(default_factory=lambda: np.zeros(0, np.int64))
    sums_x: Int32s = field(default_factory=lambda: np.zeros((0, 0), np.int32))
    group: Int64s = field(default_factory=lambda: np.zeros(0, np.int64))
    groups: int = 0
    middles: Int16s = field(default_factory=lambda: np.zeros((0, 0), np.int16))
    draft: _grouping.Draft = field(default_factory=_grouping.Draft)
    spread: list[float] = field(default_factory=list)
    special: float = 0.0
    faded: float = 0.0
    noise: float = 0.0
    _sums: GroupSums | None = None
    _search: Vector | None = None
    _norms: Vector | None = None
    _eased: Floats | None = None
    _asked: tuple[tuple[ArmId, ...], NDArray[np.int64]] | None = None
    _priced: tuple[Floats, Floats] | None = None
    _pinned: Pinned | None = None

    # --- where a query belongs ---

    def find(self, x: Vector) -> tuple[Int64s, Int64s]:
        """(…) cell and group of each of (…, d) queries on the grid.

        A query without a cell has cell M, whose counts are zero, and the group of the nearest cell.
        """
        return self.located(x, self.distances(x))

    def distances(self, x: Vector) -> Vector:
        """(…, used) squared distance of each query from each cell, less the query's own norm."""
        if self.used == 0:
            return np.zeros((*x.shape[:-1], 0), np.float32)
        self.fits(x)
        search, norms = self.searched()
        used = self.used
        found: Vector = norms[:used] - _TWICE * (x @ search[:used].T)
        return found

    def searched(self) -> tuple[Vector, Vector]:
        """(M, d) the centres as numbers, and (M,) their squared lengths."""
        if self._search is None or self._norms is None:
            self._search = self.centres.astype(np.float32)
            self._norms = np.add.reduce(self._search * self._search, axis=1)
        return self._search, self._norms

    def located(self, x: Vector, distances: Vector) -> tuple[Int64s, Int64s]:
        """`find` with the distances that `distances` gave."""
        none = len(self.mass)
        if self.used == 0:
            return np.full(x.shape[:-1], none), np.full(x.shape[:-1], self.groups)
        cell = distances.argmin(axis=-1)
        group = self.group[cell]
        own = np.add.reduce(x * x, axis=-1)
        if x.ndim == 1:  # the same with numbers, which is faster
            if own == 0.0:
                return np.array(none), np.array(self.groups)
            apart = self.used < none and float(distances[cell]) + float(own) > _SAME
            return np.array(none) if apart else cell, group
        if self.used < none:
            nearest = np.minimum.reduce(distances, axis=-1).astype(np.float64) + own
            cell = np.where(nearest > _SAME, none, cell)
        blank = own == 0.0
        if blank.any():
            cell, group = np.where(blank, none, cell), np.where(blank, self.groups, group)
        return cell, group

    def fits(self, x: Vector) -> None:
        """ValueError unless queries have as many features as those before."""
        if self.used and x.shape[-1] != self.centres.shape[1]:
            raise ValueError(
                f"embedding: must have {self.centres.shape[1]} features, got {x.shape[-1]}"
            )

    def rows(self, x: Vector) -> tuple[Int64s, Int64s]:
        """(B,) the row and the group of each of (B, d) queries, up to the first of a new cell."""
        if not self.centres.size:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        cell, group = self.find(x)
        none = cell == len(self.mass)
        if none.any():
            blank = ~x.any(axis=1)
            new = np.flatnonzero(none & ~blank)
            stop = int(new[0]) if len(new) else len(x)
            cell = np.where(blank, len(self.mass) + 1, cell)[:stop]
        return cell, group[: len(cell)]

    def place_many(self, row: Int64s, x: Vector) -> None:
        """Count the outcomes of queries with and without a cell."""
        inside = row < self.used
        if not inside.all():
            row, x = row[inside], x[inside]
        if not len(row):
            return
        cells, counts = np.unique(row, return_counts=True)
        self.mass[cells] += counts
        mine = (cells[:, None] == row).astype(np.float32)
        self.sums_x[cells] += (mine @ x).astype(np.int32)  # exact, as a block has few queries

    def place(self, x: Vector, cell: int, group: int, cells: int, groups: int) -> int:
        """The row of a query with an outcome: its cell, which is created if it had none."""
        if not x.any():
            return len(self.mass) + 1
        if not self.centres.size:
            self._begin(x.size, cells, groups)
            cell, group = cells, 0
        if cell == len(self.mass):
            cell = self.used
            self.used += 1
            self.centres[cell] = x
            self.group[cell] = group
            if self._search is not None and self._norms is not None:
                self._search[cell], self._norms[cell] = x, np.add.reduce(x * x)
            if not self.groups:
                self.groups, self._sums = 1, None
        if self.mass[cell] >= _CROWDED:
            self._make_room(cell, x)
        self.mass[cell] += 1
        self.sums_x[cell] += x.astype(np.int32)
        return cell

    @property
    def crowded(self) -> bool:
        """Whether a cell's sum could leave its 32 bits; then queries are placed one by one."""
        return self.outcomes >= _CROWDED and bool((self.mass >= _CROWDED).any())

    def _make_room(self, cell: int, x: Vector) -> None:
        """A cell forgets half of its queries before one that its sum has no room for."""
        sums = self.sums_x[cell] + x.astype(np.int64)
        if np.abs(sums).max() > np.iinfo(np.int32).max:
            self.sums_x[cell] //= 2
            self.mass[cell] //= 2

    def _begin(self, d: int, cells: int, groups: int) -> None:
        empty = np.zeros((cells, self.n.shape[1]))
        self.n, self.s = np.concatenate([empty, self.n]), np.concatenate([empty, self.s])
        self.centres, self.sums_x = np.zeros((cells, d), np.int16), np.zeros((cells, d), np.int32)
        self.mass, self.group = np.zeros(cells, np.int64), np.zeros(cells, np.int64)
        self.middles = np.zeros((groups, d), np.int16)
        self.draft = _grouping.Draft(0, 0, self.middles.copy(), self.group.copy())
        self._sums = None

    def pinned(self, policy: object) -> Pinned:
        """What the compiled library reads and writes of this state, for a policy."""
        sums, (_, norms) = self.sums, self.searched()
        known = OfState(
            self.centres,
            norms,
            self.group,
            self.n,
            self.s,
            sums.n,
            sums.s,
            sums.group_n,
            sums.group_s,
            self.squares,
            self.up,
            self.down,
            self.since,
            self.mass,
            self.sums_x,
        )
        pinned = self._pinned
        if pinned is None or pinned.policy is not policy or not all(map(is_, pinned.known, known)):
            pinned = self._pinned = Pinned(known, policy)
        pinned.state.used, pinned.state.groups = self.used, self.groups
        pinned.state.noise = self.noise
        pinned.state.wide, pinned.state.narrow = self.spread
        return pinned

    # --- what is counted ---

    @property
    def sums(self) -> GroupSums:
        """The counts by arm, and by group and arm: whole numbers of 2⁻²⁰, exact in any order."""
        if self._sums is None:
            used = self.used
            of = (np.arange(self.groups + 1)[:, None] == self.group[:used]).astype(np.float64)
            self._sums = GroupSums(
                np.add.reduce(self.n), np.add.reduce(self.s), of @ self.n[:used], of @ self.s[:used]
            )
        return self._sums

    def changed(self) -> None:
        """The values computed from the sums are out of date."""
        self._eased = None

    def column(self, arm: ArmId) -> int:
        """The arm's column, a new one where it has none."""
        at = self.columns.get(arm)
        if at is None:
            at = len(self.columns)
            for name in ("n", "s", "squares", "up", "down", "alarms", "since"):
                table = getattr(self, name)
                one = np.zeros((*table.shape[:-1], 1))
                setattr(self, name, np.concatenate([table, one], axis=-1))
            self.columns[arm] = at
            self._sums = self._asked = self._eased = None
        return at

    def columns_of(self, arms: tuple[ArmId, ...]) -> Int64s:
        """(K,) the columns of these arms, the last one for an arm never seen."""
        if self._asked is None or self._asked[0] != arms:
            self._asked = arms, np.array([self.columns.get(arm, -1) for arm in arms])
        return self._asked[1]

    def price_of(self, arms: Arms) -> Floats:
        """(K,) log₁₀ of the arms' prices less the mean, within ±_DECADES; 0 of one without."""
        price = arms.price if arms.first_price is None else arms.first_price
        known = None if self._priced is None else self._priced[0]
        if known is None or not (known is price or np.array_equal(known, price)):
            priced = price > 0.0
            logs = np.log10(np.where(priced, price, 1.0))
            logs -= logs[priced].mean() if priced.any() else 0.0
            logs[~priced] = 0.0
            self._priced = price, np.minimum(np.maximum(logs, -_DECADES), _DECADES)
        assert self._priced is not None
        return self._priced[1]

    def add(self, row: int, column: int, quality: float, weight: float) -> None:
        """One outcome of `weight`, a multiple of 1/16; the quality is one of 2⁻¹⁶."""
        self._add(row, column, weight, weight * quality)
        self.squares[column] += weight * rounded(quality * quality, TARGET)

    def add_many(self, told: Told) -> None:
        """Many outcomes at once, to the same bits."""
        sums, at, weight, worth = self.sums, told.columns, told.weight, told.worth
        row = told.row[told.query]
        np.add.at(self.n, (row, at), weight)
        np.add.at(self.s, (row, at), worth)
        np.add.at(sums.n, at, weight)
        np.add.at(sums.s, at, worth)
        np.add.at(self.squares, at, weight * (np.rint(told.quality**2 * TARGET) / TARGET))
        inside = told.counted
        spot = told.group[told.query][inside], at[inside]
        np.add.at(sums.group_n, spot, weight[inside])
        np.add.at(sums.group_s, spot, worth[inside])
        self.changed()

    def revise(self, row: int, column: int, before: float, after: float) -> None:
        """Replace an outcome by a corrected one."""
        if row == len(self.mass) or self.n[row, column] == 0.0:
            row = len(self.mass) + 1  # its cell has moved since: the arm's total stays right
        self._add(row, column, 0.0, after - before)
        self.squares[column] += rounded(after * after, TARGET) - rounded(before * before, TARGET)

    def _add(self, row: int, column: int, weight: float, quality: float) -> None:
        sums = self.sums
        self.n[row, column] += weight
        self.s[row, column] += quality
        sums.n[column] += weight
        sums.s[column] += quality
        if row < self.used:
            group = self.group[row]
            sums.group_n[group, column] += weight
            sums.group_s[group, column] += quality
        self.changed()

    def fade(self, arm: ArmId, keep: float) -> None:
        """Everything that was counted of one arm times `keep`, on the grid."""
        column = self.columns.get(arm)
        if column is None:
            return
        share = float(self.sums.n[column]) / max(float(np.add.reduce(self.sums.n)), 1.0)
        self.faded += (1.0 - keep) * min(share, 1.0) * (self.special - self.faded)
        for table in (self.n, self.s, self.squares):
            table[..., column] = np.rint(table[..., column] * _SUM * keep) / _SUM
        self.up[column] *= keep
        self.down[column] *= keep
        self._sums = self._eased = None

    # --- how cells are grouped ---

    def regroup(self, groups: int) -> bool:
        """One slice of regrouping the cells, from the present groups; True when it is done."""
        used = self.used
        if self.draft.stage == 0:
            self._follow()
            self.draft.begin(self.middles, self.groups)
        centres = self.centres[:used]
        if not self.draft.advance(centres, self.mass[:used], groups, self.outcomes):
            return False
        self.groups = self.draft.count
        self.middles[:] = self.draft.middles
        self.group[:used] = _grouping.nearest(centres, self.middles[: self.groups])
        self._sums = self._eased = None
        return True

    def _follow(self) -> None:
        """Each centre moves to the mean of the queries that came to its cell."""
        used = slice(0, self.used)
        self.centres[used] = np.rint(self.sums_x[used] / self.mass[used, None])
        heavy = self.mass > _HEAVY
        self.sums_x[heavy] //= 2
        self.mass[heavy] //= 2
        self._search = self._norms = None
