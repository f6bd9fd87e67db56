"""The nearest past queries of a whole stream at once, if the stream is known beforehand.

What the service's history and an exact index would recall at every step, computed in blocks of
matrix products: of 10,000 queries in seconds, and once for all policies that see this stream.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies import Vector

_BLOCK = 256
_SPARE = 8


@dataclass(frozen=True, slots=True)
class Recall:
    """For each of n queries in the order of the stream: what is near among those before it.

    own:          (n,) the item in which the query is remembered itself, 0 for a zero vector.
    ids:          (n, k) items, nearest first and on ties the later one; 0 where there are fewer.
    similarities: (n, k) cosines.
    """

    own: NDArray[np.int64]
    ids: NDArray[np.int64]
    similarities: NDArray[np.float32]

    def at(self, step: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Ids and similarities of one step."""
        found = int(np.count_nonzero(self.ids[step]))
        return tuple(self.ids[step, :found].tolist()), tuple(
            self.similarities[step, :found].tolist()
        )


def recall_stream(stream: Vector, k: int, capacity: int) -> Recall:
    """Recall for every row of `stream` (n, d) if each is remembered once its step is done.

    A vector seen before is the same item. Beyond `capacity` the oldest item is dropped; if it comes
    again, it is a new item.
    """
    n = len(stream)
    own, first, forgotten = _items(stream, capacity)
    found = Recall(own, np.zeros((n, k), np.int64), np.zeros((n, k), np.float32))
    if not k:
        return found
    items = stream[first]  # item i stands in row i − 1
    known = np.concatenate([[0], np.maximum.accumulate(own)])[:n]  # items there are before a step
    for start in range(0, n, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, n))
        low, high = int(forgotten[start]), int(known[rows[-1]])
        if high <= low:
            continue
        near = stream[rows] @ items[low:high].T
        at = np.arange(low, high)
        out = (at[None] >= known[rows, None]) | (at[None] < forgotten[rows, None])
        near[out] = -np.inf
        near[own[rows] == 0] = -np.inf
        _keep_nearest(found, rows, near, low, items, stream)
    return found


def _items(
    stream: Vector, capacity: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(n,) item of each row, rows at which items begin, (n,) items forgotten before each step."""
    own = np.zeros(len(stream), np.int64)
    forgotten = np.zeros(len(stream), np.int64)
    first: list[int] = []
    newest: dict[bytes, int] = {}
    for row, vector in enumerate(stream):
        forgotten[row] = max(0, len(first) - capacity)
        if not vector.any():
            continue
        key = vector.tobytes()
        item = newest.get(key, 0)
        if item <= forgotten[row]:
            first.append(row)
            item = newest[key] = len(first)
        own[row] = item
    return own, np.array(first, np.int64), forgotten


def _keep_nearest(
    found: Recall,
    rows: NDArray[np.int64],
    near: Vector,
    low: int,
    items: Vector,
    stream: Vector,
) -> None:
    width = near.shape[1]
    most = min(width, found.ids.shape[1] + _SPARE)
    at = np.argpartition(near, width - most, axis=1)[:, width - most :]
    there = np.isfinite(np.take_along_axis(near, at, axis=1))
    # Added up as the exact index does it, so that equal vectors are equally near.
    exact = (items[low + at] * stream[rows][:, None, :]).sum(axis=2)
    exact = np.where(there, exact, -np.inf)
    ids = np.where(there, low + at + 1, 0)
    order = np.lexsort((-ids, -exact), axis=1)[:, : found.ids.shape[1]]
    kept = np.take_along_axis(ids, order, axis=1)
    found.ids[rows, : kept.shape[1]] = kept
    similarities = np.take_along_axis(exact, order, axis=1)
    similarities = np.clip(similarities, -1.0, 1.0)
    found.similarities[rows, : kept.shape[1]] = np.where(kept > 0, similarities, 0.0)
