"""Copies the log of one process into the database; then several processes can share it."""

from __future__ import annotations

from collections.abc import Callable

from bandit_service import clock
from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.resolve import owner_of
from bandit_service.core.world import World
from bandit_service.runtime.shared.checkpoint import Place
from bandit_service.runtime.shared.copying import OtherLog, same_until
from store import Entry, EventLog, Offset, Record, SharedLog, StoreError, first_of

_NAME = "migrate"
_AT_ONCE = 500


async def migrated(
    shared: SharedLog,
    log: EventLog,
    key: str,
    world: World,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Append what the database does not have; returns how many events.

    If interrupted, the next call continues. world: a world before any event, to find the owners of
    records. Raises StoreError if the database has another log or open replicas, or if events are
    missing.
    """
    if first_of(log) > 1:
        raise StoreError(
            "the log's oldest events were deleted; only a complete log can be migrated"
        )
    await shared.connect()
    there = [each for each in await shared.replicas() if not each.closed and each.name != _NAME]
    if there:
        raise StoreError(
            f"{len(there)} replicas of this log are there, or were killed just now; stop them"
        )
    await shared.join(_NAME, key)
    head = (await shared.state()).head
    if head > log.last:
        raise OtherLog(f"the log in the database has {head} events, this one {log.last}")
    await shared.beat(0.0, 0)  # what an earlier try appended is durable now
    await same_until(shared, log, Place(), Offset(head))
    batch, ids = list[Entry](), clock.Ids()
    for at, body in log.replay():
        if not body:
            raise StoreError(
                f"the event at offset {at} was erased; a log with erased events cannot be migrated "
                "yet"
            )
        try:
            event = ev.decode(body)
        except codec.UNREADABLE:
            raise StoreError(
                f"the event at offset {at} is not known to this version; use the one that wrote it"
            ) from None
        owner = owner_of(world, event)
        world = apply(world, event)
        if at <= head:
            continue
        eid = event.id if isinstance(event, ev.Decided) else ids.new(event.ts)
        batch.append(Entry(Record(eid, ev.kind(event), event.ts, body, owner)))
        if len(batch) == _AT_ONCE or at == log.last:
            await shared.append(batch, 0.0)
            batch.clear()
            if progress is not None:
                progress(int(at), int(log.last))
    await shared.leave()
    return int(log.last) - head
