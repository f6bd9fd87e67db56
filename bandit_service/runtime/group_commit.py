"""Group commit: one fsync for everything appended so far, which all outcomes under way share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol

from bandit_service.core import events as ev
from bandit_service.core.errors import ServiceError, Unavailable
from store import Closed, EventLog, Offset, StoreError


class Done(Protocol):
    """The part of a future that the writer uses; a caller that is answered at once needs none."""

    def cancelled(self) -> bool:
        """Whether the caller has left."""
        ...

    def done(self) -> bool:
        """Whether it has its result."""
        ...

    def set_result(self, event: Any, /) -> None:
        """Set the event that was appended and applied.

        Raises nothing, and neither awaits nor submits.
        """
        ...

    def set_exception(self, error: Exception, /) -> None:
        """Set the error."""
        ...


class GroupCommit:
    """Answers outcomes when they are on the disk. Only the fsync leaves the event loop.

    synced_s: called with the seconds that each fsync took. breaks: called with an error after which
    nothing more can be made durable.
    """

    def __init__(
        self,
        log: EventLog,
        interval_s: float,
        synced_s: Callable[[float], None],
        breaks: Callable[[StoreError], None],
    ) -> None:
        self.waiting: list[tuple[Done, ev.AnyEvent | None]] = []
        self._log = log
        self._interval_s = interval_s
        self._synced_s = synced_s
        self._breaks = breaks
        self._wake = asyncio.Event()
        self._unsynced = False
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="fsync")

    def close(self) -> None:
        """Release the thread."""
        self._threads.shutdown()

    def appended(self) -> None:
        """Note that there is something to make durable for which nobody waits."""
        self._unsynced = True

    def wait(self, done: Done, event: ev.AnyEvent | None) -> None:
        """Answer with this event once everything appended so far is on the disk."""
        self.waiting.append((done, event))
        self._wake.set()

    async def due(self) -> None:
        """Return when a caller waits, or the interval is over."""
        with suppress(TimeoutError):  # not by wait_for, which may swallow a cancellation
            async with asyncio.timeout(self._interval_s):
                await self._wake.wait()

    async def synced(self) -> Offset:
        """Make everything appended up to now durable; the last offset of it."""
        upto = self._log.last
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.wait(done, None)
        try:
            await done
        except ServiceError as error:
            raise Closed(error.message) from None
        return upto

    async def sync(self) -> None:
        """One fsync for everything appended so far; then the outcomes it covers are answered."""
        self._wake.clear()
        waiting, self.waiting = self.waiting, []
        self._unsynced = False
        begun = time.perf_counter()
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._log.sync)
        except StoreError as error:
            self._breaks(error)
            for done, _ in waiting:
                fail(done, Unavailable(f"the event log cannot be made durable: {error}"))
            return
        except BaseException:  # no error of the log is known: they wait for the next
            self.waiting[:0] = waiting
            self._unsynced = True
            self._wake.set()
            raise
        self._synced_s(time.perf_counter() - begun)
        for done, event in waiting:
            if not done.done():
                done.set_result(event)

    @property
    def needed(self) -> bool:
        """Whether there is anything to make durable, or any caller to answer."""
        return bool(self.waiting) or self._unsynced


def fail(done: Done, error: Exception) -> None:
    """Report the error to the waiting callers that have not left."""
    if not done.done():
        done.set_exception(error)
