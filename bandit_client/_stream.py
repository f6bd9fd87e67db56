"""Decide and learn over one WebSocket, many requests in flight, as one event loop asks it."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import count
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack
from uuid import uuid4

import aiohttp
import msgspec

from bandit_client import _calls
from bandit_client._http import Transport, check_timeout, retry_after_of
from bandit_client._retry import Patience
from bandit_client.answers.decisions import Decision, Result
from bandit_client.errors import BadAnswer, BanditError, NoAnswer, NotReached, told
from bandit_client.fields import CompareFields, DecideFields, RewardFields

T = TypeVar("T")
_PROTOCOL = "bandit.v1"
_HEARTBEAT_S = 20.0
_BY_STATUS = {401: "unauthorized", 403: "forbidden", 429: "busy", 503: "unavailable"}
_encoder = msgspec.msgpack.Encoder()


class _Connection:
    """One WebSocket: its credits, and who waits for which answer."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, most: int) -> None:
        self.socket = socket
        self.credits = asyncio.Semaphore(most)
        self.waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.lost = ""
        self._reading = asyncio.create_task(self._read())

    async def ask(self, id: int, message: dict[str, Any]) -> dict[str, Any]:
        """The answer to one message; NotReached where the message did not go out."""
        await self.credits.acquire()
        if self.lost:
            self.credits.release()
            raise NotReached(f"the stream was closed ({self.lost})")
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.waiting[id] = answer
        try:
            await self.socket.send_bytes(_encoder.encode(message))
        except (ConnectionError, aiohttp.ClientError) as error:
            self.waiting.pop(id, None)
            self.credits.release()
            raise NotReached(f"the stream was closed ({error})") from error
        return await answer

    async def _read(self) -> None:
        why = "the connection was cut"
        try:
            async for frame in self.socket:
                if frame.type is aiohttp.WSMsgType.BINARY:
                    self._answered(msgspec.msgpack.decode(frame.data))
        except (msgspec.MsgspecError, UnicodeDecodeError, AttributeError) as error:
            why = f"an answer that is not MessagePack: {error}"
        finally:
            self.lost = why
            for id, answer in self.waiting.items():
                if not answer.done():
                    answer.set_exception(NoAnswer(f"request {id} of the stream: {why}"))
                self.credits.release()
            self.waiting.clear()

    def _answered(self, message: dict[str, Any]) -> None:
        answer = self.waiting.pop(message.get("id"), None)  # type: ignore[arg-type]
        if answer is None:
            return
        self.credits.release()
        if not answer.done():  # who waited may have left
            answer.set_result(message)

    async def close(self) -> None:
        """Close it; who still waits is told so."""
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            await self.socket.close()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


class AsyncStream:
    """One connection to `/v1/stream` on which many decides, rewards and comparisons are in flight.

    A connection that is cut is made again. What was on it and does no harm by a second time, a
    reward, a comparison or a decide with an idempotency_key, is sent again; another decide that was
    on it raises NoAnswer, since it may have been made.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._ids = count(1)
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()
        self._closed = False

    async def __aenter__(self) -> Self:
        patience = Patience(self._transport.timeout_s, self._transport.retries)
        while True:
            try:
                await self._connected(patience.left_s)
            except BanditError as error:
                await patience.failed(error, harmless=True)
            else:
                return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def decide(
        self,
        query: str | None = None,
        *,
        timeout_s: float | None = None,
        **fields: Unpack[DecideFields],
    ) -> Decision:
        """As the client's `decide`."""
        return await self._ask("decide", _calls.asked(query, fields), Decision, timeout_s)

    async def reward(
        self,
        decision: str | Decision | None = None,
        *,
        timeout_s: float | None = None,
        **fields: Unpack[RewardFields],
    ) -> Result:
        """As the client's `reward`."""
        return await self._ask("reward", _calls.rewarded(decision, fields), Result, timeout_s)

    async def compare(
        self,
        winner: str,
        loser: str,
        *,
        timeout_s: float | None = None,
        **fields: Unpack[CompareFields],
    ) -> Result:
        """As the client's `compare`."""
        body = _calls.compared(winner, loser, fields)
        return await self._ask("compare", body, Result, timeout_s)

    async def _ask(
        self, op: str, body: dict[str, Any], kind: type[T], timeout_s: float | None
    ) -> T:
        seconds = self._transport.timeout_s if timeout_s is None else timeout_s
        check_timeout(seconds)
        patience = Patience(seconds, self._transport.retries)
        while True:
            try:
                return await self._once(op, body, kind, patience.left_s)
            except BanditError as error:
                known = op != "decide" or bool(body.get("idempotency_key"))
                await patience.failed(error, harmless=known)

    async def _once(self, op: str, body: dict[str, Any], kind: type[T], left_s: float) -> T:
        id = next(self._ids)
        try:
            async with asyncio.timeout(left_s):
                connection = await self._connected(left_s)
                answer = await connection.ask(id, {"op": op, "id": id, **body})
        except TimeoutError:
            raise NoAnswer(f"{op}: no answer on the stream in {left_s:.3g} s") from None
        if (error := answer.get("error")) is not None:
            raise told(error)
        try:
            return msgspec.convert(answer, kind)
        except msgspec.ValidationError as error:
            raise BadAnswer(f"{op}: the answer is not one of a bandit-service ({error})") from error

    async def _connected(self, left_s: float) -> _Connection:
        if self._closed:
            raise RuntimeError("the stream is closed")
        async with self._connecting:
            connection = self._connection
            if connection is not None and connection.lost:
                self._connection = None
                await connection.close()
                connection = None
            if connection is None:
                connection = self._connection = await self._connect(left_s)
            return connection

    async def _connect(self, left_s: float) -> _Connection:
        url, id = self._transport.address.url, uuid4().hex
        try:
            async with asyncio.timeout(left_s):
                socket = await self._transport.session().ws_connect(
                    f"{url}/v1/stream",
                    protocols=(_PROTOCOL,),
                    heartbeat=_HEARTBEAT_S,
                    headers={"x-request-id": id},
                    max_msg_size=0,
                )
                hello = msgspec.msgpack.decode(await socket.receive_bytes(), type=dict[str, Any])
        except aiohttp.WSServerHandshakeError as error:
            raise _refused(error, id) from error
        except TimeoutError as error:
            raise NotReached(f"{url}: no stream in {left_s:.3g} s") from error
        except (aiohttp.ClientError, OSError, TypeError, msgspec.MsgspecError) as error:
            raise NotReached(f"{url}: {error}") from error
        most = hello.get("credits")
        if not isinstance(most, int) or most < 1:
            await socket.close()
            raise BadAnswer(f"{url}/v1/stream: does not begin as a bandit-service does: {hello!r}")
        return _Connection(socket, most)


def _refused(error: aiohttp.WSServerHandshakeError, id: str) -> BanditError:
    """What a handshake that was refused says; its body is not read by then."""
    code = _BY_STATUS.get(error.status, "")
    said = None if error.headers is None else error.headers.get("Retry-After")
    message = f"the service refused the stream: status {error.status}"
    return told({"message": message, "code": code}, error.status, id, retry_after_of(said))
