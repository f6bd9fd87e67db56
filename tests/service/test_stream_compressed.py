"""The stream with permessage-deflate (RFC 7692): a client that negotiates it reads the same.

The client's half is zlib here, apart from the library that the service uses.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
import pytest

from bandit_service.http.write_batching import Gathering
from tests.service.running import Client, a_vector

_END_OF_BLOCK = b"\x00\x00\xff\xff"
_WHOLE, _PACKED, _BINARY, _CLOSE = 0x80, 0x40, 0x2, 0x8
_OFFERS = (
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits; server_no_context_takeover",
    "permessage-deflate; server_max_window_bits=10",
)
_HANDSHAKE = (
    "GET /v1/stream HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    "Sec-WebSocket-Protocol: bandit.v1\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n"
)


class _Deflated:
    """A connection to the stream whose messages are compressed, both ways."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keeps_context: bool
    ) -> None:
        self._reader, self._writer = reader, writer
        self._keeps_context = keeps_context
        self._pack, self._unpack = zlib.compressobj(wbits=-15), zlib.decompressobj(wbits=-15)
        self.sizes: list[int] = []
        """Bytes of each answer on the wire."""

    def send(self, *messages: dict[str, Any]) -> None:
        """Write all of them at once."""
        self.send_bodies(*(msgspec.msgpack.encode(message) for message in messages))

    def send_bodies(self, *bodies: bytes) -> None:
        """The same of encoded messages."""
        packed = (
            self._pack.compress(body) + self._pack.flush(zlib.Z_SYNC_FLUSH) for body in bodies
        )
        self.send_packed(*(body.removesuffix(_END_OF_BLOCK) for body in packed))

    def send_packed(self, *bodies: bytes) -> None:
        """The same of compressed messages; the mask of each is zeros."""
        for body in bodies:
            size = bytes([0xFF]) + len(body).to_bytes(8, "big")
            self._writer.write(bytes([_WHOLE | _PACKED | _BINARY]) + size + bytes(4) + body)

    async def receive(self) -> dict[str, Any]:
        """The next answer, which is one compressed message."""
        head, body = await self.frame()
        assert head == _WHOLE | _PACKED | _BINARY, f"{head:#x} {body!r}"
        self.sizes.append(len(body))
        if not self._keeps_context:
            self._unpack = zlib.decompressobj(wbits=-15)
        answer: dict[str, Any] = msgspec.msgpack.decode(
            self._unpack.decompress(body + _END_OF_BLOCK)
        )
        return answer

    async def by_id(self, count: int) -> dict[Any, dict[str, Any]]:
        """So many answers."""
        answers = [await self.receive() for _ in range(count)]
        return {answer["id"]: answer for answer in answers}

    async def frame(self) -> tuple[int, bytes]:
        """Head and body of the next frame, as they are on the wire."""
        head, size = await self._reader.readexactly(2)
        if size > 125:
            size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8), "big")
        return head, await self._reader.readexactly(size)


@asynccontextmanager
async def _deflated(client: Client, offer: str) -> AsyncIterator[_Deflated]:
    at = urlsplit(client.url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    try:
        writer.write(_HANDSHAKE.format(host=at.netloc, offer=offer).encode())
        async with asyncio.timeout(60):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            assert "sec-websocket-extensions: permessage-deflate" in head
            socket = _Deflated(reader, writer, "server_no_context_takeover" not in head)
            assert (await socket.receive())["op"] == "hello"
            yield socket
    finally:
        writer.close()


def _decide(id: int | str, seed: int = 0, **more: Any) -> dict[str, Any]:
    embedding = np.asarray(a_vector(seed), "<f4").tobytes()
    return {"op": "decide", "id": id, "embedding": embedding, **more}


async def test_answers_of_one_turn_are_compressed_each(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are written together, and each is a message of its own."""
    together: list[int] = []
    flush = Gathering._flush

    def counted(self: Gathering) -> None:
        together.append(len(self._kept))
        flush(self)

    monkeypatch.setattr(Gathering, "_flush", counted)
    many = 30
    for offer in _OFFERS:
        async with _deflated(client, offer) as socket:
            together.clear()
            socket.send(*(_decide(i, i) for i in range(many)))
            answers = await socket.by_id(many)
        assert set(answers) == set(range(many))
        assert all(0 < answer["propensity"] <= 1 for answer in answers.values())
        assert max(together) > 1, together
        plain = [len(msgspec.msgpack.encode(answer)) for answer in answers.values()]
        packed = socket.sizes[-many:]
        if "no_context" not in offer:  # else nothing of an answer is known from those before it
            assert sum(packed) < 0.6 * sum(plain), (offer, packed)


async def test_a_large_answer_is_whole_among_those_of_its_turn(client: Client) -> None:
    """It is compressed on a thread; the state of the compressor goes from message to message."""
    long = np.random.default_rng(1).bytes(20_000).hex()
    for offer in _OFFERS:
        async with _deflated(client, offer) as socket:
            socket.send(_decide("first", 1))
            first = (await socket.by_id(1))["first"]
            ordinary = [_decide(i, i) for i in range(20)]
            socket.send(
                *ordinary[:10],
                _decide(long),
                *ordinary[10:],
                _decide("explained", explain=True),
                _decide("wrong", arms=["nobody"]),
                {"op": "reward", "id": "learned", "decision_id": first["decision_id"],
                 "quality": 1.0},
                _decide("2 " + long),
                {"op": "fly", "id": "unknown"},
            )  # fmt: skip
            answers = await socket.by_id(len(ordinary) + 6)
        decided = [answers[id] for id in (*range(20), long, "2 " + long, "explained")]
        assert len({one["decision_id"] for one in decided}) == len(decided)
        assert answers["learned"]["status"] == "accepted"
        assert answers["wrong"]["error"]["message"].startswith("arms: no arm 'nobody'")
        assert answers["unknown"]["error"]["param"] == "op"
        assert max(socket.sizes) > 20_000


async def test_a_message_is_measured_unpacked(client: Client) -> None:
    """A few bytes may hold a message of any size."""
    async with _deflated(client, _OFFERS[0]) as socket:
        socket.send(_decide("long", query="x" * 1_100_000), _decide("good"))
        answers = [await socket.receive() for _ in range(2)]
        errors = [answer["error"] for answer in answers if "error" in answer]
        assert [error["code"] for error in errors] == ["too_large"]
        assert {answer["id"] for answer in answers} == {None, "good"}
        socket.send_bodies(bytes(50_000_000))
        head, body = await socket.frame()
        assert (head, int.from_bytes(body[:2], "big")) == (_WHOLE | _CLOSE, 1009)
    async with _deflated(client, _OFFERS[0]) as socket:
        socket.send_packed(b"\xff not deflated")
        head, _ = await socket.frame()
        assert head == _WHOLE | _CLOSE
    assert (await client.decide())["arm"]
