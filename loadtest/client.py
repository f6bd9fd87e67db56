"""A client of the stream: many requests in flight on one connection, never beyond its credits."""

from __future__ import annotations

import asyncio
import itertools
from types import TracebackType
from typing import Any

import aiohttp
import msgspec

try:
    # Another implementation than the service's own, so that the two check each other.
    from msgpack import packb as _pack
    from msgpack import unpackb as _unpack
except ImportError:
    _pack, _unpack = msgspec.msgpack.encode, msgspec.msgpack.decode

PROTOCOL = "bandit.v1"


class StreamError(Exception):
    """The service refused a request; `error` is what it answered."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error.get('code')}: {error.get('message')}")
        self.error = error


class StreamClient:
    """`async with StreamClient("http://127.0.0.1:8080") as client: await client.request(...)`."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/") + "/v1/stream"
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.credits = 0

    async def __aenter__(self) -> StreamClient:
        self._session = aiohttp.ClientSession()
        try:
            self._socket = await self._session.ws_connect(
                self._url, protocols=(PROTOCOL,), max_msg_size=0
            )
            hello = _unpack(await self._socket.receive_bytes())
        except BaseException:
            await self._session.close()
            raise
        self.credits = int(hello["credits"])
        self._free = asyncio.Semaphore(self.credits)
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._socket.close()
            await self._reader
        finally:
            await self._session.close()

    async def request(self, op: str, **fields: Any) -> dict[str, Any]:
        """The answer to one request, sent as soon as there is a credit for it.

        Raises StreamError when the service refuses it, ConnectionError when the stream ends.
        """
        async with self._free:
            if self._reader.done():
                raise ConnectionError("the stream has ended")
            id = next(self._ids)
            answered = asyncio.get_running_loop().create_future()
            self._waiting[id] = answered
            try:
                await self._socket.send_bytes(_pack({"op": op, "id": id, **fields}))
                answer: dict[str, Any] = await answered
            finally:
                self._waiting.pop(id, None)
        if "error" in answer:
            raise StreamError(answer["error"])
        return answer

    async def _read(self) -> None:
        try:
            async for message in self._socket:
                if message.type is aiohttp.WSMsgType.BINARY:
                    answer = _unpack(message.data)
                    future = self._waiting.get(answer["id"])
                    if future is not None and not future.done():
                        future.set_result(answer)
        finally:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(ConnectionError("the stream has ended"))
