"""Several services on one log in PostgreSQL: one order, one world, nothing acknowledged lost."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bandit_service import cli, clock, settings
from bandit_service.app import assembly
from bandit_service.core.world import World
from bandit_service.runtime.shared.copying import OtherLog
from loadtest.nats import NatsServers
from loadtest.postgres import Postgres, running
from store import StoreError
from store.postgres import PostgresLog
from tests import shared_log
from tests.service.provider import a_provider
from tests.service.running import Client, a_vector, opened


@asynccontextmanager
async def replicas(
    n: int, path: Path, models: Path, engine: Postgres | NatsServers, **environ: str
) -> AsyncIterator[list[tuple[Client, World]]]:
    """Services in this process on a log of this test."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                opened(path / f"r{i}", models, **(shared(path, engine) | environ))
            )
            for i in range(n)
        ]


def shared(path: Path, engine: Postgres | NatsServers) -> dict[str, str]:
    """The settings of a replica of this test's log."""
    if isinstance(engine, NatsServers):
        single = str(len(engine.servers) == 1).lower()
        of_engine = {"THE_DSN": engine.address, "BANDIT_LOG_INSECURE_SINGLE": single}
    else:
        of_engine = {"THE_DSN": engine.dsn}
    return of_engine | {
        "BANDIT_LOG_ENGINE": "jetstream" if isinstance(engine, NatsServers) else "postgres",
        "BANDIT_LOG_DSN_ENV": "THE_DSN",
        "BANDIT_LOG_NAME": str(path)[-60:],
        "BANDIT_LOG_TIMEOUT_S": "20",  # a test that shares its machine waits long at times
        "BANDIT_LOG_REPLICA_TTL_S": "20",
    }


async def rewarded_anywhere(
    clients: list[Client], worlds: list[World]
) -> tuple[dict[str, Any], str]:
    """Of three replicas: each decision is rewarded at the next one, and sent again at the third.

    Returns what the second says of the replicas, and the id of the last decision.
    """
    for i in range(12):
        decided = await clients[i % 3].decide(embedding=a_vector(i))
        id = decided["decision_id"]
        # at once, so that it may be there before its decision
        assert await clients[(i + 1) % 3].reward(id, quality=0.5) == "accepted"
        assert await clients[(i + 2) % 3].reward(id, quality=0.5) == "duplicate"
    await same(worlds)
    assert [(world.decisions, world.rewards) for world in worlds] == [(12, 12)] * 3
    _, told = await clients[1].get("/v1/replicas")
    assert [row["open"] for row in told["replicas"]] == [True] * 3
    return told, id


async def same(worlds: list[World]) -> str:
    """The one digest of all of them, once they are at one offset."""
    async with asyncio.timeout(60):
        while len({world.events for world in worlds}) > 1:
            await asyncio.sleep(0.01)
    digests = {world.digest() for world in worlds}
    assert len(digests) == 1
    return digests.pop()


