"""Bounds connections by the number of descriptors, and renders errors of aiohttp in the service's
shape.

Some descriptors are reserved: for the log, snapshots, child processes and providers. Log lines of
these errors are rate-limited.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
import sys
from collections.abc import Callable
from typing import Any, cast

import msgspec
from aiohttp import web

from bandit_service import logs
from bandit_service.core.errors import Busy, Malformed, Refused, ServiceError
from bandit_service.http.middleware import new_id

_log = logging.getLogger("bandit.connections")


AT_ONCE = 8
"""Connections accepted in one turn of the loop.

An excess connection stays open for some turns, so a few times this number must be less than the
reserved descriptors.
"""

_QUEUE = 1024
_KEPT_BACK, _MAX_KEPT_BACK = 0.25, 1024
_seldom = logs.Seldom()
_FULL = "more connections are open than there are descriptors for; retry later"
_BODY = msgspec.json.encode({"error": Busy(_FULL).body()})
_CROWDED = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json; charset=utf-8\r\n"
    + f"Connection: close\r\nRetry-After: 1\r\nContent-Length: {len(_BODY)}\r\n\r\n".encode()
    + _BODY
)


def descriptors() -> int:
    """The number from which a new descriptor is one too many; 0 without a limit.

    The system assigns the lowest free number, so it also shows how many are open.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return 0
    return int(limit - min(_KEPT_BACK * limit, _MAX_KEPT_BACK))


class Door:
    """Closes connections for which there are too few descriptors; calls `refused` for each."""

    def __init__(self, refused: Callable[[], None]) -> None:
        self._most = descriptors()
        self._refused = refused

    def closed_to(self, transport: asyncio.Transport) -> bool:
        """Whether this new connection was one too many, and has been answered and closed."""
        if not self._most or transport.get_extra_info("socket").fileno() < self._most:
            return False
        self._refused()
        if (more := _seldom("crowded")) is not None:
            _log.error(
                "too few descriptors", extra={"why": f"of {self._most}", "more": more or None}
            )
        transport.write(_CROWDED)
        transport.abort()
        return True


def deepen(server: asyncio.Server) -> None:
    """Let more connections wait in the kernel than are accepted at once;

    asyncio has one setting for both.
    """
    for each in server.sockets:
        with contextlib.closing(socket.socket(fileno=os.dup(each.fileno()))) as same:
            same.listen(_QUEUE)


def tell_seldom(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An exception handler of the loop: at most one line a second for each kind of error.

    Without free descriptors asyncio fails for each waiting connection.
    """
    error = context.get("exception")
    if (more := _seldom(f"{context.get('message', '')[:80]} {type(error).__name__}")) is None:
        return
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        _log.error("no descriptor is left", extra={"why": error.strerror, "more": more or None})
    else:
        loop.default_exception_handler(context)


class Connection(web.RequestHandler):
    """One connection.

    If a request is not HTTP, only the kind of the error is shown and logged. aiohttp would repeat
    the invalid bytes in its answer and in its log, with a traceback; they may contain a key.
    """

    __slots__ = ("_beside", "lost", "pointless", "render")

    def __init__(
        self,
        manager: web.Server,
        loop: asyncio.AbstractEventLoop,
        idle_s: float,
        render: Callable[[ServiceError], web.Response],
    ) -> None:
        """`render` makes the answer for an error."""
        none = cast(logging.Logger, None)  # which aiohttp takes, and does not declare
        super().__init__(manager, loop=loop, access_log=none, keepalive_timeout=idle_s)
        self.render = render
        self._beside = False
        self.pointless: asyncio.Task[Any] | None = None
        """The task to cancel when the client leaves.

        aiohttp would cancel everything or nothing, but an outcome must be learned even if its
        client has left.
        """
        self.lost: Callable[[], object] | None = None
        """What is called when the client leaves."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where it is served."""
        return self._loop

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called by the loop."""
        super().connection_lost(exc)
        if self.pointless is not None:
            self.pointless.cancel()
        if self.lost is not None:
            self.lost()

    def begun_beside(self) -> None:
        """A request is answered on this connection that aiohttp knows nothing of."""
        self._beside = True

    def ended_beside(self) -> None:
        """It is answered; from now on the connection is idle."""
        self._beside = False
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None and self.transport is not None:
            self._keepalive_handle = self._loop.call_at(
                self._next_keepalive_close_time, self._process_keepalive
            )

    def _process_keepalive(self) -> None:
        if self._beside:
            self._keepalive_handle = None  # there is another one at its end
        else:
            super()._process_keepalive()

    async def drained(self) -> None:
        """Wait until the client has read most of what was written. Raises ConnectionError."""
        await self._drain_helper()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it repeats what was sent
    ) -> web.StreamResponse:
        """The answer to a request that never reached a handler, or failed outside of one."""
        if (more := _seldom("refused")) is not None:
            why = type(exc).__name__
            _log.warning("refused", extra={"code": status, "why": why, "more": more or None})
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun")
        error = (
            ServiceError("internal error; search the log for it")
            if status >= 500
            else _unreadable(self)
        )
        answer = self.render(error)
        answer.headers["x-request-id"] = new_id()
        answer.force_close()
        return answer

    def log_exception(self, *_: Any, **__: Any) -> None:
        """A line with the kind of an error that no handler saw."""
        if (more := _seldom("failed")) is not None:
            kind = sys.exc_info()[0]
            why = kind.__name__ if kind else ""
            _log.warning("connection failed", extra={"why": why, "more": more or None})


class WhileThere:
    """Within this block, the task is cancelled when the client leaves."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.pointless = asyncio.current_task(self._connection.loop)

    def __exit__(self, *_: object) -> None:
        self._connection.pointless = None


def connection_of(request: web.Request) -> Connection:
    """Where a request came from."""
    assert isinstance(request.protocol, Connection)
    return request.protocol


def _unreadable(connection: Connection) -> Malformed:
    return Malformed(
        "this is not HTTP/1.1 that can be read; at most "
        f"{connection.max_headers} headers of {connection.max_field_size} bytes are allowed"
    )


async def expect(request: web.Request) -> web.StreamResponse | None:
    """Send 100 Continue if the client waits for it; returns an answer if it expects anything else.

    aiohttp would repeat the header in an answer of another shape.
    """
    if request.headers["Expect"].lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # which is of the answer
        return None
    return connection_of(request).render(Refused("Expect: must be 100-continue", param="Expect"))
