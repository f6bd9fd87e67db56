"""The processes that `bench_gateway` compares: an upstream that answers at once, and what stands
in front of it: a bare aiohttp proxy, one with the gateway's client, the service, and LiteLLM's
proxy where it is installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from aiohttp import web

from bandit_service.core import events as ev
from bandit_service.gateway.calls import Calls, Sent
from bandit_service.settings.upstreams import UpstreamSpec
from loadtest.bench.start import link_models
from policies import ArmId

WORDS = 20
LITELLM = ".venv/litellm/bin/litellm"
"""Where `make bench` installs it: it brings pins of its own."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server in a process of its own."""

    url: str
    process: psutil.Process


def the_arms() -> list[ev.ArmSpec]:
    """Three arms on the upstream `u`."""
    return [
        ev.ArmSpec(
            id=ArmId(f"arm-{name}"),
            usd_per_mtok_in=1.0,
            usd_per_mtok_out=2.0,
            upstream="u",
            model="m",
        )
        for name in "abc"
    ]


@contextlib.asynccontextmanager
async def an_upstream(words: int = WORDS) -> AsyncIterator[Running]:
    """A server of OpenAI's wire format that answers at once, a stream in 23 events.

    words: of a whole answer, of five bytes each.
    """
    async with _python("upstream", str(words)) as running:
        yield running


@contextlib.asynccontextmanager
async def a_bare_proxy(upstream: str) -> AsyncIterator[Running]:
    """The least that a proxy in aiohttp can do."""
    async with _python("proxy", upstream) as running:
        yield running


@contextlib.asynccontextmanager
async def the_least_proxy(upstream: str) -> AsyncIterator[Running]:
    """The same with the client and about the headers of the gateway: what nothing it does can be
    cheaper than.
    """
    async with _python("least", upstream) as running:
        yield running


@contextlib.asynccontextmanager
async def the_service(directory: Path, upstream: str, checkout: Path) -> AsyncIterator[Running]:
    """The service of a checkout, by its whole path, with three arms on the upstream."""
    config, ready = directory / "gateway.toml", directory / "gateway.json"
    arms = "".join(
        f'[[arms]]\nid = "{arm.id}"\nusd_per_mtok_in = {arm.usd_per_mtok_in}\n'
        f'usd_per_mtok_out = {arm.usd_per_mtok_out}\nupstream = "u"\nmodel = "{arm.model}"\n'
        for arm in the_arms()
    )
    config.write_text(
        f'data_dir = "{directory}"\nlog_level = "warning"\n[[upstreams]]\nid = "u"\n'
        f'base_url = "{upstream}/v1"\n{arms}'
    )
    link_models(directory)
    process = await asyncio.create_subprocess_exec(
        "/usr/bin/env",
        f"PYTHONPATH={checkout}",
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
        cwd=checkout,
    )
    try:
        while not await asyncio.to_thread(ready.exists):
            assert process.returncode is None, "the service did not start"
            await asyncio.sleep(0.02)
        url = json.loads(await asyncio.to_thread(ready.read_text))["url"]
        yield Running(url, psutil.Process(process.pid))
    finally:
        process.terminate()
        await process.wait()


@contextlib.asynccontextmanager
async def litellms_proxy(directory: Path, upstream: str) -> AsyncIterator[Running | None]:
    """LiteLLM's proxy, None where it is not installed or does not start."""
    command = shutil.which(LITELLM) or shutil.which("litellm")
    if command is None:
        print(f"LiteLLM's proxy: left out, there is no {LITELLM}", file=sys.stderr)
        yield None
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
        yield Running(url, psutil.Process(process.pid)) if process.returncode is None else None
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
async def _python(*arguments: str) -> AsyncIterator[Running]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadtest.proxies", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().strip()
        yield Running(url, psutil.Process(process.pid))
    finally:
        process.kill()
        await process.wait()


# --- the processes of ours ----------------------------------------------------------------


def _upstream(words: str) -> Any:
    usage, answer = _usage(WORDS), json.dumps(_answer(int(words)))

    async def answered(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if not body.get("stream"):
            return web.json_response(text=answer)
        return await _streamed(request, usage)

    return answered


def _answer(words: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": "word " * words}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    head = {"id": "u", "object": "chat.completion", "created": 1, "model": "m"}
    return head | {"choices": [choice], "usage": _usage(words)}


def _usage(words: int) -> dict[str, int]:
    return {"prompt_tokens": 20, "completion_tokens": words, "total_tokens": 20 + words}


async def _streamed(request: web.Request, usage: dict[str, int]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for i in range(WORDS + 2):
        delta: dict[str, Any] = {"content": "word "} if i < WORDS else {}
        choice = {"index": 0, "delta": delta, "finish_reason": "stop" if i == WORDS else None}
        chunk = {
            "id": "u",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [choice] if i <= WORDS else [],
            "usage": usage if i > WORDS else None,
        }
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
            return await _copied(request, response, given)

    return passed


def _least(upstream: str) -> Any:
    spec = UpstreamSpec(id="u", base_url=upstream)
    made: list[Calls] = []

    async def passed(request: web.Request) -> web.StreamResponse:
        calls = made[0] if made else Calls(request.app[_SESSION], 65_536)
        made[:] = [calls]
        body = await request.read()
        head = calls.head(spec, upstream + request.path, {"Content-Type": "application/json"})
        assert head is not None
        given = await calls.post(head, {}, body, spec, Sent())
        headers = _HEADERS | {"Content-Type": given.headers["Content-Type"]}
        if "Content-Length" in given.headers:
            return web.Response(body=await given.content.read(), headers=headers)
        return await _copied(request, web.StreamResponse(headers=headers), given)

    return passed


async def _copied(
    request: web.Request, response: web.StreamResponse, given: Any
) -> web.StreamResponse:
    """The body of what was given, as it comes."""
    await response.prepare(request)
    async for chunk in given.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    return response


_HEADERS = {
    "x-decision-id": "0" * 36,
    "x-arm": "arm-a",
    "x-policy": "nested",
    "x-bandit-reason": "conversation",
    "x-feedback-token": "t" * 67,
    "x-cost-usd": "0.00006000",
    "x-request-id": "0" * 36,
}
_SESSION = web.AppKey("session", aiohttp.ClientSession)


async def _serve(handler: Any) -> None:
    app = web.Application(client_max_size=1 << 25)
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
    makes = {"proxy": _proxy, "least": _least, "upstream": _upstream}
    what, of = sys.argv[1:]
    asyncio.run(_serve(makes[what](of)))
