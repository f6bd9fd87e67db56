"""One POST on a connection of aiohttp's pool, without what its session creates for each request.

The connector gives the connection, and its parser reads the answer, so that TLS, keep-alive,
decompression and the bounds of a head are aiohttp's. The head of a request is made once for each
address and its headers; one timer bounds the waits of all calls. What goes through a proxy, and
large bodies, are the session's.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Protocol, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.helpers import BaseTimerContext
from multidict import CIMultiDictProxy
from yarl import URL

from bandit_service.gateway.watch import Watch
from bandit_service.settings.upstreams import UpstreamSpec

_MAX_HEADS = 1024
_OURS = ("content-length", "transfer-encoding", "connection", "expect", "cookie")
"""Headers that say how a request is sent.

If they are configured, aiohttp's session handles them.
"""


class Response(Protocol):
    """What is read of an answer; aiohttp's has it too."""

    @property
    def status(self) -> int:
        """Of its head."""
        ...

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """Of its head."""
        ...

    @property
    def content(self) -> aiohttp.StreamReader:
        """Its body, as it comes."""
        ...

    def close(self) -> None:
        """Close the connection; who waits for a piece is woken."""
        ...

    def release(self) -> object:
        """Give the connection back, for another call."""
        ...


@dataclass(slots=True)
class Sent:
    """reused: the connection had served another call before."""

    reused: bool = False


