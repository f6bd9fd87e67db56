"""Budgets that several services on one log keep together: none of them exceeds, whoever dies."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.core import events as ev
from bandit_service.gateway import budget_slices
from bandit_service.runtime import recovery
from loadtest.postgres import Postgres
from tests.service.provider import HELLO, Provider, a_provider, until
from tests.service.running import Client, Process
from tests.service.test_replicas import replicas, same, shared

_COST = (1000 * 1.0 + 100 * 4.0) / 1e6
"""What the provider bills for an answer."""
_BODY: dict[str, Any] = {"model": "auto", "messages": HELLO, "max_tokens": 400}


def _environ(provider: Provider, **budget: Any) -> dict[str, str]:
    arms = [{"id": "a", "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 4.0, "upstream": "p"}]
    limit = {"scope": "service", "per": "month", "pace": False, **budget}
    return {
        "BANDIT_ARMS": json.dumps(arms),
        "BANDIT_UPSTREAMS": json.dumps([{"id": "p", "base_url": provider.url}]),
        "BANDIT_BUDGETS": json.dumps([limit]),
    }


async def _asked(client: Client, **more: Any) -> tuple[int, dict[str, Any]]:
    return await client.post("/v1/chat/completions", _BODY | more)


async def _row(client: Client) -> dict[str, Any]:
    _, told = await client.get("/v1/budgets")
    row: dict[str, Any] = told["budgets"][0]
    return row


async def test_replicas_spend_one_limit_and_never_more(
    tmp_path: Path, models: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_provider() as provider:
        environ = _environ(provider, usd=30 * _COST)
        async with replicas(3, tmp_path, models, postgres, **environ) as found:
            clients, worlds = [one for one, _ in found], [world for _, world in found]
            told = [await _asked(clients[i % 3]) for i in range(6)]
            assert [status for status, _ in told] == [200] * 6
            await same(worlds)
            held = worlds[0].leases.windows["month"]
            assert [len(slots) for accounts in held.values() for slots in accounts.values()] == [3]
            assert (await _row(clients[0]))["leased_usd"] > 0.0
            statuses: Counter[int] = Counter()

            async def ask(client: Client) -> None:
                for _ in range(15):
                    statuses[(await _asked(client))[0]] += 1

            await asyncio.gather(*(ask(one) for one in clients for _ in range(3)))
            assert set(statuses) == {200, 429}
            assert len(provider.seen) * _COST <= 30 * _COST + 1e-9
            await same(worlds)
            _, refused = await _asked(clients[0], max_tokens=4000)
            assert refused["error"]["code"] == "budget_exhausted"

            monkeypatch.setattr(budget_slices, "_IDLE_S", 0.1)

            async def given_back() -> bool:  # what nobody uses any more
                return not any(world.leases for world in worlds)

            await until(given_back)
            row = await _row(clients[2])
            assert row["leased_usd"] == row["held_usd"] == 0.0
            assert row["spent_usd"] == pytest.approx(len(provider.seen) * _COST)


async def test_at_the_end_a_replica_gives_its_slice_back(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    async with a_provider() as provider:
        environ = _environ(provider, usd=1.0)
        async with replicas(1, tmp_path, models, postgres, **environ) as [(one, world)]:
            whole = shared(tmp_path, postgres) | environ
            started = Process(tmp_path / "other", models, **whole)
            async with aiohttp.ClientSession() as session:
                assert (await _asked(Client(session, await started.url())))[0] == 200
            async with asyncio.timeout(60):
                while not world.leases:
                    await asyncio.sleep(0.01)
            assert await asyncio.to_thread(started.stop) == 0
            async with asyncio.timeout(60):
                while world.leases:
                    await asyncio.sleep(0.01)
            assert (await _asked(one))[0] == 200


@pytest.mark.long
async def test_a_killed_replica_with_a_slice_makes_nobody_exceed(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    limit, workers = 120 * _COST, 6
    async with a_provider() as provider:
        environ = shared(tmp_path, postgres) | _environ(provider, usd=limit)
        environ |= {"BANDIT_LOG_REPLICA_TTL_S": "2", "BANDIT_LOG_LOST_AFTER_S": "4"}
        started = [Process(tmp_path / f"r{i}", models, **environ) for i in range(3)]
        urls = [await each.url() for each in started]
        statuses: Counter[int] = Counter()
        async with aiohttp.ClientSession() as session:
            clients = [Client(session, url) for url in urls]

            async def ask(i: int) -> None:
                while statuses[429] < 60:
                    try:
                        statuses[(await _asked(clients[i % 3]))[0]] += 1
                    except aiohttp.ClientError:
                        await asyncio.sleep(0.02)
                    i += 1

            asking = [asyncio.create_task(ask(i)) for i in range(workers)]

            async def some() -> bool:
                return len(provider.seen) > 40

            await until(some)
            started[1].kill()
            await asyncio.gather(*asking)
            # the keeper gives back what the dead one had, and it is spent by the others

            async def only_these() -> bool:
                _, told = await clients[0].get("/v1/budgets")
                return bool(told["budgets"][0]["leased_usd"] == 0.0)

            await until(only_these)
        assert [await asyncio.to_thread(each.stop) for each in (started[0], started[2])] == [0, 0]
        # what a dead process had under way was paid and is booked by nobody
        assert len(provider.seen) * _COST <= limit + workers * _COST
        assert set(statuses) <= {200, 429, 503}
    chosen = settings.read(None, {"BANDIT_DATA_DIR": str(tmp_path / "r0"), **environ})
    log = assembly.open_log(chosen)
    try:
        world = recovery.replayed(log, chosen).world
        returned = [
            event.replica
            for _, body in log.replay()
            if isinstance(event := ev.decode(body), ev.BudgetReturned)
        ]
    finally:
        log.close()
    [spent] = [accounts["service"] for accounts in world.spend.windows["month"].values()]
    assert 0.6 * limit < spent <= limit + 1e-9  # what nobody held any more was spent, too
    assert len(set(returned)) == 3
    assert not world.leases
