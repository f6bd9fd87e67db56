"""xᵀ M_k x for a stack of symmetric matrices, reading little more than half of each.

M is kept as panels of some hundred rows, each from its diagonal on, with what lies right of the
diagonal's block doubled: what lies left of it is the same and is never read. In float32, so that
a product reads a third of what the matrices take in float64.

Many x take turns at a part of a panel, which is then still in the processor's cache: so 50 matrices
of 385 rows, 18 MB, are read from memory once for all. Each x is multiplied by itself, so that its
form is the same bits as alone.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from policies._types import Floats

Narrow = NDArray[np.float32]
_ROWS = 96
_BYTES = 8 << 20
"""The size of a part at most: some processor caches hold it beside other things."""


class Quadratic:
    """K symmetric matrices of d rows, given as (K, d, d)."""

    def __init__(self, matrices: Floats) -> None:
        d = matrices.shape[1]
        bounds = np.linspace(0, d, max(1, round(d / _ROWS)) + 1).astype(int).tolist()
        self._bounds = list(pairwise(bounds))
        self._panels = [self._panel(matrices, lo, hi) for lo, hi in self._bounds]
        self._parts = [_parts(panel) for panel in self._panels]

    def replace(self, k: int, matrix: Floats) -> None:
        """Another k-th matrix, (d, d)."""
        for (lo, hi), panel in zip(self._bounds, self._panels, strict=True):
            panel[k] = matrix[lo:hi, lo:]
            panel[k, :, hi - lo :] *= 2.0

    def of(self, xs: Narrow) -> Narrow:
        """(B, K) the forms of (B, d) x."""
        total = np.zeros((len(xs), len(self._panels[0])), np.float32)
        every = [*zip(xs, total, strict=True)]
        for (lo, hi), parts in zip(self._bounds, self._parts, strict=True):
            cut = [(x[lo:hi], x[lo:], form) for x, form in every]
            for part, flat in parts:
                for own, right, form in cut:
                    form[part] += flat.dot(right).reshape(-1, hi - lo).dot(own)
        return total

    @staticmethod
    def _panel(matrices: Floats, lo: int, hi: int) -> Narrow:
        panel = matrices[:, lo:hi, lo:].astype(np.float32)
        panel[:, :, hi - lo :] *= 2.0
        return panel


def _parts(panel: Narrow) -> list[tuple[slice, Narrow]]:
    """Which of the matrices a part of a panel has, and their rows one below another, not copied."""
    k, _, width = panel.shape
    many = min(k, -(-panel.nbytes // _BYTES))
    parts = [slice(k * i // many, k * (i + 1) // many) for i in range(many)]
    return [(part, panel[part].reshape(-1, width)) for part in parts]
