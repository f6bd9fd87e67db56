"""Nearest past vectors by cosine: the oracle, and the index of the service.

An index is a cache of vectors that the folded state has. One thread calls `add`, `remove` and
`recall`; only cells are computed on another thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from store._cells import LANES, Cells
from store._centres import cells_for, centres, middles_of, sampled
from store._exact import NOTHING, nearest
from store._heap import give_back
from store._kernels import Kernel, Which, best
from store._protocols import Neighbours, Rows, Vector
from store.placed import Placed

EXACT_BELOW = 30_000
"""From this size on, comparing only the nearest cells is cheaper than comparing everything."""
_SLICE = 256
_BLOCK = 32
"""Queries whose products with all vectors are held at once."""


def _check(vector: Vector, dim: int) -> Vector:
    if vector.shape != (dim,):
        raise ValueError(f"vector: must have shape ({dim},), got {vector.shape}")
    return vector


def _check_load(
    ids: Sequence[int] | NDArray[np.int64], vectors: Vector, dim: int, loaded: int
) -> NDArray[np.int64]:
    if loaded:
        raise ValueError(f"index: must be empty to be loaded, holds {loaded} vectors")
    if vectors.shape != (len(ids), dim):
        raise ValueError(f"vectors: must have shape ({len(ids)}, {dim}), got {vectors.shape}")
    found = np.array(ids, np.int64)
    ordered = np.sort(found)
    if (ordered[1:] == ordered[:-1]).any():
        raise ValueError("ids: must be unique")
    return found


def _check_room(n: int, capacity: int) -> None:
    if n > capacity:
        raise ValueError(f"capacity: the index holds no more than {capacity} vectors")


def _check_many(vectors: Vector, dim: int) -> Vector:
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise ValueError(f"vectors: must have shape (n, {dim}), got {vectors.shape}")
    return vectors


class ExactIndex:
    """A matrix product over all vectors: the oracle, without compiled code and without cells.

    Remembering and forgetting cost O(d), recalling O(n·d). The last row replaces a forgotten one.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._vectors = np.zeros((0, dim), np.float32)
        self._ids = np.zeros(0, np.int64)
        self._rows: dict[int, int] = {}

    def add(self, id: int, vector: Vector) -> None:
        """Remember. Raises ValueError for a known id or a vector of another length."""
        _check(vector, self.dim)
        if id in self._rows:
            raise ValueError(f"id: {id} is already in the index")
        row = len(self._rows)
        if row == len(self._ids):
            more = max(row, 16)
            self._vectors = np.concatenate([self._vectors, np.zeros((more, self.dim), np.float32)])
            self._ids = np.concatenate([self._ids, np.zeros(more, np.int64)])
        self._vectors[row], self._ids[row] = vector, id
        self._rows[id] = row

    def load(self, ids: Sequence[int] | NDArray[np.int64], vectors: Vector) -> None:
        """Remember many at once, (n,) ids and (n, d) vectors, in an empty index."""
        self._ids = _check_load(ids, vectors, self.dim, len(self._rows))
        self._vectors = np.array(vectors, np.float32)
        self._rows = {int(id): row for row, id in enumerate(self._ids)}

    def remove(self, id: int) -> None:
        """Forget. Raises KeyError for an unknown id."""
        row = self._rows.pop(id)
        last = len(self._rows)
        if row != last:
            self._vectors[row] = self._vectors[last]
            moved = self._ids[row] = self._ids[last]
            self._rows[int(moved)] = row

    def recall(self, vector: Vector, k: int) -> Neighbours:
        """The k nearest; none for a zero vector, which has no similarity."""
        _check(vector, self.dim)
        n = len(self._rows)
        if not n or k < 1 or not vector.any():
            return NOTHING
        return self._nearest(vector, self._vectors[:n] @ vector, k)

    def recall_many(self, vectors: Vector, k: int) -> list[Neighbours]:
        """`recall` of each row: one matrix product for a block of them."""
        _check_many(vectors, self.dim)
        n = len(self._rows)
        if not n or k < 1:
            return [NOTHING] * len(vectors)
        found: list[Neighbours] = []
        for start in range(0, len(vectors), _BLOCK):
            block = vectors[start : start + _BLOCK]
            products = block @ self._vectors[:n].T
            found += [
                self._nearest(vector, similarities, k) if vector.any() else NOTHING
                for vector, similarities in zip(block, products, strict=True)
            ]
        return found

    def _nearest(self, vector: Vector, about: NDArray[np.float32], k: int) -> Neighbours:
        n = len(self._rows)
        rows = np.arange(n, dtype=np.int32)
        return nearest(about, rows, self._ids[:n], self._vectors, vector, k)

    def settle(self, most: int) -> int:
        """There is no deferred work here."""
        return 0

    def __contains__(self, id: int) -> bool:
        return id in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def close(self) -> None:
        """Nothing to close."""


