"""The compiled help of `nested`, where it was compiled: the same bits as by numpy, in less time.

It reads the library beside this module, once, and its source, if that is there. Without the
library, with one of other source, or with a numpy that adds up in another order, numpy does
everything.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from policies._explore import PLACES
from policies._types import Floats, Vector

LIBRARY = __file__.rpartition("/")[0] + "/_nested.so"
_LONGEST = 128
"""numpy adds up so many numbers in the order that the library knows, and more in another."""
_OF_STATE = ("centres", "norms", "group", "n", "s", "group_n", "group_s")
_OF_ARMS = ("columns", "mean", "variance")
_COUNTS = ("dim", "used", "none", "groups", "width", "arms")
_NUMBERS = ("noise", "wide", "narrow", "group_shared", "cell_shared", "borrow", "kappa")


class _State(ctypes.Structure):
    """What `policies/_nested.c` takes of a state, and of the arms."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in (*_OF_STATE, *_OF_ARMS, "places")),
        *((name, ctypes.c_int64) for name in _COUNTS),
        *((name, ctypes.c_double) for name in _NUMBERS),
    )


class OfState(NamedTuple):
    """The arrays of a state that the library reads where they lie."""

    centres: NDArray[np.int16]
    norms: Vector
    group: NDArray[np.int64]
    n: Floats
    s: Floats
    group_n: Floats
    group_s: Floats


class OfArms(NamedTuple):
    """(K,) the column of each arm, and the mean and variance of its quality over all queries."""

    columns: NDArray[np.int64]
    mean: Floats
    variance: Floats


class Pinned:
    """Arrays with their addresses. A copy of a state has none, since it has other arrays."""

    def __init__(self, known: OfState) -> None:
        self.known = known
        self.state = _State(places=_places.ctypes.data)
        self._arms: tuple[OfArms, tuple[int, ...]] | None = None
        for name in _OF_STATE:
            setattr(self.state, name, _address(getattr(known, name)))
        self.state.none, self.state.width = len(known.group), known.n.shape[1]
        self.state.dim = known.centres.shape[1]

    def asked(self, arms: OfArms) -> _State:
        """The state and these arms, for one call: another thread may ask for others meanwhile."""
        known = self._arms
        if known is None or known[0] is not arms:
            at = _address(arms.columns), _address(arms.mean), _address(arms.variance)
            known = self._arms = arms, at
        state = _State.from_buffer_copy(self.state)
        state.columns, state.mean, state.variance = known[1]
        state.arms = len(arms.columns)
        return state

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return type(None), ()


class Native:
    """The library; OSError or AttributeError where it is not there or of other source."""

    def __init__(self, path: str) -> None:
        library = ctypes.PyDLL(path)  # a proposal is short: the interpreter's lock is kept
        library.nested_source.restype = ctypes.c_uint32
        source = path.removesuffix("so") + "c"
        with suppress(FileNotFoundError), open(source, "rb") as file:  # noqa: PTH123 - not imported
            if library.nested_source() != crc32(file.read()):
                raise OSError(f"{path}: was compiled from other source")
        pointer, count = ctypes.c_void_p, ctypes.c_int64
        self._begin, self._end = library.nested_begin, library.nested_end
        self._find = library.nested_find
        self._find.argtypes = (pointer, pointer, count, pointer)
        self._begin.argtypes = (pointer, pointer, count, pointer, count, pointer, pointer)
        self._end.argtypes, self._end.restype = (count, count, pointer), None
        self._sum = library.nested_sum
        self._sum.argtypes, self._sum.restype = (pointer, count), ctypes.c_double

    def adds_as_numpy(self) -> bool:
        """Whether numpy adds up rows of all lengths in the order that the library knows."""
        signs = np.array([1.0, -1.0, 1.0, 1.0])
        for n in range(1, _LONGEST + 1):
            row = signs[np.arange(n) % 4] / (3.0 + np.arange(n) * 7 % 11)
            if self._sum(row.ctypes.data, n) != np.add.reduce(row[None], axis=-1)[0]:
                return False
        return True

    def find(self, pinned: Pinned, x: Vector) -> NDArray[np.int64] | None:
        """(2, …) the cell and the group of each of (…, d) queries on the grid.

        None where one is too long for exact products.
        """
        many = 1 if x.ndim == 1 else len(x)
        found = np.empty((2, *x.shape[:-1]), np.int64)
        failed = self._find(ctypes.addressof(pinned.state), _address(x), many, _address(found))
        if failed < 0:
            raise MemoryError
        return None if failed else found

    def propose(
        self, state: _State, features: Vector, cost_usd: Floats, worth: Floats
    ) -> tuple[Floats, Floats, Floats, Floats] | None:
        """Scores, propensities, qualities and deviations, (B, K) each, of (B, d) features.

        cost_usd: (K,) or (B, K); worth: (B,). None where the arrays are others than that, and where
        features are not finite, or too long for exact products.
        """
        many, arms = len(features), int(state.arms)
        alike = cost_usd.size == arms if cost_usd.ndim == 1 else cost_usd.shape == (many, arms)
        if features.shape != (many, state.dim) or not alike or worth.size != many:
            return None
        if features.dtype != _SINGLE or not features.flags.aligned:
            return None
        each = many * arms
        out = np.empty((4 + 2 * PLACES) * each)
        at = _address(out)
        failed = self._begin(
            *(ctypes.addressof(state), _address(features), many),
            *(_address(cost_usd), arms if cost_usd.ndim == 2 else 0, _address(worth), at),
        )
        if failed:
            if failed < 0:
                raise MemoryError
            return None
        z, exponent = out[4 * each : (4 + PLACES) * each], out[(4 + PLACES) * each :]
        np.tanh(z, z)
        np.exp(exponent, exponent)
        self._end(many, arms, at)
        scores, quality, deviation, shares = out[: 4 * each].reshape(4, many, arms)
        return scores, shares, quality, deviation


_places = np.linspace(0.0, 1.0, PLACES)
_SINGLE = np.dtype(np.float32)
_NOTHING = ctypes.c_char * 0


def _address(array: NDArray[Any]) -> int:
    """Where an array begins; `array.ctypes.data` takes seven times as long."""
    if array.flags.writeable:
        return ctypes.addressof(_NOTHING.from_buffer(array.data))
    return int(array.ctypes.data)


@cache
def native() -> Native | None:
    """The library; None where numpy does everything."""
    try:
        found = Native(LIBRARY)
    except (OSError, AttributeError):
        return None
    return found if found.adds_as_numpy() else None


def usable(arms: int) -> bool:
    """Whether the library proposes from so many arms."""
    return 1 < arms <= _LONGEST and native() is not None
