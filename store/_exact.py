"""The similarity of two vectors: the only order in which a product is summed, everywhere.

A matrix product sums in an order that depends on the processor, and on how many vectors are
multiplied at once. So it only selects the vectors that may be the nearest. The similarities that
order them, and that are recorded, are computed here, or in the same order by `store/_scan.c`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from store._protocols import Neighbours, Vector

NOTHING = Neighbours(np.zeros(0, np.int64), np.zeros(0, np.float32))
BLAS_ERROR = 1e-5
"""The maximum error of a matrix product of unit vectors."""


def similarities(vectors: Vector, query: Vector) -> NDArray[np.float32]:
    """The product of each row with the query, summed by halving.

    >>> similarities(np.eye(3, dtype=np.float32), np.array([1, 2, 4], np.float32)).tolist()
    [1.0, 2.0, 4.0]
    """
    sums: NDArray[np.float32] = vectors * query
    half = 1
    while 2 * half < sums.shape[1]:
        half *= 2
    while sums.shape[1] > 1:
        sums[:, : sums.shape[1] - half] += sums[:, half:]
        sums, half = sums[:, :half], half // 2
    return sums[:, 0]


def ordered(ids: NDArray[np.int64], near: NDArray[np.float32], k: int) -> Neighbours:
    """The k most similar, nearest first; of two equally near the larger id first."""
    order = np.lexsort((-ids, -near))[:k]
    return Neighbours(ids[order], np.clip(near[order], -1.0, 1.0))


def nearest(
    about: NDArray[np.float32],
    rows: NDArray[np.int32],
    ids: NDArray[np.int64],
    matrix: Vector,
    query: Vector,
    k: int,
) -> Neighbours:
    """The k nearest of some rows; `about` are their products by a matrix product."""
    likely = slice(None)
    if k < len(about):
        kth = np.partition(about, len(about) - k)[len(about) - k]
        likely = np.flatnonzero(about >= kth - BLAS_ERROR)  # type: ignore[assignment]
    return ordered(ids[likely], similarities(matrix[rows[likely]], query), k)
