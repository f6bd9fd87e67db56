"""Usual requests to the paths that are called most, answered without aiohttp's server.

A request is usual if it came in one piece, its head is plain and asks for nothing rare, and its
path is `/v1/decide`, with an embedding, or one of the gateway's. Any other one, and one in whose
body something may be wrong, is aiohttp's, which answers it as ever; both ways share what checks,
decides and renders. A head is parsed by aiohttp's parser, and only if it differs from the one
before it on the same connection. A decide needs no task: it is decided and answered together with
all others of its turn of the loop, as on the stream.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web
from aiohttp.http import SERVER_SOFTWARE, HttpRequestParser
from multidict import CIMultiDictProxy

from bandit_service import clock, logs, wire
from bandit_service.core import events as ev
from bandit_service.core.errors import ServiceError, stopped
from bandit_service.core.pools import POOL
from bandit_service.gateway.client import Reply
from bandit_service.gateway.request import header
from bandit_service.http.auth import Caller
from bandit_service.http.connections import Connection, WhileThere
from bandit_service.http.decisions import IDEMPOTENCY_KEY, answer_of
from bandit_service.http.entrance import Entrance
from bandit_service.http.gateway import ANSWERS, Came, WhileAnswered
from bandit_service.http.immediate_answers import AtOnce
from bandit_service.http.middleware import (
    BORDERS,
    CLIENT_GONE,
    DRAINING,
    GATE,
    PATIENCE,
    ROUTER,
    SETTINGS,
    TELEMETRY,
    authorization,
    given_id,
    internal_error,
    new_id,
    refusal,
    seen_in,
    tell,
)
from bandit_service.http.origins import Headers
from bandit_service.http.pools import HOMES, TENANT
from bandit_service.http.read_your_writes import AFTER, OFFSET
from bandit_service.http.shutdown import ENDING
from bandit_service.http.stream_frames import is_plain
from bandit_service.runtime.router import Router

if TYPE_CHECKING:
    from aiohttp.base_protocol import BaseProtocol

_log = logging.getLogger("bandit.access")
_log_start = logging.getLogger("bandit.app")
_DECIDE = "/v1/decide"
_PATHS = frozenset((_DECIDE, *ANSWERS))
_POST = b"POST "
_LONGEST_LINE, _MAX_HEADERS = 8190, 127
"""What aiohttp's server allows, too; the header with the length is one more."""
_RARE = (AFTER, POOL, PATIENCE, IDEMPOTENCY_KEY, "Content-Encoding", "Content-Length")
_MAX_UNREAD = 65_536
_encoder = msgspec.json.Encoder()
_REASONS = {each.value: each.phrase for each in HTTPStatus}
_SERVER = f"Server: {SERVER_SOFTWARE}\r\n"
_OF_AIOHTTP = (
    "_drain_helper",
    "_keepalive_handle",
    "_keepalive_timeout",
    "_loop",
    "_next_keepalive_close_time",
    "_process_keepalive",
    "force_close",
    "writing_paused",
)
"""What a `Connection` uses of its class in aiohttp while the fast path answers; most of it has no
documentation, so that a later version may lack it."""
_USUAL = b"POST /v1/decide HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: 1"


class Head(msgspec.Struct, frozen=True, gc=False):
    """What the head of a request says. seen: to the borders. id: that its client gave it. tenant:
    of its header.
    """

    path: str
    headers: CIMultiDictProxy[str]
    seen: Headers
    authorization: str
    id: str
    tenant: str

    @property
    def anthropic(self) -> bool:
        """Whether the client speaks Anthropic's API."""
        return self.path == "/v1/messages"


