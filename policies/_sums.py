"""Sums whose last bits are the same on every processor, for what is folded.

A product of BLAS adds in an order that its kernel for this processor likes best, and numpy takes
exp and log from other code where there is AVX-512. Both are right to the last bit or two, and so
is no two of them alike: a log would fold to another state on another machine. Products element by
element, and `np.add.reduce` over them, are not.
"""

from __future__ import annotations

import math

import numpy as np

from policies._types import Floats


def dot(a: Floats, b: Floats) -> float:
    """Σ aᵢ·bᵢ.

    >>> dot(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    11.0
    """
    return float(np.add.reduce(a * b))


def times(rows: Floats, matrix: Floats) -> Floats:
    """(n, d) times (d, h), one row after the other. O(n·d·h).

    >>> times(np.array([[1.0, 2.0]]), np.eye(2)).tolist()
    [[1.0, 2.0]]
    """
    found: Floats = np.stack([np.add.reduce(row[:, None] * matrix, axis=0) for row in rows])
    return found


def softplus(z: float) -> float:
    """log(1 + exp(z)), whatever z.

    >>> softplus(0.0) == math.log(2.0), softplus(1e9), softplus(-1e9)
    (True, 1000000000.0, 0.0)
    """
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))
