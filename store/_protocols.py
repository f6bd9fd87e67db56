"""The promises of a store. It knows bytes and vectors, but no bandit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, NewType, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

Offset = NewType("Offset", int)
START = Offset(0)
Vector = NDArray[np.float32]


class Record(NamedTuple):
    """One entry of the log: a unique id, its kind, the time it was made (UTC seconds), bytes.

    owner: whose data it is, so that it can be erased; empty if it is nobody's.
    """

    eid: str
    kind: str
    ts: float
    body: bytes
    owner: str = ""


class EventLog(Protocol):
    """One total order of records. Offsets start at 1 and have no gaps.

    A log that can delete its oldest records is `Trimmable`, one that can erase the records of an
    owner is `Erasable`. The other records keep their offsets.
    """

    def append(self, records: Sequence[Record]) -> Offset:
        """Write all records to the kernel, or none of them; returns the last offset.

        Then a killed process loses nothing; a power cut may, until `sync`. Raises
        `store.errors.Duplicate` when an eid is already there (one that was trimmed may still be
        known), and ValueError for a time that is not finite or a body that is empty; neither writes
        anything.
        """
        ...

    def sync(self) -> Offset:
        """Make everything appended before the call durable; returns the last durable offset.

        May be called from another thread than `append`, and does not block it.
        """
        ...

    def replay(self, after: Offset = START) -> Iterator[tuple[Offset, bytes]]:
        """The bodies of all records after `after`, in order; b"" for one that was erased.

        Raises `store.errors.Corrupt` naming the first offset that fails its checksum, and
        `store.errors.Trimmed` when records after `after` were trimmed.
        """
        ...

    @property
    def last(self) -> Offset:
        """The offset of the newest record, trimmed or not; 0 when there was none."""
        ...

    def close(self) -> None:
        """Make everything durable and close the file."""
        ...


class Trimmable(EventLog, Protocol):
    """A log that can delete its oldest records, for retention by age or size."""

    @property
    def first(self) -> Offset:
        """The offset of the oldest record kept, `last` + 1 when there is none."""
        ...

    @property
    def size_bytes(self) -> int:
        """How many bytes the records take on disk."""
        ...

    def trim(self, upto: Offset, most: int = 100) -> int:
        """Delete up to `most` of the oldest records, none after `upto`;

        returns how many are left to delete.
        """
        ...

    def offset_at(self, ts: float) -> Offset:
        """The newest record that is older than `ts`, as are all before it; START if none is.

        The times of records must not go backwards.
        """
        ...


class KeepsErased(EventLog, Protocol):
    """A log that can be a copy of one that has erased or trimmed records."""

    def append_copied(self, records: Sequence[Record]) -> Offset:
        """As `append`; a record without a body is kept as an erased one."""
        ...

    def records(self, after: Offset = START) -> Iterator[tuple[Offset, Record]]:
        """As `replay`, with all of each record; one without a body was erased."""
        ...

    def begin_after(self, offset: Offset) -> None:
        """Delete all records; the next one has the offset after this one, which must not be less
        than the last.
        """
        ...


class Erasable(EventLog, Protocol):
    """A log that can erase the records of an owner, for the erasure of a unit."""

    def forget(self, owner: str, upto: Offset) -> int:
        """Erase the bodies of all records of `owner` up to `upto`; returns how many.

        When it returns, they are durably gone from the files. Offsets, ids, kinds and times stay.
        If it raises Full, some may still be there: call it again.
        """
        ...


def can_trim(log: EventLog) -> TypeGuard[Trimmable]:
    """Whether a log can delete its oldest records. This calls none of its methods."""
    return hasattr(log, "trim")


def keeps_erased(log: EventLog) -> TypeGuard[KeepsErased]:
    """Whether a log can be a copy of one that has erased records."""
    return hasattr(log, "append_copied")


def can_erase(log: EventLog) -> TypeGuard[Erasable]:
    """Whether a log can erase the records of an owner."""
    return hasattr(log, "forget")


def first_of(log: EventLog) -> Offset:
    """The offset of the oldest record kept: 1 in a log that deletes none."""
    return log.first if can_trim(log) else Offset(START + 1)


class Snapshots(Protocol):
    """A cache of folded state: losing it costs time, never data."""

    def save(self, at: Offset, key: str, state: bytes) -> None:
        """Keep `state`, the fold of everything up to `at`, under `key`."""
        ...

    def latest(self, key: str) -> tuple[Offset, bytes | bytearray] | None:
        """The newest valid snapshot under `key`; damaged ones are skipped."""
        ...

    def forget(self, before: Offset) -> None:
        """Delete all snapshots with an offset less than `before`, of every key."""
        ...


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Ids and cosine similarities, nearest first; ties by larger (newer) id first."""

    ids: NDArray[np.int64]
    similarities: NDArray[np.float32]


class Rows(Protocol):
    """The vectors of an index, in rows that belong to an id as long as it exists."""

    @property
    def matrix(self) -> Vector:
        """(rows, d), C-contiguous, some of them in use; another array after growth."""
        ...

    def row(self, id: int) -> int:
        """The row of an id; KeyError when it is not there."""
        ...

    def rows_of(self, ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """The row of each of many ids; KeyError when one is not there."""
        ...


class HistoryIndex(Protocol):
    """Nearest past vectors by cosine. A cache: rebuilt from the vectors that the fold keeps."""

    def add(self, id: int, vector: Vector) -> None:
        """Remember a unit vector under a new id; visible to the next `recall`."""
        ...

    def remove(self, id: int) -> None:
        """Forget `id`; KeyError when it is not there."""
        ...

    def recall(self, vector: Vector, k: int) -> Neighbours:
        """The k nearest, fewer when fewer are remembered."""
        ...

    def recall_many(self, vectors: Vector, k: int) -> list[Neighbours]:
        """`recall` for each row of (n, d) vectors, for less than n times its cost."""
        ...

    def settle(self, most: int) -> int:
        """Do up to `most` pieces of deferred work; returns how many are left."""
        ...

    def __len__(self) -> int: ...
