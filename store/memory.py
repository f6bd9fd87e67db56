"""The reference log and snapshots: the shortest, and obviously right. Nothing is durable."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from store._protocols import START, Offset, Record
from store.errors import Closed, Duplicate


class MemoryLog:
    """An EventLog that dies with its process."""

    def __init__(self) -> None:
        self._bodies: list[bytes] = []
        self._eids: set[str] = set()
        self._closed = False

    def append(self, records: Sequence[Record]) -> Offset:
        """All or none; the last offset."""
        if self._closed:
            raise Closed
        new: set[str] = set()
        for record in records:
            if not math.isfinite(record.ts):
                raise ValueError(f"ts: must be finite, got {record.ts}")
            if record.eid in self._eids or record.eid in new:
                raise Duplicate(record.eid)
            new.add(record.eid)
        self._eids |= new
        self._bodies += [record.body for record in records]
        return self.last

    def sync(self) -> Offset:
        """Nothing to do: memory is as durable as it gets."""
        if self._closed:
            raise Closed
        return self.last

    def replay(self, after: Offset = START) -> Iterator[tuple[Offset, bytes]]:
        """Bodies after `after`, in order."""
        if self._closed:
            raise Closed
        for i in range(after, len(self._bodies)):
            yield Offset(i + 1), self._bodies[i]

    @property
    def last(self) -> Offset:
        """The newest offset, 0 when empty."""
        return Offset(len(self._bodies))

    def close(self) -> None:
        """Refuse everything from here on."""
        self._closed = True


class MemorySnapshots:
    """Snapshots that die with their process; the newest of each key."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Offset, bytes]] = {}

    def save(self, at: Offset, key: str, state: bytes) -> None:
        """Keep `state` under `key` unless a newer one is there."""
        if key not in self._kept or self._kept[key][0] <= at:
            self._kept[key] = at, state

    def latest(self, key: str) -> tuple[Offset, bytes] | None:
        """The newest under `key`."""
        return self._kept.get(key)
