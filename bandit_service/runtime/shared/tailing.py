"""Reads the shared log in order: each record is stored in this process' copy, then applied."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.runtime.shared.checkpoint import Place
from bandit_service.runtime.shared.link import Link
from bandit_service.runtime.supervisor import Supervisor
from store import Corrupt, EventLog, Full, StoreError, Tailed, Trimmed

_PAGE = 512
_SLICE = 32
"""Records that are applied in one turn of the loop."""
_FULL_S = 1.0
_LONGER, _SELDOM = 1.5, 10
"""If nothing comes, the log is polled less often: by this factor each time, up to this many times.
"""

_STOPS_S = 0.2
"""How soon an event that cannot be applied is tried again."""


class Unreadable(StoreError):
    """An event of a newer release: it is never skipped, so applying stops before it."""

    def __init__(self, offset: int) -> None:
        super().__init__(
            f"the event at offset {offset} is not known to this version, which learns no more; use "
            "the version that wrote it, or a newer one"
        )


class NotYetApplied(StoreError):
    """An event that this replica is not ready for; applying continues when it is."""

    def __init__(self, offset: int) -> None:
        super().__init__(
            f"another policy decides from offset {offset} on; this replica folds the log for it "
            "before it goes on"
        )


Came = tuple[Tailed, ev.AnyEvent]


class Tailer:
    """`run` until the process ends.

    wanted: set if there is something new, or a caller waits for it. own: the event of a record that
    this process made, None for another's. waits: whether an event cannot be applied yet; then
    nothing after it is applied either. apply: gets records that are in the copy.
    """

    def __init__(
        self,
        link: Link,
        copy: EventLog,
        tasks: Supervisor,
        wanted: asyncio.Event,
        poll_s: float,
        *,
        own: Callable[[str], ev.AnyEvent | None],
        waits: Callable[[ev.AnyEvent], bool],
        apply: Callable[[Sequence[Came]], None],
    ) -> None:
        self._link = link
        self._copy = copy
        self._tasks = tasks
        self._wanted = wanted
        self._poll_s = poll_s
        self._own = own
        self._waits = waits
        self._apply = apply

    async def run(self) -> None:
        """Read all durable records while the log is reachable."""
        wait_s = self._poll_s
        while True:
            await self._link.up.wait()
            epoch = self._link.epoch
            self._wanted.clear()  # before it is read: what is appended meanwhile is wanted, too
            try:
                rows = await self._link.shared.tail(self._copy.last, _PAGE)
            except Corrupt as error:
                self._link.damaged(error)
                return
            except Trimmed as error:
                self._link.behind_trimmed(error)
                return
            except StoreError as error:
                self._link.down(error)
                continue
            stops = False
            for first in range(0, len(rows), _SLICE):
                stops = not await self._apply_slice(rows[first : first + _SLICE], epoch)
                await asyncio.sleep(_STOPS_S if stops else 0)
                if stops:
                    break
            if stops or not self._link.reads(epoch):
                continue
            if rows:
                wait_s = self._poll_s
            if len(rows) < _PAGE:
                self._tasks.well("tail")
                with suppress(TimeoutError):  # not by wait_for, which may swallow a cancellation
                    async with asyncio.timeout(wait_s):
                        await self._wanted.wait()
                more = self._poll_s if self._wanted.is_set() else _LONGER * wait_s
                wait_s = min(more, _SELDOM * self._poll_s)

    async def _apply_slice(self, rows: Sequence[Tailed], epoch: int) -> bool:
        """Apply what was read; whether all of it could be applied.

        The rest is dropped if the log was unreachable meanwhile, since a failover may have replaced
        it.
        """
        came = self._decoded(rows)
        while came and self._link.reads(epoch):
            try:
                self._copy.append([row.record for row, _ in came])
            except Full as error:
                self._tasks.failed("tail", error)
                await asyncio.sleep(_FULL_S)
            else:
                self._apply(came)  # with no await in between: what is in the copy is applied
                self._place(came)
                break
        return len(came) == len(rows)

    def _place(self, came: Sequence[Came]) -> None:
        """The last end of an append; records after it have no chain of their own."""
        for row, _ in reversed(came):
            if row.chain:
                self._link.place = Place(int(row.offset), row.chain.hex())
                return

    def _stop(self, why: StoreError) -> None:
        if "tail" not in self._tasks.failing:
            self._tasks.failed("tail", why)

    def _decoded(self, rows: Sequence[Tailed]) -> list[Came]:
        """The records up to the first one that cannot be applied; nothing after it is applied."""
        found: list[Came] = []
        for row in rows:
            if not row.record.body:
                self._link.behind_erased(row.offset)
                break
            event = self._own(row.record.eid)
            if event is None:
                try:
                    event = ev.decode(row.record.body)
                except codec.UNREADABLE:
                    self._stop(Unreadable(row.offset))
                    self._link.unreadable = str(Unreadable(row.offset))
                    break
            if self._waits(event):
                self._stop(NotYetApplied(row.offset))
                break
            found.append((row, event))
        return found
