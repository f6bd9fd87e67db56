"""What every routed answer tells in its headers, and that a stream passes on as it comes."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.service.provider import ARMS, COST, HELLO, a_gateway, until
from tests.service.running import Client, serving

_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_EXPERIMENT = {
    "id": "checkout",
    "variants": [
        {"key": "a", "weight": 1.0, "learning": "shared"},
        {"key": "b", "weight": 0.0, "arm": "beta"},
    ],
    "share": 1.0,
    "primary": "cost_usd",
}


async def _asked(client: Client, **body: Any) -> tuple[int, dict[str, str], bytes]:
    """Status, headers in lower case, and body of one chat completion by a known user."""
    headers = {"traceparent": _TRACE, "tracestate": "vendor=1", "x-request-id": "mine-1"}
    asked = {"model": "auto", "messages": HELLO, "user": "u1", **body}
    async with client.session.post(
        f"{client.url}/v1/chat/completions", json=asked, headers=headers
    ) as answer:
        told = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status, told, await answer.read()


async def _running(client: Client) -> None:
    async def begun() -> bool:
        _, body = await client.get("/v1/experiments/checkout")
        return bool(body["status"] == "running")

    await until(begun)


_CASES = {"good": (), "fallback": ("alpha", "beta"), "rejected": ARMS, "all fail": ARMS}


async def test_every_routed_answer_names_its_decision_arm_policy_and_variant(
    tmp_path: Path, models: Path
) -> None:
    environ = {
        "BANDIT_EXPERIMENTS": json.dumps([_EXPERIMENT]),
        "BANDIT_POLICY_NAME": "uniform",
        "BANDIT_GATEWAY_BREAKER_FAILURES": "1000",
    }
    async with a_gateway(tmp_path, models, **environ) as (client, provider):
        await _running(client)
        for (how, failing), stream in itertools.product(_CASES.items(), (False, True)):
            fault = "rejected" if how == "rejected" else "500"
            provider.behaviour = dict.fromkeys(failing, fault)
            status, headers, body = await _asked(client, stream=stream)
            assert status == {"rejected": 400, "all fail": 500}.get(how, 200), body
            _, decision = await client.get(f"/v1/decisions/{headers['x-decision-id']}")
            assert headers["x-arm"] == decision["arm"]
            if how == "fallback":
                assert headers["x-arm"] == "gamma"
            assert headers["x-policy"] == "uniform"
            assert (headers["x-experiment"], headers["x-variant"]) == ("checkout", "a")
            assert headers["x-request-id"] == "mine-1"
            known = how in ("good", "fallback") and not stream
            assert ("x-cost-usd" in headers) == known
            if known:
                assert float(headers["x-cost-usd"]) == pytest.approx(COST)
            seen = provider.headers[-1]
            assert (seen["traceparent"], seen["tracestate"]) == (_TRACE, "vendor=1")


@asynccontextmanager
async def _waiting_provider(go_on: asyncio.Event) -> AsyncIterator[str]:
    """It says one word, and the next only when it is told to go on."""

    async def chat(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for word, finish in (("first", None), ("last", "stop")):
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": finish}
            chunk = {"id": "t", "object": "chat.completion.chunk", "choices": [choice]}
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            await go_on.wait()
        await response.write(b"data: [DONE]\n\n")
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        go_on.set()
        await runner.cleanup()


async def test_the_first_event_is_there_before_the_upstream_says_the_second(
    tmp_path: Path, models: Path
) -> None:
    go_on = asyncio.Event()
    async with _waiting_provider(go_on) as upstream:
        arm = {"id": "a", "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 1.0, "upstream": "p"}
        environ = {
            "BANDIT_ARMS": json.dumps([arm]),
            "BANDIT_UPSTREAMS": json.dumps([{"id": "p", "base_url": upstream}]),
        }
        async with serving(tmp_path / "var", models, **environ) as client:
            asked = {"model": "auto", "messages": HELLO, "stream": True}
            async with (
                asyncio.timeout(60),
                client.session.post(f"{client.url}/v1/chat/completions", json=asked) as answer,
            ):
                first = await answer.content.readuntil(b"\n\n")
                assert b"first" in first
                assert not go_on.is_set()
                go_on.set()
                rest = await answer.read()
        assert b"last" in rest
        assert rest.endswith(b"data: [DONE]\n\n")


async def test_two_events_in_one_piece_of_which_the_second_is_broken(
    tmp_path: Path, models: Path
) -> None:
    """The good one is passed on, and then the error."""
    good = {"id": "t", "choices": [{"index": 0, "delta": {"content": "good"}}]}
    sent = b"data: " + json.dumps(good).encode() + b"\n\ndata: {broken\n\n"

    async def chat(request: web.Request) -> web.Response:
        return web.Response(body=sent, content_type="text/event-stream")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        arm = {"id": "a", "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 1.0, "upstream": "p"}
        base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        environ = {
            "BANDIT_ARMS": json.dumps([arm]),
            "BANDIT_UPSTREAMS": json.dumps([{"id": "p", "base_url": base_url}]),
        }
        async with serving(tmp_path / "var", models, **environ) as client:
            _, _, body = await _asked(client, stream=True)
    finally:
        await runner.cleanup()
    events = [json.loads(each.removeprefix(b"data: ")) for each in body.strip().split(b"\n\n")]
    assert events[0]["choices"][0]["delta"]["content"] == "good"
    assert "an event is not JSON" in events[1]["error"]["message"]
    assert len(events) == 2
