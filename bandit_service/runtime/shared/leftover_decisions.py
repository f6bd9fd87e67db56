"""Decisions of an earlier process that the shared log still needs."""

from __future__ import annotations

from collections.abc import Sequence

from bandit_service.core import events as ev
from bandit_service.core.resolve import owner_of
from bandit_service.core.world import World
from bandit_service.runtime.shared.latecomers import Latecomers
from bandit_service.runtime.shared.link import Link
from bandit_service.runtime.shared.spool import Spool, copied
from store import EventLog


def left_over(
    spool: Spool, copy: EventLog, link: Link, world: World, latecomers: Latecomers
) -> Sequence[ev.Decided]:
    """What the spool has, but what is of a unit that was forgotten while this was away, and what
    would be deleted if it were in the log, or was. All may have been there already.
    """
    needed, left = list[ev.Decided](), list(spool.left())
    there = copied(copy, left) if link.base else set()
    for event in left:
        begins, pending = link.begins_ts, world.pending.decisions
        if begins and (event.ts < begins or event.id in pending):
            spool.drop(event.id)
            continue
        owner = owner_of(world, event)
        forgotten = link.forgotten.get(owner)
        if forgotten is not None and latecomers.add(owner, forgotten, event.id, event.ts):
            continue
        if event.id in there:
            spool.drop(event.id)
        else:
            needed.append(event)
    return needed
