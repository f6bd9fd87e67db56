"""Copies the log of one process into the database; then several processes can share it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bandit_service import clock
from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.resolve import owner_of
from bandit_service.core.world import World
from bandit_service.runtime.shared.checkpoint import Place
from bandit_service.runtime.shared.copying import OtherLog, same_until
from store import (
    EventLog,
    Offset,
    Record,
    SharedLog,
    StoreError,
    Unsupported,
    first_of,
    keeps_erased,
)

_NAME = "migrate"
_AT_ONCE = 500


class Migration:
    """Copies a log in several turns: `begin`, then `copy` as often as it has grown.

    Erased records are there as erased ones, and offsets are the same, also where the oldest events
    were deleted. If interrupted, another one continues. world: a world before any event, to find
    the owners of records.
    """

    def __init__(self, shared: SharedLog, key: str, world: World) -> None:
        self.shared, self._key = shared, key
        self._world = world
        self._ids = clock.Ids()
        self._head = self._read = 0

    async def begin(self, log: EventLog) -> None:
        """Connect, and find how much of the log is there. Raises StoreError if the database has
        another log or open replicas.
        """
        shared = self.shared
        await shared.connect()
        there = [each for each in await shared.replicas() if not each.closed and each.name != _NAME]
        if there:
            raise StoreError(
                f"{len(there)} replicas of this log are there, or were killed just now; stop them"
            )
        await shared.join(_NAME, self._key)
        self._head = await _begun(shared, log)
        self._read = int(first_of(log)) - 1

    async def copy(self, log: EventLog, progress: Callable[[int, int], None] | None = None) -> int:
        """Append what the log has up to now; returns how many events. It may grow meanwhile."""
        end, head = log.last, self._head
        batch = list[Record]()
        for at, record in _records(log, Offset(self._read)):
            self._read = int(at)
            copied = self._with_owner(at, record)
            if at > self._head:
                batch.append(copied)
            if len(batch) == _AT_ONCE or (batch and at == end):
                await self.shared.append_copied(batch)
                self._head = int(at)
                batch.clear()
                if progress is not None:
                    progress(int(at), int(log.last))
            if at == end:
                break
        return self._head - head

    def _with_owner(self, at: Offset, record: Record) -> Record:
        """The record as the database has it, with its owner, whom earlier ones tell."""
        if not record.body:
            return record
        try:
            event = ev.decode(record.body)
        except codec.UNREADABLE:
            raise StoreError(
                f"the event at offset {at} is not known to this version; use the one that wrote it"
            ) from None
        eid = event.id if isinstance(event, ev.Decided) else self._ids.new(event.ts)
        owner = owner_of(self._world, event) or record.owner
        self._world = apply(self._world, event)
        return Record(eid, ev.kind(event), event.ts, record.body, owner)


async def _begun(shared: SharedLog, log: EventLog) -> int:
    """Up to where the database has this log, which begins there where it begins here."""
    before = int(first_of(log)) - 1
    state = await shared.state()
    if not state.head and before:
        await shared.begin_after(Offset(before))
        state = await shared.state()
    if state.head > log.last:
        raise OtherLog(f"the log in the database has {state.head} events, this one {log.last}")
    if state.head < before:
        raise OtherLog(
            f"the log in the database ends at offset {state.head}, and this one begins after "
            f"{before}; use another log.name"
        )
    await shared.beat(0.0, 0)  # what an earlier try appended is durable now
    since = Place(max(before, state.base))
    await same_until(shared, log, since, Offset(state.head))
    return state.head


def _records(log: EventLog, after: Offset) -> Iterator[tuple[Offset, Record]]:
    if keeps_erased(log):
        yield from log.records(after)
        return
    for at, body in log.replay(after):
        if not body:
            raise Unsupported(log, f"tell what it has of the erased record at offset {at}")
        yield at, Record("", "", 0.0, body)
