"""What finds the nearest in some cells: the compiled scan, or numpy where there is none.

Both give the same bits. The compiled one is plain C, and is called through ctypes: so one build
serves every version of Python, and a processor's instructions are chosen when it is loaded.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from store._cells import LANES, Cells, Table
from store._exact import NOTHING, nearest
from store._protocols import Neighbours, Vector

LEVELS = ("plain C", "AVX2", "AVX-512 VNNI")
_VERSION = 1
_BLOCK = 32
"""Queries whose products with all vectors are held at once."""


class Kernel(Protocol):
    """Finds the nearest among the vectors of some cells."""

    name: str
    copied: bool
    """Whether it scans int8 copies."""

    def put(self, cells: Cells, slots: NDArray[np.int32]) -> None:
        """Copy the vectors that these slots are for."""
        ...

    def nearest(
        self,
        cells: Cells,
        queries: Vector,
        which: NDArray[np.int32],
        starts: NDArray[np.int64],
        k: int,
    ) -> list[Neighbours]:
        """The k nearest to each row of queries, exactly, of all in its cells.

        Its cells are those of `which` from starts[i] to starts[i + 1], each of them once.
        """
        ...


class Numpy:
    """Products by BLAS with the vectors themselves: no compiler is needed, and more is read."""

    name, copied = "numpy", False

    def put(self, cells: Cells, slots: NDArray[np.int32]) -> None:
        """Nothing is copied."""

    def nearest(
        self,
        cells: Cells,
        queries: Vector,
        which: NDArray[np.int32],
        starts: NDArray[np.int64],
        k: int,
    ) -> list[Neighbours]:
        """By one product for a block of queries where they look at everything."""
        live = ~np.isnan(cells.error[: cells.used * LANES])
        if len(which) != len(queries) * len(cells.first):
            return [
                self._of_some(cells, query, which[starts[i] : starts[i + 1]], live, k)
                for i, query in enumerate(queries)
            ]
        slots = np.flatnonzero(live)
        rows, ids = cells.rows[slots], cells.ids[slots]
        most = int(rows.max(initial=-1)) + 1
        found: list[Neighbours] = []
        for start in range(0, len(queries), _BLOCK):
            block = queries[start : start + _BLOCK]
            products = (block @ cells.matrix[:most].T)[:, rows]
            found += [
                nearest(about, rows, ids, cells.matrix, query, k) if query.any() else NOTHING
                for query, about in zip(block, products, strict=True)
            ]
        return found

    def _of_some(
        self,
        cells: Cells,
        query: Vector,
        which: NDArray[np.int32],
        live: NDArray[np.bool_],
        k: int,
    ) -> Neighbours:
        if not query.any():
            return NOTHING
        wanted = np.zeros(len(cells.first), np.bool_)
        wanted[which] = True
        blocks = np.flatnonzero(wanted[cells.cell_of[: cells.used]])
        slots = (blocks[:, None] * LANES + np.arange(LANES)).ravel()
        slots = slots[live[slots]]
        rows = cells.rows[slots]
        about = cells.matrix[rows] @ query
        return nearest(about, rows, cells.ids[slots], cells.matrix, query, k)


class Native:
    """`store/_scan.c`; level: which of the processor's instructions it uses."""

    copied = True

    def __init__(self, library: Path, level: int | None = None) -> None:
        quick, slow = ctypes.PyDLL(str(library)), ctypes.CDLL(str(library))
        if quick.scan_version() != _VERSION:
            raise OSError(f"{library}: was compiled from another version")
        best = int(quick.scan_level())
        self.level = best if level is None else min(level, best)
        self.name = LEVELS[self.level]
        # A recall is so short that another thread could only take the interpreter away from it.
        self._quick, self._slow = quick.scan_nearest, slow.scan_nearest
        self._put, self._put_many = quick.scan_put, slow.scan_put
        pointer, count = ctypes.c_void_p, ctypes.c_int64
        for one in (self._quick, self._slow):
            one.argtypes = (
                *(ctypes.POINTER(Table), ctypes.c_int, pointer, count, count),
                *(pointer, pointer, pointer, pointer, pointer),
            )
        for one in (self._put, self._put_many):
            one.argtypes = (ctypes.POINTER(Table), pointer, count)

    def put(self, cells: Cells, slots: NDArray[np.int32]) -> None:
        """Copy the vectors that these slots are for, without the interpreter's lock for many."""
        put = self._put if len(slots) == 1 else self._put_many
        if put(cells.table, slots.ctypes.data, len(slots)):
            raise MemoryError

    def nearest(
        self,
        cells: Cells,
        queries: Vector,
        which: NDArray[np.int32],
        starts: NDArray[np.int64],
        k: int,
    ) -> list[Neighbours]:
        """By one call for all queries."""
        n = len(queries)
        ids, near = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
        counts = np.empty(n, np.int64)
        call = self._quick if n <= _BLOCK else self._slow
        failed = call(
            *(cells.table, self.level, queries.ctypes.data, n, k),
            *(which.ctypes.data, starts.ctypes.data),
            *(ids.ctypes.data, near.ctypes.data, counts.ctypes.data),
        )
        if failed:
            raise MemoryError
        return [
            Neighbours(ids[i, :count], near[i, :count]) for i, count in enumerate(counts.tolist())
        ]


def library() -> Path:
    """Where the compiled scan lies, if it was compiled."""
    return Path(__file__).with_name("_scan.so")


def native(level: int | None = None) -> Native | None:
    """The compiled scan; None where it was not compiled, or not for this machine."""
    try:
        return Native(library(), level)
    except (OSError, AttributeError):
        return None


@cache
def best() -> Kernel:
    """The fastest that there is here."""
    return native() or Numpy()
