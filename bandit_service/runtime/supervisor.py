"""Keeps the service's long-lived tasks running, and reports failures.

A task that ends by an unexpected exception is dangerous: its work stops, and nothing reports it. So
this module runs each long-lived task. It counts and logs an error, and starts the task again after
a pause that doubles up to a limit. Until a round has succeeded, the task is in `failing`, which
`/readyz` shows.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from bandit_service.logs import Seldom

_log = logging.getLogger("bandit.tasks")
FIRST_S, MAX_S = 0.5, 30.0
TRIES = 6
"""How often in a row an essential task may fail; it takes about 15 s."""

_LASTED_S = 60.0
_AGAIN_S = 5.0
"""After how long a task that is to end is cancelled again."""


class Supervisor:
    """The long-lived tasks of a service. `keep` them; each calls `well` after a round.

    count: called with the task's name at each failure. tell: called with a name and whether it is
    failing now, when that changes.
    """

    def __init__(self, count: Callable[[str], None], tell: Callable[[str, bool], None]) -> None:
        self.failing: dict[str, str] = {}
        self._count, self._tell = count, tell
        self._seldom = Seldom()  # some are tried with every event

    def keep(
        self,
        name: str,
        work: Callable[[], Awaitable[None]],
        give_up: Callable[[str], None] | None = None,
    ) -> Kept:
        """Run `work`, again whenever it fails, until it returns or the caller ends it.

        give_up: called with the reason when it failed TRIES times in a row; then it is not tried
        again. Without it the task is tried for ever.
        """
        return Kept(name, self, work, give_up)

    def failed(self, name: str, error: BaseException) -> str:
        """One round of a task failed; returns the reason in words."""
        why = _why(error)
        self._count(name)
        if (more := self._seldom(name)) is not None:
            told = {"task": name, "why": why, "more": more or None}
            _log.error("a task failed", extra=told, exc_info=_unexpected(error))
        if name not in self.failing:
            self._tell(name, True)
        self.failing[name] = why
        return why

    def well(self, name: str) -> None:
        """One round of a task was done."""
        if self.failing and self.failing.pop(name, None) is not None:
            self._tell(name, False)
            if self._seldom(f"{name}, well") is not None:
                _log.warning("a task is well again", extra={"task": name})


class Kept:
    """One task that is kept running. Only its owner can end it."""

    def __init__(
        self,
        name: str,
        of: Supervisor,
        work: Callable[[], Awaitable[None]],
        give_up: Callable[[str], None] | None,
    ) -> None:
        self.name = name
        self._of, self._work, self._give_up = of, work, give_up
        self._ending = False
        self._again: asyncio.TimerHandle | None = None
        self._begin()

    def _begin(self) -> None:
        self._again = None
        self.task = asyncio.create_task(self._run(), name=self.name)
        self.task.add_done_callback(self._done)

    async def end(self) -> None:
        """Stop it, and wait until it has stopped.

        It is cancelled again if it goes on: `asyncio.wait_for` of Python 3.11, which drivers use,
        swallows a cancellation if what it waits for is done at that moment.
        """
        self._ending = True
        if self._again is not None:
            self._again.cancel()
        while not self.task.done():
            self.task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([self.task], timeout=_AGAIN_S)

    def _done(self, task: asyncio.Task[None]) -> None:
        """A cancellation by anybody else does not stop it, unless the loop ends too."""
        if task.cancelled() and not self._ending:
            self._of.failed(self.name, asyncio.CancelledError())
            self._again = asyncio.get_running_loop().call_later(FIRST_S, self._begin)

    async def _run(self) -> None:
        tries = 0
        while True:
            begun = time.monotonic()
            try:
                await self._work()
            except asyncio.CancelledError as error:
                if self.task.cancelling():
                    raise
                why = self._of.failed(self.name, error)  # what it waited for was cancelled
            except Exception as error:  # noqa: BLE001 - the point of this class
                why = self._of.failed(self.name, error)
            else:
                self._of.well(self.name)
                return
            tries = 1 if time.monotonic() - begun > _LASTED_S else tries + 1
            if self._give_up is not None and tries >= TRIES:
                self._give_up(f"{self.name} failed {tries} times in a row: {why}")
                return
            await asyncio.sleep(min(MAX_S, FIRST_S * 2.0 ** min(tries - 1, 10)))


def _why(error: BaseException) -> str:
    """The error in words;

    the message of an unexpected error may contain private data, and is left out.
    """
    kind = type(error).__name__
    if isinstance(error, OSError):
        return f"{kind}: {error.strerror or 'no reason given'}"
    return f"{kind}: {error}" if _ours(error) and str(error) else kind


def _unexpected(error: BaseException) -> BaseException | None:
    """The error with its traceback, unless it is one that we raise ourselves."""
    return None if _ours(error) or isinstance(error, asyncio.CancelledError) else error


def _ours(error: BaseException) -> bool:
    return type(error).__module__.split(".")[0] in ("bandit_service", "store")
