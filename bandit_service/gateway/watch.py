"""One timer for many waits: nearly all of them are over before they are due."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Protocol


class Wait(Protocol):
    """What is watched. due: when, by the clock of the loop."""

    due: float

    def miss(self) -> None:
        """It was due, and is watched no longer."""
        ...


class Watch:
    """One timer of the loop for many waits, which ends those that are due.

    It runs in a context of its own, not in that of the request that happened to begin first.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._context = Context()
        self._waits: set[Wait] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, wait: Wait) -> None:
        """Watch it from now on."""
        self._waits.add(wait)
        if self._timer is not None:
            if self._timer.when() <= wait.due:
                return
            self._timer.cancel()
        self._set(wait.due)

    def end(self, wait: Wait) -> None:
        """It is over. The timer stays as it is: others may wait by then."""
        self._waits.discard(wait)

    def _look(self) -> None:
        self._timer, now = None, self.loop.time()
        for each in [each for each in self._waits if each.due <= now]:
            self.end(each)
            each.miss()
        if self._waits:
            self._set(min(each.due for each in self._waits))

    def _set(self, due: float) -> None:
        self._timer = self.loop.call_at(due, self._look, context=self._context)
