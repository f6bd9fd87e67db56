"""The index of remembered queries, kept up to date with the history after every event."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from bandit_service.core.resolved import Resolved
from bandit_service.core.world import World
from bandit_service.runtime.supervisor import Supervisor
from store import HistoryIndex

_SETTLE_S, _SETTLE_MAX = 0.005, 4


class IndexFeed:
    """`heard` listens to the writer. The index's deferred work is done between answers."""

    def __init__(self, index: HistoryIndex, tasks: Supervisor) -> None:
        self._index = index
        self._tasks = tasks
        self._settling: asyncio.TimerHandle | None = None

    def heard(self, _: Resolved | Sequence[Resolved], world: World) -> None:
        """Add new queries, and remove those that have left the history."""
        added, removed = world.history.take_changes()
        for id in removed:
            with suppress(KeyError):  # an error prevented it from being added
                self._index.remove(id)
        for id in added:
            self._index.add(id, world.history.vector(id))
        if added and self._settling is None:
            self._settle_soon()

    def close(self) -> None:
        """Drop deferred work; the index is a cache."""
        if self._settling is not None:
            self._settling.cancel()

    def _settle_soon(self) -> None:
        self._settling = asyncio.get_running_loop().call_later(_SETTLE_S, self._settle)

    def _settle(self) -> None:
        """Do a little of the index's deferred work; its answers are right without it."""
        self._settling = None
        try:
            left = self._index.settle(_SETTLE_MAX)
        except Exception as error:  # noqa: BLE001 - the next query that is remembered tries again
            self._tasks.failed("index", error)
            return
        self._tasks.well("index")
        if left:
            self._settle_soon()
