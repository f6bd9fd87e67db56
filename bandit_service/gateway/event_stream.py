"""The client's end of a streamed answer: its head leaves late, and signs of life go out meanwhile.

As long as nothing was sent, an arm that fails is followed by another, and what is refused has its
own status. That is given up only where the client would otherwise hear nothing for long: then the
head goes out with a comment, which every reader of event streams passes over, and the next arm may
still answer. The head names the arm that was being asked by then; the `id` of each event is that
of the decision that answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec

from bandit_service.gateway.client import Client

_QUIET_S = 1.0
"""A provider's sign of life goes on where the client got nothing for so long."""
_COMMENT = b": keep-alive\n\n"
_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}


class Line:
    """Write to it, and the head goes out first. every_s: of silence until a comment; 0 for none.

    headers: what the head carries, of the call under way; empty while there is none.
    """

    def __init__(self, client: Client, every_s: float) -> None:
        self.client = client
        self.headers: dict[str, str] = {}
        self._every_s = every_s
        self._loop = asyncio.get_running_loop()
        self._written = self._loop.time()
        self._head = asyncio.Lock()
        self._named: dict[str, str] = {}
        self._over = False
        self._begun = False

    @property
    def begun(self) -> bool:
        """Whether the head is out."""
        return self._begun

    async def write(self, data: bytes) -> None:
        """Send something that is the answer's; ConnectionError where the client has left."""
        await self._send(self._by_name(data))

    async def sign(self) -> None:
        """The provider lives, and has nothing to say yet."""
        if self._loop.time() - self._written >= _QUIET_S:
            await self._send(_COMMENT)

    async def end(self, words: bytes) -> None:
        """The last that is sent; a client that has left is no error."""
        self._over = True
        with suppress(ConnectionError):
            await self._begin()
            await self.client.end(self._by_name(words))

    async def failed(self, error: bytes, before: bytes = b"") -> None:
        """End with an error, {"error": …}, as an event."""
        await self.end(before + b"data: " + error + b"\n\n")

    @asynccontextmanager
    async def kept_alive(self) -> AsyncIterator[None]:
        """Meanwhile the client gets a comment whenever it got nothing for `every_s`."""
        task = self._loop.create_task(self._pulse()) if self._every_s else None
        try:
            yield
        finally:
            if task is not None:
                task.cancel()

    async def _pulse(self) -> None:
        with suppress(ConnectionError):
            while not self._over:
                left = self._written + self._every_s - self._loop.time()
                if left > 0.0:
                    await asyncio.sleep(left)
                elif self.headers:
                    await self._send(_COMMENT)
                else:
                    await asyncio.sleep(self._every_s)

    def _by_name(self, data: bytes) -> bytes:
        """The same after a comment that names its arm, where the head names one that failed."""
        if not data or self._named in ({}, self.headers):
            return data
        told = "".join(f": {name} {value}\n" for name, value in self.headers.items())
        self._named = self.headers
        return told.encode() + b"\n" + data

    async def _begin(self) -> None:
        async with self._head:
            if not self._begun:
                self._begun, self._named = True, self.headers
                await self.client.begin(self.headers | _HEADERS)

    async def _send(self, data: bytes) -> None:
        await self._begin()
        self._written = self._loop.time()
        await self.client.write(data)


def event(error: object) -> bytes:
    """An error as it is told in a stream, and in an answer."""
    return msgspec.json.encode({"error": error})
