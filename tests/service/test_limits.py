"""Limits: what is too big, too deep, too slow or no HTTP is refused, in bounded memory."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import psutil
import pytest

from bandit_service.core.errors import Malformed
from bandit_service.wire import MAX_DEPTH, decode_json, decode_msgpack
from tests.service.running import Client, Process, a_vector, serving

CANARY = "canary-that-must-not-be-repeated"
GENTLE = {"BANDIT_SERVER_IDLE_S": "0.5", "BANDIT_SERVER_BODY_S": "0.5"}


def _post(path: str, body: bytes, headers: str = "", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return (
        f"POST {path} HTTP/1.1\r\nHost: [::1]\r\n{headers}Content-Length: {size}\r\n\r\n".encode()
        + body
    )


@asynccontextmanager
async def _connection(
    client: Client,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = client.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], Any]:
    async with asyncio.timeout(60):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
    return int(head.split()[1]), headers, json.loads(body)


async def _asked(client: Client, raw: bytes) -> tuple[int, dict[str, str], Any]:
    async with _connection(client) as (reader, writer):
        writer.write(raw)
        return await _answer(reader)


def _nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


TOO_MUCH: list[tuple[str, bytes, int, str]] = [
    ("a body over its limit", _post("/v1/decide", b"", length=5_000_000), 413, "too_large"),
    ("a body that grows when unpacked",
     _post("/v1/decide", gzip.compress(bytes(50_000_000)), "Content-Encoding: gzip\r\n"), 413,
     "too_large"),
    ("a body that is no gzip", _post("/v1/decide", b"{}", "Content-Encoding: gzip\r\n"), 400,
     "malformed"),
    ("deep", _post("/v1/decide", _nested(100_000)), 400, "malformed"),
    ("a little too deep", _post("/v1/decide", _nested(MAX_DEPTH + 1)), 400, "malformed"),
    ("deep within", _post("/v1/policy", b'{"name":"eagle","parameters":' + _nested(900) + b"}")
     .replace(b"POST", b"PUT"), 400, "malformed"),
    ("a number without end", _post("/v1/rewards", b'{"quality":' + b"9" * 5000 + b"}"), 400,
     "malformed"),
    ("a parameter that MessagePack has not", _post("/v1/policy",
     b'{"name":"metallm","parameters":{"alpha":' + b"9" * 30 + b"}}").replace(b"POST", b"PUT"),
     400, "invalid_value"),
    ("a number that MessagePack has not", _post("/v1/chat/completions",
     b'{"model":"auto","messages":[{"role":"user","content":"a","x":' + b"9" * 30 + b"}]}"), 503,
     "unavailable"),
    ("beyond floats", _post("/v1/rewards", b'{"quality":1e999}'), 400, "malformed"),
    ("NaN", _post("/v1/rewards", b'{"quality":NaN}'), 400, "malformed"),
    ("a long header", b"GET / HTTP/1.1\r\nX: " + CANARY.encode() * 400 + b"\r\n\r\n", 400,
     "malformed"),
    ("many headers", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n", 400, "malformed"),
    ("a long path", b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", 400, "malformed"),
    ("a broken header", b"GET / HTTP/1.1\r\nAuthorization: " + CANARY.encode() + b"\x00\r\n\r\n",
     400, "malformed"),
    ("no HTTP", b"\x16\x03\x01" + CANARY.encode() + b"\r\n\r\n", 400, "malformed"),
    ("a broken chunk", b"POST /v1/decide HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
     + CANARY.encode() + b"\r\n", 400, "malformed"),
    ("two lengths", b"POST /v1/decide HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
     400, "malformed"),
    ("an expectation that is not met", _post("/v1/decide", b"{}", f"Expect: {CANARY}\r\n"), 400,
     "invalid_value"),
    ("a timeout that is none", _post("/v1/decide", b"{}", "X-Request-Timeout: soon\r\n"), 400,
     "invalid_value"),
    ("a timeout without end", _post("/v1/decide", b"{}", "X-Request-Timeout: inf\r\n"), 400,
     "invalid_value"),
]  # fmt: skip


async def test_a_body_that_cannot_be_unpacked_ends_its_connection_and_the_answer_says_so(
    client: Client,
) -> None:
    """Otherwise the next request on the connection, which may be another user's, gets no answer."""
    for path in ("/v1/decide", "/v1/rewards", "/v1/chat/completions", "/v1/messages"):
        raw = _post(path, b"{}", "Content-Encoding: gzip\r\n")
        status, headers, _ = await _asked(client, raw)
        assert (status, headers["connection"]) == (400, "close"), path


