"""Whatever dialect a client speaks, the one exchange is behind it: fallback, learning, judges."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
from openai.types.responses import Response

from tests.service.dialects import COST, pair
from tests.service.provider import signals_of
from tests.service.running import Client

HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_arm_that_fails_is_followed_by_one_of_another_dialect(
    tmp_path: Path, models: Path, streamed: bool
) -> None:
    judge = [{"kind": "regex", "pattern": "^Hello", "share": 1.0, "id": "greets"}]
    async with (
        pair(tmp_path, models, BANDIT_JUDGES=json.dumps(judge)) as (url, provider),
        anthropic.AsyncAnthropic(base_url=url, api_key="x", max_retries=0) as claude,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as gpt,
        aiohttp.ClientSession() as session,
    ):
        provider.overloaded = {"claude-large", "chat-large"}
        asked: dict[str, Any] = {"model": "auto", "max_tokens": 9, "messages": HELLO}
        if streamed:
            async with claude.messages.stream(**asked) as stream:
                id = (await stream.get_final_message()).id
        else:
            id = (await claude.messages.create(**asked)).id
        signals = await signals_of(Client(session, url), id, 3)
        assert signals["cost_usd"] == pytest.approx(COST)
        assert signals["quality"] == 1.0  # the judge has read it
        provider.overloaded = {"resp-large", "chat-large"}
        if streamed:
            async with gpt.responses.stream(model="auto", input="Hello") as said:
                response: Response = await said.get_final_response()
        else:
            response = await gpt.responses.create(model="auto", input="Hello")
        assert response.output_text.startswith("Hello from claude")
        signals = await signals_of(Client(session, url), response.id, 3)
        assert signals["cost_usd"] == pytest.approx(COST)


async def test_long_silences_are_filled_with_pings(tmp_path: Path, models: Path) -> None:
    async with (
        pair(tmp_path, models, BANDIT_GATEWAY_KEEP_ALIVE_S="0.05") as (url, provider),
        aiohttp.ClientSession() as session,
    ):
        provider.how = "slow"
        body = {"model": "chat", "max_tokens": 9, "messages": HELLO, "stream": True}
        async with session.post(f"{url}/v1/messages", json=body) as response:
            async with asyncio.timeout(60):
                assert await response.content.readuntil(b"\n\n") == (
                    b'event: ping\ndata: {"type":"ping"}\n\n'
                )
            provider.go.set()
            told = await response.text()
        assert "event: message_start" in told
        assert told.rstrip().endswith('data: {"type":"message_stop"}')


async def test_a_budget_that_is_spent_is_told_in_each_dialect(tmp_path: Path, models: Path) -> None:
    budgets = json.dumps([{"scope": "service", "per": "day", "usd": 1e-9}])
    async with (
        pair(tmp_path, models, BANDIT_BUDGETS=budgets) as (url, provider),
        anthropic.AsyncAnthropic(base_url=url, api_key="x", max_retries=0) as claude,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as gpt,
    ):
        with pytest.raises(anthropic.RateLimitError) as spent:
            await claude.messages.create(model="auto", max_tokens=9, messages=HELLO)
        body: Any = spent.value.body
        assert body["error"]["type"] == "rate_limit_error"
        assert body["error"]["code"] == "budget_exhausted"
        assert "retry-after" in spent.value.response.headers
        with pytest.raises(openai.RateLimitError, match="budget"):
            await gpt.responses.create(model="auto", input="Hello")
        assert provider.seen == []
