"""The stream: many in flight, answers matched by id, bounded by credits."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
import numpy as np
import pytest

from bandit_service.http import stream
from bandit_service.http.write_batching import Gathering, gather
from tests.service.running import Client, a_vector, serving


async def _receive(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    answer: dict[str, Any] = msgspec.msgpack.decode(await socket.receive_bytes())
    return answer


async def _send(socket: aiohttp.ClientWebSocketResponse, **message: Any) -> None:
    await socket.send_bytes(msgspec.msgpack.encode(message))


async def test_decide_reward_and_compare_with_many_in_flight(client: Client) -> None:
    url = client.url + "/v1/stream"
    async with client.session.ws_connect(url, protocols=("bandit.v1",)) as socket:
        assert socket._response.headers["x-request-id"]
        credits_given = (await _receive(socket))["credits"]
        many = 100
        assert many <= credits_given
        for i in range(many):
            vector = np.asarray(a_vector(i), "<f4").tobytes()
            await _send(socket, op="decide", id=i, embedding=vector)
        decided, arms = {}, {}
        for _ in range(many):
            answer = await _receive(socket)
            decided[answer["id"]], arms[answer["id"]] = answer["decision_id"], answer["arm"]
        assert set(decided) == set(range(many))
        assert len(set(decided.values())) == many
        for i, decision_id in decided.items():
            await _send(socket, op="reward", id=f"r{i}", decision_id=decision_id, quality=0.5)
        names = ("mistral-large-2512", "gemini-2.5-pro")
        other = next(name for name in names if name != arms[0])
        await _send(
            socket, op="compare", id="c", decision_id=decided[0], winner=arms[0], loser=other
        )
        answers = [await _receive(socket) for _ in range(many + 1)]
        assert {a["id"] for a in answers} == {f"r{i}" for i in decided} | {"c"}
        assert {a["status"] for a in answers} == {"accepted"}


async def test_answers_of_one_turn_are_written_together(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes in one packet is decided together and answered in one packet; compressed, too."""
    written: list[int] = []
    flush = Gathering._flush

    def counted(self: Gathering) -> None:
        written.append(len(self._kept))
        flush(self)

    monkeypatch.setattr(Gathering, "_flush", counted)
    url = client.url + "/v1/stream"
    for compress in (0, 15):
        async with client.session.ws_connect(
            url, protocols=("bandit.v1",), compress=compress
        ) as socket:
            await _receive(socket)
            written.clear()
            for i in range(20):
                vector = np.asarray(a_vector(i), "<f4").tobytes()
                await _send(socket, op="decide", id=i, embedding=vector)
            answers = [await _receive(socket) for _ in range(20)]
            assert {answer["id"] for answer in answers} == set(range(20))
            assert sum(written) >= 20
            assert max(written) > 1, written


async def test_beyond_the_credits_is_refused_and_the_rest_is_answered(
    tmp_path: Path, models: Path
) -> None:
    environ = {"BANDIT_SERVER_STREAM_CREDITS": "2"}
    async with serving(tmp_path / "var", models, **environ) as client:
        url = client.url + "/v1/stream"
        async with client.session.ws_connect(url, protocols=("bandit.v1",)) as socket:
            assert (await _receive(socket))["credits"] == 2
            for i in range(6):
                await _send(socket, op="decide", id=i, query=f"a question of its own, number {i}")
            answers = [await _receive(socket) for _ in range(6)]
            assert sorted(a["id"] for a in answers) == list(range(6))
            refused = [a for a in answers if "error" in a]
            assert {a["error"]["code"] for a in refused} == {"no_credit"}
            assert 2 <= 6 - len(refused) <= 5


async def test_another_subprotocol_is_turned_away(client: Client) -> None:
    async with client.session.ws_connect(client.url + "/v1/stream") as socket:
        message = await socket.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert message.extra == "subprotocol must be bandit.v1"


async def test_a_client_that_leaves_harms_nobody(client: Client) -> None:
    url = client.url + "/v1/stream"
    async with client.session.ws_connect(url, protocols=("bandit.v1",)) as socket:
        await _receive(socket)
        for i in range(50):
            await _send(socket, op="decide", id=i, query=f"abandoned question {i}")
    async with asyncio.timeout(60):
        assert (await client.decide(query="still here?"))["arm"]