async def test_what_one_decided_is_rewarded_at_another_and_all_are_the_same(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    async with replicas(3, tmp_path, models, postgres) as found:
        clients, worlds = [one for one, _ in found], [world for _, world in found]
        told, id = await rewarded_anywhere(clients, worlds)
        assert sorted(row["slot"] for row in told["replicas"]) == [1, 2, 3]
        assert told["this"] == 2
        assert {row["differs"] for row in told["replicas"]} <= {False, None}
        # what was made up is unknown as soon as nobody can still bring it
        made_up = {"decision_id": clock.Ids().new(clock.now()), "quality": 1.0}
        status, told = await clients[0].post("/v1/rewards", made_up)
        assert status in (404, 410), told
        status, told = await clients[1].get(f"/v1/decisions/{id}")
        assert (status, told["signals"]) == (200, {"quality": 0.5})


async def test_another_policy_beside_the_others_is_refused(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    async with replicas(1, tmp_path, models, postgres):
        with pytest.raises(StoreError, match="another replica of this log folds by"):
            async with opened(
                tmp_path / "other",
                models,
                **shared(tmp_path, postgres),
                BANDIT_POLICY_NAME="uniform",
            ):
                pass


async def test_what_a_gateway_call_cost_is_learned_by_all(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    async with a_provider() as provider:
        arms = [
            {"id": id, "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 1.0, "upstream": "p"}
            for id in ("a", "b")
        ]
        environ = {
            "BANDIT_ARMS": json.dumps(arms),
            "BANDIT_UPSTREAMS": json.dumps([{"id": "p", "base_url": provider.url}]),
        }
        async with replicas(2, tmp_path, models, postgres, **environ) as found:
            (one, _), (other, world) = found
            for i in range(4):
                status, told = await (one, other)[i % 2].post(
                    "/v1/chat/completions",
                    {"model": "auto", "messages": [{"role": "user", "content": f"Why {i}?"}]},
                )
                assert status == 200, told
            async with asyncio.timeout(60):
                while world.rewards < 4:
                    await asyncio.sleep(0.01)
            await same([each for _, each in found])
            pending = world.pending.decisions
            assert [set(pending[id].signals) for id in pending] == [{"cost_usd", "latency_s"}] * 4


async def test_a_state_that_differs_is_seen_from_outside(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    environ = {"BANDIT_LOG_DIGEST_EVERY": "1"}
    async with replicas(2, tmp_path, models, postgres, **environ) as found:
        (one, _), (other, world) = found
        await one.decide()
        await same([each for _, each in found])
        world.counts.rewards += 1
        await one.decide()
        async with asyncio.timeout(60):
            while (await one.get("/readyz"))[1]["status"] == "ready":
                await asyncio.sleep(0.05)
            while True not in await _differing(other):
                await asyncio.sleep(0.05)
        status, told = await one.get("/readyz")
        assert (status, told["status"]) == (200, "degraded")
        assert "these have other states: replica 2 and this one (1) at offset" in told["why"]
        assert set(told["failing"]) == {"digest"}
        assert sorted(await _differing(one), key=str) == [False, True]
        async with one.session.get(one.url + "/metrics") as answer:
            assert "bandit_replicas_differing 1.0" in await answer.text()


async def _differing(client: Client) -> list[bool | None]:
    return [row["differs"] for row in (await client.get("/v1/replicas"))[1]["replicas"]]


async def test_a_directory_with_a_log_of_its_own_is_refused(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    async with opened(tmp_path / "alone", models) as (client, _):
        await client.decide()
    with pytest.raises(OtherLog, match="this data_dir has a log of"):
        async with opened(tmp_path / "alone", models, **shared(tmp_path, postgres)):
            pass


async def test_a_resend_gets_the_decision_that_is_not_learned_here_yet(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    """On 09672bb it got another one, until the first had come back from the log."""
    async with replicas(1, tmp_path, models, postgres, BANDIT_LOG_POLL_S="1.0") as [
        (client, world)
    ]:
        asked = {"embedding": a_vector(0), "idempotency_key": "k"}
        first = await client.decide(**asked)
        assert await client.decide(**asked) == first
        while not world.decisions:
            await asyncio.sleep(0.01)
        assert await client.decide(**asked) == first
        assert world.decisions == 1


async def test_without_the_database_decisions_go_on_and_nothing_is_lost(
    tmp_path: Path, models: Path
) -> None:
    shared_log.wanted()
    with running() as server:
        environ = shared(tmp_path, server) | {"BANDIT_LOG_TIMEOUT_S": "3"}
        async with AsyncExitStack() as stack:
            found = [
                await stack.enter_async_context(opened(tmp_path / f"r{i}", models, **environ))
                for i in range(2)
            ]
            (one, _), (other, _) = found
            before = (await one.decide())["decision_id"]
            assert await other.reward(before, quality=1.0) == "accepted"
            server.kill()
            during = [(await one.decide(embedding=a_vector(i)))["decision_id"] for i in range(5)]
            status, told = await other.post(
                "/v1/rewards", {"decision_id": during[0], "quality": 1.0}
            )
            assert (status, told["error"]["code"]) == (503, "unavailable")
            status, told = await one.get("/readyz")
            assert (status, told["status"]) == (200, "degraded")
            assert "the shared log cannot be reached" in told["why"]
            server.start()
            for id in during:
                assert await patiently(other, id, 0.5) == "accepted"
            assert await same([world for _, world in found])
            assert [world.rewards for _, world in found] == [6, 6]
            status, told = await one.get("/readyz")
            assert (status, told["status"]) == (200, "ready")


async def test_while_a_synchronous_standby_is_away_nothing_is_acknowledged(
    tmp_path: Path, models: Path
) -> None:
    shared_log.wanted()
    with running() as server:
        environ = {"BANDIT_LOG_TIMEOUT_S": "2"}
        async with replicas(2, tmp_path, models, server, **environ) as found:
            (one, _), (other, _) = found
            id = (await one.decide())["decision_id"]
            assert await other.reward(id, quality=1.0) == "accepted"
            ids = [(await one.decide(embedding=a_vector(i)))["decision_id"] for i in range(2)]
            await same([world for _, world in found])
            async with shared_log.standby_away(server):
                status, told = await other.post(
                    "/v1/rewards", {"decision_id": ids[0], "quality": 1.0}
                )
                assert (status, told["error"]["code"]) == (503, "unavailable")
                status, told = await other.get("/readyz")
                assert (status, told["status"]) == (200, "degraded")
                ids.append((await one.decide())["decision_id"])
                assert [world.rewards for _, world in found] == [1, 1]
            for id in ids:
                # in the log since its sender was told 503, or taken now
                assert await patiently(one, id, 1.0) in ("accepted", "duplicate")
            await same([world for _, world in found])
            assert [world.rewards for _, world in found] == [4, 4]


async def test_what_two_failovers_in_a_row_lost_before_anybody_read_it_comes_again(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    import asyncpg

    async with replicas(2, tmp_path, models, postgres) as found:
        (one, first), (other, second) = found
        log = shared(tmp_path, postgres)["BANDIT_LOG_NAME"]
        db = await asyncpg.connect(postgres.dsn)
        for n in range(2):
            await one.decide()
            async with asyncio.timeout(60):
                while [first.decisions, second.decisions] != [4 * n + 1] * 2:
                    await asyncio.sleep(0.01)
            ids = await _lost(one, db, log)
            for each in ids:
                assert await patiently(other, each, 0.5) == "accepted"
            await same([first, second])
            assert (first.decisions, first.rewards) == (4 * n + 4, 3 * n + 3)
        await db.close()


async def _lost(client: Client, db: Any, log: str) -> list[str]:
    """Decisions that were durable on a server that is gone, and that its standby never had."""
    head = await db.fetchrow("SELECT seq, chain FROM bandit_head WHERE log = $1", log)
    before = head["seq"]
    with pytest.MonkeyPatch.context() as patched:
        asked: set[int] = set()

        async def nothing(log: PostgresLog, *_: Any) -> list[Any]:
            asked.add(id(log))
            return []

        patched.setattr(PostgresLog, "tail", nothing)
        async with asyncio.timeout(60):
            while len(asked) < 2:  # no call of before is under way
                await asyncio.sleep(0.01)
        ids = [(await client.decide(embedding=a_vector(i)))["decision_id"] for i in range(3)]
        there = "SELECT max(durable) FROM bandit_replica WHERE log = $1"
        async with asyncio.timeout(60):
            while await db.fetchval(there, log) < before + 3:
                await asyncio.sleep(0.01)
        async with db.transaction():
            await db.execute(
                "UPDATE bandit_head SET seq = $2, chain = $3 WHERE log = $1", log, *head
            )
            await db.execute("DELETE FROM bandit_log WHERE log = $1 AND seq > $2", log, before)
            back = "UPDATE bandit_replica SET durable = $2, settled = 0 WHERE log = $1"
            await db.execute(back, log, before)
            await db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'bandit-service'"
            )
    return ids


async def test_a_start_without_the_driver_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"BANDIT_LOG_ENGINE": "postgres", "BANDIT_LOG_DSN_ENV": "D", "D": "postgres://x"}
    chosen = settings.read(None, {"BANDIT_DATA_DIR": str(tmp_path), **environ})
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(settings.BadSettings, match="needs asyncpg"):
        async with assembly.running_router(chosen):
            pass
    assembly.open_log(chosen).close()  # nobody holds it


async def test_a_log_of_one_process_is_migrated_and_taken_back(
    tmp_path: Path, models: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tmp_path / "r0"
    async with opened(alone, models) as (client, _):
        ids = [(await client.decide(embedding=a_vector(i)))["decision_id"] for i in range(4)]
        assert await client.reward(ids[0], quality=1.0) == "accepted"
    environ = shared(tmp_path, postgres)
    for name, value in (environ | {"BANDIT_DATA_DIR": str(alone)}).items():
        monkeypatch.setenv(name, value)
    assert await asyncio.to_thread(cli.main, ["migrate"]) == 0
    assert await asyncio.to_thread(cli.main, ["migrate"]) == 0  # there is nothing left to do
    async with replicas(2, tmp_path, models, postgres) as found:
        other, _ = found[1]
        assert await other.reward(ids[0], quality=1.0) == "duplicate"
        assert await other.reward(ids[1], quality=0.5) == "accepted"
        digest = await same([world for _, world in found])
    async with opened(alone, models) as (client, world):
        assert world.digest() == digest
        assert await client.reward(ids[1], quality=0.5) == "duplicate"


async def patiently(client: Client, id: str, quality: float) -> str:
    """The status of a reward, once it is taken."""
    async with asyncio.timeout(60):
        while True:
            body = {"decision_id": id, "quality": quality}
            status, told = await client.post("/v1/rewards", body)
            if status == 200:
                return str(told["results"][0]["status"])
            assert status == 503, told
            await asyncio.sleep(0.05)