async def test_each_excess_is_refused_in_our_shape_and_the_service_lives(client: Client) -> None:
    for why, raw, status, code in TOO_MUCH:
        got, headers, body = await _asked(client, raw)
        assert (got, body["error"]["code"]) == (status, code), (why, body)
        assert headers["x-request-id"], why
        assert CANARY not in json.dumps(body), why
    assert (await client.get("/healthz"))[0] == 200


async def test_a_client_that_waits_before_its_body_is_asked_for_it(client: Client) -> None:
    body = msgspec.json.encode({"embedding": a_vector(0)})
    async with _connection(client) as (reader, writer):
        writer.write(_post("/v1/decide", b"", "Expect: 100-continue\r\n", len(body)))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        status, _, decided = await _answer(reader)
    assert (status, set(decided) >= {"decision_id", "arm"}) == (200, True)


async def test_what_is_no_http_is_not_repeated_in_the_log(tmp_path: Path, models: Path) -> None:
    process = Process(tmp_path / "var", models, BANDIT_LOG_LEVEL="debug")
    async with aiohttp.ClientSession() as session:
        client = Client(session, await process.url())
        for _, raw, _, _ in TOO_MUCH:
            await _asked(client, raw)
        memory = psutil.Process(process.popen.pid).memory_info().rss
        for _ in range(5):  # what was refused is not kept
            for _, raw, _, _ in TOO_MUCH[:4]:
                await _asked(client, raw)
        assert psutil.Process(process.popen.pid).memory_info().rss - memory < 50_000_000
    assert await asyncio.to_thread(process.stop) == 0
    lines = process.log_path.read_text().splitlines()
    assert not [line for line in lines if CANARY in line or "Traceback" in line]
    refused = [json.loads(line) for line in lines if '"bandit.connections"' in line]
    assert sum(1 + line.get("more", 0) for line in refused) >= 2
    assert len(refused) < len(TOO_MUCH) + 20  # of one kind there is a line a second


@pytest.mark.parametrize("started", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "])
async def test_a_head_that_never_ends_is_cut(tmp_path: Path, models: Path, started: bytes) -> None:
    async with serving(tmp_path / "var", models, **GENTLE) as client:
        async with _connection(client) as (reader, writer):
            writer.write(started)
            async with asyncio.timeout(60):
                # a byte now and then does not keep it open
                while not reader.at_eof():
                    try:
                        async with asyncio.timeout(0.1):
                            assert await reader.read(1) == b""
                    except TimeoutError:
                        writer.write(b"a" if started.endswith(b": ") else b"")
                    except ConnectionError:
                        break
        assert (await client.get("/healthz"))[0] == 200


async def test_a_body_that_never_ends_is_a_408(tmp_path: Path, models: Path) -> None:
    async with serving(tmp_path / "var", models, **GENTLE) as client:
        status, _, body = await _asked(client, _post("/v1/decide", b"{", length=100))
        assert (status, body["error"]["code"]) == (408, "too_slow")


async def test_slow_bodies_keep_nobody_out(client: Client) -> None:
    held = []
    try:
        for _ in range(300):
            manager = _connection(client)
            _, writer = await manager.__aenter__()
            held.append(manager)
            writer.write(_post("/v1/decide", b"{", length=100))
        assert (await client.decide())["arm"]
    finally:
        for manager in held:
            await manager.__aexit__(None, None, None)


async def test_a_client_that_leaves_in_its_body_is_no_error_of_ours(
    tmp_path: Path, models: Path
) -> None:
    process = Process(tmp_path / "var", models)
    async with aiohttp.ClientSession() as session:
        client = Client(session, await process.url())
        for path in ("/v1/decide", "/v1/rewards"):
            async with _connection(client) as (_, writer):
                writer.write(_post(path, b"{", length=100))
                await writer.drain()
        for _ in range(50):
            assert (await client.get("/healthz"))[0] == 200
    assert await asyncio.to_thread(process.stop) == 0
    assert "internal error" not in process.log_path.read_text()


async def test_the_catalogue_has_an_end(tmp_path: Path, models: Path) -> None:
    price = {"usd_per_mtok_in": 1, "usd_per_mtok_out": 1}
    async with serving(tmp_path / "var", models, BANDIT_SERVER_MAX_ARMS="4") as client:
        assert (await client.call("PUT", "/v1/arms/fourth", price))[0] == 201
        status, body = await client.call("PUT", "/v1/arms/fifth", price)
        assert (status, body["error"]["code"], body["error"]["param"]) == (413, "too_large", "id")
        assert (await client.call("DELETE", "/v1/arms/fourth"))[0] == 200
        assert (await client.call("PUT", "/v1/arms/fifth", price))[0] == 413  # its state is kept
        assert (await client.call("PUT", "/v1/arms/fourth", price))[0] == 201


async def test_a_long_name_is_not_repeated_whole(client: Client) -> None:
    for path, body in (
        ("/v1/decide", {"query": "a", "arms": ["x" * 1_000_000]}),
        ("/v1/decide", {"query": "a", "requires": ["x" * 1_000_000]}),
        ("/v1/decide", {"query": "a", "requires": ["x"] * 300_000}),
        ("/v1/rewards", {"decision_id": "x" * 1_000_000, "quality": 1}),
        ("/v1/decide", {"x" * 1_000_000: 1}),
    ):
        status, answer = await client.post(path, body)
        assert 400 <= status < 500
        assert len(json.dumps(answer)) < 8000, path


class _Stuck:
    """An embedding model that answers when it is let, and counts what it was asked."""

    name, dim = "stuck", 384

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = threading.Event()
        self.begun = threading.Event()

    def encode(self, texts: list[str]) -> np.ndarray:
        self.asked += texts
        self.begun.set()
        assert self.go.wait(60)
        return np.tile(np.array(a_vector(0), np.float32), (len(texts), 1))


@pytest.fixture
async def stuck(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Client, _Stuck]]:
    model = _Stuck()
    monkeypatch.setattr("bandit_service.app.assembly.open_backend", lambda *_: model)
    environ = {"BANDIT_EMBEDDING_TIMEOUT_S": "60", "BANDIT_EMBEDDING_BATCH_SIZE": "1"}
    async with serving(tmp_path / "var", models, **environ) as client:
        try:
            yield client, model
        finally:
            model.go.set()


