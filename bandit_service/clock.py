"""The only reader of the wall clock, and the ids that carry its time."""

from __future__ import annotations

import secrets
import struct
import time
import uuid

_BITS_48, _BITS_50, _BITS_62 = 2**48 - 1, 2**50 - 1, 2**62 - 1
_AT_ONCE = 64
_NUMBERS = struct.Struct(f"<{_AT_ONCE}Q")
"""For so many ids chance is taken from the operating system, and written out, at once."""


def now() -> float:
    """UTC seconds."""
    return time.time()  # noqa: TID251 - this is the one place


class Ids:
    """UUIDv7 (RFC 9562) in the order they were asked for, also within one millisecond.

    The 12 bits after the time count within a millisecond; a clock that jumps back does not
    turn the order around, it only stands still until real time has caught up. All ids are greater
    than those that were made up to `after`, UTC seconds.
    """

    def __init__(self, after: float = 0.0, code: int | None = None) -> None:
        """code: in the place of 12 of the 62 random bits, see `core/pools.py`."""
        self._code = code
        self._last = (int(after * 1000), 0xFFF if after else 0)
        self._begins = _beginning(self._last[0])
        self._ends: list[str] = []

    def new(self, ts: float) -> str:
        """A fresh id at `ts` UTC seconds."""
        last, count = self._last
        millisecond = int(ts * 1000)
        if millisecond > last:
            count = 0
        else:
            millisecond, count = last, count + 1
            if count > 0xFFF:
                millisecond, count = last + 1, 0
        if millisecond != last:
            self._begins = _beginning(millisecond)
        self._last = (millisecond, count)
        if not self._ends:
            self._ends = self._more_ends()
        return f"{self._begins}{count:03x}-{self._ends.pop()}"

    def _more_ends(self) -> list[str]:
        """The random ends of ids, many at once."""
        ends = []
        chances = secrets.randbits(8 * _NUMBERS.size).to_bytes(_NUMBERS.size, "little")
        for chance in _NUMBERS.unpack(chances):
            end = 0b10 << 62 | chance & _BITS_62
            if self._code is not None:
                end = 0b10 << 62 | self._code << 50 | chance & _BITS_50
            ends.append(f"{end >> 48:04x}-{end & _BITS_48:012x}")
        return ends


def _beginning(millisecond: int) -> str:
    """The beginning of all ids of one millisecond."""
    time = millisecond & _BITS_48
    return f"{time >> 16:08x}-{time & 0xFFFF:04x}-7"


def time_of(id: str) -> float | None:
    """The UTC seconds that a UUIDv7 carries; None when `id` is not one."""
    try:
        value = uuid.UUID(id)
    except ValueError:
        return None
    return (value.int >> 80) / 1000 if value.version == 7 else None
