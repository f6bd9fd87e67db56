"""The promises of a log that several processes append to and read, for any engine."""

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
    """A record of the log at its offset. chain: of the log up to here, if an append ended here."""

    offset: Offset
    record: Record
    chain: bytes


@dataclass(frozen=True, slots=True)
class Membership:
    """A replica's membership until it leaves, or is closed for being silent.

    settled: the earlier value of this slot.
    """

    slot: int
    epoch: int
    settled: float


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to do the shared tasks of all replicas; a higher epoch ends it."""

    role: str
    epoch: int


@dataclass(frozen=True, slots=True)
class LogState:
    """head: the newest offset. horizon: the newest durable one. settled: all decisions answered
    before this moment are durable. now: the engine's time; both UTC seconds. base: the newest
    offset that is trimmed, 0 if none is.
    """

    head: int
    horizon: int
    settled: float
    now: float
    base: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """The digest of the world at an offset; offset 0 for none."""

    offset: int = 0
    digest: str = ""


NO_MARK = Mark()


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica as the log knows it.

    unseen_s: how long it was silent. closed: it may not append. mark: the newest digest that it
    published. reads: the newest format of records that it reads.
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

    Every call may raise `Unsure` if it is unknown whether it was done, and `Fenced`.
    """

    async def join(self, name: str, key: str, reads: int = 1) -> Membership:
        """Become a replica that may append; the one of this name before is closed by it.

        reads: the newest format of records that it reads, which the others find in `replicas`; 1 if
        it does not publish one. Raises OtherKey if an open replica has another key.
        """
        ...

    async def append(
        self, entries: Sequence[Entry], settled: float, lease: Lease | None = None
    ) -> Offset:
        """Append all or none, and make them durable; returns the last offset.

        Raises Duplicate if an id exists, and Outdated if a subject has a newer record, or may have
        had one among those that were trimmed.
        """
        ...

    async def append_copied(self, records: Sequence[Record]) -> Offset:
        """As `append`, of another log's records; one without a body is kept as an erased one."""
        ...

    async def begin_after(self, offset: Offset) -> None:
        """The first record of a log without any has the offset after this one."""
        ...

    async def beat(self, settled: float, applied: int, mark: Mark = NO_MARK) -> None:
        """Send a sign of life; it also makes durable what others appended.

        mark: the newest digest, which the others compare with theirs.
        """
        ...

    async def tail(self, after: Offset, most: int) -> list[Tailed]:
        """The next durable records after an offset, in whole appends. There may be more after
        them, even if they are fewer than `most`; if this is empty, there were none.

        Raises Trimmed if some of them were trimmed.
        """
        ...

    async def find(self, eids: Sequence[str]) -> Mapping[str, Offset]:
        """Which of these records exist, durable or not."""
        ...

    async def state(self) -> LogState:
        """The present offsets and times of the log."""
        ...

    async def replicas(self) -> list[Replica]:
        """All replicas that ever joined and were not replaced."""
        ...

    async def chain_at(self, offset: Offset) -> bytes:
        """The chain of the log up to an offset where an append ended; empty if there is none."""
        ...

    async def lead(self, role: str, held: Lease | None, ttl_s: float) -> Lease | None:
        """Take or keep a role for this long; None if another replica has it."""
        ...

    async def close_silent(self, ttl_s: float) -> int:
        """Close the replicas that were silent for this long; returns how many."""
        ...

    async def save_snapshot(self, key: str, at: Offset, state: bytes, keep: int) -> None:
        """Store a snapshot of this offset for all replicas; keep `keep` of its key."""
        ...

    async def newest_snapshot(
        self, key: str, after: Offset, upto: Offset
    ) -> tuple[Offset, bytes] | None:
        """The newest one of a key, with an offset after `after` and up to `upto`.

        Raises Corrupt if it is damaged.
        """
        ...

    async def snapshots(self) -> list[tuple[str, Offset]]:
        """The keys and offsets of all stored snapshots, the newest first."""
        ...

    async def trim(self, upto: Offset) -> None:
        """Delete the records up to an offset for good; the others keep their offsets.

        Everything up to it must be durable. If it is interrupted, a later call continues.
        """
        ...

    async def leave(self) -> None:
        """Leave: append nothing more; everything that was answered is in the log."""
        ...

    async def connect(self) -> None:
        """Open the connections, again if they were open."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class SharedErasable(SharedLog, Protocol):
    """A shared log that can erase the records of owners. Their offsets and ids stay."""

    @property
    def cannot_erase(self) -> str:
        """Why this one cannot; "" where it can."""
        ...

    async def forget(self, owners: Sequence[str], upto: Offset) -> int:
        """Erase the bodies of these owners' records up to an offset; how many that were."""
        ...

    async def forget_snapshots(self, before: Offset) -> None:
        """Delete every snapshot of less than this offset, of whatever key."""
        ...


def can_erase_shared(log: SharedLog) -> TypeGuard[SharedErasable]:
    """Whether a shared log can erase the records of an owner."""
    return hasattr(log, "forget")


class Unsure(StoreError):
    """It is unknown whether it was done: the engine did not answer."""


class Starting(Unsure):
    """Nothing was done: the engine's server starts up, recovers or shuts down, and says so."""


class Fenced(StoreError):
    """This replica was closed, or another one has its role; nothing was written."""


class OtherKey(StoreError):
    """An open replica of this log has another key: `key`."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"another replica of this log folds by {key!r}: stop all, and start all with one "
            "policy and one history"
        )
        self.key = key


class Outdated(StoreError):
    """Some subjects have newer records than were seen; nothing was written.

    newer: by position in the append, the offset of the newest one.
    """

    def __init__(self, newer: Mapping[int, Offset]) -> None:
        super().__init__("another process was first; look at what it wrote and try again")
        self.newer = newer


class Unfit(StoreError):
    """The database cannot hold a log in its present configuration."""
