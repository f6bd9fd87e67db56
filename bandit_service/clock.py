"""The only reader of the wall clock, and the ids that carry its time."""

from __future__ import annotations

import secrets
import struct
import time
import uuid

_BITS_48, _BITS_50, _BITS_62 = 2**48 - 1, 2**50 - 1, 2**62 - 1
_AT_ONCE = 64
_NUMBERS = struct.Struct(f"<{_AT_ONCE}Q")
"""For so many ids the operating system is asked for chance at once."""


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
        self._chances: list[int] = []

    def new(self, ts: float) -> str:
        """A fresh id at `ts` UTC seconds."""
        millisecond, count = self._last
        if int(ts * 1000) > millisecond:
            millisecond, count = int(ts * 1000), 0
        else:
            count += 1
            if count > 0xFFF:
                millisecond, count = millisecond + 1, 0
        self._last = (millisecond, count)
        if not self._chances:
            chances = secrets.randbits(8 * _NUMBERS.size).to_bytes(_NUMBERS.size, "little")
            self._chances += _NUMBERS.unpack(chances)
        chance = 0b10 << 62 | self._chances.pop() & _BITS_62
        if self._code is not None:
            chance = 0b10 << 62 | self._code << 50 | chance & _BITS_50
        digits = f"{(millisecond & _BITS_48) << 80 | 0x7000 + count << 64 | chance:032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def time_of(id: str) -> float | None:
    """The UTC seconds that a UUIDv7 carries; None when `id` is not one."""
    try:
        value = uuid.UUID(id)
    except ValueError:
        return None
    return (value.int >> 80) / 1000 if value.version == 7 else None
