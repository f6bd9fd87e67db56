"""The compiled help of `nested`, where it was compiled: the same bits as by numpy, in less time.

It reads the library beside this module, once, and its source, if that is there. Without the
library, with one of other source, or with a numpy that adds up in another order, numpy does
everything.
"""

from __future__ import annotations

import ctypes
from array import array
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
_OF_ARMS = ("columns", "price")
_COUNTS = ("dim", "used", "none", "groups", "width", "arms")
_LEARNED = ("noise", "wide", "narrow")
_SET = (
    *("prior", "prior_variance", "slope", "slope_variance", "group_shared", "cell_shared"),
    *("borrow", "exploration_width", "alarm", "allowance"),
)


class OfState(NamedTuple):
    """The arrays of a state that the library reads, and writes, where they lie."""

    centres: NDArray[np.int16]
    norms: Vector
    group: NDArray[np.int64]
    n: Floats
    s: Floats
    all_n: Floats
    all_s: Floats
    group_n: Floats
    group_s: Floats
    squares: Floats
    up: Floats
    down: Floats
    since: Floats
    mass: NDArray[np.int64]
    sums_x: NDArray[np.int32]


class _State(ctypes.Structure):
    """What `policies/_nested.c` takes of a state, of the arms, and of a policy."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in (*OfState._fields, *_OF_ARMS, "places")),
        *((name, ctypes.c_int64) for name in _COUNTS),
        *((name, ctypes.c_double) for name in (*_LEARNED, *_SET)),
    )


class Pinned:
    """Arrays with their addresses, and what a policy is set to.

    A copy of a state has none, since it has other arrays.
    """

    def __init__(self, known: OfState, policy: object) -> None:
        self.known, self.policy = known, policy
        self.state = _State(places=_places.ctypes.data)
        self._arms: tuple[NDArray[np.int64], Floats, tuple[int, int]] | None = None
        for name, each in known._asdict().items():
            setattr(self.state, name, _address(each))
        for name in _SET:
            setattr(self.state, name, getattr(policy, name))
        self.state.none, self.state.width = len(known.group), known.n.shape[1]
        self.state.dim = known.centres.shape[1]
        self.writeable = all(each.flags.writeable for each in known)

    def asked(self, columns: NDArray[np.int64], price: Floats) -> _State:
        """The state and these arms, (K,) each, for one call: another thread may ask for others
        meanwhile.
        """
        known = self._arms
        if known is None or known[0] is not columns or known[1] is not price:
            known = self._arms = columns, price, (_address(columns), _address(price))
        state = _State.from_buffer_copy(self.state)
        state.columns, state.price = known[2]
        state.arms = len(columns)
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
        self._learn, self._exact = library.nested_learn, library.nested_exact
        self._learn.argtypes = (pointer, pointer, count, pointer, count)
        self._learn.restype = count
        self._exact.argtypes = (pointer, count, count)
        self._round = library.nested_round
        self._round.argtypes = (pointer, pointer, count, count, pointer, count, pointer)
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

    def exact(self, features: Vector) -> bool:
        """Whether (B, d) features are finite and short enough for exact products."""
        if not _plain(features):
            return False
        found = self._exact(_address(features), *features.shape)
        if found < 0:
            raise MemoryError
        return bool(found)

    def learn(self, pinned: Pinned, features: Vector, told: array[float]) -> int:
        """Learn outcomes of (B, d) features in their order; how many queries it learned.

        told: of each outcome which query it is of, the column of its arm, quality and weight. It
        stops before a query that needs a new cell, or has an outcome that raises an alarm.
        """
        if not _plain(features) or features.shape[1] != pinned.state.dim or not pinned.writeable:
            return 0
        outcomes, count = told.buffer_info()
        learned = self._learn(
            *(ctypes.addressof(pinned.state), _address(features), len(features)),
            *(outcomes, count // 4),
        )
        if learned < 0:
            raise MemoryError
        return int(learned)

    def round(
        self,
        cells: NDArray[np.int16],
        mass: NDArray[np.int64],
        middles: NDArray[np.int16],
        group: NDArray[np.int64],
    ) -> bool | None:
        """The nearest of (C, d) middles as the group of each of (n, d) cells, and each middle to
        the mean of its cells by (n,) mass. Whether a cell came to another group; if not, the
        middles stay. None where products are not exact, and nothing changed.
        """
        arrays = cells, mass, middles, group
        if not all(one.flags.c_contiguous and one.flags.writeable for one in arrays):
            return None
        found = self._round(
            *(_address(cells), _address(mass), *cells.shape),
            *(_address(middles), len(middles), _address(group)),
        )
        if found == -1:
            raise MemoryError
        return None if found < 0 else bool(found)

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
        if not _plain(features):
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


def _plain(features: Vector) -> bool:
    """Whether the library can read them where they lie."""
    flags = features.flags
    return features.dtype == _SINGLE and flags.aligned and flags.c_contiguous


def _address(of: NDArray[Any]) -> int:
    """Where an array begins; `of.ctypes.data` takes seven times as long."""
    if of.flags.writeable:
        return ctypes.addressof(_NOTHING.from_buffer(of.data))
    return int(of.ctypes.data)


@cache
def native() -> Native | None:
    """The library; None where numpy does everything."""
    try:
        found = Native(LIBRARY)
    except (OSError, AttributeError):
        return None
    return found if found.adds_as_numpy() else None


def usable(arms: int, width: int) -> bool:
    """Whether the library proposes from so many arms, where so many are known."""
    return 1 < arms <= _LONGEST and width <= _LONGEST and native() is not None
