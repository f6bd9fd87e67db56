"""Finds the nearest vectors in some cells: the compiled scan, or numpy without it.

Both give the same bits. The compiled one is plain C, called through ctypes. So one build works with
every version of Python, and it chooses the processor's instructions when it is loaded.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from store._cells import LANES, Cells, Table
from store._exact import nearest
from store._protocols import Vector

LEVELS = ("plain C", "AVX2", "AVX-512 VNNI")
_BLOCK = 32
"""The number of queries whose products with all vectors are held at once."""
_NOTHING = ctypes.c_char * 0
_SOME = 512
"""The number of vectors gathered at once: more would not fit into the processor's cache."""


class Which(NamedTuple):
    """The cells of each query: from starts[i] to starts[i + 1], without repetition."""

    cells: NDArray[np.int32]
    starts: NDArray[np.int64]


class Found(NamedTuple):
    """(queries, k) ids and similarities, nearest first, of which each query has `counts`."""

    ids: NDArray[np.int64]
    similarities: NDArray[np.float32]
    counts: NDArray[np.int64]

    @classmethod
    def none(cls, n: int, k: int) -> Found:
        """Empty results for n queries."""
        return cls.within(np.zeros(n * (2 * k + 1), np.int64), n, k)

    @classmethod
    def within(cls, both: NDArray[np.int64], n: int, k: int) -> Found:
        """Results for n queries in one array of n · (2 k + 1): ids, counts, similarities."""
        near = both[n * (k + 1) :].view(np.float32)[: n * k]
        return cls(both[: n * k].reshape(n, k), near.reshape(n, k), both[n * k : n * (k + 1)])


class Kernel(Protocol):
    """Finds the nearest among the vectors of some cells."""

    name: str
    copied: bool
    """Whether it scans int8 copies."""

    def put(self, cells: Cells, slots: NDArray[np.int32]) -> None:
        """Make the int8 copies of these slots' vectors."""
        ...

    def nearest(
        self,
        cells: Cells,
        queries: Vector,
        which: Which | None,
        k: int,
    ) -> Found:
        """The k nearest to each row of queries, exactly, of all in its cells; None is all cells."""
        ...


class Numpy:
    """Products by BLAS with the vectors themselves: it needs no compiler, but reads more memory."""

    name, copied = "numpy", False

    def put(self, cells: Cells, slots: NDArray[np.int32]) -> None:
        """Does nothing: this kernel has no copies."""

    def nearest(
        self,
        cells: Cells,
        queries: Vector,
        which: Which | None,
        k: int,
    ) -> Found:
        """By one product for a block of queries if they compare all vectors."""
        found = Found.none(len(queries), k)
        live = ~np.isnan(cells.error[: cells.used * LANES])
        if which is not None:
            for i, query in enumerate(queries):
                begin, end = which.starts[i : i + 2]
                slots = _slots(cells, which.cells[begin:end], live)
                rows, about = cells.rows[slots], np.empty(len(slots), np.float32)
                for start in range(0, len(rows), _SOME):
                    some = slice(start, start + _SOME)
                    about[some] = cells.matrix[rows[some]] @ query
                _told_apart(found, i, about, cells, slots, query)
            return found
        slots = np.flatnonzero(live)
        rows = cells.rows[slots]
        most = int(rows.max(initial=-1)) + 1
        for start in range(0, len(queries), _BLOCK):
            block = queries[start : start + _BLOCK]
            products = block @ cells.matrix[:most].T
            for i, (query, product) in enumerate(zip(block, products, strict=True), start):
                _told_apart(found, i, product[rows], cells, slots, query)
        return found


def _told_apart(
    found: Found,
    i: int,
    about: NDArray[np.float32],
    cells: Cells,
    slots: NDArray[np.int64],
    query: Vector,
) -> None:
    """Record the results of query i in these slots; `about` are their products by BLAS."""
    if query.any():
        rows, ids = cells.rows[slots], cells.ids[slots]
        best = nearest(about, rows, ids, cells.matrix, query, found.ids.shape[1])
        n = found.counts[i] = len(best.ids)
        found.ids[i, :n], found.similarities[i, :n] = best.ids, best.similarities


def _slots(cells: Cells, which: NDArray[np.int32], live: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The slots in use of some cells."""
    wanted = np.zeros(len(cells.first), np.bool_)
    wanted[which] = True
    blocks = np.flatnonzero(wanted[cells.cell_of[: cells.used]])
    slots = (blocks[:, None] * LANES + np.arange(LANES)).ravel()
    used: NDArray[np.int64] = slots[live[slots]]
    return used


class Native:
    """`store/_scan.c`; level: the processor's instructions that it uses."""

    copied = True

    def __init__(self, library: Path, level: int | None = None) -> None:
        quick, slow = ctypes.PyDLL(str(library)), ctypes.CDLL(str(library))
        quick.scan_source.restype = ctypes.c_uint32
        source = library.with_suffix(".c")
        if source.exists() and quick.scan_source() != crc32(source.read_bytes()):
            raise OSError(f"{library}: was compiled from other source")
        best = int(quick.scan_level())
        self.level = best if level is None else min(level, best)
        self.name = LEVELS[self.level]
        # A recall is short; releasing the interpreter's lock would only delay it.
        self._quick, self._slow = quick.scan_nearest, slow.scan_nearest
        self._put, self._put_many = quick.scan_put, slow.scan_put
        pointer, count = ctypes.c_void_p, ctypes.c_int64
        for one in (self._quick, self._slow):
            one.argtypes = (
                *(ctypes.POINTER(Table), ctypes.c_int, pointer, count, count),
                *(pointer, pointer, pointer, pointer, pointer),
            )
        for one in (self._put, self._put_many):
            one.argtypes = (ctypes.POINTER(Table), ctypes.c_int, pointer, count)

    def put(self, cells: Cells, slots: NDArray[np.int32]) -> None:
        """Make the int8 copies of these slots' vectors, without the interpreter's lock if they are
        many.
        """
        put = self._put if len(slots) == 1 else self._put_many
        if put(cells.table, self.level, slots.ctypes.data, len(slots)):
            raise MemoryError

    def nearest(
        self,
        cells: Cells,
        queries: Vector,
        which: Which | None,
        k: int,
    ) -> Found:
        """By one call for all queries."""
        n = len(queries)
        both, few = np.zeros(n * (2 * k + 1), np.int64), n <= _BLOCK
        call = self._quick if few else self._slow
        some = (None, None) if which is None else tuple(each.ctypes.data for each in which)
        # a copy of a few costs less than asking numpy where they lie
        given = queries.tobytes() if few else queries.ctypes.data
        ids = ctypes.addressof(_NOTHING.from_buffer(both.data))
        counts = ids + 8 * n * k
        failed = call(
            *(cells.table, self.level, given, n, k), *(*some, ids, counts + 8 * n, counts)
        )
        if failed:
            raise MemoryError
        return Found.within(both, n, k)


def library() -> Path:
    """The path of the compiled scan, if it was compiled."""
    return Path(__file__).with_name("_scan.so")


def native(level: int | None = None) -> Native | None:
    """The compiled scan; None if it was not compiled, not for this machine, or of other source."""
    try:
        return Native(library(), level)
    except (OSError, AttributeError):
        return None


@cache
def best() -> Kernel:
    """The fastest kernel on this machine."""
    return native() or Numpy()
