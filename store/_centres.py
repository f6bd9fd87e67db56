"""Where the cells of many vectors are: k-means on a sample of them, the same each time."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from store._protocols import Vector

_PER_CELL, _ROUNDS, _BLOCK = 16, 4, 1024
_MOST_CELLS = 2048


def cells_for(n: int) -> int:
    """How many cells n vectors are to have: a power of two near 1.6 times their square root.

    >>> [cells_for(n) for n in (50, 30_000, 100_000, 1_000_000)]
    [16, 256, 512, 2048]
    """
    return int(min(_MOST_CELLS, max(16, 2 ** round(np.log2(max(1.6 * n**0.5, 1.0))))))


def sampled(n: int) -> NDArray[np.int64]:
    """Which of n vectors, in their order, the cells are found from: evenly spread."""
    most = min(n, _PER_CELL * cells_for(n))
    return np.linspace(0, n - 1, most).astype(np.int64)


def centres(sample: Vector, cells: int, stop: threading.Event) -> Vector:
    """The centres of so many cells, of unit length; of no use once `stop` is set."""
    n = len(sample)
    found = sample[np.linspace(0, n - 1, cells).astype(np.int64)].copy()
    for _ in range(_ROUNDS):
        nearest = np.empty(n, np.int64)
        for start in range(0, n, _BLOCK):
            if stop.is_set():
                return found
            some = slice(start, start + _BLOCK)
            nearest[some] = np.argmax(sample[some] @ found.T, axis=1)
        order = np.argsort(nearest, kind="stable")
        counts = np.bincount(nearest, minlength=cells)
        used = np.flatnonzero(counts)  # the centre of an empty cell stays where it was
        found[used] = np.add.reduceat(sample[order], (np.cumsum(counts) - counts)[used], axis=0)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        found /= np.where(lengths > 0, lengths, 1.0)
    return found