def head_of(head: bytes, unconnected: BaseProtocol, loop: asyncio.AbstractEventLoop) -> Head | None:
    """A head without its length, parsed; None if the request is not usual.

    unconnected: what aiohttp's parser belongs to, here to no connection.
    """
    path = head[len(_POST) : head.find(b" ", len(_POST))].decode("latin-1")
    if path not in _PATHS or not head.startswith(_POST):
        return None
    parser = HttpRequestParser(
        unconnected,
        loop,
        _MAX_UNREAD,
        max_line_size=_LONGEST_LINE,
        max_field_size=_LONGEST_LINE,
        max_headers=_MAX_HEADERS,
    )
    try:
        messages, upgraded, tail = parser.feed_data(head + b"\r\n\r\n")
    except Exception:  # noqa: BLE001 - aiohttp's server says what is wrong with it
        return None
    if len(messages) != 1 or upgraded or tail:
        return None
    message, headers = messages[0][0], messages[0][0].headers
    usual = not (message.should_close or message.chunked or message.upgrade)
    if not usual or any(name in headers for name in _RARE):
        return None
    seen, credentials = seen_in(headers), authorization(headers)
    return Head(path, headers, seen, credentials, given_id(headers), header(headers, TENANT) or "")


class FastPath:
    """Of one application. Its clients' connections are `Connection`s."""

    def __init__(self, app: web.Application, unconnected: Connection) -> None:
        """unconnected: as of `head_of`."""
        self._app, self._unconnected = app, unconnected
        self._router, self._telemetry, self._homes = app[ROUTER], app[TELEMETRY], app[HOMES]
        self._gate, self._borders, self.ending = app[GATE], app[BORDERS], app[ENDING]
        self._draining = app[DRAINING]
        self._max_decide_bytes = app[SETTINGS].server.max_body_bytes
        self._max_bytes = app[SETTINGS].gateway.max_body_bytes
        self._loop = asyncio.get_running_loop()
        self._told: list[_Decide] = []

    def head_of(self, head: bytes) -> Head | None:
        """As of `entrance.Fast`."""
        return head_of(head, self._unconnected, self._loop)

    def takes(self, head: Head, body: bytes, entrance: Entrance[Head]) -> bool:
        """As of `entrance.Fast`."""
        connection = entrance.inner
        if self._draining.is_set() or not isinstance(connection, Connection):
            return False
        if self._homes.held:  # which it may have to wait for
            return False
        if head.path == _DECIDE:
            if len(body) > self._max_decide_bytes:
                return False
            asked = wire.read_at_once(body, wire.DecideRequest)
            if asked is None or not is_plain(asked):
                return False
            self._decide(asked, _Decide(head, entrance, connection, self._tell))
        elif len(body) > self._max_bytes:
            return False
        else:
            client = _Client(self, head, entrance, connection)
            client.task = self._loop.create_task(self._answered(head, body, client))
            self.ending.begun_until_gone(client.task)
        connection.begun_beside()
        return True

    def _admitted(self, of: _Decide | _Client) -> Caller:
        head = of.head
        self._borders.cross(head.seen, self._gate.needed("POST", head.path))
        caller = self._gate.admit(
            "POST", head.path, head.authorization, clock.now(), time.monotonic()
        )
        of.admitted = True
        return caller

    def _written(self, of: _Decide | _Client, reply: Reply) -> bytes:
        """The bytes of a whole answer."""
        more = f"Content-Type: application/json\r\nContent-Length: {len(reply.body)}\r\n"
        return self.head_bytes(of, reply.headers, more, reply.status) + reply.body

    def head_bytes(
        self, of: _Decide | _Client, headers: Mapping[str, str], more: str, status: int = 200
    ) -> bytes:
        """The head of an answer, with these headers and the lines of `more`."""
        id = of.id
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if lines.count("\n") + lines.count("\r") > 2 * len(headers) or "\0" in lines:
            raise ValueError("a header has a line break in it")
        ours = f"Date: {_date(int(clock.now()))}\r\n{_SERVER}x-request-id: {id}\r\n"
        if of.head.anthropic:  # whose clients look for it under this name
            ours += f"request-id: {id}\r\n"
        writer = (of.asked or self._router).writer
        if writer.shared and of.admitted:
            ours += f"{OFFSET}: {writer.seen}\r\n"
        return f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\n{lines}{more}{ours}\r\n".encode()

    # --- decides

    def _decide(self, asked: wire.DecideRequest, one: _Decide) -> None:
        self.ending.soon += 1
        try:
            caller = self._admitted(one)
            here = self._homes.of_tenant(caller.tenant or one.head.tenant, self._app)
            one.asked = here[ROUTER]
            asked.tenant = caller.tenant_for(asked.tenant)
            one.router = self._homes.of_tenant(asked.tenant, here)[ROUTER]
            one.router.decide_soon(asked, caller.key, one, patient=True)
        except Exception as error:  # noqa: BLE001 - it is answered
            one.set_exception(error)
        else:
            one.taken = True

    def _tell(self, one: _Decide) -> None:
        """Answer with all others of this turn."""
        if not self._told:
            self._loop.call_soon(self._tell_all)
        self._told.append(one)

    def _tell_all(self) -> None:
        told, self._told = self._told, []
        for one in told:
            logs.request_id.set(one.id)
            logs.decision_id.set("")
            try:
                self._tell_one(one)
            except Exception:  # noqa: BLE001 - the others are answered
                _log.exception("internal error")
                one.connection.force_close()
                one.entrance.finished()

    def _tell_one(self, one: _Decide) -> None:
        made, router = one.made, one.router or self._router
        self.ending.soon -= 1
        if one.taken and made is not None:
            router.answered([(made, one.begun)])
        if isinstance(made, ev.Decided):
            logs.decision_id.set(made.id)
            body = _encoder.encode(answer_of(router, made))
            reply = Reply(body, {"x-decision-id": made.id})
        else:
            reply = self._refused(made, one.head, one.id)
        there = self._end(one.entrance, one.connection, self._written(one, reply))
        tell(self._app, "POST", _DECIDE, reply.status if there else CLIENT_GONE, one.begun)

    def _refused(self, error: Exception | None, head: Head, id: str) -> Reply:
        if not isinstance(error, ServiceError):
            _log.error("internal error", exc_info=error)
            error = ServiceError("internal error; search the log for this request id")
        else:
            self._telemetry.rejected(error)
        return refusal(error, id, anthropic=head.anthropic)

    def _end(self, entrance: Entrance[Head], connection: Connection, data: bytes) -> bool:
        """Write an answer; the next request is begun when the client has read most of it. Returns
        whether the client is still there.
        """
        transport = entrance.transport
        there = transport is not None and not transport.is_closing()
        if transport is not None and there:
            transport.write(data)
        if there and connection.writing_paused:
            self.ending.begun(self._loop.create_task(_finished_when_read(entrance, connection)))
        else:
            connection.ended_beside()
            entrance.finished()
        return there

    # --- the gateway

    async def _answered(self, head: Head, body: bytes, client: _Client) -> None:
        id = client.id
        logs.request_id.set(id)
        logs.decision_id.set("")  # of the request before it on this connection
        begun, status = time.perf_counter(), CLIENT_GONE
        try:
            try:
                caller = self._admitted(client)
                tenant = caller.tenant or head.tenant
                home = await self._homes.home_of(tenant, self._app, long=True)
                client.asked = home[ROUTER]
                reply = await ANSWERS[head.path](Came(home, caller, client, body))
            except ServiceError as error:
                reply = self._refused(error, head, id)
            except asyncio.CancelledError:
                if client.begun or client.gone or not self.ending.cuts():
                    raise
                reply = self._refused(stopped(), head, id)
            except Exception:  # noqa: BLE001 - a bug: say so, show no inside
                reply = refusal(internal_error(), id, anthropic=head.anthropic)
                if client.begun:
                    client.close()
            status = 200 if reply is None else reply.status
            if reply is not None:
                await client.put(self._written(client, reply))
        except ConnectionError:
            client.close()
        except BaseException:
            client.close()
            raise
        finally:
            self.ending.gone(client.task)
            tell(self._app, "POST", head.path, status, begun)
            client.finished()


