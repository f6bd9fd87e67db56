"""OpenAI's client in front, a server of Anthropic's Messages API behind, real sockets between."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from aiohttp import web

from tests.service.provider import HELLO, signals_of
from tests.service.running import Client, serving
from tests.unit.test_anthropic import ASKED, EVENTS, MESSAGE

KEY = "sk-ant-canary-11"


class Server:
    """Answers /v1/messages; `how` sets what goes wrong."""

    def __init__(self) -> None:
        self.how = "good"
        self.seen: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""

    async def messages(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/messages."""
        body = await request.json()
        self.seen.append(body)
        self.headers.append(dict(request.headers))
        if self.how in ("401", "400", "429", "529"):
            kind = {
                "401": "authentication_error",
                "400": "invalid_request_error",
                "429": "rate_limit_error",
                "529": "overloaded_error",
            }[self.how]
            error = {"type": "error", "error": {"type": kind, "message": "no"}}
            return web.json_response(error, status=int(self.how), headers={"Retry-After": "1"})
        if not body.get("stream"):
            return web.json_response(MESSAGE)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in EVENTS[:5] if self.how == "cut" else EVENTS:
            data = json.dumps(event, ensure_ascii=False)
            await response.write(f"event: {event['type']}\ndata: {data}\n\n".encode())
        return response


@asynccontextmanager
async def _gateway(
    tmp_path: Path, models: Path
) -> AsyncIterator[tuple[openai.AsyncOpenAI, Client, Server]]:
    server = Server()
    app = web.Application()
    app.router.add_post("/v1/messages", server.messages)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    (tmp_path / "key").write_text(KEY)
    arm = {"id": "claude", "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 4.0, "upstream": "a",
           "usd_per_mtok_cached_in": 0.1, "usd_per_mtok_cache_write": 1.25, "model": "claude-x",
           "capabilities": ["tools", "json", "vision"]}  # fmt: skip
    upstream = {"id": "a", "base_url": f"{server.url}/v1", "kind": "anthropic",
                "key_file": str(tmp_path / "key")}  # fmt: skip
    environ = {"BANDIT_ARMS": json.dumps([arm]), "BANDIT_UPSTREAMS": json.dumps([upstream])}
    try:
        async with (
            serving(tmp_path / "var", models, **environ) as client,
            openai.AsyncOpenAI(
                base_url=f"{client.url}/v1", api_key="none", max_retries=0
            ) as asking,
        ):
            yield asking, client, server
    finally:
        await runner.cleanup()


async def test_an_answer_is_translated_and_its_cost_learned(tmp_path: Path, models: Path) -> None:
    async with _gateway(tmp_path, models) as (asking, client, server):
        asked: Any = ASKED | {"model": "auto"}
        answer = await asking.chat.completions.create(**asked)
        assert answer.choices[0].message.content == "It rains."
        assert answer.choices[0].finish_reason == "tool_calls"
        assert server.seen[0]["model"] == "claude-x"
        assert server.headers[0]["x-api-key"] == KEY
        assert server.headers[0]["anthropic-version"] == "2023-06-01"
        assert "Authorization" not in server.headers[0]
        cost = (10 * 1.0 + 20 * 1.25 + 400 * 0.1 + 7 * 4.0) / 1e6  # 20 are written to its cache
        assert (await signals_of(client, answer.id))["cost_usd"] == pytest.approx(cost)
        # the server speaks what the provider's own client understands
        own = anthropic.AsyncAnthropic(base_url=server.url, api_key="x", max_retries=0)
        async with own:
            message = await own.messages.create(
                model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}]
            )
        assert message.stop_reason == "tool_use"


async def test_a_stream_is_translated(tmp_path: Path, models: Path) -> None:
    async with _gateway(tmp_path, models) as (asking, client, _):
        stream = await asking.chat.completions.create(model="auto", messages=HELLO, stream=True)
        chunks = [chunk async for chunk in stream]
        words = [each.choices[0].delta.content or "" for each in chunks if each.choices]
        assert "".join(words) == "Es schneit ❄"
        cost = (10 * 1.0 + 20 * 1.25 + 400 * 0.1 + 30 * 4.0) / 1e6
        assert (await signals_of(client, chunks[0].id))["cost_usd"] == pytest.approx(cost)


async def test_errors_and_a_stream_that_is_cut_off_raise_the_clients_own_exceptions(
    tmp_path: Path, models: Path
) -> None:
    async with _gateway(tmp_path, models) as (asking, _client, server):
        server.how = "400"
        with pytest.raises(openai.BadRequestError) as refused:
            await asking.chat.completions.create(model="auto", messages=HELLO)
        assert isinstance(refused.value.body, dict)
        assert refused.value.body["arm"] == "claude"
        server.how = "401"
        with pytest.raises(openai.AuthenticationError):
            await asking.chat.completions.create(model="auto", messages=HELLO)
        server.how = "cut"
        stream = await asking.chat.completions.create(model="auto", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError):
            [chunk async for chunk in stream]
        server.how = "529"
        with pytest.raises(openai.APIStatusError, match="claude"):
            await asking.chat.completions.create(model="auto", messages=HELLO)
        with pytest.raises((openai.BadRequestError, openai.UnprocessableEntityError)):
            await asking.chat.completions.create(model="claude", messages=HELLO, n=2)
