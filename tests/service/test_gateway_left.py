"""Clients that leave, arms that are full, and answers that do not say what they cost."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bandit_service import cli
from tests.service.provider import ARMS, COST, HELLO, a_gateway, until
from tests.service.running import Client

BUDGET = {"BANDIT_BUDGETS": '[{"scope": "service", "per": "month", "usd": 100.0, "pace": false}]'}
ASKED: dict[str, Any] = {"model": "alpha", "messages": HELLO, "max_tokens": 400}


async def _money(client: Client) -> tuple[float, float]:
    """What is spent and what is held."""
    row = (await client.get("/v1/budgets"))[1]["budgets"][0]
    return row["spent_usd"], row["held_usd"]


async def _settled(client: Client) -> float:
    async def holds() -> bool:
        return (await _money(client))[1] == 0.0

    await until(holds)
    return (await _money(client))[0]


async def _metric(client: Client, line: str) -> float:
    async with client.session.get(client.url + "/metrics") as exposed:
        found = [row for row in (await exposed.text()).splitlines() if row.startswith(line + " ")]
    return float(found[0].rpartition(" ")[2]) if found else 0.0


async def _leave(client: Client, path: str, body: dict[str, Any], asked: asyncio.Event) -> None:
    """Ask on a connection of its own, and close it when the provider has been asked."""
    async with aiohttp.ClientSession() as session:
        asking = asyncio.ensure_future(session.post(client.url + path, json=body))
        await asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


@pytest.mark.parametrize("how", ["whole", "stream", "embeddings"])
async def test_one_that_leaves_before_the_answer_begins_ends_the_call_and_pays(
    tmp_path: Path, models: Path, how: str
) -> None:
    path = "/v1/embeddings" if how == "embeddings" else "/v1/chat/completions"
    body = ASKED | {"stream": how == "stream"}
    if how == "embeddings":
        body = {"model": "alpha", "input": "a text of forty characters, as it were.."}
    async with a_gateway(tmp_path, models, **BUDGET) as (client, provider):
        provider.behaviour = {"alpha": "never"}
        asked = asyncio.Event()
        leaving = asyncio.ensure_future(_leave(client, path, body, asked))

        async def reached() -> bool:
            return bool(provider.seen)

        await until(reached)
        assert (await _money(client))[1] > 0.0
        asked.set()
        await leaving
        async with asyncio.timeout(60):
            await provider.cancelled.wait()
        assert await _settled(client) > 0.0
        _, arms = await client.get("/v1/arms")
        assert {arm["health"]["state"] for arm in arms["arms"]} == {"closed"}
        if how != "embeddings":
            assert await _metric(client, "bandit_clients_left_total") == 1.0
            assert await _metric(client, 'bandit_estimated_cost_usd_total{arm="alpha"}') > 0.0


async def test_an_answer_without_usage_is_booked_until_its_cost_is_reported(
    tmp_path: Path, models: Path
) -> None:
    async with a_gateway(tmp_path, models, **BUDGET) as (client, provider):
        provider.behaviour = {"alpha": "no usage"}
        _, answer = await client.post("/v1/chat/completions", ASKED)
        booked = await _settled(client)
        assert 0.0 < booked < COST
        _, decided = await client.get(f"/v1/decisions/{answer['id']}")
        assert "cost_usd" not in decided["signals"], "an estimate is not learned"
        await client.reward(answer["id"], cost_usd=0.25)
        assert await _settled(client) == pytest.approx(0.25)
        status, _ = await client.post(
            "/v1/rewards", {"decision_id": answer["id"], "cost_usd": 0.5, "correction": True}
        )
        assert status == 200
        assert await _settled(client) == pytest.approx(0.5)


async def test_no_arm_gets_more_calls_at_a_time_than_it_may(tmp_path: Path, models: Path) -> None:
    async with a_gateway(tmp_path, models) as (client, provider):
        for id in ARMS:
            arm = {"usd_per_mtok_in": 1.0, "usd_per_mtok_out": 4.0, "upstream": "p"}
            status, _ = await client.call("PUT", f"/v1/arms/{id}", {**arm, "max_running": 2})
            assert status == 200
        provider.behaviour = dict.fromkeys(ARMS, "never")
        url = f"{client.url}/v1/chat/completions"
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            asking = [
                asyncio.ensure_future(session.post(url, json=ASKED | {"model": model}))
                for model in ["auto"] * 20 + ["beta"] * 5
            ]
            done: set[asyncio.Future[aiohttp.ClientResponse]] = set()
            async with asyncio.timeout(60):
                while len(done) < 19 or len(provider.seen) < 6:
                    done, _ = await asyncio.wait(asking, timeout=0.05)
            assert Counter(each["model"] for each in provider.seen) == dict.fromkeys(ARMS, 2)
            for each in done:
                answer = each.result()
                error = (await answer.json())["error"]
                assert (answer.status, error["code"]) == (429, "busy")
                assert "max_running" in error["message"]
                assert int(answer.headers["Retry-After"]) >= 1
            status, refused = await client.post("/v1/embeddings", {"model": "gamma", "input": "x"})
            assert (status, refused["error"]["code"]) == (429, "busy")
            for each in asking:
                each.cancel()
        provider.behaviour = {}

        async def free() -> bool:
            return (await client.post("/v1/chat/completions", ASKED))[0] == 200

        await until(free)


async def test_try_explains_with_the_preferences_of_the_models_name(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with a_gateway(tmp_path, models) as (client, _):
        await client.call("PUT", "/v1/arms/nowhere", {"usd_per_mtok_in": 1, "usd_per_mtok_out": 1})

        async def shown(model: str, *more: str) -> dict[str, Any]:
            asked = ["try", "Hello?", "--url", client.url, "--json", "--model", model, *more]
            assert await asyncio.to_thread(cli.main, asked) == 0
            found: dict[str, Any] = json.loads(capsys.readouterr().out)
            return found

        every = await shown("auto")
        assert {arm["id"] for arm in every["arms"]["arms"]} == set(ARMS), "only what can be called"
        two = await shown("auto?arms=alpha,gamma")
        assert {arm["id"] for arm in two["arms"]["arms"]} == {"alpha", "gamma"}
        assert two["arm"] in ("alpha", "gamma")
        asked = ["try", "Hello?", "--url", client.url, "--no-answer"]
        assert await asyncio.to_thread(cli.main, asked) == 0
        rows = capsys.readouterr().out.splitlines()
        assert sum(row.split()[-4:-2] == ["untried", "0"] for row in rows) >= 1, rows
        named = await shown("beta", "--no-answer")
        assert [arm["id"] for arm in named["arms"]["arms"]] == ["beta"]
        wrong = ["try", "Hello?", "--url", client.url, "--model", "auto?unheard=1"]
        assert await asyncio.to_thread(cli.main, wrong) == 1
        assert "no preference 'unheard'" in capsys.readouterr().err
