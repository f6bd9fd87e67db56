"""Where each id lies: a table of slots with open addressing, a tenth of a dict's memory."""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

_LEAST = 16
_NONE = -1
_MIX, _BITS = 0x9E3779B97F4A7C15, 64
_MASK = (1 << _BITS) - 1


class Slots:
    """Slots by id; the ids themselves are the caller's array, by slot.

    A slot's id must not change while it is in here.
    """

    def __init__(self) -> None:
        self._table, self._bits, self._count = array("i", [_NONE] * _LEAST), 4, 0

    def find(self, id: int, ids: NDArray[np.int64]) -> int:
        """The slot of an id, less than 0 if there is none."""
        return self._table[self._place(id, ids)]

    def put(self, id: int, slot: int, ids: NDArray[np.int64]) -> None:
        """Note the slot of an id that has none yet; `ids` has it there."""
        self._count += 1
        if 2 * self._count > len(self._table):
            there = np.frombuffer(self._table, np.int32)
            self._spread(np.append(there[there != _NONE], np.int32(slot)), ids)
        else:
            self._table[self._place(id, ids)] = slot

    def put_all(self, slots: NDArray[np.int32], ids: NDArray[np.int64]) -> None:
        """Note these slots, where none was noted."""
        self._count = len(slots)
        self._spread(slots, ids)

    def take(self, id: int, ids: NDArray[np.int64]) -> int:
        """Forget an id; its slot. Raises KeyError for an unknown one."""
        table, mask = self._table, len(self._table) - 1
        gap = at = self._place(id, ids)
        slot = table[gap]
        if slot == _NONE:
            raise KeyError(id)
        while True:  # what would not be found any more behind the gap moves up
            at = (at + 1) & mask
            other = table[at]
            if other == _NONE:
                break
            if (at - self._home(int(ids[other]))) & mask >= (at - gap) & mask:
                table[gap], gap = other, at
        table[gap] = _NONE
        self._count -= 1
        return slot

    @property
    def nbytes(self) -> int:
        """The bytes of the table."""
        return self._table.itemsize * len(self._table)

    def __len__(self) -> int:
        return self._count

    def _home(self, id: int) -> int:
        return (id * _MIX & _MASK) >> (_BITS - self._bits)

    def _place(self, id: int, ids: NDArray[np.int64]) -> int:
        """Where in the table the id is, or where it would be."""
        table, mask = self._table, len(self._table) - 1
        at = self._home(id)
        while (slot := table[at]) != _NONE and ids[slot] != id:
            at = (at + 1) & mask
        return at

    def _spread(self, slots: NDArray[np.int32], ids: NDArray[np.int64]) -> None:
        """A table of these slots that has room for as many more."""
        while len(self._table) < 2 * len(slots):
            self._bits += 1
            self._table = array("i", [_NONE]) * (1 << self._bits)
        table = np.full(len(self._table), _NONE, np.int32)
        mixed = ids[slots].astype(np.uint64) * np.uint64(_MIX)
        left, at = slots, (mixed >> np.uint64(_BITS - self._bits)).astype(np.intp)
        while len(left):
            free = table[at] == _NONE
            table[at[free]] = left[free]
            others = table[at] != left
            left, at = left[others], (at[others] + 1) & (len(table) - 1)
        self._table = array("i", table.tobytes())