async def test_out_of_time_is_a_504_and_nothing_is_decided(stuck: tuple[Client, _Stuck]) -> None:
    client, model = stuck

    async def times_out(query: str, seconds: str) -> None:
        async with client.session.post(
            client.url + "/v1/decide",
            json={"query": query},
            headers={"X-Request-Timeout": seconds},
        ) as response:
            body = await response.json()
        assert (response.status, body["error"]["code"]) == (504, "timeout")

    first = asyncio.create_task(times_out("first", "3"))
    assert await asyncio.to_thread(model.begun.wait, 60)
    await times_out("second", "0.2")
    await first
    model.go.set()
    async with client.session.post(
        client.url + "/v1/decide", json={"query": "third"}, headers={"X-Request-Timeout": "60"}
    ) as response:
        assert response.status == 200
    # the second waited behind the first, and was taken out of the queue
    assert model.asked == ["first", "third"]
    async with client.session.get(client.url + "/metrics") as response:
        assert "bandit_pending_decisions 1.0" in await response.text()


async def test_a_decision_whose_client_has_left_is_not_made(stuck: tuple[Client, _Stuck]) -> None:
    client, model = stuck
    async with _connection(client) as (_, first), _connection(client) as (_, second):
        first.write(_post("/v1/decide", b'{"query": "first"}'))
        assert await asyncio.to_thread(model.begun.wait, 60)
        second.write(_post("/v1/decide", b'{"query": "second"}'))
        await second.drain()
        assert (await client.get("/healthz"))[0] == 200
    gone = 'bandit_http_requests_total{code="499",endpoint="/v1/decide"} 2.0'
    async with asyncio.timeout(60):
        while True:
            async with client.session.get(client.url + "/metrics") as response:
                if gone in await response.text():
                    break
    model.go.set()
    assert (await client.post("/v1/decide", {"query": "third"}))[0] == 200
    assert model.asked == ["first", "third"]


async def test_an_outcome_whose_client_has_left_is_learned_all_the_same(
    stuck: tuple[Client, _Stuck],
) -> None:
    client, model = stuck
    report = {"query": "x", "arm": "gemini-2.5-pro", "quality": 1.0, "idempotency_key": "k"}
    async with _connection(client) as (_, writer):
        writer.write(_post("/v1/rewards", msgspec.json.encode(report)))
        assert await asyncio.to_thread(model.begun.wait, 60)
    model.go.set()
    async with asyncio.timeout(60):
        while True:
            _, body = await client.get("/v1/policies/nested/state")
            if body["rewards"] == 1:
                break
    _, body = await client.post("/v1/rewards", report)
    assert body["results"][0]["status"] == "duplicate"


@pytest.mark.parametrize("decode", [decode_json, decode_msgpack])
def test_depth_is_counted_exactly(decode: Any) -> None:
    encode = msgspec.json.encode if decode is decode_json else msgspec.msgpack.encode

    def nested(depth: int) -> Any:
        value: Any = []
        for i in range(depth - 1):
            value = [value] if i % 2 else {"a": value}
        return value

    assert decode(encode(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    with pytest.raises(Malformed, match="nested too deeply"):
        decode(encode(nested(MAX_DEPTH + 1)))
