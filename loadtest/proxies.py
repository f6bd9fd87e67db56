"""The processes that `bench_gateway` compares: an upstream that answers at once, and what stands
in front of it: a bare aiohttp proxy, the service, and LiteLLM's proxy where it is installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

WORDS = 20
LITELLM = ".venv/litellm/bin/litellm"
"""Where `make bench` installs it: it brings pins of its own."""

_CHOICE = {"index": 0, "message": {"role": "assistant", "content": "word " * WORDS},
           "finish_reason": "stop"}  # fmt: skip
_ANSWER = {
    "id": "u", "object": "chat.completion", "created": 1, "model": "m", "choices": [_CHOICE],
    "usage": {"prompt_tokens": 20, "completion_tokens": WORDS, "total_tokens": 20 + WORDS},
}  # fmt: skip


@contextlib.asynccontextmanager
async def an_upstream() -> AsyncIterator[str]:
    """URL of a server of OpenAI's wire format that answers at once, a stream in 23 events."""
    async with _python("upstream") as url:
        yield url


@contextlib.asynccontextmanager
async def a_bare_proxy(upstream: str) -> AsyncIterator[str]:
    """URL of the least that a proxy in aiohttp can do."""
    async with _python("proxy", upstream) as url:
        yield url


@contextlib.asynccontextmanager
async def the_service(directory: Path, upstream: str) -> AsyncIterator[str]:
    """URL of the service with three arms on the upstream."""
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
        sys.executable,
        "-m",
        "bandit_service.cli",
        "serve",
        "--port",
        "0",
        "--config",
        str(config),
        "--ready-file",
        str(ready),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        while not await asyncio.to_thread(ready.exists):
            assert process.returncode is None, "the service did not start"
            await asyncio.sleep(0.02)
        yield str(json.loads(await asyncio.to_thread(ready.read_text))["url"])
    finally:
        process.terminate()
        await process.wait()


@contextlib.asynccontextmanager
async def litellms_proxy(directory: Path, upstream: str) -> AsyncIterator[str]:
    """URL of LiteLLM's proxy, "" where it is not installed or does not start."""
    command = shutil.which(LITELLM) or shutil.which("litellm")
    if command is None:
        print(f"LiteLLM's proxy: left out, there is no {LITELLM}", file=sys.stderr)
        yield ""
        return
    config, told = directory / "litellm.yaml", directory / "litellm.log"
    config.write_text(
        "model_list:\n  - model_name: m\n    litellm_params:\n      model: openai/m\n"
        f"      api_base: {upstream}/v1\n      api_key: sk-none\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with told.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "/usr/bin/env",
            # it starts without a master key only where it is told that nobody else can reach it
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY=true",
            "LITELLM_LOCAL_MODEL_COST_MAP=True",  # its own list of prices, not one from the net
            "LITELLM_LOG=ERROR",  # a line for each request is not what is measured
            command,
            "--config",
            str(config),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--telemetry",
            "False",
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as session:
            while process.returncode is None and not await _alive(session, url):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        if process.returncode is not None:
            last = told.read_text(errors="replace")[-500:]
            print(f"LiteLLM's proxy: left out, it ended at its start: {last}", file=sys.stderr)
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


@contextlib.asynccontextmanager
async def _python(*arguments: str) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadtest.proxies", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()


# --- the processes of ours ----------------------------------------------------------------


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
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        app[_SESSION] = session
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(_upstream if sys.argv[1] == "upstream" else _proxy(sys.argv[2])))
