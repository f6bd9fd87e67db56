"""xᵀ M_k x for a stack of symmetric matrices, reading little more than half of each.

M is kept as panels of some hundred rows, each from its diagonal on, with what lies right of the
diagonal's block doubled: what lies left of it is the same and is never read. In float32, so that
a product reads a third of what the matrices take in float64.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from policies._types import Floats

Narrow = NDArray[np.float32]
_ROWS = 96


class Quadratic:
    """K symmetric matrices of d rows, given as (K, d, d)."""

    def __init__(self, matrices: Floats) -> None:
        d = matrices.shape[1]
        bounds = np.linspace(0, d, max(1, round(d / _ROWS)) + 1).astype(int).tolist()
        self._bounds = list(pairwise(bounds))
        self._panels = [self._panel(matrices, lo, hi) for lo, hi in self._bounds]

    def replace(self, k: int, matrix: Floats) -> None:
        """Another k-th matrix, (d, d)."""
        for (lo, hi), panel in zip(self._bounds, self._panels, strict=True):
            panel[k] = matrix[lo:hi, lo:]
            panel[k, :, hi - lo :] *= 2.0

    def of(self, x: Narrow) -> Narrow:
        """(K,) the form of x, (d,)."""
        total = np.zeros(len(self._panels[0]), np.float32)
        for (lo, hi), panel in zip(self._bounds, self._panels, strict=True):
            k, rows, width = panel.shape
            product = (panel.reshape(k * rows, width) @ x[lo:]).reshape(k, rows)
            total += product @ x[lo:hi]
        return total

    @staticmethod
    def _panel(matrices: Floats, lo: int, hi: int) -> Narrow:
        panel = matrices[:, lo:hi, lo:].astype(np.float32)
        panel[:, :, hi - lo :] *= 2.0
        return panel
