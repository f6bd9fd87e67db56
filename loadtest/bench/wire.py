"""Over the wire, beside an echo of the same payload in the same process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import msgspec
from aiohttp import web

from bandit_service import settings
from bandit_service.app import service
from bandit_service.core import events as ev
from bandit_service.http import gathering
from bandit_service.runtime import deciding
from loadtest.bench.start import appears, link_models
from loadtest.bench.world import (
    Row,
    in_ms,
    specs,
    vectors,
)


async def bench_http(directory: Path, seconds: float = 6.0) -> list[Row]:
    """Decides per second at concurrency 32, beside a bare aiohttp echo of the same payload."""
    some = [ev.pack(v) for v in vectors(512, seed=5)]
    packed = [msgspec.json.encode({"embedding": v}) for v in some]
    frames = [
        msgspec.msgpack.encode({"op": "decide", "id": i, "embedding": v})
        for i, v in enumerate(some)
    ]
    rows: list[Row] = []
    async with _in_process(directory) as url:
        echo, service = url["echo"], url["service"]
        rows.append(await _post_load("HTTP echo (baseline)", echo + "/echo", packed, seconds))
        rows.append(await _post_load("HTTP decide", service + "/v1/decide", packed, seconds))
        for what, at in (
            ("stream echo (baseline)", echo + "/echo-stream"),
            ("stream decide", service + "/v1/stream"),
        ):
            rows.append(await _stream_load(what, at, frames, seconds))
    for baseline, row in ((rows[0], rows[1]), (rows[2], rows[3])):
        baseline["x echo"], row["x echo"] = 1.0, row["per second"] / baseline["per second"]
    return rows


async def _post_load(what: str, url: str, bodies: Sequence[bytes], seconds: float) -> Row:
    taken: list[float] = []
    connector = aiohttp.TCPConnector(limit=32)
    async with aiohttp.ClientSession(connector=connector) as session:
        ends = time.perf_counter() + seconds

        async def one(worker: int) -> None:
            i = worker
            while time.perf_counter() < ends:
                begun = time.perf_counter()
                async with session.post(url, data=bodies[i % len(bodies)]) as response:
                    await response.read()
                    assert response.status == 200, response.status
                taken.append(time.perf_counter() - begun)
                i += 32

        await asyncio.gather(*(one(worker) for worker in range(32)))
    return {"what": what, "per second": len(taken) / seconds, **in_ms(taken)}


async def _stream_load(what: str, url: str, frames: Sequence[bytes], seconds: float) -> Row:
    """32 requests in flight on one connection; the next goes out as an answer comes in."""
    taken: list[float] = []
    sent: dict[int, float] = {}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, protocols=("bandit.v1",)) as socket,
    ):
        await socket.receive_bytes()
        ends = time.perf_counter() + seconds
        for i in range(32):
            sent[i] = time.perf_counter()
            await socket.send_bytes(frames[i])
        following = 32
        while sent:
            answer = msgspec.msgpack.decode(await socket.receive_bytes())
            assert "error" not in answer, answer
            now = time.perf_counter()
            taken.append(now - sent.pop(answer["id"]))
            id = following % len(frames)
            if now < ends and id not in sent:
                sent[id] = now
                await socket.send_bytes(frames[id])
                following += 1
    return {"what": what, "per second": len(taken) / seconds, **in_ms(taken)}


@contextlib.asynccontextmanager
async def _in_process(directory: Path) -> AsyncIterator[dict[str, str]]:
    """The server in a process of its own, as in production, so that the load is not in its way."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadtest.bench", "--serve", str(directory)
    )
    try:
        yield json.loads(await appears(directory / "urls", process))
    finally:
        process.terminate()
        await process.wait()


async def serve_bench(directory: str, together: bool = True) -> None:
    """The service with 11 arms, and beside it two echoes, until it is terminated.

    together: decisions of one turn of the loop are made and answered together, as they are.
    """
    if not together:
        deciding.MOST_TOGETHER = 1
        gathering.AT_ONCE = False
    chosen = settings.read(
        None,
        {
            "BANDIT_DATA_DIR": directory,
            "BANDIT_SERVER_PORT": "0",
            "BANDIT_LOG_LEVEL": "warning",
            "BANDIT_ARMS": json.dumps([msgspec.to_builtins(spec) for spec in specs()]),
        },
    )
    link_models(Path(directory))

    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def echo_stream(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("bandit.v1",))
        await socket.prepare(request)
        await socket.send_bytes(msgspec.msgpack.encode({"op": "hello"}))
        async for message in socket:
            await socket.send_bytes(message.data)
        return socket

    # the echo has no middleware of ours: it is what aiohttp alone does with the payload
    bare = web.Application()
    bare.add_routes([web.post("/echo", echo), web.get("/echo-stream", echo_stream)])
    runner = web.AppRunner(bare, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with service.serving(chosen) as (url, _):
        urls = {"service": url, "echo": f"http://127.0.0.1:{runner.addresses[0][1]}"}
        (Path(directory) / "urls").write_text(json.dumps(urls))
        await asyncio.Event().wait()
