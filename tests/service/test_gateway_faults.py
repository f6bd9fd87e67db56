"""The gateway in front of providers that misbehave on the wire: real sockets, raw bytes."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from bandit_service.gateway.configured import Upstream, UpstreamSpec
from bandit_service.gateway.upstreams import Failed, Upstreams, retry_after_s
from tests.service.provider import HELLO, signals_of
from tests.service.running import Client, serving

Wire = asyncio.StreamWriter
Act = Callable[[Wire], Awaitable[None]]

_USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def _answer(text: str = "fine") -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text},
              "finish_reason": "stop"}  # fmt: skip
    return json.dumps(
        {"id": "theirs", "object": "chat.completion", "created": 1, "model": "m",
         "choices": [choice], "usage": _USAGE}
    ).encode()  # fmt: skip


def _whole(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    head = "\r\n".join(
        [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}",
         *headers]
    )  # fmt: skip
    return head.encode() + b"\r\n\r\n" + body


def _event(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    chunk = {"id": "theirs", "object": "chat.completion.chunk", "created": 1, "model": "m",
             "choices": [choice]}  # fmt: skip
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"


_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
_STREAM = _event("Grüße, ") + _event("世界 🌍") + _event("", "stop") + b"data: [DONE]\n\n"


def says(data: bytes) -> Act:
    """Send these bytes and keep the connection."""

    async def act(wire: Wire) -> None:
        wire.write(data)
        await wire.drain()

    return act


def says_and_closes(data: bytes) -> Act:
    async def act(wire: Wire) -> None:
        wire.write(data)
        await wire.drain()
        wire.close()

    return act


async def resets(wire: Wire) -> None:
    """RST instead of FIN: what was not read yet is lost."""
    raw = wire.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.transport.abort()


async def byte_by_byte(wire: Wire) -> None:
    wire.write(_STREAM_HEAD + b"\r\n")
    for byte in _STREAM:
        wire.write(bytes((byte,)))
        await wire.drain()
        await asyncio.sleep(0)
    wire.close()


async def stops_in_the_middle(wire: Wire) -> None:
    wire.write(_STREAM_HEAD + b"\r\n" + _event("half"))
    await wire.drain()
    await wire.wait_closed()


async def half_closes(wire: Wire) -> None:
    """FIN in the middle of a stream, and the other direction stays open."""
    wire.write(_STREAM_HEAD + b"\r\n" + _event("half"))
    wire.write_eof()
    await wire.drain()


class Wires:
    """A TCP server that reads each request whole and then does the next thing of its script.

    When the script is at its end it answers well.
    """

    def __init__(self) -> None:
        self.script: list[Act] = []
        self.requests = 0
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, wire: Wire) -> None:
        self.connections += 1
        try:
            while not wire.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length:")
                )
                await reader.readexactly(length)
                self.requests += 1
                await (self.script.pop(0) if self.script else says(_whole(_answer())))(wire)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            wire.close()


@asynccontextmanager
async def wires() -> AsyncIterator[tuple[Wires, str]]:
    served = Wires()
    running: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, wire: Wire) -> None:
        task = asyncio.ensure_future(served.serve(reader, wire))
        running.add(task)
        task.add_done_callback(running.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield served, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        for task in tuple(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@asynccontextmanager
async def behind(
    tmp_path: Path, models: Path, idle_s: float = 60.0, /, **environ: str
) -> AsyncIterator[Any]:
    """The official client, the service's own and two providers: alpha's and beta's."""
    async with wires() as (alpha, url_a), wires() as (beta, url_b):
        arms = [
            {"id": id, "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 4.0, "upstream": id}
            for id in ("alpha", "beta")
        ]
        upstreams = [
            {"id": id, "base_url": url, "first_byte_s": 60.0, "idle_s": idle_s}
            for id, url in (("alpha", url_a), ("beta", url_b))
        ]
        environ = {
            "BANDIT_ARMS": json.dumps(arms),
            "BANDIT_UPSTREAMS": json.dumps(upstreams),
            "BANDIT_POLICY_NAME": "uniform",
            **environ,
        }
        async with (
            serving(tmp_path / "var", models, **environ) as client,
            openai.AsyncOpenAI(
                base_url=f"{client.url}/v1", api_key="none", max_retries=0
            ) as asking,
        ):
            yield asking, client, alpha, beta


async def _text(asking: openai.AsyncOpenAI, model: str, stream: bool = False) -> str | None:
    if not stream:
        answer = await asking.chat.completions.create(model=model, messages=HELLO)
        return answer.choices[0].message.content
    chunks = await asking.chat.completions.create(model=model, messages=HELLO, stream=True)
    return "".join([each.choices[0].delta.content or "" async for each in chunks if each.choices])


async def _sent_again(client: Client, upstream: str) -> float:
    async with client.session.get(f"{client.url}/metrics") as exposed:
        text = await exposed.text()
    name = f'bandit_upstream_sent_again_total{{upstream="{upstream}"}} '
    return float(text.split(name)[1].split()[0]) if name in text else 0.0


_MALFORMED = {
    "reset before the head": resets,
    "closed before the head": says_and_closes(b""),
    "no HTTP": says_and_closes(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    "half a head": says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "shorter than it said": says_and_closes(_whole(_answer())[:-9]),
    "broken chunks": says_and_closes(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}"
    ),
    "no gzip": says_and_closes(_whole(b"plain", "Content-Encoding: gzip")),
    "not UTF-8": says_and_closes(_whole(b'{"choices": "\xff\xfe"}')),
    "an error with 200": says_and_closes(_whole(b'{"error": {"message": "overloaded"}}')),
    "a list": says_and_closes(_whole(b"[]")),
    "no choice": says_and_closes(_whole(b'{"choices": []}')),
    "a choice of null": says_and_closes(_whole(b'{"choices": [null]}')),
    "nothing at all": says_and_closes(_whole(b"")),
    "a redirect": says_and_closes(_whole(b"", "Location: http://x/", status="302 Found")),
}


@pytest.fixture(scope="module")
def quick() -> dict[str, str]:
    return {"BANDIT_GATEWAY_BREAKER_FAILURES": "1000"}


async def test_what_is_malformed_is_the_arms_failure_and_another_answers(
    tmp_path: Path, models: Path, quick: dict[str, str]
) -> None:
    async with behind(tmp_path, models, **quick) as (asking, client, alpha, _):
        for name, act in _MALFORMED.items():
            before = alpha.requests
            alpha.script = [act]
            with pytest.raises(openai.InternalServerError, match="alpha") as failed:
                await _text(asking, "alpha")
            assert failed.value.status_code == 502, name
            assert alpha.requests == before + 1, f"{name}: asked {alpha.requests - before} times"
            alpha.script = [act]
            while alpha.script:  # chance may choose beta first
                assert await _text(asking, "auto") == "fine", name
            alpha.script = [act]
            with pytest.raises(openai.InternalServerError, match="alpha"):
                await _text(asking, "alpha", stream=True)
        assert await _text(asking, "alpha") == "fine"
        assert await _sent_again(client, "alpha") == 0.0


async def test_an_idle_connection_that_was_closed_is_replaced_once(
    tmp_path: Path, models: Path, quick: dict[str, str]
) -> None:
    async with behind(tmp_path, models, **quick) as (asking, client, alpha, _):
        for i, act in enumerate((resets, says_and_closes(b""))):
            assert await _text(asking, "alpha") == "fine"
            alpha.script = [act]
            before = alpha.requests
            assert await _text(asking, "alpha") == "fine"
            assert alpha.requests == before + 2
            assert await _sent_again(client, "alpha") == i + 1.0
        # a fresh connection that is closed too is the arm's failure: no third time
        alpha.script = [resets, resets]
        before = alpha.requests
        with pytest.raises(openai.InternalServerError, match="alpha"):
            await _text(asking, "alpha")
        assert alpha.requests == before + 2


async def test_no_connection_is_tried_again_and_what_was_begun_is_not() -> None:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    seen: list[str] = []
    spec = UpstreamSpec(id="p", base_url=f"http://127.0.0.1:{port}/v1", resend_after_s=0.01)

    async def accept(reader: asyncio.StreamReader, wire: Wire) -> None:
        await Wires().serve(reader, wire)

    def opened(id: str) -> None:
        seen.append(id)
        if len(seen) == 2:
            listening.listen()
            servers.append(asyncio.ensure_future(asyncio.start_server(accept, sock=listening)))

    servers: list[asyncio.Future[asyncio.Server]] = []
    upstreams = Upstreams({"p": Upstream(spec)}, opened)
    with pytest.raises(Failed, match="ClientConnectorError"):
        async with upstreams.send("p", "/chat/completions", {}, {}):
            raise AssertionError("nobody listens")
    assert seen == ["p"]
    async with upstreams.send("p", "/chat/completions", {}, {}) as response:
        assert await response.read() == _answer()
    assert seen == ["p", "p"]
    await upstreams.close()
    for server in servers:
        (await server).close()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "7", "retry-after-ms": "1500"}, 1.5),
        ({"Retry-After": "Fri, 13 Feb 2009 23:32:00 GMT"}, 30.0),
        ({"Retry-After": "Fri, 13 Feb 2009 23:31:00 GMT"}, 0.0),
        ({"Retry-After": "-1"}, 0.0),
        ({"Retry-After": "inf"}, 0.0),
        ({"Retry-After": "soon", "retry-after-ms": "x"}, 0.0),
        ({}, 0.0),
    ],
)
def test_how_long_a_provider_asks_to_wait(headers: dict[str, str], seconds: float) -> None:
    """1234567890 is Fri, 13 Feb 2009 23:31:30 GMT."""
    assert retry_after_s(headers, 1234567890.0) == pytest.approx(seconds)