class Deadline(BaseTimerContext):
    """Bounds each wait within it by `wait_s`, and all of them by `total_s` from now; TimeoutError.

    due: when the present wait ends at the latest, by the clock of the loop.
    """

    __slots__ = ("_ends", "_missed", "_task", "_was", "_watch", "due", "wait_s")

    def __init__(self, watch: Watch, wait_s: float, total_s: float) -> None:
        self.wait_s = wait_s
        self.due = 0.0
        self._watch = watch
        self._ends = watch.loop.time() + total_s
        self._missed = False
        self._task: asyncio.Task[object] | None = None
        self._was = 0

    def __enter__(self) -> Deadline:
        now = self._watch.loop.time()
        if now >= self._ends:
            raise TimeoutError
        task = asyncio.current_task()
        assert task is not None
        self._task, self._was = task, task.cancelling()
        self.due = min(self._ends, now + self.wait_s)
        self._watch.begin(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watch.end(self)
        task, self._task = self._task, None
        if not self._missed:
            return
        self._missed = False
        assert task is not None
        # of two who cancel at once, the other one is to be heard
        if task.uncancel() <= self._was and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def miss(self) -> None:
        """The wait was due."""
        assert self._task is not None
        self._missed = True
        self._task.cancel()


class Receiver(ResponseHandler):
    """aiohttp's, which goes on to read after every piece that is taken, paused or not.

    served: it had a call before.
    """

    served = False

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Called whenever little is left to take."""
        if self._reading_paused:
            super().resume_reading(resume_parser)


class Connector(aiohttp.TCPConnector):
    """aiohttp's, whose connections are `Receiver`s."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._factory = cast(partial[ResponseHandler], partial(Receiver, loop=self._loop))


class Answer:
    """An answer whose head has come; its connection goes back to the pool at its end."""

    __slots__ = ("_connection", "content", "headers", "status")

    def __init__(
        self,
        status: int,
        headers: CIMultiDictProxy[str],
        content: aiohttp.StreamReader,
        connection: Connection,
    ) -> None:
        self.status, self.headers, self.content = status, headers, content
        self._connection = connection
        content.on_eof(self.release)

    def close(self) -> None:
        """Close the connection; who waits for a piece is woken."""
        if self.content.exception() is None:
            self.content.set_exception(aiohttp.ClientConnectionError("Connection closed"))
        self._connection.close()

    def release(self) -> None:
        """Give the connection back, for another call."""
        self._connection.release()


@dataclass(frozen=True, slots=True)
class Head:
    """The head of every request to one address with these headers, but for what differs.

    request: what the connector asks for a connection. names: of its headers, in small letters.
    timeout: of a connection.
    """

    request: ClientRequest
    text: bytes
    names: frozenset[str]
    timeout: aiohttp.ClientTimeout


class Calls:
    """Calls on the connections of a session, which a `Connector` makes.

    max_header_bytes: of a line of an answer's head.
    """

    def __init__(self, session: aiohttp.ClientSession, max_header_bytes: int) -> None:
        assert session.connector is not None
        self._session = session
        self._connector = session.connector
        self._max_header_bytes = max_header_bytes
        self._loop = asyncio.get_running_loop()
        self._watch = Watch(self._loop)
        self._heads: dict[tuple[object, ...], Head | None] = {}

    def head(self, spec: UpstreamSpec, url: str, headers: Mapping[str, str]) -> Head | None:
        """The head of requests with these headers; None if the session must make it."""
        key = (spec.id, url, *headers.items())
        if key not in self._heads:
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            self._heads[key] = self._made(spec, url, headers)
        return self._heads[key]

    def _made(self, spec: UpstreamSpec, url: str, headers: Mapping[str, str]) -> Head | None:
        target = URL(url)
        if target.user or any(name.lower() in _OURS for name in headers):
            return None
        request = ClientRequest(
            "POST",
            target,
            params=spec.query or None,
            headers=headers,
            loop=self._loop,
            session=self._session,
        )
        lines = [f"POST {request.url.raw_path_qs} HTTP/1.1"]
        request.headers.popall("Content-Length", None)  # of no body
        lines += [_line(name, value) for name, value in request.headers.items()]
        names = frozenset(name.lower() for name in request.headers)
        timeout = aiohttp.ClientTimeout(sock_connect=spec.connect_s)
        return Head(request, "\r\n".join(lines).encode(), names, timeout)

    async def post(
        self,
        head: Head,
        more: Mapping[str, str],
        body: bytes,
        spec: UpstreamSpec,
        sent: Sent,
        left_s: float = math.inf,
    ) -> Answer:
        """The answer's head. Raises what aiohttp's session raises. more: headers besides.

        sent: learns whether the connection had served before. left_s: when all of it must have
        come, if that is before the upstream's `total_s`.
        """
        request = self._request(head, more, body)  # what it cannot hold costs no connection
        deadline = Deadline(self._watch, spec.first_byte_s, min(spec.total_s, left_s))
        try:
            with deadline:
                connection = await self._connector.connect(head.request, [], head.timeout)
                try:
                    return await self._answered(connection, head, request, deadline, sent)
                except BaseException:
                    connection.close()
                    raise
        except OSError as error:
            if isinstance(error, aiohttp.ClientError | TimeoutError):
                raise
            raise aiohttp.ClientOSError(*error.args) from error
        finally:
            deadline.wait_s = spec.idle_s

    async def _answered(
        self,
        connection: Connection,
        head: Head,
        request: bytes,
        deadline: Deadline,
        sent: Sent,
    ) -> Answer:
        protocol = connection.protocol
        assert protocol is not None
        if isinstance(protocol, Receiver):
            sent.reused, protocol.served = protocol.served, True
        most = self._max_header_bytes
        protocol.set_response_params(
            timer=deadline, read_until_eof=True, max_line_size=most, max_field_size=most
        )
        transport = protocol.transport
        if transport is None or transport.is_closing():
            raise aiohttp.ClientConnectionResetError("the connection is closing")
        transport.write(request)
        status = 100
        while 100 <= status < 200 and status != 101:
            message, content = await protocol.read()
            status = message.code
        if set_cookies := message.headers.getall("Set-Cookie", ()):
            self._session.cookie_jar.update_cookies_from_headers(set_cookies, head.request.url)
        return Answer(status, message.headers, content, connection)

    def _request(self, head: Head, more: Mapping[str, str], body: bytes) -> bytes:
        lines = [head.text, b"Content-Length: %d" % len(body)]
        lines += [_line(name, value).encode() for name, value in more.items()]
        if len(self._session.cookie_jar):
            cookies = self._session.cookie_jar.filter_cookies(head.request.url)
            if cookies:
                lines.append(_line("Cookie", cookies.output(header="", sep=";").strip()).encode())
        return b"\r\n".join((*lines, b"", body))


def _line(name: str, value: str) -> str:
    if any(mark in name + value for mark in "\r\n\0"):
        raise ValueError("a header has a line break in it")
    return f"{name}: {value}"
