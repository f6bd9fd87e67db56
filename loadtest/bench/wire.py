"""Over the wire, beside an echo of the same payload in the same process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import psutil
from aiohttp import web

from bandit_service import settings
from bandit_service.app import service
from bandit_service.core import events as ev
from bandit_service.http import write_batching
from bandit_service.runtime import deciding
from loadtest.bench.lean import Loaded, idle, learned_log, post_load, stream_load
from loadtest.bench.start import appears, link_models
from loadtest.bench.world import (
    PAST,
    Row,
    in_ms,
    specs,
    vectors,
)

ROUNDS, DECIDES, ECHOES, AT_ONCE = 8, 1500, 10_000, 32
"""An echo is so short that more of them are needed."""


async def bench_http(directory: Path, past: int = PAST) -> list[Row]:
    """Decides at concurrency 32 in a world that learned, beside an echo of the same payload."""
    await asyncio.to_thread(learned_log, directory / "events.sqlite3", past)
    some = [ev.pack(v) for v in vectors(512, seed=5)]
    packed = [msgspec.json.encode({"embedding": v}) for v in some]
    frames = [
        msgspec.msgpack.encode({"op": "decide", "id": i, "embedding": v})
        for i, v in enumerate(some)
    ]
    async with _in_process(directory) as (process, url):
        echo, service = url["echo"], url["service"]
        ways = {
            "HTTP echo (baseline)": (post_load, echo + "/echo", packed, ECHOES),
            "HTTP decide": (post_load, service + "/v1/decide", packed, DECIDES),
            "stream echo (baseline)": (stream_load, echo + "/echo-stream", frames, ECHOES),
            "stream decide": (stream_load, service + "/v1/stream", frames, DECIDES),
        }
        found: dict[str, list[Loaded]] = {what: [] for what in ways}
        for turn in range(ROUNDS + 1):
            for what, (load, at, bodies, each) in sorted(ways.items(), reverse=bool(turn % 2)):
                loaded = await load(process, at, bodies, each, AT_ONCE)
                if turn:  # the first one warms up
                    found[what].append(loaded)
    rows: list[Row] = []
    for what, baseline in (
        ("HTTP echo (baseline)", "HTTP echo (baseline)"),
        ("HTTP decide", "HTTP echo (baseline)"),
        ("stream echo (baseline)", "stream echo (baseline)"),
        ("stream decide", "stream echo (baseline)"),
    ):
        pairs = zip(found[baseline], found[what], strict=True)
        rows.append(
            {
                "what": what,
                "CPU us": statistics.median(one.cpu_us for one in found[what]),
                "per second": statistics.median(one.per_second for one in found[what]),
                **in_ms([seconds for one in found[what] for seconds in one.taken]),
                "echoes' CPU / its": statistics.median(one.cpu_us / it.cpu_us for one, it in pairs),
            }
        )
    return rows


@contextlib.asynccontextmanager
async def _in_process(directory: Path) -> AsyncIterator[tuple[psutil.Process, dict[str, str]]]:
    """The server in a process of its own, as in production, so that the load is not in its way."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadtest.bench", "--serve", str(directory)
    )
    try:
        urls = json.loads(await appears(directory / "urls", process))
        watched = psutil.Process(process.pid)
        await idle(watched)
        yield watched, urls
    finally:
        process.terminate()
        await process.wait()


async def serve_bench(directory: str, together: bool = True) -> None:
    """The service with 11 arms, and beside it two echoes, until it is terminated.

    together: decisions of one turn of the loop are made and answered together, as they are.
    """
    if not together:
        deciding.MAX_TOGETHER = 1
        write_batching.AT_ONCE = False
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
