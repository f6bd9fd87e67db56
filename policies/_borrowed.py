"""The outcomes of the nearest cells, for a query whose own cell has few: for `nested`."""

from __future__ import annotations

import math

import numpy as np

from policies._cells import Cells, Int64s
from policies._types import Floats, Vector

_CELLS = 4096
"""The largest number of cells."""
_STEPS = 4096.0
"""Steps of a weight in 1. Counts are on a grid, too, so the weighted sums are exact: they do not
depend on the order of addition, and are the same for one query as for one of many."""
_LEAST = 2.0**-20
"""The smallest count above zero."""


def borrowed(
    state: Cells, distances: Vector, cell: Int64s, group: Int64s, borrow: float
) -> tuple[Floats, Floats]:
    """(…, K + 1) outcomes of each arm that count in a query's cell, and the sum of their qualities.

    distances: (…, used) to each cell, as `Cells.distances` gives them; cell, group: (…) as found.

    If the cell has fewer than `borrow` outcomes, those of the nearest cells count with it until
    there are as many. The cell at the squared distance d² weighs ((D − d²)/(D − d²₁))³, where D is
    the mean over all cells and d²₁ belongs to the nearest. A query without features borrows none.
    """
    n, s = state.n[cell], state.s[cell]
    if distances.ndim == 1:
        if np.add.reduce(n) >= borrow or group == state.groups:
            return n, s
        return _mixed(state, distances, borrow)
    few = (np.add.reduce(n, axis=-1) < borrow) & (group < state.groups)
    if few.any():
        n[few], s[few] = _mixed(state, distances[few], borrow)
    return n, s


def of_others(state: Cells, borrow: float, max_cells: int) -> tuple[Floats, Floats]:
    """(C, K + 1) what each of the first `max_cells` cells would borrow from the others of them.

    It is as if it had no outcome: what `borrowed` gives for a query at its centre without a cell.
    """
    search, norms = state.searched()
    cells = min(state.used, max_cells)
    if cells < 2:
        return np.zeros_like(state.n[:cells]), np.zeros_like(state.s[:cells])
    centres = search[:cells]
    distances = norms[:cells] - np.float32(2.0) * (centres @ centres.T)
    return _mixed(state, distances, borrow, others=True)


def _mixed(
    state: Cells, distances: Vector, borrow: float, others: bool = False
) -> tuple[Floats, Floats]:
    """others: row i is of a query at cell i, which borrows nothing from that cell."""
    keys = distances.astype(np.int64)  # a distance is a whole number
    keys *= _CELLS
    keys += np.arange(keys.shape[-1])  # so no two are equal
    if others:
        np.fill_diagonal(keys, np.iinfo(np.int64).max)
    keys.sort(axis=-1)
    keys = keys[..., : min(math.ceil(borrow), keys.shape[-1] - others)]
    near = keys & (_CELLS - 1)
    like = np.add.reduce(distances, axis=-1, dtype=np.float64, keepdims=True)
    like = like / distances.shape[-1] - keys // _CELLS
    np.maximum(like, 0.0, out=like)
    like /= np.maximum(like[..., :1], 1.0)
    n, s = state.n.take(near, 0), state.s.take(near, 0)
    outcomes = np.add.reduce(n, axis=-1)
    left = borrow + outcomes
    left -= np.add.accumulate(outcomes, axis=-1)
    left /= np.maximum(outcomes, _LEAST)
    weight = np.minimum(np.maximum(left, 0.0, out=left), 1.0, out=left)
    weight *= like * like * like
    weight *= _STEPS
    np.rint(weight, out=weight)
    weight /= _STEPS
    weight[..., 0] = 1.0
    if weight.ndim == 1:
        return weight.dot(n), weight.dot(s)
    weight = weight[:, None]
    return (weight @ n)[:, 0], (weight @ s)[:, 0]
