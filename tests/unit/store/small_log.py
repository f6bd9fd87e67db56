"""A log that can do no more than it must."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from store import START, Offset, Record
from store.memory import MemoryLog


class SmallLog:
    """Only what an EventLog must do."""

    def __init__(self) -> None:
        self._kept = MemoryLog()

    def append(self, records: Sequence[Record]) -> Offset:
        return self._kept.append(records)

    def sync(self) -> Offset:
        return self._kept.sync()

    def replay(self, after: Offset = START) -> Iterator[tuple[Offset, bytes]]:
        return self._kept.replay(after)

    @property
    def last(self) -> Offset:
        return self._kept.last

    def close(self) -> None:
        self._kept.close()
