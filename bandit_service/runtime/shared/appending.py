"""Appends events to the shared log: in order, in batches, until the log has them.

After an append with an unknown result the log is searched for its ids, and only missing records are
appended again. So nothing is lost, and nothing is in the log twice. Appended records are kept until
they are applied. They are searched, too, after the log was unreachable, since a failover may have
lost them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from bandit_service.core import events as ev
from bandit_service.runtime.shared.link import Link
from store import Duplicate, Entry, Fenced, Offset, Outdated, StoreError

_FIND = 2000


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An entry with its event. led: only while this replica is the keeper."""

    entry: Entry
    event: ev.AnyEvent
    led: bool = False


class Appender:
    """`run` until cancelled. outdated: called for an entry that another replica's record made
    invalid, with that offset. refused: called for the keeper's entries if this replica is no longer
    the keeper. found: called for entries that the log has already, with their offset. took_s:
    called with the seconds of each append. sent: the entries that are in the log and not `applied`
    yet, by id.
    """

    def __init__(
        self,
        link: Link,
        most: int,
        now: Callable[[], float],
        outdated: Callable[[Outgoing, Offset], None],
        refused: Callable[[Outgoing], None],
        found: Callable[[Outgoing, Offset], None],
        took_s: Callable[[float], None],
    ) -> None:
        self._link = link
        self._most = most
        self._now = now
        self._outdated = outdated
        self._refused = refused
        self._found = found
        self._took_s = took_s
        self._queue: deque[Outgoing] = deque()
        self._doubtful: set[str] = set()
        self._unsure = self._was_away = False
        self.sent: dict[str, Outgoing] = {}
        self._wake = asyncio.Event()
        self.empty = asyncio.Event()
        self.empty.set()
        self.appended = asyncio.Event()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._queue)

    def put(self, outgoing: Outgoing) -> None:
        """Add an entry, after all others."""
        self._queue.append(outgoing)
        self.empty.clear()
        self._wake.set()

    def put_left(self, found: Sequence[Outgoing]) -> None:
        """Add entries that an earlier process may have appended, before all others."""
        self._queue.extendleft(reversed(found))
        self._doubtful.update(each.entry.record.eid for each in found)
        if self._queue:
            self._unsure = True
            self.empty.clear()
            self._wake.set()

    def of(self, owner: str, upto_ts: float) -> set[str]:
        """The ids of an owner's entries of up to this time that were not applied yet."""
        return {
            each.entry.record.eid
            for each in chain(self.sent.values(), self._queue)
            if each.entry.record.owner == owner and each.entry.record.ts <= upto_ts
        }

    def applied(self, eid: str) -> None:
        """The entry was read back from the log."""
        self.sent.pop(eid, None)

    def rejoined(self) -> None:
        """The log was unreachable: search it for entries that nobody may have read."""
        self._unsure = self._was_away = True
        self._wake.set()

    def let_go(self) -> Outgoing | None:
        """The oldest decision that is in the log and not applied; it is removed from here."""
        for eid, each in self.sent.items():
            if isinstance(each.event, ev.Decided):
                return self.sent.pop(eid)
        return None

    def drop_oldest(self) -> Outgoing | None:
        """Drop the oldest waiting decision, unless it may be in an append or in the log."""
        for i, each in enumerate(self._queue):
            if isinstance(each.event, ev.Decided) and each.entry.record.eid not in self._doubtful:
                del self._queue[i]
                return each
        return None

    def settled(self) -> float:
        """The time before which no answered decision waits."""
        return self._settled(chain(self.sent.values() if self._was_away else (), self._queue))

    def _settled(self, waiting: Iterable[Outgoing]) -> float:
        for each in waiting:
            if isinstance(each.event, ev.Decided):
                return _floor(each.event.ts)
        return _floor(self._now())

    async def run(self) -> None:
        """Append new entries while the log is reachable."""
        while True:
            await self._wake.wait()
            await self._link.up.wait()
            try:
                if self._unsure:
                    self._unsure = False
                    self._take_back()
                    await self._look_for()
                if self._queue:
                    await self._append()
            except Duplicate:
                self._unsure = True
            except StoreError as error:
                self._unsure = True
                self._link.down(error)
            if not self._queue:
                self._wake.clear()
                self.empty.set()

    async def _append(self) -> None:
        batch = self._batch()
        lease = self._link.lease if batch[0].led else None
        if batch[0].led and lease is None:
            self._refuse(batch)
            return
        self._doubtful = {each.entry.record.eid for each in batch}
        settled = self._settled(islice(self._queue, len(batch), None))
        begun = time.perf_counter()
        try:
            last = await self._link.shared.append([each.entry for each in batch], settled, lease)
        except Outdated as error:
            self._doubtful.clear()
            self._remove(batch[i] for i in error.newer)
            for i, newer in error.newer.items():
                self._outdated(batch[i], newer)
            return
        except Fenced:
            if lease is None:
                raise
            self._doubtful.clear()
            self._link.lease_lost()
            self._refuse(batch)
            return
        self._took_s(time.perf_counter() - begun)
        self._doubtful.clear()
        applied = self._link.applied()  # the log is read elsewhere, and may have these already
        for offset, each in enumerate(batch, int(last) - len(batch) + 1):
            self._queue.popleft()
            if offset > applied:
                self.sent[each.entry.record.eid] = each
        self.appended.set()

    def _batch(self) -> list[Outgoing]:
        """The next entries: either all or none of them are the keeper's."""
        led, batch, size = self._queue[0].led, list[Outgoing](), 0
        for each in islice(self._queue, self._most):
            size += len(each.entry.record.body)
            if each.led != led or (batch and size > 16 << 20):
                break
            batch.append(each)
        return batch

    def _refuse(self, batch: Sequence[Outgoing]) -> None:
        self._remove(batch)
        for each in batch:
            self._refused(each)

    def _take_back(self) -> None:
        if self._was_away:
            self._was_away = False
            sent, self.sent = list(self.sent.values()), {}
            self.put_left(sent)

    async def _look_for(self) -> None:
        """Remove the entries that the log has."""
        waiting = list(self._queue)
        for first in range(0, len(waiting), _FIND):
            some = waiting[first : first + _FIND]
            known = await self._link.shared.find([each.entry.record.eid for each in some])
            there = [each for each in some if each.entry.record.eid in known]
            self._remove(there)
            for each in there:
                self.sent[each.entry.record.eid] = each
                self._found(each, known[each.entry.record.eid])
        self._doubtful.clear()
        self.appended.set()

    def _remove(self, gone: Sequence[Outgoing] | Iterator[Outgoing]) -> None:
        eids = {each.entry.record.eid for each in gone}
        if eids:
            kept = [each for each in self._queue if each.entry.record.eid not in eids]
            self._queue.clear()
            self._queue.extend(kept)


def _floor(ts: float) -> float:
    """The millisecond in an id made at this moment, or an earlier one."""
    return int(ts * 1000) / 1000