async def test_frames_taken_at_once_are_answered_as_others_are(client: Client) -> None:
    """A decide that brings its embedding goes a way of its own; what is said of it does not."""
    good = np.asarray(a_vector(1), "<f4").tobytes()
    frames: list[dict[str, Any]] = [
        {"embedding": good},
        {"embedding": a_vector(1)},
        {"embedding": good, "requires": [], "max_cost_usd": 1.0, "unit": None, "arms": None},
        {"embedding": good, "arms": ["gemini-2.5-pro"]},
        {"embedding": good, "explain": True},
        {"embedding": good, "arms": []},
        {"embedding": good, "arms": ["nobody"]},
        {"embedding": good, "requires": ["flight"]},
        {"embedding": good[:-4]},
        {"embedding": np.zeros(384, "<f4").tobytes()},
        {"embedding": np.full(384, np.nan, "<f4").tobytes()},
        {"embedding": good, "query": "and a text"},
        {"embedding": good, "wish": 1},
        {"embedding": good, "max_cost_usd": -1.0},
        {"embedding": good, "policy": "unheard of"},
        {},
    ]
    url = client.url + "/v1/stream"
    async with client.session.ws_connect(url, protocols=("bandit.v1",)) as socket:
        await _receive(socket)
        for i, frame in enumerate(frames):
            await _send(socket, op="decide", id=f"frame {i}", **frame)
        answers = {}
        for _ in frames:
            answer = await _receive(socket)
            assert next(iter(answer)) == "id"
            answers[answer["id"]] = answer
    for i, frame in enumerate(frames):
        answer = answers[f"frame {i}"]
        posted = dict(frame)
        if isinstance(frame.get("embedding"), bytes):
            posted["embedding"] = np.frombuffer(frame["embedding"], "<f4").astype(float).tolist()
        if i == 10:
            assert answer["error"]["message"] == (
                "embedding: must be finite numbers, got NaN or infinity"
            )
            continue
        status, told = await client.post("/v1/decide", posted)
        if status == 200:
            assert answer.keys() - {"id"} == told.keys(), frame
        elif i != 8:  # bytes and numbers are counted in other words
            assert answer["error"]["message"] == told["error"]["message"], frame
        assert ("error" in answer) == (status != 200), frame


async def test_decides_see_the_reward_that_was_sent_before_them(client: Client) -> None:
    """Also where they come in one packet: no decide overtakes what it is to learn from."""
    url = client.url + "/v1/stream"
    good = np.asarray(a_vector(1), "<f4").tobytes()
    async with client.session.ws_connect(url, protocols=("bandit.v1",)) as socket:
        await _receive(socket)
        await _send(socket, op="decide", id=0, embedding=good, arms=["gemini-2.5-pro"])
        first = (await _receive(socket))["decision_id"]
        await _send(socket, op="reward", id=1, decision_id=first, quality=1.0)
        for i in range(2, 5):
            await _send(socket, op="decide", id=i, embedding=good, arms=["gemini-2.5-pro"])
        answers = {answer["id"]: answer for answer in [await _receive(socket) for _ in range(4)]}
    assert [answers[i]["expected"]["n"] for i in range(2, 5)] == [1.0] * 3


_HANDSHAKE = (
    "GET /v1/stream HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    "Sec-WebSocket-Protocol: bandit.v1\r\n\r\n"
)


async def test_a_client_that_does_not_read_is_not_read_from(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the answers that it leaves would fill the memory; later it gets every one of them."""
    many, credits_given = 12_000, 64

    def gathered(connection: Any) -> None:
        """So that the kernel holds few answers."""
        own = connection.transport.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        gather(connection)

    monkeypatch.setattr(stream, "gather", gathered)
    environ = {
        "BANDIT_SERVER_STREAM_CREDITS": str(credits_given),
        "BANDIT_SERVER_MAX_IN_FLIGHT": "16",
    }
    good = np.asarray(a_vector(1), "<f4").tobytes()
    loop = asyncio.get_running_loop()
    async with serving(tmp_path / "var", models, **environ) as client:
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            raw.setblocking(False)
            at = urlsplit(client.url)
            await loop.sock_connect(raw, (at.hostname, at.port))
            await loop.sock_sendall(raw, _HANDSHAKE.format(host=at.netloc).encode())
            sent, stuck = 0, False
            while sent < many and not stuck:
                body = msgspec.msgpack.encode({"op": "decide", "id": sent, "embedding": good})
                frame = struct.pack("!BBH4x", 0x82, 0xFE, len(body)) + body
                try:
                    async with asyncio.timeout(1.0):
                        await loop.sock_sendall(raw, frame)
                except TimeoutError:
                    stuck = True  # nobody takes it
                else:
                    sent += 1
            assert stuck, "all that was sent was read, though nobody read the answers"
            await client.decide()  # what it leaves takes nobody's place
            reader, writer = await asyncio.open_connection(sock=raw)
            await reader.readuntil(b"\r\n\r\n")
            greeting = await _frame(reader)
            assert greeting["op"] == "hello"
            async with asyncio.timeout(60):
                answers = [await _frame(reader) for _ in range(sent)]
            writer.close()
    assert sorted(answer["id"] for answer in answers) == list(range(sent))
    assert sum("error" not in answer for answer in answers) >= credits_given


async def _frame(reader: asyncio.StreamReader) -> dict[str, Any]:
    """One answer, as it is on the wire."""
    _, length = await reader.readexactly(2)
    if length == 126:
        length = int.from_bytes(await reader.readexactly(2), "big")
    answer: dict[str, Any] = msgspec.msgpack.decode(await reader.readexactly(length))
    return answer
