"""Pools whose log cannot be opened now, such as while its database is down.

Each is tried again until it can be opened, so that it joins the process without a restart.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

from bandit_service.http.pools import Homes
from bandit_service.runtime.supervisor import Kept, Supervisor
from bandit_service.settings import BadSettings
from store import Corrupt, StoreError

_log = logging.getLogger("bandit.app")
FIRST_S, MAX_S = 0.5, 30.0
_EXPECTED = (str, StoreError, BadSettings, OSError)
_READING_SHARE = 20
"""A damaged log is read up to the damage each time: at most this part of the time goes into it."""


def pause_after(tries: int, error: Exception, took_s: float) -> float:
    """How long to wait after this many tries, of which the last one took so long.

    >>> [pause_after(tries, StoreError(), 3.0) for tries in (0, 1, 5, 99)]
    [0.5, 1.0, 16.0, 30.0]
    >>> pause_after(3, Corrupt(1, "its checksum does not match"), 60.0)
    1200.0
    """
    pause_s = min(MAX_S, FIRST_S * 2.0 ** min(tries, 10))
    return max(pause_s, _READING_SHARE * took_s) if isinstance(error, Corrupt) else pause_s


class ClosedPools:
    """Opens what is closed. tasks: keeps the trying. open_one: opens the pool of this name. up:
    told whether it is open.
    """

    def __init__(
        self,
        homes: Homes,
        tasks: Supervisor,
        open_one: Callable[[str], Awaitable[None]],
        up: Callable[[str, bool], None],
    ) -> None:
        self._homes, self._tasks, self._open_one, self._up = homes, tasks, open_one, up
        self._tries: dict[str, Kept] = {}
        self._hurry = asyncio.Event()

    def add(self, name: str, error: Exception | str) -> None:
        """This pool could not be opened, or its log broke. It is tried again from now on."""
        self._homes.apps.pop(name, None)
        self.note(name, error)
        self._up(name, False)
        self._tries[name] = self._tasks.keep(f"open {name}", partial(self._until_open, name))

    def note(self, name: str, error: Exception | str) -> None:
        """This pool is closed from now on. The reason is told where it is another than before."""
        bug = None if isinstance(error, _EXPECTED) else error
        why = str(error) if bug is None else type(error).__name__
        if self._homes.closed.get(name) == why:
            return
        self._homes.closed[name] = why
        _log.error("a pool is closed", extra={"pool": name, "why": why}, exc_info=bug)

    def hurry(self) -> None:
        """Try all again now: what kept them closed may be repaired."""
        self._hurry.set()
        self._hurry = asyncio.Event()

    async def close(self) -> None:
        """Stop trying."""
        await asyncio.gather(*[each.end() for each in self._tries.values()])

    async def _until_open(self, name: str) -> None:
        pause_s, tries, hurried = FIRST_S, 0, self._hurry
        while True:
            try:
                async with asyncio.timeout(pause_s):
                    await hurried.wait()
            except TimeoutError:
                pass
            # who hurries while it is tried may have repaired what it has read already
            hurried, begun = self._hurry, time.monotonic()
            try:
                await self._open_one(name)
            except Exception as error:  # noqa: BLE001 - its neighbours are served, whatever it is
                self.note(name, error)
                tries += 1
                pause_s = pause_after(tries, error, time.monotonic() - begun)
            else:
                break
        del self._homes.closed[name], self._tries[name]
        self._up(name, True)
        _log.warning("a pool is open again", extra={"pool": name})