def fast_path_of(app: web.Application, unconnected: Connection) -> FastPath | None:
    """The fast path of an application; None, with a line in the log, if the installed aiohttp is
    not made as it expects. Then aiohttp's server answers every request.
    """
    fast = FastPath(app, unconnected)
    lacks = [name for name in _OF_AIOHTTP if not hasattr(unconnected, name)]
    try:
        usual = fast.head_of(_USUAL)
        same = usual is not None and usual.id == "1" and list(usual.seen.host) == ["localhost"]
        sees = fast.head_of(_USUAL + b"\r\nConnection: close") is None
        if not (same and sees):
            lacks.append("HttpRequestParser")
    except Exception as error:  # noqa: BLE001 - whatever the parser is like
        lacks.append(f"HttpRequestParser ({type(error).__name__})")
    if lacks:
        why = f"aiohttp lacks {', '.join(lacks)}"
        _log_start.warning("usual requests take the slow path", extra={"why": why})
        return None
    return fast


@lru_cache(1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


async def _finished_when_read(entrance: Entrance[Head], connection: Connection) -> None:
    try:
        await connection.drained()
    except ConnectionError:
        connection.force_close()
    finally:
        connection.ended_beside()
        entrance.finished()


class _Decide(AtOnce):
    """A decide of an HTTP request. admitted: its caller was. asked: the router of the pool that the
    head names.
    """

    __slots__ = ("admitted", "asked", "connection", "entrance", "head", "id")

    def __init__(
        self,
        head: Head,
        entrance: Entrance[Head],
        connection: Connection,
        tell: Callable[[_Decide], None],
    ) -> None:
        super().__init__(tell)
        self.head, self.entrance, self.connection = head, entrance, connection
        self.id = head.id or new_id()
        self.admitted = False
        self.asked: Router | None = None


class _Client:
    """A `gateway.client.Client` on a connection. asked: the router of the pool that the head names.
    admitted: its caller was. begun: the head of a stream was made. task: what answers it.
    """

    __slots__ = (
        *("_connection", "_entrance", "_fast", "_unsent"),
        *("admitted", "asked", "begun", "head", "headers", "id", "task"),
    )
    task: asyncio.Task[None]

    def __init__(
        self, fast: FastPath, head: Head, entrance: Entrance[Head], connection: Connection
    ) -> None:
        self._fast, self.head = fast, head
        self._entrance, self._connection = entrance, connection
        self._unsent = b""
        self.asked: Router | None = None
        self.admitted = self.begun = False
        self.id = head.id or new_id()
        self.headers: Mapping[str, str] = head.headers

    @property
    def gone(self) -> bool:
        transport = self._entrance.transport
        return transport is None or transport.is_closing()

    def waiting(self) -> AbstractContextManager[None]:
        return WhileThere(self._connection)

    def answered(self, left: Callable[[], object]) -> AbstractContextManager[None]:
        return WhileAnswered(self._connection, left)

    def cut(self) -> bool:
        return self._fast.ending.cuts()

    async def begin(self, headers: Mapping[str, str]) -> None:
        more = "Transfer-Encoding: chunked\r\n"
        self._unsent = self._fast.head_bytes(self, headers, more)
        self.begun = True

    async def write(self, data: bytes) -> None:
        await self.put(self._unsent + _chunk(data))

    async def end(self, data: bytes) -> None:
        await self.put(b"%b%b0\r\n\r\n" % (self._unsent, _chunk(data)))

    async def put(self, data: bytes) -> None:
        """Write it. Raises ConnectionError if the client has left."""
        self._unsent = b""
        transport = self._entrance.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has left")
        transport.write(data)
        if self._connection.writing_paused:
            await self._connection.drained()

    def close(self) -> None:
        """Nothing more is written; the connection is not used again."""
        self._connection.force_close()

    def finished(self) -> None:
        """The next request may come."""
        self._connection.ended_beside()
        self._entrance.finished()


def _chunk(data: bytes) -> bytes:
    """A piece of a body of unknown length."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