class _OwnRows:
    """The rows of an index with vectors of its own."""

    def __init__(self, dim: int) -> None:
        self.matrix: Vector = np.zeros((0, dim), np.float32)
        self._rows: dict[int, int] = {}
        self._free: list[int] = []

    def row(self, id: int) -> int:
        return self._rows[id]

    def rows_of(self, ids: NDArray[np.int64]) -> NDArray[np.int32]:
        return np.fromiter((self._rows[id] for id in ids.tolist()), np.int32, len(ids))

    def put(self, id: int, vector: Vector) -> None:
        row = self._free.pop() if self._free else len(self._rows)
        if row == len(self.matrix):
            more = np.zeros((max(row, 16), self.matrix.shape[1]), np.float32)
            self.matrix = np.concatenate([self.matrix, more])
        self.matrix[row], self._rows[id] = vector, row

    def put_many(self, ids: NDArray[np.int64], vectors: Vector) -> None:
        self.matrix = np.array(vectors, np.float32)
        self._rows = {id: row for row, id in enumerate(ids.tolist())}
        self._free = []

    def remove(self, id: int) -> None:
        row = self._rows.pop(id)
        self.matrix[row] = 0.0
        self._free.append(row)


class HybridIndex:
    """Compares every vector up to `exact_below` of them, and the nearest cells above.

    Another thread computes cells by k-means once there are enough vectors, and again when their
    number has doubled; until then the earlier cells, or none, are used. `load` waits for them, so
    that a service is as fast after its start as before; it continues with those of `placed`, which
    is much faster. The cells of a query are found by an exact
    search among their centres. So the result depends neither on the kernel nor on the other queries
    of the same turn.

    rows: the existing vectors, so that no second copy is kept. Without it the index keeps its own.
    built: called with new cells by the thread that computed them, to be kept; must not raise.

    LEAST, BY_K: the minimum of vectors that a query is compared with, in all and for each result.
    """

    LEAST, BY_K = 9216, 64

    def __init__(
        self,
        dim: int,
        capacity: int,
        exact_below: int = EXACT_BELOW,
        rows: Rows | None = None,
        kernel: Kernel | None = None,
        built: Callable[[Placed], None] | None = None,
    ) -> None:
        self.dim, self.capacity, self.exact_below = dim, capacity, exact_below
        self._built = built
        self._kernel = best() if kernel is None else kernel
        self._own = None if rows is not None else _OwnRows(dim)
        self._rows: Rows = rows if rows is not None else cast(Rows, self._own)
        self._cells = Cells(dim, 1, self._kernel.copied)
        self._centres: Cells | None = None
        self._made: tuple[Cells, Cells] | None = None
        self._building: threading.Thread | None = None
        self._beside: Vector | None = None
        self._failed, self._stop = False, threading.Event()
        self._gone: set[int] = set()
        self._fresh: dict[int, None] = {}
        self._built_of, self._since = 0, 0
        self._found = 0, 0
        """Of how many the cells in `_made` were computed, and how many came after."""

    def add(self, id: int, vector: Vector) -> None:
        """Remember. Raises ValueError for a known id, or at `capacity`. O(d)."""
        _check(vector, self.dim)
        cells = self._answering()
        if id in cells:
            raise ValueError(f"id: {id} is already in the index")
        _check_room(len(cells) + 1, self.capacity)
        if self._own is not None:
            self._own.put(id, vector)
        cells.point_at(self._rows.matrix)
        self._put(cells, self._centres, id, self._rows.row(id))
        self._since += 1
        if self._building is not None:
            self._fresh[id] = None
        elif self._due():
            self._build_beside()

    def load(
        self,
        ids: Sequence[int] | NDArray[np.int64],
        vectors: Vector,
        placed: Placed | None = None,
    ) -> None:
        """Remember many at once, in an empty index, and compute their cells.

        placed: those of before, which it continues with where they have most of the ids.
        """
        _check_room(len(ids), self.capacity)
        self._answering()
        self._load(_check_load(ids, vectors, self.dim, len(self._cells)), vectors, placed)
        if len(ids):
            give_back()

    def _load(self, found: NDArray[np.int64], vectors: Vector, placed: Placed | None) -> None:
        if self._own is not None:
            self._own.put_many(found, vectors)
        if not len(found):
            return
        rows = self._rows.rows_of(found)
        if len(found) >= self.exact_below and not self._failed:
            order = np.argsort(found)
            given = found[order], rows[order], self._rows.matrix
            try:
                if placed is None or not self._resume(placed, *given):
                    self._build(*given)
            except MemoryError:
                self._failed = True
            if len(self._answering()):
                return
        cells = self._cells = Cells(self.dim, 1, self._kernel.copied)
        self._centres, self._since = None, len(found)
        cells.point_at(self._rows.matrix)
        self._kernel.put(cells, cells.put_many(found, rows, np.zeros(len(found), np.int32)))

    def remove(self, id: int) -> None:
        """Forget. Raises KeyError for an unknown id."""
        cells = self._answering()
        row = cells.remove(id)
        if self._own is not None:
            self._own.remove(id)
        if self._building is not None:
            self._fresh.pop(id, None)
            self._gone.add(id)
            beside = self._beside
            if beside is not None and beside is not self._rows.matrix and row < len(beside):
                beside[row] = (
                    0.0  # the rows have moved since, and this copy is not erased with them
                )

    def recall(self, vector: Vector, k: int) -> Neighbours:
        """The k nearest, of all or of the nearest cells; none for a zero vector."""
        _check(vector, self.dim)
        return self.recall_many(vector[None], k)[0]

    def recall_many(self, vectors: Vector, k: int) -> list[Neighbours]:
        """`recall` for each row, all of them together."""
        _check_many(vectors, self.dim)
        cells, n = self._answering(), len(vectors)
        k = min(k, len(cells))
        if k < 1 or not n:
            return [NOTHING] * n
        vectors = np.ascontiguousarray(vectors, np.float32)
        cells.point_at(self._rows.matrix)
        found = self._kernel.nearest(cells, vectors, self._where(cells, vectors, k), k)
        return [
            Neighbours(ids[:count], near[:count])
            for ids, near, count in zip(
                found.ids, found.similarities, found.counts.tolist(), strict=True
            )
        ]

    def settle(self, most: int) -> int:
        """Use cells that were computed; returns 1 while a computation is running, otherwise 0."""
        self._answering()
        return int(self._building is not None)

    @property
    def approximate(self) -> bool:
        """Whether only the nearest cells are compared now."""
        self._answering()
        return self._centres is not None

    @property
    def nbytes(self) -> int:
        """The bytes of the index, without vectors that belong to another object."""
        own = 0 if self._own is None else self._own.matrix.nbytes
        centres = self._centres
        beside = 0 if centres is None else centres.nbytes + centres.matrix.nbytes
        return self._cells.nbytes + beside + own

    @property
    def kernel(self) -> str:
        """The kernel in use: a processor's instructions, or numpy."""
        return self._kernel.name

    def wait(self) -> None:
        """Wait until cells that are being computed are in use."""
        if self._building is not None:
            self._building.join()

    def __len__(self) -> int:
        return len(self._cells)

    def __contains__(self, id: int) -> bool:
        return id in self._answering()

    def close(self) -> None:
        """Stop computing cells; waits for the running step, tens of milliseconds."""
        self._stop.set()
        self.wait()

    def _where(self, cells: Cells, vectors: Vector, k: int) -> Which | None:
        """The cells of each query: the nearest ones, until they have enough vectors."""
        centres = self._centres
        if centres is None:
            return None
        enough, of = max(self.LEAST, self.BY_K * k), len(centres)
        if enough >= len(cells):
            return None
        most = min(of, 8 + 5 * enough * of // (4 * len(cells)))
        near = self._kernel.nearest(centres, vectors, None, most)
        held = np.cumsum(cells.sizes[near.ids], axis=1)
        chosen = np.minimum((held < enough).sum(axis=1) + 1, near.counts)
        some = [near.ids[i, :many].astype(np.int32) for i, many in enumerate(chosen.tolist())]
        few = (held[:, -1] < k) & (near.counts > 0)  # in all of them; nothing is near a zero
        for i in np.flatnonzero(few).tolist():
            some[i] = np.arange(of, dtype=np.int32)
        starts = np.cumsum([0, *map(len, some)], dtype=np.int64)
        return Which(np.concatenate(some), starts)

    def _put(self, cells: Cells, centres: Cells | None, id: int, row: int) -> None:
        cell = 0
        if centres is not None:
            near = self._kernel.nearest(centres, cells.matrix[row][None], None, 1)
            cell = int(near.ids[0, 0])
        slot = cells.put(id, row, cell)
        self._kernel.put(cells, np.array([slot], np.int32))

    def _due(self) -> bool:
        """Whether there are enough vectors for cells, and enough new ones."""
        enough = max(self.exact_below, self._built_of)
        return not self._failed and len(self._cells) >= self.exact_below and self._since >= enough

    def _answering(self) -> Cells:
        """The table in use: the new cells from the first call after they were computed."""
        if self._building is not None and not self._building.is_alive():
            self._building = self._beside = None
            self._failed = self._made is None
            if self._failed:
                self._gone, self._fresh = set(), {}
        if self._building is None and self._made is not None:
            before = self._cells
            gone, fresh = self._gone, self._fresh
            self._gone, self._fresh = set(), {}
            self._centres, self._cells = self._made
            self._made, cells = None, self._cells
            cells.point_at(self._rows.matrix)
            for id in gone:
                if id in cells:
                    cells.remove(id)
            for id in fresh:
                # The owner of the rows may have dropped one before it calls `remove`.
                row = before.row(id)
                if row < len(cells.matrix):
                    self._put(cells, self._centres, id, row)
            self._built_of, since = self._found
            self._since = since + len(fresh)
        return self._cells

    def placed(self) -> Placed | None:
        """In which cell each query is, to be kept; None without cells."""
        cells = self._answering()
        if self._centres is None:
            return None
        return _placed(cells, self._built_of, self._since)

    def _resume(
        self,
        placed: Placed,
        ids: NDArray[np.int64],
        rows: NDArray[np.int32],
        matrix: Vector,
    ) -> bool:
        """Continue with cells that were kept; False where they have too few of the ids.

        Their centres are computed from what they hold. What came after them joins the nearest one.
        """
        at = np.minimum(np.searchsorted(placed.ids, ids), max(len(placed.ids) - 1, 0))
        known = placed.ids[at] == ids if len(placed.ids) else np.zeros(len(ids), np.bool_)
        if 2 * int(known.sum()) < len(ids):
            return False
        used, where = np.unique(placed.where[at[known]], return_inverse=True)
        placing = np.zeros(len(ids), np.int32)
        placing[known] = where
        middles = self._centred(middles_of(placing[known], len(used), matrix, rows[known]))
        if not known.all():
            placing[~known] = self._nearest_of(middles, matrix, rows[~known])
        self._made = middles, self._filled(len(used), ids, rows, placing, matrix)
        self._found = placed.built_of, placed.since + int((~known).sum())
        return True

    def _build_beside(self) -> None:
        ids, rows = self._cells.live()
        self._beside = self._cells.matrix
        given = (ids, rows, self._beside)
        # No daemon: an interpreter that ends while one is inside a library may abort.
        self._building = threading.Thread(target=self._build, args=given, name="cells")
        self._building.start()

    def _build(self, ids: NDArray[np.int64], rows: NDArray[np.int32], matrix: Vector) -> None:
        """The cells of these vectors; some may be overwritten meanwhile, and are then removed."""
        count = cells_for(len(ids))
        try:
            found = centres(matrix[rows[sampled(len(ids))]], count, self._nearest_centre)
            middles = self._centred(found)
            where = self._nearest_of(middles, matrix, rows)
        except _Stopped:
            return
        cells = self._filled(count, ids, rows, where, matrix)
        if self._built is not None:
            self._built(_placed(cells, len(ids), 0))
        self._found = len(ids), 0
        self._made = middles, cells

    def _filled(
        self,
        count: int,
        ids: NDArray[np.int64],
        rows: NDArray[np.int32],
        where: NDArray[np.int32],
        matrix: Vector,
    ) -> Cells:
        """So many cells with these vectors in them."""
        cells = Cells(self.dim, count, self._kernel.copied)
        cells.point_at(matrix)
        self._kernel.put(cells, cells.put_many(ids, rows, where))
        return cells

    def _centred(self, centres: Vector) -> Cells:
        """An index of the centres, to find the nearest ones."""
        cells, every = Cells(self.dim, 1, self._kernel.copied), np.arange(len(centres))
        cells.point_at(centres)
        slots = cells.put_many(every, every.astype(np.int32), np.zeros(len(every), np.int32))
        self._kernel.put(cells, slots)
        return cells

    def _nearest_centre(self, centres: Vector, vectors: Vector) -> NDArray[np.int32]:
        rows = np.arange(len(vectors), dtype=np.int32)
        return self._nearest_of(self._centred(centres), vectors, rows)

    def _nearest_of(
        self, centres: Cells, matrix: Vector, rows: NDArray[np.int32]
    ) -> NDArray[np.int32]:
        """The nearest centre of each row; the first for a row of zeros."""
        where = np.zeros(len(rows), np.int32)
        for start in range(0, len(rows), _SLICE):
            if self._stop.is_set():
                raise _Stopped
            some = matrix[rows[start : start + _SLICE]]
            near = self._kernel.nearest(centres, some, None, 1)
            where[start : start + _SLICE] = near.ids[:, 0]
        return where


def _placed(cells: Cells, built_of: int, since: int) -> Placed:
    slots = np.flatnonzero(~np.isnan(cells.error))
    slots = slots[np.argsort(cells.ids[slots])]
    where = cells.cell_of[slots // LANES]
    return Placed(len(cells.first), built_of, since, cells.ids[slots], where)


class _Stopped(Exception):
    """The index was closed while cells were computed."""
