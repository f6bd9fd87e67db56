"""Where in a log a moment is, by looking at few of its records."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import Any

import msgspec

from store import EventLog, Offset

SKEW_S = 600.0
"""Events of replicas whose clocks differ by less are found, too."""


class _Timed(msgspec.Struct):
    ts: float


_decoder = msgspec.msgpack.Decoder(_Timed)


async def first_since(log: EventLog, first: int, upto: int, since: float) -> int:
    """An offset from `first` to `upto` + 1: every event of `since` or later is there or after it.

    Looks at O(log n) records, and lets the loop go on between two of them. Times rise along the
    log, but for clocks that differ. Raises StoreError.
    """
    low, high = first, upto + 1
    while low < high:
        middle = (low + high) // 2
        ts, at = _next_time(log, middle, upto)
        if ts is None or ts >= since - SKEW_S:
            high = middle
        else:
            low = at + 1
        await asyncio.sleep(0)
    return low


def _next_time(log: EventLog, at: int, upto: int) -> tuple[float | None, int]:
    """The time of the first event from here on that was not erased, and where it is."""
    records: Any = log.replay(Offset(at - 1))
    with closing(records):
        for offset, body in records:
            if offset > upto:
                break
            if body:
                return _decoder.decode(body).ts, int(offset)
    return None, at
