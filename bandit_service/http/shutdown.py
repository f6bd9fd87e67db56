"""The end of a service: one deadline for running requests;

those that are cut off get an error first.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable

from aiohttp import web

_LAST_SHARE, _LAST_S = 0.25, 1.5
_LOOK_S = 0.005


def cut_after_s(shutdown_s: float) -> float:
    """When running requests are cut off, within `shutdown_s`: the rest is for their errors and for
    closing.

    >>> cut_after_s(10.0), cut_after_s(0.0)
    (8.5, 0.0)
    """
    return shutdown_s - min(_LAST_S, _LAST_SHARE * shutdown_s)


class Ending:
    """The running requests, and whether they were cut off."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[object]] = set()
        self._long: set[asyncio.Task[object]] = set()
        self._cut: set[asyncio.Task[object]] = set()
        self.deadline = 0.0
        """When the process is to have ended, once it begins to; monotonic seconds."""
        self.soon = 0
        """Requests without a task, which are answered within a few turns of the loop."""

    def begun(self, task: asyncio.Task[object] | None = None, *, long: bool = False) -> None:
        """The request of this task runs until the task has ended: its answer is written by then.
        Without one it is the current one. long: it waits for a provider.
        """
        task = asyncio.current_task() if task is None else task
        assert task is not None
        self._under_way.add(task)
        if long:
            self._long.add(task)
        task.add_done_callback(self.gone)

    def begun_until_gone(self, task: asyncio.Task[object]) -> None:
        """The same for a task that calls `gone` itself once its answer is written."""
        self._under_way.add(task)

    def gone(self, task: asyncio.Task[object]) -> None:
        """It has ended."""
        self._under_way.discard(task)
        self._long.discard(task)
        self._cut.discard(task)

    async def decided(self, until: float = math.inf) -> None:
        """Wait until requests without a task are answered, or until this time."""
        while self.soon and time.monotonic() < until:  # noqa: ASYNC110 - it is rare, and short
            await asyncio.sleep(_LOOK_S)

    async def long_ended(self, seconds: float) -> None:
        """Wait until those that wait for a provider have ended, or for this long."""
        if self._long:
            await asyncio.wait(self._long, timeout=seconds)

    async def ended(self, seconds: float) -> None:
        """Wait until all running requests have ended, or for this long."""
        until = time.monotonic() + seconds
        await self.decided(until)
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=max(0.0, until - time.monotonic()))

    def cut(self) -> None:
        """Cancel the running requests: each sends an error to its client and ends."""
        for task in list(self._under_way):
            self._cut.add(task)
            if not task.cancelling():  # by another pool's end, whose request it is, too
                task.cancel()

    def cuts(self) -> bool:
        """For a task that catches a CancelledError: whether this class caused it. Ask once."""
        task = asyncio.current_task()
        if task is None or task not in self._cut:
            return False
        self._cut.discard(task)
        task.uncancel()
        return True


ENDING = web.AppKey("ending", Ending)


async def closed_within(close: Callable[[], object], seconds: float) -> None:
    """Call a blocking function;

    after this long it is abandoned, and does not delay the end of the process.
    """
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    def run() -> None:
        try:
            close()
        finally:
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, daemon=True).start()
    try:
        await asyncio.wait_for(done.wait(), max(0.0, seconds))
    except TimeoutError:
        return
