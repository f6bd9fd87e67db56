"""Stands between a replica and the servers of its log, and can stand still like a network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

_PIECE = 1 << 16


class Relay:
    """To one server of loopback. `hold` lets nothing through in either direction, and refuses
    nothing: connections stay open, and new ones get no answer. `let_go` ends that.
    """

    def __init__(self, to: int, port: int = 0) -> None:
        """port: where it is to listen; 0 for a free one."""
        self.port = port
        self._to = to
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def hold(self) -> None:
        """From now on nothing goes through."""
        self._open.clear()

    def let_go(self) -> None:
        """All that waits, and what comes, goes through."""
        self._open.set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Until it is left: then every connection breaks, and others are refused."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._join(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._open.wait()
            with suppress(OSError):
                there, back = await asyncio.open_connection("127.0.0.1", self._to)
                try:
                    await _first(self._pump(reader, back), self._pump(there, writer))
                finally:
                    back.close()
        finally:
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_PIECE):
                await self._open.wait()
                writer.write(data)
                await writer.drain()


async def _first(*running: Coroutine[Any, Any, None]) -> None:
    """Until one of them has ended; the others end then."""
    tasks = [asyncio.create_task(each) for each in running]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def through(address: str, relays: Sequence[Relay], ports: Sequence[int]) -> str:
    """The address with the port of each server replaced by that of its relay."""
    for relay, port in zip(relays, ports, strict=True):
        address = address.replace(f"127.0.0.1:{port}", f"127.0.0.1:{relay.port}")
    return address
