"""The centres of cells: k-means on a sample of the vectors, with the same result each time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from store._protocols import Vector

_PER_CELL, _ROUNDS = 16, 4
_ENOUGH = 16
"""How many vectors of a cell its centre is computed of, where all cells are known."""
_MAX_CELLS = 2048


def cells_for(n: int) -> int:
    """The number of cells for n vectors: a power of two near four times their square root.

    >>> [cells_for(n) for n in (50, 30_000, 100_000, 1_000_000)]
    [32, 512, 1024, 2048]
    """
    return int(min(_MAX_CELLS, 2 ** round(np.log2(4 * n**0.5) - 0.05)))


def sampled(n: int) -> NDArray[np.int64]:
    """The sample of n vectors for k-means: evenly spread over their order."""
    most = min(n, _PER_CELL * cells_for(n))
    return np.linspace(0, n - 1, most).astype(np.int64)


def centres(
    sample: Vector, cells: int, nearest: Callable[[Vector, Vector], NDArray[np.int32]]
) -> Vector:
    """The centres of this many cells, of unit length.

    nearest: returns the nearest centre of each vector.
    """
    found = sample[np.linspace(0, len(sample) - 1, cells).astype(np.int64)]
    for _ in range(_ROUNDS):
        where = nearest(found, sample)
        order, counts = np.argsort(where, kind="stable"), np.bincount(where, minlength=cells)
        used = np.flatnonzero(counts)  # the centre of an empty cell stays where it was
        found[used] = np.add.reduceat(sample[order], (np.cumsum(counts) - counts)[used], axis=0)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        found /= np.where(lengths > 0, lengths, 1.0)
    return found


def middles_of(
    where: NDArray[np.int32], cells: int, matrix: Vector, rows: NDArray[np.int32]
) -> Vector:
    """The centres of cells, of unit length, from the cell of each of these rows. None is empty.

    Of a large cell, vectors that are spread evenly over their order stand for all.
    """
    order, counts = np.argsort(where, kind="stable"), np.bincount(where, minlength=cells)
    begins = np.cumsum(counts) - counts
    within = np.arange(len(where)) - np.repeat(begins, counts)
    every = np.repeat(-(-counts // _ENOUGH), counts)
    some = order[within % every == 0]
    taken = -(-counts // -(-counts // _ENOUGH))
    found: Vector = np.add.reduceat(matrix[rows[some]], np.cumsum(taken) - taken, axis=0)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    found /= np.where(lengths > 0, lengths, 1.0)
    return found
