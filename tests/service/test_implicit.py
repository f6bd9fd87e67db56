"""Implicit signals through the gateway: off by default, and by weight where they are on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.service.provider import ARMS, a_gateway
from tests.service.running import Client

ON = {
    "BANDIT_IMPLICIT_RETRY": "0.5",
    "BANDIT_IMPLICIT_REGENERATE": "0.25",
    "BANDIT_IMPLICIT_EDIT": "1",
}
ASKED = [{"role": "user", "content": "Hello there"}]
TALK = [*ASKED, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Why?"}]
EDITED = [*TALK[:-1], {"role": "user", "content": "How?"}]


async def _ask(client: Client, messages: Any, *, stream: bool = False, talk: str = "c") -> str:
    body = {"model": "auto", "messages": messages, "stream": stream}
    headers = {"x-conversation": talk} if talk else {}
    async with client.session.post(
        f"{client.url}/v1/chat/completions", json=body, headers=headers
    ) as answer:
        await answer.read()
        return answer.headers["x-decision-id"]


async def _signals(client: Client, id: str) -> dict[str, float]:
    _, body = await client.get(f"/v1/decisions/{id}")
    found: dict[str, float] = body["signals"]
    return {name: one for name, one in found.items() if name not in ("cost_usd", "latency_s")}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_regenerate_and_an_edit_count_against_the_answer_before(
    tmp_path: Path, models: Path, stream: bool
) -> None:
    async with a_gateway(tmp_path, models, **ON) as (client, _):
        first = await _ask(client, TALK, stream=stream)
        second = await _ask(client, TALK, stream=stream)
        third = await _ask(client, EDITED, stream=stream)
        said = await _signals(client, first)
        assert said["implicit_regenerate"] == 1.0
        assert 0.0 < said["quality"] < 1.0
        _, body = await client.get(f"/v1/decisions/{first}")
        assert body["weighed"] is True
        assert body["metrics"][0]["name"] == "implicit_regenerate"
        assert (await _signals(client, second))["implicit_edit"] == 1.0
        assert await _signals(client, third) == {}
        assert await client.reward(first, quality=1.0) == "accepted"
        assert (await _signals(client, first))["quality"] == 1.0


async def test_a_retry_after_a_failure_is_recorded(tmp_path: Path, models: Path) -> None:
    environ = ON | {"BANDIT_GATEWAY_ATTEMPTS": "1"}
    async with a_gateway(tmp_path, models, **environ) as (client, provider):
        provider.behaviour = dict.fromkeys(ARMS, "500")
        first = await _ask(client, ASKED)
        provider.behaviour = {}
        await _ask(client, ASKED)
        said = await _signals(client, first)
        assert (said["implicit_retry"], said["quality"]) == (1.0, 0.0)  # the failure's own


async def test_they_are_off_by_default_and_without_a_name(tmp_path: Path, models: Path) -> None:
    (tmp_path / "off").mkdir()
    async with a_gateway(tmp_path / "off", models) as (client, _):
        first = await _ask(client, ASKED)
        await _ask(client, ASKED)
        assert await _signals(client, first) == {}
    (tmp_path / "on").mkdir()
    async with a_gateway(tmp_path / "on", models, **ON) as (client, _):
        first = await _ask(client, ASKED, talk="")
        await _ask(client, ASKED, talk="")
        assert await _signals(client, first) == {}


async def test_other_metrics_may_still_be_sent(tmp_path: Path, models: Path) -> None:
    async with a_gateway(tmp_path, models, **ON) as (client, _):
        id = await _ask(client, ASKED)
        assert await client.reward(id, metrics={"anything": 3.0}) == "accepted"
        assert await client.reward(id, metrics={"implicit_edit": True}) == "accepted"
