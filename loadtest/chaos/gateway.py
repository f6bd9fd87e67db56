"""The gateway under kills: a provider that tells its usage, and clients that note each cost."""

from __future__ import annotations

import asyncio
import json
import random  # noqa: TID251 - traffic from a fixed seed
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp
import msgspec
from aiohttp import web

from bandit_service.settings import DEFAULT_ARMS
from loadtest.chaos.load import GONE, VECTORS, Client, Ledger, Wrong

TENANT = "gateway"
"""What marks its decisions in the log: their outcomes come from the service itself."""
_USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
_WHILE_FULL = 3
_ASKED = {"messages": [{"role": "user", "content": "What is it?"}], "max_tokens": 200}


@asynccontextmanager
async def provided() -> AsyncIterator[dict[str, str]]:
    """The settings that put a provider behind every arm, for as long as it is there."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", _chat)
    app.router.add_post("/v1/embeddings", _embeddings)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    arms = [{**msgspec.to_builtins(arm), "upstream": "p"} for arm in DEFAULT_ARMS]
    try:
        yield {
            "BANDIT_UPSTREAMS": json.dumps([{"id": "p", "base_url": url}]),
            "BANDIT_ARMS": json.dumps(arms),
        }
    finally:
        await runner.cleanup()


class _NotNow(Exception):
    """The service said that it cannot, which it may where it has no descriptors."""


async def routed(
    session: aiohttp.ClientSession, url: str, ledger: Ledger, rng: random.Random, crowded: bool
) -> None:
    """Ask until the service is gone: whole answers, streams, by name, and embeddings.

    crowded: it may answer that it cannot, for want of descriptors.
    """
    while True:
        try:
            await _asked(session, url, ledger, rng)
        except _NotNow as why:
            if not crowded:
                raise Wrong(str(why)) from None
            await asyncio.sleep(0.05)
        except GONE:
            return


async def asked_while_full(client: Client, session: aiohttp.ClientSession, url: str) -> Ledger:
    """What was answered while nothing could be written: it is in the log once there is room.

    Raises Wrong for an answer that was withheld, and for an acknowledged outcome.
    """
    owed = Ledger()
    arm = DEFAULT_ARMS[0].id
    await asyncio.gather(
        *(_whole(session, url, owed, "auto", full=True) for _ in range(_WHILE_FULL)),
        *(_streamed(session, url, owed) for _ in range(_WHILE_FULL)),
        *(_embedded(session, url, owed, arm, full=True) for _ in range(_WHILE_FULL)),
    )
    status, decided = await client.post("/v1/decide", {"embedding": VECTORS[0]})
    if status != 200:
        raise Wrong(f"without space a decide was answered {status}: {decided}")
    owed.decided.append(decided["decision_id"])
    reward = {"decision_id": decided["decision_id"], "quality": 1.0}
    status, answer = await client.post("/v1/rewards", reward)
    if status == 200 and answer["results"][0]["status"] != "error":
        raise Wrong(f"without space an outcome was acknowledged: {answer}")
    return owed


async def _asked(
    session: aiohttp.ClientSession, url: str, ledger: Ledger, rng: random.Random
) -> None:
    arm = rng.choice(DEFAULT_ARMS).id
    way = rng.random()
    if way < 0.2:
        await _embedded(session, url, ledger, arm)
    elif way < 0.6:
        await _whole(session, url, ledger, arm if way < 0.4 else "auto")
    else:
        await _streamed(session, url, ledger)


async def _whole(
    session: aiohttp.ClientSession, url: str, ledger: Ledger, model: str, *, full: bool = False
) -> None:
    async with session.post(
        f"{url}/v1/chat/completions", json=_ASKED | {"model": model}, headers={"x-tenant": TENANT}
    ) as answer:
        _check(answer)
        told = None if full else float(answer.headers["x-cost-usd"])
        ledger.costs[answer.headers["x-decision-id"]] = told
        if full and "x-cost-usd" in answer.headers:
            raise Wrong("without space a cost was told")
        await answer.read()


async def _streamed(session: aiohttp.ClientSession, url: str, ledger: Ledger) -> None:
    body = _ASKED | {"model": "auto", "stream": True, "stream_options": {"include_usage": True}}
    async with session.post(
        f"{url}/v1/chat/completions", json=body, headers={"x-tenant": TENANT}
    ) as answer:
        _check(answer)
        async for line in answer.content:
            if b"prompt_tokens" in line:  # told, and the end is not there yet
                ledger.costs[answer.headers["x-decision-id"]] = None


async def _embedded(
    session: aiohttp.ClientSession, url: str, ledger: Ledger, arm: str, *, full: bool = False
) -> None:
    body, headers = {"model": arm, "input": "x"}, {"x-tenant": TENANT}
    async with session.post(f"{url}/v1/embeddings", json=body, headers=headers) as answer:
        _check(answer)
        ledger.embedded += full or "x-cost-usd" in answer.headers
        await answer.read()


def _check(answer: aiohttp.ClientResponse) -> None:
    if answer.status != 200:
        why = f"{answer.url.path} was answered {answer.status}"
        raise _NotNow(why) if answer.status >= 500 else Wrong(why)


async def _chat(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    message = {"role": "assistant", "content": "It is."}
    if not body.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": _USAGE})
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    first = {"index": 0, "delta": message, "finish_reason": None}
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    with suppress(ConnectionError):  # the service was killed
        await response.prepare(request)
        for event in ({"choices": [first]}, {"choices": [end]}, {"choices": [], "usage": _USAGE}):
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            await asyncio.sleep(0)
        await response.write(b"data: [DONE]\n\n")
    return response


async def _embeddings(_: web.Request) -> web.Response:
    vector = {"object": "embedding", "index": 0, "embedding": [0.5]}
    usage = {"prompt_tokens": 10, "total_tokens": 10}
    return web.json_response({"data": [vector], "usage": usage})
