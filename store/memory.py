"""The reference log and snapshots: short, and obviously right. Nothing is durable."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from store._format import check_record
from store._protocols import START, Offset, Record
from store.errors import Closed, Duplicate, Trimmed


class MemoryLog:
    """An EventLog that dies with its process."""

    def __init__(self) -> None:
        self._base = 0
        self._records: list[Record] = []
        self._eids: set[str] = set()
        self._closed = False

    def append(self, records: Sequence[Record]) -> Offset:
        """Append all or none; returns the last offset."""
        self._check()
        for record in records:
            check_record(record)
        new: set[str] = set()
        for record in records:
            if record.eid in self._eids or record.eid in new:
                raise Duplicate(record.eid)
            new.add(record.eid)
        self._eids |= new
        self._records += records
        return self.last

    def sync(self) -> Offset:
        """Nothing to do: memory is as durable as it gets."""
        self._check()
        return self.last

    def replay(self, after: Offset = START) -> Iterator[tuple[Offset, bytes]]:
        """Bodies after `after`, in order."""
        self._check()
        at = int(after)
        while True:
            if at < self._base:
                raise Trimmed(at, self.first)
            if at >= self.last:
                return
            at += 1
            yield Offset(at), self._records[at - self._base - 1].body

    def forget(self, owner: str, upto: Offset) -> int:
        """Empty the bodies of an owner's records; returns how many."""
        self._check()
        if not owner:
            raise ValueError("owner: must not be empty")
        erased = 0
        for i, record in enumerate(self._records[: max(0, upto - self._base)]):
            if record.owner == owner and record.body:
                self._records[i] = record._replace(body=b"")
                erased += 1
        return erased

    def trim(self, upto: Offset, most: int = 100) -> int:
        """Delete the oldest; returns how many are left to delete."""
        self._check()
        upto = min(upto, self.last)
        gone = max(0, min(upto - self._base, most))
        self._eids.difference_update(record.eid for record in self._records[:gone])
        del self._records[:gone]
        self._base += gone
        return max(0, upto - self._base)

    def offset_at(self, ts: float) -> Offset:
        """The newest one older than `ts`."""
        self._check()
        older = sum(1 for _ in itertools.takewhile(lambda record: record.ts < ts, self._records))
        return Offset(self._base + older) if older else START

    @property
    def first(self) -> Offset:
        """The oldest kept."""
        return Offset(self._base + 1)

    @property
    def last(self) -> Offset:
        """The newest offset."""
        return Offset(self._base + len(self._records))

    @property
    def size_bytes(self) -> int:
        """Ids, kinds, owners, bodies, and 8 bytes for each time."""
        return sum(
            len(each.eid) + len(each.kind) + len(each.owner) + len(each.body) + 8
            for each in self._records
        )

    def close(self) -> None:
        """Refuse everything from now on."""
        self._closed = True

    def _check(self) -> None:
        if self._closed:
            raise Closed


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

    def forget(self, before: Offset) -> None:
        """Delete all that are older."""
        self._kept = {key: kept for key, kept in self._kept.items() if kept[0] >= before}
