"""The only reader of the wall clock, and the ids that carry its time."""

from __future__ import annotations

import secrets
import time
import uuid


def now() -> float:
    """UTC seconds."""
    return time.time()  # noqa: TID251 - this is the one place


class Ids:
    """UUIDv7 (RFC 9562) in the order they were asked for, also within one millisecond.

    The 12 bits after the time count within a millisecond; a clock that jumps back does not
    turn the order around, it only stands still until real time has caught up. All ids are greater
    than those that were made up to `after`, UTC seconds.
    """

    def __init__(self, after: float = 0.0) -> None:
        self._last = (int(after * 1000), 0xFFF if after else 0)

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
        value = (millisecond & (2**48 - 1)) << 80 | 0x7 << 76 | count << 64
        value |= 0b10 << 62 | secrets.randbits(62)
        return str(uuid.UUID(int=value))


def time_of(id: str) -> float | None:
    """The UTC seconds that a UUIDv7 carries; None when `id` is not one."""
    try:
        value = uuid.UUID(id)
    except ValueError:
        return None
    return (value.int >> 80) / 1000 if value.version == 7 else None
