"""An arm's own parameters reach the provider, on every front and dialect, and are on record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from tests.service.dialects import ARMS, Provider, pair

TURNS: Any = [{"role": "user", "content": "Hello?"}]


async def test_each_arm_is_asked_as_it_is_configured(tmp_path: Path, models: Path) -> None:
    requests: dict[str, dict[str, Any]] = {
        "chat": {"reasoning_effort": "low", "extra_body": {"seed": 7}},
        "resp": {"reasoning_effort": "high"},
        "claude": {"thinking_budget": 2048, "output_limit": 9000},
    }
    async with pair(tmp_path, models, requests=requests) as (url, provider):
        await _asked(url, provider)


async def _asked(url: str, provider: Provider) -> None:
    efforts = {}
    async with (
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as chat,
        anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as messages,
        aiohttp.ClientSession() as session,
    ):
        for arm, kind in ARMS.items():
            for front in ("chat", "responses", "messages"):
                if front == "chat":
                    made: Any = await chat.chat.completions.with_raw_response.create(
                        model=arm, messages=TURNS, reasoning_effort="medium"
                    )
                elif front == "responses":
                    made = await chat.responses.with_raw_response.create(model=arm, input="Hello?")
                else:
                    made = await messages.messages.with_raw_response.create(
                        model=arm, max_tokens=20_000, messages=TURNS
                    )
                body = provider.seen[-1][1]
                if kind == "openai":
                    assert (body["reasoning_effort"], body["seed"]) == ("low", 7)
                elif kind == "responses":
                    assert body["reasoning"]["effort"] == "high"
                else:
                    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2048}
                    assert body["max_tokens"] <= 9000 + 2048
                id = made.headers["x-decision-id"]
                async with session.get(f"{url}/v1/decisions/{id}") as answer:
                    decided = await answer.json()
                efforts[arm, front] = decided["effort"]
                assert decided.get("effort_asked", "") == ("medium" if front == "chat" else "")
    assert {efforts[arm, "chat"] for arm in ARMS} == {"low", "high", "2048 tokens"}


async def test_a_client_that_pins_gets_the_arm_that_is_asked_just_so(
    tmp_path: Path, models: Path
) -> None:
    requests: dict[str, dict[str, Any]] = {
        "chat": {"reasoning_effort": "low"},
        "resp": {"reasoning_effort": "high"},
        "claude": {"thinking_budget": 2048},
    }
    async with (
        pair(tmp_path, models, requests=requests) as (url, _),
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as chat,
    ):
        pins = {"x-pin-parameters": "on", "x-keep-model": "off"}

        async def ask(effort: Any) -> Any:
            return await chat.chat.completions.with_raw_response.create(
                model="auto", messages=TURNS, reasoning_effort=effort, extra_headers=pins
            )

        for effort, arm in (("low", "chat"), ("high", "resp")):
            for _ in range(4):
                assert (await ask(effort)).headers["x-arm"] == arm
        with pytest.raises(openai.BadRequestError, match="the client pins 'minimal'"):
            await ask("minimal")
