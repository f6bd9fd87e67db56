"""Fewer numbers of an embedding: along fixed directions that are at right angles to each other.

Of a Hadamard matrix, whose rows are orthogonal and whose entries are ±1, as many rows are taken as
directions are wanted, with the signs of columns flipped (Ailon and Chazelle 2009):

x′ = H′·D·x/√m,   H′ (m, p) of ±1,   D diagonal of ±1,   p ≥ d the next 2ᵏ or 12·2ᵏ

so that lengths and angles are kept up to about 1/√m. For d = 384, 512, 768, 1024, 1536 and 3072
p is d itself, and the directions are exactly orthogonal. Rows and signs come from a hash of (d, m):
nothing is drawn, so that every machine and every version of numpy has the same.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from policies._grid import FEATURE
from policies._types import Floats, Vector

_Q = 11  # Paley's matrix of order q + 1 = 12
_SQUARES = frozenset(i * i % _Q for i in range(1, _Q))


def along(embedding: Vector, m: int) -> Floats:
    """(m,) the embedding along m directions, or (d,) itself where it has no more than m.

    The embedding is rounded to multiples of 2⁻¹⁴ first. Sums of these are exact, so that x′ is the
    same bits in whatever order a processor adds.
    """
    x = embedding.astype(np.float64)
    if m >= x.size:
        return x
    found: Floats = directions(x.size, m) @ np.rint(x * FEATURE)
    found *= 1.0 / (FEATURE * np.sqrt(float(m)))
    return found


@lru_cache(maxsize=8)
def directions(d: int, m: int) -> Floats:
    """(m, d) of ±1, m < d.

    >>> rows = directions(384, 64)
    >>> bool((rows @ rows.T == 384 * np.eye(64)).all())
    True
    """
    width = 1 << (d - 1).bit_length()  # of a block of Sylvester's kind
    blocks = 1
    if 3 * width // 4 >= d and width >= 16:
        width, blocks = width // 16, 12
    seed = f"directions {d} {m}".encode()
    order = sorted(range(width * blocks), key=lambda row: _digest(seed + b" row %d" % row))
    rows, columns = np.array(sorted(order[:m])), np.arange(d)
    flipped = np.array([_digest(seed + b" column %d" % c)[0] & 1 for c in range(d)])
    entries = _sylvester(rows % width, columns % width) * (1.0 - 2.0 * flipped)
    if blocks > 1:
        entries *= _paley()[rows // width][:, columns // width]
    return entries


def _sylvester(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Floats:
    """−1 to the number of binary ones that row and column have in common."""
    odd: NDArray[np.uint8] = np.bitwise_count(rows[:, None] & columns[None]) & 1
    return 1.0 - 2.0 * odd.astype(np.float64)


def _paley() -> Floats:
    """(12, 12), the Hadamard matrix I + S of q = 11, S of quadratic residues."""
    found = np.ones((_Q + 1, _Q + 1))
    for i in range(_Q):
        for j in range(_Q):
            square = i == j or (j - i) % _Q in _SQUARES
            found[i + 1, j + 1] = 1.0 if square else -1.0
        found[i + 1, 0] = -1.0
    return found


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
