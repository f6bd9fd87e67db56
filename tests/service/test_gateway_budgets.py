"""Budgets in front of real upstreams: what is offered, what is refused, and what a kill leaves."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.service.keyring import Keyring
from tests.service.provider import HELLO, a_gateway, a_provider, until
from tests.service.running import Client, Process

_ARMS = [
    {"id": "dear", "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 400.0, "upstream": "p"},
    {"id": "cheap", "usd_per_mtok_in": 0.01, "usd_per_mtok_out": 0.04, "upstream": "p"},
]
_DEAR = (1000 * 1.0 + 100 * 400.0) / 1e6  # what the provider bills for an answer
_MOST = 400 * 400.0 / 1e6  # what 400 tokens cost at most, without the prompt
_ALWAYS_DEAR = {
    "BANDIT_ARMS": json.dumps(_ARMS),
    "BANDIT_POLICY_NAME": "fixed",
    "BANDIT_POLICY_PARAMETERS": '{ arm = "dear" }',
    "BANDIT_EXPLORATION_FLOOR": "0.0",
}
_BODY: dict[str, Any] = {"model": "auto", "messages": HELLO, "max_tokens": 400}


def _budgets(*tables: dict[str, Any]) -> dict[str, str]:
    return _ALWAYS_DEAR | {"BANDIT_BUDGETS": json.dumps([{"pace": False, **t} for t in tables])}


async def _ask(client: Client, **more: Any) -> tuple[int, Any, str]:
    """Status, body, and Retry-After of one request; its money is settled by then."""
    url = f"{client.url}/v1/chat/completions"
    async with client.session.post(url, json=_BODY | more, headers=client.headers) as answer:
        status, body = answer.status, await answer.json()

    async def settled() -> bool:
        _, state = await client.get("/v1/budgets")
        return all(row["held_usd"] == 0.0 for row in state["budgets"])

    await until(settled)
    return status, body, answer.headers.get("Retry-After", "")


async def _spent(client: Client) -> float:
    _, state = await client.get("/v1/budgets")
    return float(state["budgets"][0]["spent_usd"])


async def test_a_request_is_held_to_its_own_limit(tmp_path: Path, models: Path) -> None:
    async with a_gateway(tmp_path, models, **_ALWAYS_DEAR) as (client, provider):
        for usd, status, code in ((0.001, 200, None), (1e-9, 422, "no_eligible_arm")):
            found, body, _ = await _ask(client, model=f"auto?max_cost_usd={usd}")
            assert (found, body.get("error", {}).get("code")) == (status, code)
        assert [each["model"] for each in provider.seen] == ["cheap"]


async def test_when_the_money_runs_low_cheaper_arms_answer(tmp_path: Path, models: Path) -> None:
    environ = _budgets({"scope": "service", "per": "month", "usd": 0.5})
    async with a_gateway(tmp_path, models, **environ) as (client, provider):
        for _ in range(12):
            status, _, _ = await _ask(client)
            assert status == 200
        asked = [each["model"] for each in provider.seen]
        dear = asked.count("dear")
        assert asked == ["dear"] * dear + ["cheap"] * (12 - dear)
        # the dear one was called as long as the most that it may cost was left
        assert (dear - 1) * _DEAR + _MOST <= 0.5 < dear * _DEAR + _MOST + 0.001
        assert await _spent(client) == round(dear * _DEAR + (12 - dear) * 1.4e-5, 9)


async def test_or_the_request_is_refused_until_the_window_ends(
    tmp_path: Path, models: Path
) -> None:
    limit = {"scope": "service", "per": "month", "usd": 0.2, "on_exhausted": "refuse"}
    async with a_gateway(tmp_path, models, **_budgets(limit)) as (client, provider):
        assert (await _ask(client))[0] == 200
        status, body, after = await _ask(client)
        assert (status, body["error"]["code"]) == (429, "budget_exhausted")
        assert 0 < int(after) <= 31 * 86_400 + 3
        assert len(provider.seen) == 1


async def test_each_tenant_and_each_key_has_its_own(tmp_path: Path, models: Path) -> None:
    ring = Keyring(acme={"tenant": "acme"}, globex={"tenant": "globex"}, plain={}, other={})
    environ = ring.environ | _budgets(
        {"scope": "tenant", "per": "month", "usd": 0.2, "on_exhausted": "refuse"},
        {"scope": "key", "id": "plain", "per": "month", "usd": 0.2, "on_exhausted": "refuse"},
    )
    async with a_gateway(tmp_path, models, **environ) as (client, _):
        for name, statuses in (
            ("acme", [200, 429]),
            ("globex", [200, 429]),
            ("plain", [200, 429]),
            ("other", [200, 200]),
        ):
            asking = client.by(ring[name])
            assert [(await _ask(asking))[0] for _ in range(2)] == statuses, name
        _, seen = await client.by(ring["acme"]).get("/v1/budgets")
        assert [row["account"] for row in seen["budgets"]] == ["tenant:acme"]
        assert seen["budgets"][0]["spent_usd"] == pytest.approx(_DEAR)


async def test_embeddings_are_booked_and_refused_like_everything_else(
    tmp_path: Path, models: Path
) -> None:
    ring = Keyring(acme={"tenant": "acme"}, plain={})
    limit = {"scope": "tenant", "per": "month", "usd": 4e-6}
    environ = ring.environ | _budgets(limit)
    body = {"model": "dear", "input": "ten chars."}  # three tokens at most, billed as one
    async with a_gateway(tmp_path, models, **environ) as (client, _):
        for name, tenant, statuses in (
            ("acme", "", [200, 200, 429]),
            ("plain", "acme", [429]),
            ("plain", "other", [200]),
        ):
            for status in statuses:
                headers = client.by(ring[name]).headers | ({"x-tenant": tenant} if tenant else {})
                async with client.session.post(
                    f"{client.url}/v1/embeddings", json=body, headers=headers
                ) as answer:
                    assert answer.status == status, (name, tenant)
                    if status == 200:
                        assert float(answer.headers["x-cost-usd"]) == pytest.approx(1e-6)
        _, state = await client.by(ring["plain"]).get("/v1/budgets")
        spent = {row["account"]: (row["spent_usd"], row["held_usd"]) for row in state["budgets"]}
        assert spent == {
            "tenant:acme": (pytest.approx(2e-6), 0.0),
            "tenant:other": (pytest.approx(1e-6), 0.0),
        }


async def test_what_a_provider_bills_beyond_its_most_overshoots_by_what_was_in_flight(
    tmp_path: Path, models: Path
) -> None:
    limit = {"scope": "service", "per": "month", "usd": 0.1, "on_exhausted": "refuse"}
    async with a_gateway(tmp_path, models, **_budgets(limit)) as (client, _):
        statuses = []
        while 429 not in statuses:
            statuses.append((await _ask(client, max_tokens=1))[0])  # billed a hundred times that
        spent = await _spent(client)
        assert 0.1 < spent <= 0.1 + _DEAR
        assert spent == pytest.approx(_DEAR * statuses.count(200))


async def test_the_spend_survives_a_kill(tmp_path: Path, models: Path) -> None:
    async with a_provider() as provider, aiohttp.ClientSession() as session:
        upstream = {"id": "p", "base_url": provider.url}
        limit = {"scope": "service", "per": "month", "usd": 0.3, "on_exhausted": "refuse"}
        environ = _budgets(limit) | {"BANDIT_UPSTREAMS": json.dumps([upstream])}
        service = Process(tmp_path / "var", models, **environ)
        client = Client(session, await service.url())
        for _ in range(3):
            assert (await _ask(client))[0] == 200
        spent = await _spent(client)
        await asyncio.to_thread(service.kill)
        again = Process(tmp_path / "var", models, **environ)
        client = Client(session, await again.url())
        assert await _spent(client) == pytest.approx(spent) == pytest.approx(3 * _DEAR)
        assert [(await _ask(client))[0] for _ in range(2)] == [200, 429]
        assert await asyncio.to_thread(again.stop) == 0
