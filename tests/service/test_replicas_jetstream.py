"""Several services on one log in NATS JetStream, through kills of them and of its servers."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bandit_service import cli, clock, settings
from bandit_service.app import assembly
from loadtest import nats as nats_servers
from loadtest.nats import NatsServers
from loadtest.postgres import Postgres
from tests import shared_log
from tests.service.running import Client, a_vector, opened
from tests.service.test_replicas import rewarded_anywhere, same, shared
from tests.service.test_replicas_join import lived, snapshot
from tests.service.test_replicas_killed import under_load


async def test_what_one_decided_is_rewarded_at_another_and_all_are_the_same(
    tmp_path: Path, models: Path, nats: NatsServers
) -> None:
    environ = shared(tmp_path, nats)
    async with AsyncExitStack() as stack:
        found = [
            await stack.enter_async_context(opened(tmp_path / f"r{i}", models, **environ))
            for i in range(3)
        ]
        clients, worlds = [one for one, _ in found], [world for _, world in found]
        await rewarded_anywhere(clients, worlds)
        made_up = {"decision_id": clock.Ids().new(clock.now()), "quality": 1.0}
        status, told = await clients[0].post("/v1/rewards", made_up)
        assert status in (404, 410), told
        await same(worlds)


async def test_a_new_replica_begins_from_the_snapshot_in_the_object_store(
    tmp_path: Path, models: Path, nats: NatsServers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bandit.replica")
    environ = shared(tmp_path, nats)
    async with opened(tmp_path / "r0", models, **environ) as (client, world):
        await lived(client, 0, 5)
        at = await snapshot(client)
        await lived(client, 5, 7)
        async with opened(tmp_path / "r1", models, **environ) as (_, other):
            await same([world, other])
    begun = [each for each in caplog.records if each.msg == "begun from another's snapshot"]
    assert [each.offset for each in begun] == [at]  # type: ignore[attr-defined]


async def test_a_log_of_one_process_is_migrated_and_taken_back(
    tmp_path: Path, models: Path, nats: NatsServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, environ = tmp_path / "r0", shared(tmp_path, nats)
    async with opened(alone, models) as (client, _):
        ids = [(await client.decide(embedding=a_vector(i)))["decision_id"] for i in range(4)]
        assert await client.reward(ids[0], quality=1.0) == "accepted"
    for name, value in (environ | {"BANDIT_DATA_DIR": str(alone)}).items():
        monkeypatch.setenv(name, value)
    assert await asyncio.to_thread(cli.main, ["migrate"]) == 0
    assert await asyncio.to_thread(cli.main, ["migrate"]) == 0  # there is nothing left to do
    async with (
        opened(alone, models, **environ) as (_, world),
        opened(tmp_path / "r1", models, **environ) as (other, another),
    ):
        assert await other.reward(ids[0], quality=1.0) == "duplicate"
        assert await other.reward(ids[1], quality=0.5) == "accepted"
        digest = await same([world, another])
    async with opened(alone, models) as (client, world):
        assert world.digest() == digest
        assert await client.reward(ids[1], quality=0.5) == "duplicate"


async def test_a_log_goes_from_jetstream_to_postgres(
    tmp_path: Path,
    models: Path,
    nats: NatsServers,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = tmp_path / "r0"
    async with opened(there, models, **shared(tmp_path, nats)) as (client, world):
        id = (await client.decide(embedding=a_vector(1)))["decision_id"]
        assert await client.reward(id, quality=1.0) == "accepted"
        digest = world.digest()
    for name, value in (shared(tmp_path, postgres) | {"BANDIT_DATA_DIR": str(there)}).items():
        monkeypatch.setenv(name, value)
    (there / "replica.json").rename(tmp_path / "replica.json")  # as docs/scale.md says
    assert await asyncio.to_thread(cli.main, ["migrate"]) == 0
    async with opened(there, models, **shared(tmp_path, postgres)) as (client, world):
        assert world.digest() == digest
        assert await client.reward(id, quality=1.0) == "duplicate"


async def test_a_start_without_the_driver_or_by_a_wrong_address_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"BANDIT_LOG_ENGINE": "jetstream", "BANDIT_LOG_DSN_ENV": "D", "D": "nats://h?top=x"}
    chosen = settings.read(None, {"BANDIT_DATA_DIR": str(tmp_path), **environ})
    with pytest.raises(settings.BadSettings, match="has 'top' behind the"):
        async with assembly.running_router(chosen):
            pass
    monkeypatch.setitem(sys.modules, "nats", None)
    with pytest.raises(settings.BadSettings, match="needs nats-py"):
        async with assembly.running_router(chosen):
            pass
    assembly.open_log(chosen).close()  # nobody holds it


@pytest.mark.long
async def test_kills_and_stops_of_replicas_and_of_a_server_lose_nothing_acknowledged(
    tmp_path: Path, models: Path
) -> None:
    """Three servers, of which one is killed, and comes back; the keeper stands still meanwhile."""
    shared_log.nats_wanted()
    with nats_servers.running(3) as nats:
        environ = shared(tmp_path, nats) | {
            "BANDIT_LOG_TIMEOUT_S": "15",
            "BANDIT_LOG_REPLICA_TTL_S": "3",
        }
        async with under_load(tmp_path, models, environ) as load:
            load.started[1].kill()
            await load.goes_on()
            await load.starts_again(1)
            nats.servers[0].kill()
            await load.goes_on()
            nats.servers[0].start()
            await asyncio.to_thread(nats.servers[0].ready)
            slots = [await _told(url, "this") for url in load.urls]
            keeper = slots.index(await _keeper(load.urls[0]))
            others = [url for i, url in enumerate(load.urls) if i != keeper]
            load.started[keeper].popen.send_signal(signal.SIGSTOP)
            try:
                async with asyncio.timeout(60):
                    while await _keeper(others[0]) in (None, slots[keeper]):
                        await asyncio.sleep(0.05)
            finally:
                load.started[keeper].popen.send_signal(signal.SIGCONT)
            await load.goes_on()
            assert await _told(load.urls[keeper], "this") == slots[keeper]


async def _keeper(url: str) -> int | None:
    """The slot of whoever runs the shared background tasks."""
    rows = await _told(url, "replicas")
    return next((int(row["slot"]) for row in rows if "keeper" in row["roles"]), None)


async def _told(url: str, key: str) -> Any:
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            status, told = await Client(session, url).get("/v1/replicas")
            if status == 200:
                return told[key]
            await asyncio.sleep(0.05)
