"""One computation a second for all who listen, none while nobody does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from bandit_service.core.errors import Busy, Unavailable

_log = logging.getLogger("bandit.live")
BEHIND = 5
"""Frames that wait for one listener; one that is further behind is dropped."""


@dataclass(eq=False)
class Listener:
    """Who listens, for one tenant or for all."""

    tenant: str | None
    dropped: bool = False
    _frames: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(BEHIND))

    async def next(self) -> bytes | None:
        """The next frame; None when there comes none any more."""
        return None if self.dropped else await self._frames.get()

    def give(self, frame: bytes | None) -> bool:
        """Hand over one frame; False where too many wait already, and then it gets none any more.

        A frame of None says that the end has come.
        """
        with suppress(asyncio.QueueFull):
            self._frames.put_nowait(frame)
            return True
        self.dropped = True
        while not self._frames.empty():
            self._frames.get_nowait()
        self._frames.put_nowait(None)
        return False


class Broadcast:
    """`frame` makes what the listeners of one tenant get, every `every_s` seconds.

    most: listeners at a time.
    """

    def __init__(
        self, frame: Callable[[str | None], bytes], most: int, every_s: float = 1.0
    ) -> None:
        self.every_s = every_s
        self._frame, self._most = frame, most
        self._listeners: set[Listener] = set()
        self._ticking: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._listeners)

    def join(self, tenant: str | None) -> Listener:
        """One more who listens; Busy when there are too many, Unavailable when it is over."""
        if self._closed:
            raise Unavailable("the service is stopping")
        if len(self._listeners) >= self._most:
            raise Busy(
                f"{self._most} listen already, which monitoring.max_listeners says; retry later"
            )
        listener = Listener(tenant)
        self._listeners.add(listener)
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._tick(), name="live")
        return listener

    def leave(self, listener: Listener) -> None:
        """Remove this listener."""
        self._listeners.discard(listener)
        if not self._listeners and self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None

    def close(self) -> None:
        """Tell everybody that it is over; nobody may join any more."""
        self._closed = True
        for listener in self._listeners:
            listener.give(None)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self.every_s)
            try:
                self.tell()
            except Exception:  # noqa: BLE001 - a bug in one frame does not end the next ones
                _log.exception("no frame could be made")

    def tell(self) -> None:
        """One frame for each tenant that somebody listens for, given to all of its listeners."""
        made: dict[str | None, bytes] = {}
        for listener in list(self._listeners):
            tenant = listener.tenant
            if tenant not in made:
                made[tenant] = self._frame(tenant)
            if not listener.dropped and not listener.give(made[tenant]):
                _log.info("a listener was too slow")
