"""One log that several processes append to and read: what it promises, without any engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard

from store._protocols import Offset, Record
from store.errors import StoreError


@dataclass(frozen=True, slots=True)
class Entry:
    """A record to append. It is refused if one of the same `subject` was appended after `seen`.

    subject: what the record was checked against, such as a decision; empty for nothing.
    """

    record: Record
    subject: bytes = b""
    seen: int = 0


@dataclass(frozen=True, slots=True)
class Tailed:
    """A record of the log at its offset. chain: of the log up to here, where an append ended."""

    offset: Offset
    record: Record
    chain: bytes


@dataclass(frozen=True, slots=True)
class Membership:
    """What a replica is to the log until it leaves, or is closed for being silent.

    settled: what this slot said of that before.
    """

    slot: int
    epoch: int
    settled: float


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to do what one replica does for all; a higher epoch ends it."""

    role: str
    epoch: int


@dataclass(frozen=True, slots=True)
class LogState:
    """head: the newest offset. horizon: the newest durable one. settled: all decisions answered
    before this moment are durable. now: the engine's time; both UTC seconds.
    """

    head: int
    horizon: int
    settled: float
    now: float


@dataclass(frozen=True, slots=True)
class Mark:
    """The digest of what was folded up to an offset; offset 0 for none."""

    offset: int = 0
    digest: str = ""


NO_MARK = Mark()


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica as the log knows it. unseen_s: how long it was silent. closed: it is out.

    mark: the newest digest that it said. reads: the newest format of records that it reads.
    """

    slot: int
    name: str
    epoch: int
    applied: int
    durable: int
    settled: float
    unseen_s: float
    closed: bool
    key: str
    roles: tuple[str, ...]
    mark: Mark = NO_MARK
    reads: int = 1


class SharedLog(Protocol):
    """One total order of records. Offsets start at 1 and have no gaps.

    Raises of every call: `Unsure` where it is not known whether it was done, and `Fenced`.
    """

    async def join(self, name: str, key: str, reads: int = 1) -> Membership:
        """Become a replica that may append; the one of this name before is closed by it.

        reads: the newest format of records that it reads, which the others find in `replicas`; 1
        for one that does not say so. Raises OtherKey where an open replica folds by another key.
        """
        ...

    async def append(
        self, entries: Sequence[Entry], settled: float, lease: Lease | None = None
    ) -> Offset:
        """Append all or none, and make them durable; the last offset.

        Raises Duplicate where an id is there, and Outdated where a subject has a newer record.
        """
        ...

    async def beat(self, settled: float, applied: int, mark: Mark = NO_MARK) -> None:
        """Say that this replica is alive; what others left not durable becomes so.

        mark: the newest digest, which the others compare with theirs.
        """
        ...

    async def tail(self, after: Offset, most: int) -> list[Tailed]:
        """The next records after an offset that are durable, whole appends of them."""
        ...

    async def find(self, eids: Sequence[str]) -> Mapping[str, Offset]:
        """Which of these records are there, durable or not."""
        ...

    async def state(self) -> LogState:
        """How far the log is."""
        ...

    async def replicas(self) -> list[Replica]:
        """All that ever joined and were not replaced."""
        ...

    async def chain_at(self, offset: Offset) -> bytes:
        """The chain of the log up to an offset where an append ended; empty where there is none."""
        ...

    async def lead(self, role: str, held: Lease | None, ttl_s: float) -> Lease | None:
        """Take or keep a role for so long; None where another has it."""
        ...

    async def close_silent(self, ttl_s: float) -> int:
        """Close the replicas that were silent for so long; how many."""
        ...

    async def save_snapshot(self, key: str, at: Offset, state: bytes, keep: int) -> None:
        """Keep a snapshot of this offset where every replica finds it, and `keep` of its key."""
        ...

    async def newest_snapshot(
        self, key: str, after: Offset, upto: Offset
    ) -> tuple[Offset, bytes] | None:
        """The newest one of a key, of an offset greater than `after` and not than `upto`.

        Raises Corrupt where it is not as it was put there.
        """
        ...

    async def leave(self) -> None:
        """Append no more; everything that was answered is in the log."""
        ...

    async def connect(self) -> None:
        """Make the connections, anew where they were."""
        ...

    async def close(self) -> None:
        """Let go of the connections."""
        ...


class SharedErasable(SharedLog, Protocol):
    """A shared log that can erase the records of an owner. Their offsets and ids stay."""

    async def forget(self, owner: str, upto: Offset) -> int:
        """Erase the bodies of an owner's records up to an offset; how many that were."""
        ...

    async def forget_snapshots(self, before: Offset) -> None:
        """Delete every snapshot of less than this offset, of whatever key."""
        ...


def can_erase_shared(log: SharedLog) -> TypeGuard[SharedErasable]:
    """Whether a shared log can erase the records of an owner."""
    return hasattr(log, "forget")


class Unsure(StoreError):
    """Whether it was done is not known: the engine did not answer."""


class Fenced(StoreError):
    """This replica was closed, or its role is another's now; nothing was written."""


class OtherKey(StoreError):
    """An open replica of this log folds by another key; `key` is that one."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"another replica of this log folds by {key!r}: stop all, and start all with one "
            "policy and one history"
        )
        self.key = key


class Outdated(StoreError):
    """Some subjects have newer records than were seen; nothing was written.

    newer: by position in what was to be appended, the offset of the newest one.
    """

    def __init__(self, newer: Mapping[int, Offset]) -> None:
        super().__init__("another process was first; look at what it wrote and try again")
        self.newer = newer


class Unfit(StoreError):
    """The database cannot hold a log as it is."""
