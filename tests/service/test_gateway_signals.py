"""What is taught as latency, and how many calls of an arm there are at a time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from tests.service.provider import HELLO, a_provider, signals_of
from tests.service.running import Client, serving

_TOKENS = 50
_HELD_S = 0.2


class _Held:
    """Streams one word, and the rest when it may go on."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.seen: list[str] = []
        self.url = ""

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((await request.json())["model"])
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for word, finish in (("first", None), ("last", "stop")):
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": finish}
            await self._say(response, {"choices": [choice]})
            await self.go_on.wait()
        usage = {"prompt_tokens": 10, "completion_tokens": _TOKENS, "total_tokens": 10 + _TOKENS}
        await self._say(response, {"choices": [], "usage": usage})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _say(self, response: web.StreamResponse, chunk: dict[str, object]) -> None:
        await response.write(b"data: " + json.dumps({"id": "t", **chunk}).encode() + b"\n\n")


@asynccontextmanager
async def _held(
    tmp_path: Path, models: Path, **environ: str
) -> AsyncIterator[tuple[Client, _Held]]:
    provider = _Held()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", provider.chat)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    provider.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    arms = [
        {
            "id": id,
            "usd_per_mtok_in": 1.0,
            "usd_per_mtok_out": 1.0,
            "upstream": "p",
            "max_running": most,
        }
        for id, most in (("one", 1), ("many", 0))
    ]
    given = {
        "BANDIT_ARMS": json.dumps(arms),
        "BANDIT_UPSTREAMS": json.dumps([{"id": "p", "base_url": provider.url}]),
        "BANDIT_POLICY_NAME": "fixed",
        "BANDIT_POLICY_PARAMETERS": '{ arm = "one" }',
        "BANDIT_EXPLORATION_FLOOR": "0.0",
    }
    try:
        async with serving(tmp_path / "var", models, **given, **environ) as client:
            yield client, provider
    finally:
        provider.go_on.set()
        await runner.cleanup()


@pytest.mark.parametrize("signal", ["total", "first_token", "per_token"])
async def test_the_latency_that_is_taught_is_the_one_that_is_configured(
    tmp_path: Path, models: Path, signal: str
) -> None:
    async with _held(tmp_path, models, BANDIT_GATEWAY_LATENCY_SIGNAL=signal) as (client, provider):
        begun = time.perf_counter()
        asked = {"model": "auto", "messages": HELLO, "stream": True}
        url = f"{client.url}/v1/chat/completions"
        async with client.session.post(url, json=asked) as answer:
            await answer.content.readany()
            first_s = time.perf_counter() - begun
            await asyncio.sleep(_HELD_S)  # what the end comes later than the beginning
            provider.go_on.set()
            await answer.read()
            whole_s = time.perf_counter() - begun
        taught = (await signals_of(client, answer.headers["x-decision-id"]))["latency_s"]
        low, high = {
            "total": (_HELD_S, whole_s),
            "first_token": (0.0, first_s),
            "per_token": (_HELD_S / _TOKENS, whole_s / _TOKENS),
        }[signal]
        assert low < taught < high


async def test_an_arm_that_has_its_most_calls_is_not_offered_until_one_ends(
    tmp_path: Path, models: Path
) -> None:
    async with _held(tmp_path, models) as (client, provider):
        asked = {"model": "auto", "messages": HELLO, "stream": True}
        url = f"{client.url}/v1/chat/completions"
        async with client.session.post(url, json=asked) as first:
            async with client.session.post(url, json=asked) as second:
                assert (first.headers["x-arm"], second.headers["x-arm"]) == ("one", "many")
                provider.go_on.set()
                await second.read()
            await first.read()
        await signals_of(client, first.headers["x-decision-id"])
        async with client.session.post(url, json=asked) as third:
            assert third.headers["x-arm"] == "one"
            await third.read()
        assert provider.seen == ["one", "many", "one"]


async def test_a_server_that_refuses_stream_options_is_not_asked_for_the_usage(
    tmp_path: Path, models: Path
) -> None:
    async with a_provider() as provider:
        upstreams = [
            {"id": "p", "base_url": provider.url},
            {"id": "old", "base_url": provider.url, "stream_usage": False},
        ]
        arms = [
            {"id": id, "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 1.0, "upstream": upstream}
            for id, upstream in (("new", "p"), ("plain", "old"))
        ]
        environ = {
            "BANDIT_ARMS": json.dumps(arms),
            "BANDIT_UPSTREAMS": json.dumps(upstreams),
        }
        async with serving(tmp_path / "var", models, **environ) as client:
            for arm, options, signals in (
                ("new", {"include_usage": True}, {"cost_usd", "latency_s"}),
                ("plain", None, {"latency_s"}),
            ):
                asked = {"model": arm, "messages": HELLO, "stream": True}
                url = f"{client.url}/v1/chat/completions"
                async with client.session.post(url, json=asked) as answer:
                    assert (await answer.read()).endswith(b"data: [DONE]\n\n")
                assert provider.seen[-1].get("stream_options") == options
                found = await signals_of(client, answer.headers["x-decision-id"], len(signals))
                assert set(found) == signals
