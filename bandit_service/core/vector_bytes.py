"""Vectors as the bytes that events have."""

from __future__ import annotations

import numpy as np

from policies import SURFACE, Vector


def pack(vector: Vector) -> bytes:
    """A vector as little-endian float32."""
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def unpack(data: bytes) -> Vector:
    """The read-only vector that `pack` made `data` from."""
    return np.frombuffer(data, _SINGLE)


_SINGLE = np.dtype("<f4")
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
