"""Sends all that is written to a connection in one turn of the loop with one system call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from aiohttp import web

AT_ONCE = True
"""False only to measure its effect."""


def gather(connection: web.RequestHandler) -> None:
    """From now on, gather what is written to this connection for a turn of the loop."""
    if AT_ONCE and connection.transport is not None:
        connection.transport = Gathering(connection.transport)


class Gathering(asyncio.Transport):
    """A transport that keeps writes until the turn is over.

    So the transport beneath requests a pause one turn later; closing sends the kept writes first.
    """

    def __init__(self, inner: asyncio.Transport) -> None:
        super().__init__()
        self._inner = inner
        self._loop = asyncio.get_running_loop()
        self._kept: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it; it is sent when all ready tasks have run."""
        if not self._kept:
            self._loop.call_soon(self._flush)
        self._kept.append(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Keep them."""
        for data in list_of_data:
            self.write(data)

    def _flush(self) -> None:
        kept, self._kept = self._kept, []
        if kept and not self._inner.is_closing():
            self._inner.write(b"".join(kept))

    def close(self) -> None:
        """Send the kept writes, and close."""
        self._flush()
        self._inner.close()

    def abort(self) -> None:
        """Close at once."""
        self._kept = []
        self._inner.abort()

    def write_eof(self) -> None:
        """Send the kept writes, and end."""
        self._flush()
        self._inner.write_eof()

    def can_write_eof(self) -> bool:
        """As beneath."""
        return self._inner.can_write_eof()

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel does not have yet."""
        return self._inner.get_write_buffer_size() + sum(len(data) for data in self._kept)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """As beneath."""
        return self._inner.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As beneath."""
        self._inner.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As beneath."""
        return self._inner.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """As beneath."""
        return self._inner.is_closing()

    def is_reading(self) -> bool:
        """As beneath."""
        return self._inner.is_reading()

    def pause_reading(self) -> None:
        """As beneath."""
        self._inner.pause_reading()

    def resume_reading(self) -> None:
        """As beneath."""
        self._inner.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """As beneath."""
        self._inner.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """As beneath."""
        return self._inner.get_protocol()