@pytest.mark.parametrize("stream", [False, True])
async def test_compressed_answers_are_read(
    tmp_path: Path, models: Path, quick: dict[str, str], stream: bool
) -> None:
    async with behind(tmp_path, models, **quick) as (asking, _, alpha, _beta):
        if stream:
            packed = gzip.compress(_STREAM)
            data = _STREAM_HEAD + b"Content-Encoding: gzip\r\n\r\n" + packed
            alpha.script = [says_and_closes(data)]
            assert await _text(asking, "alpha", stream=True) == "Grüße, 世界 🌍"
        else:
            packed = gzip.compress(_answer("packed"))
            alpha.script = [says(_whole(packed, "Content-Encoding: gzip"))]
            assert await _text(asking, "alpha") == "packed"


async def test_a_stream_may_come_one_byte_at_a_time(
    tmp_path: Path, models: Path, quick: dict[str, str]
) -> None:
    async with behind(tmp_path, models, **quick) as (asking, _, alpha, _beta):
        alpha.script = [byte_by_byte]
        assert await _text(asking, "alpha", stream=True) == "Grüße, 世界 🌍"


async def test_a_line_without_an_end_and_a_stream_that_stops_end_with_an_error(
    tmp_path: Path, models: Path, quick: dict[str, str]
) -> None:
    huge = _STREAM_HEAD + b"\r\n" + _event("half") + b"data: " + b"x" * 5_000_000
    async with behind(tmp_path, models, 1.0, **quick) as (asking, client, alpha, _beta):
        for act in (says_and_closes(huge), half_closes, stops_in_the_middle):
            alpha.script = [act]
            raw = await asking.chat.completions.with_raw_response.create(
                model="alpha", messages=HELLO, stream=True
            )
            chunks = aiter(raw.parse())
            words = [(await anext(chunks)).choices[0].delta.content]
            with pytest.raises(openai.APIError, match="alpha"):
                await anext(chunks)
            assert words == ["half"]
            signals = await signals_of(client, raw.headers["x-decision-id"])
            assert signals["quality"] == 0.0


