"""Providers on real sockets that send the bytes of a script, and the gateway in front of them."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai

from tests.service.provider import HELLO
from tests.service.running import serving

Wire = asyncio.StreamWriter
Act = Callable[[Wire], Awaitable[None]]

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def an_answer(text: str = "fine") -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text},
              "finish_reason": "stop"}  # fmt: skip
    return json.dumps(
        {
            "id": "theirs",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [choice],
            "usage": USAGE,
        }
    ).encode()


def a_whole(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    head = "\r\n".join(
        [
            f"HTTP/1.1 {status}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *headers,
        ]
    )
    return head.encode() + b"\r\n\r\n" + body


def an_event(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    chunk = {"id": "theirs", "object": "chat.completion.chunk", "created": 1, "model": "m",
             "choices": [choice]}  # fmt: skip
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
A_STREAM = an_event("Grüße, ") + an_event("世界 🌍") + an_event("", "stop") + b"data: [DONE]\n\n"


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
    wire.write(STREAM_HEAD + b"\r\n")
    for byte in A_STREAM:
        wire.write(bytes((byte,)))
        await wire.drain()
        await asyncio.sleep(0)
    wire.close()


async def stops_in_the_middle(wire: Wire) -> None:
    wire.write(STREAM_HEAD + b"\r\n" + an_event("half"))
    await wire.drain()
    await wire.wait_closed()


async def half_closes(wire: Wire) -> None:
    """FIN in the middle of a stream, and the other direction stays open."""
    wire.write(STREAM_HEAD + b"\r\n" + an_event("half"))
    wire.write_eof()
    await wire.drain()


class Wires:
    """A TCP server that reads each request whole and then does the next thing of its script.

    When the script is at its end it does what it does `always`: it answers well.
    """

    def __init__(self) -> None:
        self.script: list[Act] = []
        self.always: Act = says(a_whole(an_answer()))
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
                await (self.script.pop(0) if self.script else self.always)(wire)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            wire.close()


@asynccontextmanager
async def wires(tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Wires, str]]:
    served = Wires()
    running: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, wire: Wire) -> None:
        task = asyncio.ensure_future(served.serve(reader, wire))
        running.add(task)
        task.add_done_callback(running.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    place = f"localhost:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield (
            served,
            f"https://{place}" if tls else f"http://{place.replace('localhost', '127.0.0.1')}",
        )
    finally:
        server.close()
        for task in tuple(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@asynccontextmanager
async def behind(
    tmp_path: Path, models: Path, idle_s: float = 60.0, kind: str = "openai", /, **environ: str
) -> AsyncIterator[Any]:
    """The official client, the service's own and two providers, alpha's and beta's, of a kind."""
    async with wires() as (alpha, url_a), wires() as (beta, url_b):
        arms = [
            {
                "id": id,
                "usd_per_mtok_in": 1.0,
                "usd_per_mtok_out": 4.0,
                "upstream": id,
                "aliases": ["m"],
            }
            for id in ("alpha", "beta")
        ]
        upstreams = [
            {"id": id, "kind": kind, "base_url": url, "first_byte_s": 60.0, "idle_s": idle_s}
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


async def text_from(asking: openai.AsyncOpenAI, model: str, stream: bool = False) -> str | None:
    if not stream:
        answer = await asking.chat.completions.create(model=model, messages=HELLO)
        return answer.choices[0].message.content
    chunks = await asking.chat.completions.create(model=model, messages=HELLO, stream=True)
    return "".join([each.choices[0].delta.content or "" async for each in chunks if each.choices])
