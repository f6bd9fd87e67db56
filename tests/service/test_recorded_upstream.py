"""The recorded upstream behind the gateway: real sockets, the official client, recorded costs."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import numpy as np
import openai
import pytest
from aiohttp import web

from bandit_service import cli
from bandit_service.core.events import ArmSpec
from bandit_service.data.recordings import Recorded
from bandit_service.offline.provider import Answers, RecordedUpstream, config_toml
from policies import ArmId
from tests.service.provider import signals_of, until
from tests.service.running import serving

RECORDED = Recorded(
    name="small",
    arms=(
        ArmSpec(id=ArmId("big"), usd_per_mtok_in=2.0, usd_per_mtok_out=8.0),
        ArmSpec(id=ArmId("small"), usd_per_mtok_in=0.1, usd_per_mtok_out=0.4),
    ),
    ids=("1", "2"),
    texts=("What is the capital of France?", "Name a prime number"),
    quality=np.array([[1.0, 0.5], [0.75, np.nan]]),
    cost=np.array([[0.00102, 0.000051], [0.0005, np.nan]]),
    tokens=np.array([10, 5]),
    tasks=("", ""),
)


@asynccontextmanager
async def _upstream(
    fail_rate: float = 0.0, speed: float = 1000.0, redirect_rate: float = 0.0
) -> AsyncIterator[str]:
    server = RecordedUpstream(
        RECORDED, speed=speed, fail_rate=fail_rate, redirect_rate=redirect_rate
    )
    runner = web.AppRunner(server.app(), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def test_the_written_configuration_serves_recorded_answers_at_recorded_cost(
    tmp_path: Path, models: Path
) -> None:
    async with _upstream() as url:
        document = tomllib.loads(config_toml(RECORDED, url))
        environ = {
            "BANDIT_ARMS": json.dumps(document["arms"]),
            "BANDIT_UPSTREAMS": json.dumps(document["upstreams"]),
        }
        async with (
            serving(tmp_path / "var", models, **environ) as client,
            openai.AsyncOpenAI(
                base_url=f"{client.url}/v1", api_key="none", max_retries=0
            ) as asking,
        ):
            for model, cost in (("big", 0.00102), ("small", 0.000051)):
                answer = await asking.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": RECORDED.texts[0]}]
                )
                assert f"{model} was recorded" in (answer.choices[0].message.content or "")
                signals = await signals_of(client, answer.id)
                assert signals["cost_usd"] == pytest.approx(cost, rel=0.02)
            stream = await asking.chat.completions.create(
                model="auto?arms=big",
                messages=[{"role": "user", "content": RECORDED.texts[1]}],
                stream=True,
            )
            chunks = [chunk async for chunk in stream]
            words = [each.choices[0].delta.content or "" for each in chunks if each.choices]
            assert "quality of 0.75" in "".join(words)
            assert (await signals_of(client, chunks[0].id))["cost_usd"] == pytest.approx(
                0.0005, rel=0.02
            )


async def test_a_query_that_was_not_recorded_is_answered_as_the_nearest() -> None:
    answers = Answers(RECORDED)
    assert answers.find(" what IS the capital of france? ") == (0, "exact")
    assert answers.find("the capital of Spain") == (0, "nearest")
    assert answers.find("a prime") == (1, "nearest")
    assert answers.answer("small", RECORDED.texts[1]) is None


async def test_errors_have_the_official_clients_shape() -> None:
    async with (
        _upstream() as url,
        openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as asking,
    ):
        assert [model.id async for model in asking.models.list()] == ["big", "small"]
        with pytest.raises(openai.NotFoundError, match="no 'other' was recorded"):
            await asking.chat.completions.create(
                model="other", messages=[{"role": "user", "content": "x"}]
            )
        with pytest.raises(openai.BadRequestError, match="messages"):
            await asking.chat.completions.create(model="big", messages=[])
        completed = await asking.completions.create(model="big", prompt=RECORDED.texts[1])
        assert "0.75" in completed.choices[0].text
    async with (
        _upstream(fail_rate=1.0) as url,
        openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as asking,
    ):
        with pytest.raises(openai.InternalServerError, match="asked for"):
            await asking.completions.create(model="big", prompt="x")
    async with (
        _upstream(redirect_rate=1.0) as url,
        openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as asking,
    ):
        other = await asking.completions.create(model="big", prompt=RECORDED.texts[0])
        assert other.model == "small"
        assert other.choices[0].text.startswith("small was recorded")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--data", "none.jsonl"], "none.jsonl"),
        (["--speed", "0"], "--speed: must be above 0"),
        (["--fail-rate", "2"], "--fail-rate: from 0 to 1"),
        (["--redirect-rate", "-1"], "--redirect-rate: from 0 to 1"),
    ],
)
def test_what_cannot_be_served_is_told_without_a_traceback(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["upstream", *arguments]) == cli.USAGE_ERROR
    assert told in capsys.readouterr().err


async def test_a_client_that_leaves_a_stream_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    body = {"model": "big", "stream": True,
            "messages": [{"role": "user", "content": RECORDED.texts[0]}]}  # fmt: skip

    async def handled() -> bool:
        handling = "RequestHandler.start"
        return not any(handling in repr(task.get_coro()) for task in asyncio.all_tasks())

    async with _upstream(speed=10.0) as url:
        async with aiohttp.ClientSession() as session:
            answer = await session.post(f"{url}/chat/completions", json=body)
            assert b"choices" in await answer.content.readline()
            answer.close()
        await until(handled)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
