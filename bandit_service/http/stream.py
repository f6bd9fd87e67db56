"""GET /v1/stream: msgpack maps over a WebSocket, many requests in flight, bounded by credits.

The server opens with {"op": "hello", "credits": N}. A request uses a credit and its answer returns
it; a request without credit gets code "no_credit" and changes nothing. Answers come as they are
ready, those of one turn of the loop in one write, and are matched by `id`. If a client does not
read its answers, the service does not read its requests, so a connection holds at most N answers.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from bandit_service import wire
from bandit_service.core import events as ev
from bandit_service.core.errors import (
    Busy,
    Refused,
    ServiceError,
    TooLarge,
    Unavailable,
    stopped,
    type_in_words,
)
from bandit_service.http.decisions import answer_of, decided
from bandit_service.http.middleware import DRAINING, ROUTER, SETTINGS, TELEMETRY
from bandit_service.http.outcomes import Learning, learning_of
from bandit_service.http.pools import HOMES
from bandit_service.http.responses.decisions import Decision
from bandit_service.http.responses.outcomes import Result
from bandit_service.http.shutdown import cut_after_s
from bandit_service.http.stream_frames import Asked, answer, plain
from bandit_service.http.write_batching import gather
from bandit_service.runtime.router import Router
from bandit_service.settings import Server
from bandit_service.telemetry import tracing

PROTOCOL = "bandit.v1"
_log = logging.getLogger("bandit.stream")
_encoder = msgspec.msgpack.Encoder()


class NoCredit(Busy):
    """More requests in flight on this stream than it has credits."""

    code = "no_credit"


async def stream(request: web.Request) -> web.StreamResponse:
    """Serve one connection until either side closes it."""
    server = request.app[SETTINGS].server
    socket = web.WebSocketResponse(
        protocols=(PROTOCOL,), max_msg_size=4 * server.max_frame_bytes, heartbeat=30.0
    )
    if not socket.can_prepare(request):
        raise Refused("this path speaks WebSocket; send an upgrade request")
    gather(request.protocol)
    await socket.prepare(request)
    if socket.ws_protocol != PROTOCOL:
        await socket.close(
            code=WSCloseCode.PROTOCOL_ERROR, message=f"subprotocol must be {PROTOCOL}".encode()
        )
        return socket
    connection = _Connection(
        socket,
        learning_of(request),
        server.stream_credits,
        server.max_frame_bytes,
        request.app[TELEMETRY].rejected,
        request.app[TELEMETRY].told,
    )
    stopping = asyncio.create_task(_close_when(request.app[DRAINING], connection, socket, server))
    try:
        await connection.serve(request.app[TELEMETRY].shed)
    finally:
        stopping.cancel()
    return socket


async def _close_when(
    draining: asyncio.Event, connection: _Connection, socket: web.WebSocketResponse, server: Server
) -> None:
    await draining.wait()
    await connection.drain(server.drain_s + 0.9 * cut_after_s(server.shutdown_s))
    await socket.close(code=WSCloseCode.GOING_AWAY, message=b"the service is stopping")


class _Connection:
    """Requests in flight on one socket.

    A decide with an embedding is taken at once, and decided and answered together with all others
    of its turn. Everything else, and every error in a frame, gets its own task.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        learning: Learning,
        most: int,
        max_frame_bytes: int,
        rejected: Callable[[ServiceError], None],
        told: Callable[[int, int], None],
    ) -> None:
        self._socket = socket
        self._rejected, self._told = rejected, told
        self._learning, self._homes = learning, learning.app[HOMES]
        self._credits = most
        self._max_frame_bytes = max_frame_bytes
        self._in_flight: set[asyncio.Task[None]] = set()
        self._draining = self._cut = False
        self._unbegun = 0
        self._traced = tracing.current() is not None
        self._context = contextvars.copy_context()
        self._asked = 0
        self._told_now: list[Asked] = []
        self._answers: list[Asked] = []
        self._answering: asyncio.Task[None] | None = None

    async def serve(self, shed: Any) -> None:
        await self._send({"op": "hello", "credits": self._credits})
        async for message in self._socket:
            if message.type is WSMsgType.BINARY:
                if self._traced or not self._take_decide(message.data):
                    await self._take(message.data, shed)
            elif message.type is WSMsgType.TEXT:
                await self._refuse(None, Refused("frames must be binary MessagePack, got text"))
        for task in self._in_flight:
            task.cancel()
        await asyncio.gather(*self._under_way(), return_exceptions=True)

    async def drain(self, within_s: float) -> None:
        """Accept nothing more, and answer the running requests;

        those that take too long get an error.
        """
        self._draining = True
        for _ in range(3):  # accepted decides are answered within this many turns of the loop
            if self._asked:
                await asyncio.sleep(0)
        if self._under_way():
            await asyncio.wait(self._under_way(), timeout=within_s)
        self._cut = True
        for task in self._under_way():
            task.cancel()
        await asyncio.gather(*self._under_way(), return_exceptions=True)

    def _under_way(self) -> set[asyncio.Task[None]]:
        return self._in_flight | ({self._answering} if self._answering is not None else set())

    def _full(self) -> bool:
        return self._asked + len(self._in_flight) >= self._credits

    # --- decides with an embedding

    def _take_decide(self, frame: bytes) -> bool:
        """Take a frame with such a decide;

        False if it is another frame, or if anything is wrong.
        """
        if self._draining or self._unbegun or self._full() or len(frame) > self._max_frame_bytes:
            return False
        if self._homes.held:  # which it may have to wait for
            return False
        asked = plain(frame)
        if asked is None:
            return False
        waits, learning = Asked(asked.id, self._told_of), self._learning
        self._asked += 1
        try:
            learning.again()
            learning.caller.needs("decide")
            asked.tenant = learning.caller.tenant_for(asked.tenant)
            waits.router = self._homes.of_tenant(asked.tenant, learning.app)[ROUTER]
            waits.router.decide_soon(asked, learning.caller.key, waits)
        except Exception as error:  # noqa: BLE001 - it is answered
            waits.set_exception(error)
        else:
            waits.taken = True
        return True

    def _told_of(self, asked: Asked) -> None:
        """Answer with all others of this turn."""
        if not self._told_now:
            asyncio.get_running_loop().call_soon(self._account, context=self._context)
        self._told_now.append(asked)

    def _account(self) -> None:
        """The router has finished them, whether the client reads its answers or not."""
        told, self._told_now = self._told_now, []
        taken: dict[Router, list[Any]] = {}
        for one in told:
            if one.taken and one.made and one.router is not None:
                taken.setdefault(one.router, []).append((one.made, one.begun))
        try:
            for router, made in taken.items():
                router.answered(made)
        except Exception:  # noqa: BLE001 - a bug in counting, which must not keep an answer back
            _log.exception("internal error")
        self._answers += told
        if self._answering is None:
            answering = self._answer_all()
            self._answering = asyncio.create_task(answering, context=self._context)

    async def _answer_all(self) -> None:
        try:
            while self._answers:
                answers, self._answers = self._answers, []
                self._told(200, sum(isinstance(one.made, ev.Decided) for one in answers))
                for one in answers:
                    await self._write(self._body_of(one))
                    self._asked -= 1  # a client that does not read its answers gets no more
        finally:
            self._answering = None

    def _body_of(self, asked: Asked) -> bytes:
        made = asked.made
        if isinstance(made, ev.Decided):
            assert asked.router is not None
            return answer(asked.id, answer_of(asked.router, made))
        if not isinstance(made, ServiceError):
            _log.error("internal error", exc_info=made)
            made = ServiceError("internal error; search the log for it")
        return self._refused(asked.id, made)

    # --- everything else

    async def _take(self, frame: bytes, shed: Any) -> None:
        id: Any = None
        try:
            if len(frame) > self._max_frame_bytes:
                raise TooLarge(
                    f"the frame has {len(frame)} bytes, at most {self._max_frame_bytes} are allowed"
                )
            body = wire.decode_msgpack(frame)
            if not isinstance(body, dict):
                raise Refused(f"a message is a map, got {type_in_words(body)}")
            if not all(isinstance(name, str) for name in body):
                raise Refused("the names of a message's fields must be texts")
            twice = wire.repeated_in(frame, body)
            if twice == "id":
                raise wire.given_twice(twice)
            id = body.pop("id", None)
            if not isinstance(id, int | str) or isinstance(id, bool):
                id = None
                raise Refused("id: must be a number or a string that names the answer", param="id")
            if twice is not None:
                raise wire.given_twice(twice)
            op = body.pop("op", None)
            if op not in ("decide", "reward", "compare"):
                raise Refused(f"op: must be decide, reward or compare, got {op!r}", param="op")
            if self._draining:
                shed("draining")
                raise Unavailable(
                    "the service is stopping; retry in a few seconds, or at another instance"
                )
            if self._full():
                shed("credits")
                raise NoCredit(f"all {self._credits} credits are in flight; wait for an answer")
        except ServiceError as error:
            await self._refuse(id, error)
            return
        self._unbegun += 1
        task = asyncio.create_task(self._answer(id, op, body))
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)

    async def _answer(self, id: int | str, op: str, body: dict[str, Any]) -> None:
        self._unbegun -= 1
        try:
            caller = self._learning.caller
            self._learning.again()
            caller.needs("decide" if op == "decide" else "reward")
            if op == "decide":
                asked = wire.convert(body, wire.DecideRequest)
                asked.tenant = caller.tenant_for(asked.tenant)
                router = await self._learning.router_of(None, asked.tenant)
                made: Decision | Result = await decided(router, asked, caller)
            elif op == "reward":
                made = await self._learning.reward(body)
            else:
                made = await self._learning.compare(body)
        except ServiceError as error:
            await self._refuse(id, error)
        except asyncio.CancelledError:
            if not self._cut:
                raise
            await self._refuse(id, stopped())
        except Exception:  # noqa: BLE001 - a bug: say so, show no inside
            _log.exception("internal error")
            await self._refuse(id, ServiceError("internal error; search the log for it"))
        else:
            self._told(200, 1)
            await self._send({"id": id, **msgspec.to_builtins(made)})

    async def _refuse(self, id: int | str | None, error: ServiceError) -> None:
        await self._write(self._refused(id, error))

    def _refused(self, id: int | str | None, error: ServiceError) -> bytes:
        self._rejected(error)
        self._told(error.status, 1)
        return _encoder.encode({"id": id, "error": error.body()})

    async def _send(self, answer: dict[str, Any]) -> None:
        await self._write(_encoder.encode(answer))

    async def _write(self, body: bytes) -> None:
        try:
            await self._socket.send_bytes(body)
        except (ConnectionError, RuntimeError):
            return  # the client has left, so there is nobody to answer