async def test_an_answer_beyond_the_bound_is_refused(
    tmp_path: Path, models: Path, quick: dict[str, str]
) -> None:
    bound = {"BANDIT_GATEWAY_MAX_ANSWER_BYTES": "65536"}
    async with behind(tmp_path, models, **quick, **bound) as (asking, _, alpha, _beta):
        alpha.script = [says_and_closes(_whole(_answer("x" * 70_000)))]
        with pytest.raises(openai.InternalServerError, match="larger than 65536 bytes"):
            await _text(asking, "alpha")


async def test_what_comes_after_an_answer_is_not_the_next_ones(
    tmp_path: Path, models: Path, quick: dict[str, str]
) -> None:
    """A provider that answers twice must not give the second answer to another user."""
    async with behind(tmp_path, models, **quick) as (asking, _, alpha, _beta):
        alpha.script = [says(_whole(_answer("first")) + _whole(_answer("smuggled")))]
        assert await _text(asking, "alpha") == "first"
        assert await _text(asking, "alpha") == "fine"


async def test_429_masks_the_arm_for_as_long_as_it_says_and_it_comes_back(
    tmp_path: Path, models: Path
) -> None:
    async with behind(tmp_path, models) as (asking, _, alpha, _beta):
        limited = _whole(b"{}", "Retry-After: 1", status="429 Too Many Requests")
        alpha.script = [says(limited)]
        loop = asyncio.get_running_loop()
        while alpha.script:
            begun = loop.time()  # before it is masked, however long the answer takes
            assert await _text(asking, "auto") == "fine"
        async with asyncio.timeout(60):
            while alpha.requests == 1:
                await _text(asking, "auto")
        assert loop.time() - begun >= 0.9
        assert await _text(asking, "alpha") == "fine"
