"""What the gateway adds to an answer, beside a bare aiohttp proxy and LiteLLM's proxy.

All of them stand in front of the same upstream, a process that answers at once, and are called one
request after another over one connection; rounds alternate, so that all see the same machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from aiohttp import web

WORDS = 20
ROUNDS, EACH = 5, 60
_CHOICE = {"index": 0, "message": {"role": "assistant", "content": "word " * WORDS},
           "finish_reason": "stop"}  # fmt: skip
_ANSWER = {
    "id": "u", "object": "chat.completion", "created": 1, "model": "m", "choices": [_CHOICE],
    "usage": {"prompt_tokens": 20, "completion_tokens": WORDS, "total_tokens": 20 + WORDS},
}  # fmt: skip
_HELD = "explain how a steam engine turns heat into motion, and why its efficiency is bounded"


async def bench_gateway(directory: Path) -> list[dict[str, Any]]:
    """First byte and whole answer, ms, of each way to the upstream."""
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(_python("loadtest.bench_gateway", "upstream"))
        bare = await stack.enter_async_context(_python("loadtest.bench_gateway", "proxy", upstream))
        ours = await stack.enter_async_context(_service(directory, upstream))
        ways = {
            "upstream itself (baseline)": (upstream, "m"),
            "bare aiohttp proxy": (bare, "m"),
            "gateway, an arm by name": (ours, "arm-a"),
            "gateway, auto": (ours, "auto"),
        }
        litellm = await stack.enter_async_context(_litellm(directory, upstream))
        if litellm:
            ways["LiteLLM's proxy"] = (litellm, "m")
        rows = []
        async with aiohttp.ClientSession() as session:
            for stream in (False, True):
                seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
                for round_ in range(ROUNDS + 1):
                    for way, (url, model) in ways.items():
                        found = [await _ask(session, url, model, stream, i) for i in range(EACH)]
                        if round_:  # the first one warms up
                            seconds[way] += found
                rows += _rows(seconds, stream)
    return rows


def _rows(seconds: dict[str, list[tuple[float, float]]], stream: bool) -> list[dict[str, Any]]:
    rows = []
    base = np.median([first for first, _ in next(iter(seconds.values()))])
    for way, each in seconds.items():
        first, whole = (np.asarray(column) * 1e3 for column in zip(*each, strict=True))
        rows.append(
            {
                "what": way,
                "stream": "yes" if stream else "no",
                "first byte p50 ms": float(np.median(first)),
                "first byte p99 ms": float(np.percentile(first, 99)),
                "whole p50 ms": float(np.median(whole)),
                "whole p99 ms": float(np.percentile(whole, 99)),
                "added at p50 ms": float(np.median(first) - base * 1e3),
            }
        )
    return rows


async def _ask(
    session: aiohttp.ClientSession, url: str, model: str, stream: bool, i: int
) -> tuple[float, float]:
    body = {"model": model, "stream": stream,
            "messages": [{"role": "user", "content": f"{_HELD}, number {i}"}]}  # fmt: skip
    headers = {"Authorization": "Bearer sk-none"}
    begun = time.perf_counter()
    async with session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        await answer.content.readany()
        first = time.perf_counter() - begun
        await answer.read()
    return first, time.perf_counter() - begun


@contextlib.asynccontextmanager
async def _python(*arguments: str) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def _service(directory: Path, upstream: str) -> AsyncIterator[str]:
    config, ready = directory / "gateway.toml", directory / "gateway.json"
    arms = "".join(
        f'[[arms]]\nid = "arm-{name}"\nusd_per_mtok_in = 1.0\nusd_per_mtok_out = 2.0\n'
        f'upstream = "u"\nmodel = "m"\n'
        for name in "abc"
    )
    config.write_text(
        f'data_dir = "{directory}"\nlog_level = "warning"\n[[upstreams]]\nid = "u"\n'
        f'base_url = "{upstream}/v1"\n{arms}'
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bandit_service.cli", "serve", "--port", "0",
        "--config", str(config), "--ready-file", str(ready), stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not await asyncio.to_thread(ready.exists):
            assert process.returncode is None, "the service did not start"
            await asyncio.sleep(0.02)
        yield str(json.loads(await asyncio.to_thread(ready.read_text))["url"])
    finally:
        process.terminate()
        await process.wait()


@contextlib.asynccontextmanager
async def _litellm(directory: Path, upstream: str) -> AsyncIterator[str]:
    """LiteLLM's proxy where the command is installed, else ""."""
    command = shutil.which("litellm")
    if command is None:
        print("LiteLLM's proxy: left out, `litellm` is not installed", file=sys.stderr)
        yield ""
        return
    config = directory / "litellm.yaml"
    config.write_text(
        "model_list:\n  - model_name: m\n    litellm_params:\n      model: openai/m\n"
        f"      api_base: {upstream}/v1\n      api_key: sk-none\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # it starts without a master key only where it is told that nobody else can reach it
    permit = "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY=true"
    process = await asyncio.create_subprocess_exec(
        "/usr/bin/env", permit, command, "--config", str(config),
        "--host", "127.0.0.1", "--port", str(port),
        "--telemetry", "False",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as session:
            while process.returncode is None and not await _alive(session, url):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        if process.returncode is not None:
            print("LiteLLM's proxy: left out, it ended at its start", file=sys.stderr)
        yield url if process.returncode is None else ""
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _alive(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/health/liveliness") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


# --- the processes of ours that stand beside ----------------------------------------------


async def _upstream(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    if not body.get("stream"):
        return web.json_response(_ANSWER)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for i in range(WORDS + 2):
        delta: dict[str, Any] = {"content": "word "} if i < WORDS else {}
        choice = {"index": 0, "delta": delta, "finish_reason": "stop" if i == WORDS else None}
        chunk = {"id": "u", "object": "chat.completion.chunk", "created": 1, "model": "m",
                 "choices": [choice] if i <= WORDS else [],
                 "usage": _ANSWER["usage"] if i > WORDS else None}  # fmt: skip
        await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    await response.write(b"data: [DONE]\n\n")
    return response


def _proxy(upstream: str) -> Any:
    async def passed(request: web.Request) -> web.StreamResponse:
        session: aiohttp.ClientSession = request.app[_SESSION]
        body = await request.read()
        async with session.post(upstream + request.path, data=body) as given:
            response = web.StreamResponse(status=given.status)
            response.content_type = given.content_type
            await response.prepare(request)
            async for chunk in given.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
        return response

    return passed


_SESSION = web.AppKey("session", aiohttp.ClientSession)


async def _serve(handler: Any) -> None:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    async with aiohttp.ClientSession() as session:
        app[_SESSION] = session
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(_upstream if sys.argv[1] == "upstream" else _proxy(sys.argv[2])))
