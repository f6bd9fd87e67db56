"""Vectors as the bytes that events have.

A log may keep the embeddings of decisions in fewer bytes (`CODINGS`). A decision is then made from
the rounded vector, so that the log has exactly what was decided from and learned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from policies import SURFACE, Vector

FLOAT32, FLOAT16, INT8 = CODINGS = ("float32", "float16", "int8")
"""How a log keeps embeddings: 4, 2 or 1 bytes a number."""


def pack(vector: Vector) -> bytes:
    """A vector as little-endian float32."""
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def unpack(data: bytes) -> Vector:
    """The read-only vector that `pack` made `data` from."""
    return np.frombuffer(data, _SINGLE)


def pack_as(vector: Vector, coding: str) -> bytes:
    """A vector in a coding.

    int8: whole numbers in proportion to it, the largest 127. Packing what `unpack_as` returns gives
    the same bytes.
    """
    if coding == FLOAT32:
        return pack(vector)
    if coding == FLOAT16:
        return np.asarray(vector, _HALF).tobytes()
    largest = float(np.abs(vector).max(initial=0.0))
    if not 0.0 < largest < math.inf:
        return bytes(len(vector))
    return np.rint(np.asarray(vector, np.float64) * (127.0 / largest)).astype(np.int8).tobytes()


def unpack_as(data: bytes, coding: str) -> Vector:
    """The float32 vector in these bytes; of int8 it has norm 1, or is all zeros.

    Every processor computes the same bits: sums are of whole numbers, and IEEE 754 defines how the
    root and the quotient are rounded. ValueError for another coding or a broken number.
    """
    if coding == FLOAT32:
        return unpack(data)
    if coding == FLOAT16:
        return np.frombuffer(data, _HALF).astype(np.float32)
    if coding != INT8:
        raise ValueError(f"must be one of {', '.join(CODINGS)}, got {coding!r}")
    steps = np.frombuffer(data, np.int8).astype(np.int64)
    norm = math.sqrt(int(steps @ steps)) or 1.0
    return (steps / norm).astype(np.float32)


def rounded(vector: Vector, coding: str) -> Vector:
    """What a log that keeps embeddings in this coding has of a vector."""
    return vector if coding == FLOAT32 else unpack_as(pack_as(vector, coding), coding)


def halves(values: Sequence[float]) -> bytes:
    """Numbers as half floats, little-endian."""
    return np.asarray(values, _HALF).tobytes()


def of_halves(data: bytes) -> tuple[float, ...]:
    """The numbers that `halves` made `data` from, rounded."""
    return tuple(np.frombuffer(data, _HALF).tolist())


_SINGLE = np.dtype("<f4")
_HALF = np.dtype("<f2")
_NO_SURFACE = np.zeros(SURFACE, np.float32)
_NO_SURFACE.setflags(write=False)
_STEPS = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float32)
_SURFACES = _STEPS / np.float32(40.0 * SURFACE**0.5)
"""What each byte says, by its unsigned value."""


def surface_of(data: bytes) -> Vector:
    """(SURFACE,) the surface features of a text, of norm up to 3; zeros where `data` is empty."""
    if len(data) != SURFACE:
        return _NO_SURFACE
    return _SURFACES.take(np.frombuffer(data, np.uint8))
