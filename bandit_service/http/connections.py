"""Connections: what aiohttp itself refuses is answered in our shape, and none of it is logged."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from aiohttp import web

from bandit_service import clock
from bandit_service.core.errors import Malformed, Refused, ServiceError

_log = logging.getLogger("bandit.connections")


class Connection(web.RequestHandler):
    """One connection. Of a request that is no HTTP it shows and logs nothing but its kind.

    aiohttp would repeat the bytes it stumbled over in its answer and in its log, with a traceback;
    they may hold a key.
    """

    __slots__ = ("lost", "pointless", "render")

    def __init__(
        self,
        manager: web.Server,
        loop: asyncio.AbstractEventLoop,
        idle_s: float,
        render: Callable[[ServiceError], web.Response],
    ) -> None:
        """`render` makes the answer of an error."""
        none = cast(logging.Logger, None)  # which aiohttp takes, and does not declare
        super().__init__(manager, loop=loop, access_log=none, keepalive_timeout=idle_s)
        self.render = render
        self.pointless: asyncio.Task[Any] | None = None
        """What is cancelled when the client leaves. aiohttp would cancel everything or nothing, and
        an outcome is to be learned also when its client has left."""
        self.lost: Callable[[], object] | None = None
        """What is called when the client leaves."""

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called by the loop."""
        super().connection_lost(exc)
        if self.pointless is not None:
            self.pointless.cancel()
        if self.lost is not None:
            self.lost()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it repeats what was sent
    ) -> web.StreamResponse:
        """The answer to what never came to a handler, or failed outside of one."""
        _log.warning("refused", extra={"code": status, "why": type(exc).__name__})
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun")
        error = ServiceError("an error of ours") if status >= 500 else _unreadable(self)
        answer = self.render(error)
        answer.headers["x-request-id"] = clock.Ids().new(clock.now())
        answer.force_close()
        return answer

    def log_exception(self, *_: Any, **__: Any) -> None:
        """A line with the kind of an error that no handler saw."""
        kind = sys.exc_info()[0]
        _log.warning("connection failed", extra={"why": kind.__name__ if kind else ""})


@contextmanager
def while_there(request: web.Request) -> Iterator[None]:
    """What is done here is cancelled when the client leaves."""
    connection = request.protocol
    assert isinstance(connection, Connection)
    connection.pointless = asyncio.current_task()
    try:
        yield
    finally:
        connection.pointless = None


def _unreadable(connection: Connection) -> Malformed:
    return Malformed(
        "this is not HTTP/1.1 that can be read; at most "
        f"{connection.max_headers} headers of {connection.max_field_size} bytes are allowed"
    )


async def expect(request: web.Request) -> web.StreamResponse | None:
    """Ask for the body where the client waits for that; an answer where it expects anything else.

    aiohttp would repeat the header in an answer that is not of our shape.
    """
    if request.headers["Expect"].lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # which is of the answer
        return None
    assert isinstance(request.protocol, Connection)
    return request.protocol.render(Refused("Expect: must be 100-continue", param="Expect"))
