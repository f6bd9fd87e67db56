"""The remembered vectors by cell, with an int8 copy of each if a kernel scans copies.

A cell is a chain of blocks of 16 slots. The vectors themselves are rows of a matrix that belongs to
the caller.
"""

from __future__ import annotations

import ctypes
from array import array

import numpy as np
from numpy.typing import NDArray

from store._protocols import Vector
from store._slots import Slots

LANES = 16
_ARRAYS = ("blocks", "scale", "length", "error", "rows", "ids", "matrix", "first", "next")


class Table(ctypes.Structure):
    """The arrays as `store/_scan.c` takes them."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _ARRAYS),
        ("dim", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("cells", ctypes.c_int64),
    )


class Cells:
    """Slots of ids and rows.

    `error` is NaN if a slot is free, since no product is near NaN. blocks: the copies, (blocks,
    width / 4, 16, 4) bytes above 128; empty if there are none. scale, length, error: the step of a
    slot's copy, the copy's length, its error. sizes: how many vectors each cell has. cell_of: the
    cell of each block; `used` blocks are in use.
    """

    def __init__(self, dim: int, cells: int, copied: bool) -> None:
        self.dim, self.width, self.copied = dim, -(-dim // LANES) * LANES, copied
        self.used = 0
        self.blocks = np.zeros((0, self.width // 4, LANES, 4), np.uint8)
        self.scale = np.zeros(0, np.float32)
        self.length = np.zeros(0, np.float32)
        self.error = np.zeros(0, np.float32)
        self.rows = np.zeros(0, np.int32)
        self.ids = np.zeros(0, np.int64)
        self.cell_of = np.zeros(0, np.int32)
        self.next = np.zeros(0, np.int32)
        self.first = np.full(cells, -1, np.int32)
        self.sizes = np.zeros(cells, np.int64)
        self.matrix: Vector = np.zeros((0, dim), np.float32)
        self._last = np.full(cells, -1, np.int32)
        self._free = [array("i") for _ in range(cells)]
        self._slots = Slots()
        self.table = Table()
        self._point()

    def put(self, id: int, row: int, cell: int) -> int:
        """The slot for an id; the kernel makes its copy."""
        free = self._free[cell]
        if not free:
            free.extend(reversed(range(*self._block(cell))))
        slot = free.pop()
        self.ids[slot], self.rows[slot], self.error[slot] = id, row, 0.0
        self.sizes[cell] += 1
        self._slots.put(id, slot, self.ids)
        return slot

    def put_many(
        self, ids: NDArray[np.int64], rows: NDArray[np.int32], cells: NDArray[np.int32]
    ) -> NDArray[np.int32]:
        """The slots for many ids, in an empty table."""
        counts = np.bincount(cells, minlength=len(self.first))
        needed = -(-counts // LANES)
        self._grow(int(needed.sum()))
        starts = np.concatenate([[0], np.cumsum(needed)])
        order = np.argsort(cells, kind="stable")
        begins = np.cumsum(counts) - counts
        within = np.arange(len(ids)) - np.repeat(begins, counts)
        slots = np.empty(len(ids), np.int32)
        slots[order] = np.repeat(starts[:-1] * LANES, counts) + within
        self.used = int(starts[-1])
        self.cell_of[: self.used] = np.repeat(np.arange(len(needed)), needed)
        self.next[: self.used] = np.arange(1, self.used + 1)
        some = needed > 0
        self.first[some] = starts[:-1][some]
        self._last[some] = starts[1:][some] - 1
        self.next[self._last[some]] = -1
        for cell in np.flatnonzero(counts % LANES).tolist():
            begin, end = int(starts[cell]) * LANES + int(counts[cell]), int(starts[cell + 1])
            self._free[cell] = array("i", reversed(range(begin, end * LANES)))
        self.ids[slots], self.rows[slots], self.error[slots] = ids, rows, 0.0
        self.sizes[:] = counts
        self._slots.put_all(slots, self.ids)
        return slots

    def remove(self, id: int) -> int:
        """Forget an id and wipe its copy; returns its row. Raises KeyError for an unknown id."""
        slot = self._slots.take(id, self.ids)
        block, lane = divmod(slot, LANES)
        cell = int(self.cell_of[block])
        self.error[slot], self.scale[slot], self.length[slot] = np.nan, 0.0, 0.0
        if self.copied:
            self.blocks[block, :, lane] = 0
        self._free[cell].append(slot)
        self.sizes[cell] -= 1
        return int(self.rows[slot])

    def point_at(self, matrix: Vector) -> None:
        """Where the rows are now."""
        if matrix is not self.matrix:
            self.matrix = matrix
            self.table.matrix, self.table.height = matrix.ctypes.data, len(matrix)

    def live(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """A copy of all ids and their rows, oldest id first."""
        slots = np.flatnonzero(~np.isnan(self.error))
        slots = slots[np.argsort(self.ids[slots])]
        return self.ids[slots], self.rows[slots]

    def row(self, id: int) -> int:
        """The row of an id."""
        slot = self._slots.find(id, self.ids)
        if slot < 0:
            raise KeyError(id)
        return int(self.rows[slot])

    @property
    def nbytes(self) -> int:
        """The bytes of the arrays, and of where each id lies."""
        arrays = (self.blocks, self.scale, self.length, self.error, self.rows, self.ids)
        every = (*arrays, self.cell_of, self.next)
        return sum(each.nbytes for each in every) + self._slots.nbytes

    def __contains__(self, id: int) -> bool:
        return self._slots.find(id, self.ids) >= 0

    def __len__(self) -> int:
        return len(self._slots)

    def _block(self, cell: int) -> tuple[int, int]:
        """The slots of one block more for a cell, from and to."""
        block = self.used
        if block == len(self.next):
            self._grow(block + max(block // 8, 16 if len(self.first) == 1 else 1))
        self.used += 1
        self.cell_of[block], self.next[block] = cell, -1
        if self.first[cell] < 0:
            self.first[cell] = block
        else:
            self.next[self._last[cell]] = block
        self._last[cell] = block
        return block * LANES, (block + 1) * LANES

    def _grow(self, blocks: int) -> None:
        if blocks <= len(self.next):
            return
        kept, slots, shape = len(self.error), blocks * LANES, (blocks, *self.blocks.shape[1:])
        if not self.copied:
            shape = (0, *shape[1:])
        # the system moves large arrays without copying; a new array has larger pages
        if kept:
            self.blocks.resize(shape, refcheck=False)
        else:
            self.blocks = np.zeros(shape, np.uint8)
        for each in (self.scale, self.length, self.error, self.rows, self.ids):
            each.resize(slots, refcheck=False)
        for each in (self.cell_of, self.next):
            each.resize(blocks, refcheck=False)
        self.error[kept:] = np.nan
        self._point()

    def _point(self) -> None:
        for name in _ARRAYS:
            setattr(self.table, name, getattr(self, name).ctypes.data)
        self.table.dim, self.table.width = self.dim, self.width
        self.table.cells = len(self.first)
