"""The client's end of a streamed answer: its head is sent late, and comments fill long silences.

As long as nothing was sent, another arm can be tried after a failure, and a refusal has its own
status. This ends early only if the client would get nothing for a long time: then the head goes out
with a sign of life in the client's dialect, and the next arm may still answer. The head names the
arm that was called at that moment; the `id` of the answer is that of the decision that answered.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import copy_context
from typing import Self

from bandit_service.gateway.client import Client
from bandit_service.gateway.watch import Watch

_QUIET_S = 1.0
"""A provider's sign of life is passed on if the client got nothing for so long."""
_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}


class EventStream:
    """What is written to it goes out after the head.

    keep_alive_s: silence until the client gets `filler`, a comment or a ping; 0 for none. headers:
    what the head carries about the call under way; empty while there is none. due: when there may
    have been silence for so long.
    """

    def __init__(self, client: Client, watch: Watch, keep_alive_s: float, filler: bytes) -> None:
        self.client = client
        self.due = 0.0
        self._watch = watch
        self._filler = filler
        self.headers: dict[str, str] = {}
        self._keep_alive_s = keep_alive_s
        self._loop = watch.loop
        self._written = self._loop.time()
        self._head = asyncio.Lock()
        self._named: dict[str, str] = {}
        self._context = copy_context()  # what is logged of it belongs to its request
        self._pulsing: asyncio.Task[None] | None = None
        self._over = False
        self._started = self._begun = False

    @property
    def started(self) -> bool:
        """Whether the head is out."""
        return self._started

    async def write(self, data: bytes) -> None:
        """Send a part of the answer. Raises ConnectionError if the client has left."""
        await self._send(self._named_arm(data))

    async def idle(self) -> None:
        """The provider is alive, and has nothing to say yet."""
        if self._loop.time() - self._written >= _QUIET_S:
            await self._send(self._filler)

    async def end(self, data: bytes) -> None:
        """Send the last part; a client that has left is no error."""
        self._over = True
        with suppress(ConnectionError):
            if not self._begun:
                await self._start()
            await self.client.end(self._named_arm(data))

    def __enter__(self) -> Self:
        """From now on send the client a sign of life whenever it got nothing for this long."""
        if self._keep_alive_s:
            self.due = self._loop.time() + self._keep_alive_s
            self._watch.begin(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.end(self)
        if self._pulsing is not None:
            self._pulsing.cancel()

    def miss(self) -> None:
        """Called by the watch; from now on a task of its own looks."""
        self._pulsing = self._loop.create_task(self._pulse(), context=self._context)

    async def _pulse(self) -> None:
        with suppress(ConnectionError):
            while not self._over:
                left = self._written + self._keep_alive_s - self._loop.time()
                if left > 0.0:
                    await asyncio.sleep(left)
                elif self.headers:
                    await self._send(self._filler)
                else:
                    await asyncio.sleep(self._keep_alive_s)

    def _named_arm(self, data: bytes) -> bytes:
        """The data, after a comment that names its arm if the head names one that failed."""
        if not data or self._named in ({}, self.headers):
            return data
        comment = "".join(f": {name} {value}\n" for name, value in self.headers.items())
        self._named = self.headers
        return comment.encode() + b"\n" + data

    async def _start(self) -> None:
        async with self._head:
            if not self._started:
                self._started, self._named = True, self.headers
                await self.client.begin(self.headers | _HEADERS)
                self._begun = True

    async def _send(self, data: bytes) -> None:
        if not self._begun:
            await self._start()
        self._written = self._loop.time()
        await self.client.write(data)
