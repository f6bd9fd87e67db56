"""Old records of a log that several services share: deleted everywhere, and nothing is lost."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from bandit_service import cli
from bandit_service.runtime import maintenance
from bandit_service.runtime.shared import migrating, retaining
from bandit_service.runtime.shared.spool import Spool
from loadtest.nats import NatsServers
from loadtest.postgres import Postgres
from store import Offset, SharedLog, Unsure
from store.jetstream import JetStreamLog
from store.postgres import PostgresLog
from store.sqlite import SqliteLog
from tests.service.folding_here import fold_here
from tests.service.running import Client, a_vector, opened
from tests.service.test_replicas import patiently, replicas, same, shared

Engine = Postgres | NatsServers
YOUNG = {"BANDIT_RETENTION_MAX_AGE_S": "0.001", "BANDIT_LOG_LOST_AFTER_S": "1"}


@pytest.fixture(params=["postgres", "nats"])
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.getfixturevalue(request.param)
    return found


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step waits for upkeep to look; a record that is a moment old may go."""
    monkeypatch.setattr(maintenance, "_LOOK_S", 0.02)
    monkeypatch.setattr(maintenance, "_AGAIN_S", 0.2)
    monkeypatch.setattr(retaining, "_EVERY_S", 0.0)
    fold_here(monkeypatch)


async def _lived(clients: list[Client], first: int, last: int) -> list[str]:
    n, ids = len(clients), list[str]()
    for i in range(first, last):
        decided = await clients[i % n].decide(embedding=a_vector(i))
        ids.append(decided["decision_id"])
        if i % 4:
            assert await patiently(clients[(i + 1) % n], ids[-1], i % 3 / 2) == "accepted"
    return ids


def _log(engine: Engine, path: Path) -> SharedLog:
    name = shared(path, engine)["BANDIT_LOG_NAME"]
    if isinstance(engine, NatsServers):
        return JetStreamLog(engine.address, name, insecure_single=True)
    return PostgresLog(engine.dsn, name)


async def _trimmed(engine: Engine, path: Path, beyond: int, *copies: Path) -> int:
    """Up to where the shared log is, once that is beyond an offset."""
    log = _log(engine, path)
    await log.connect()
    async with asyncio.timeout(60):
        while (await log.state()).base <= beyond:
            await asyncio.sleep(0.05)
    base = (await log.state()).base
    listed = await log.snapshots()
    assert base <= min(at for key, at in listed if key == listed[0][0])
    await log.close()
    return base


def _begins(data: Path) -> int:
    copy = SqliteLog(data / "events.sqlite3")
    first = int(copy.first)
    copy.close()
    return first


@pytest.mark.long
async def test_old_records_go_everywhere_and_who_joins_or_was_away_begins_from_a_snapshot(
    tmp_path: Path, models: Path, engine: Engine
) -> None:
    whole = shared(tmp_path, engine) | YOUNG
    async with replicas(1, tmp_path, models, engine) as [(one, _)]:
        ids = await _lived([one], 0, 6)
    away = shutil.copytree(tmp_path / "r0", tmp_path / "away", symlinks=True)
    (away / "replica.json").unlink()  # another replica
    last = 10
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(opened(tmp_path / "r0", models, **whole))
        clients, worlds = [first[0]], [first[1]]
        await _lived(clients, 6, 12)
        await _is_keeper(clients[0])  # which alone shares its snapshots
        assert (await clients[0].post("/v1/snapshots", {}))[0] == 200
        base = await _trimmed(engine, tmp_path, last)
        # one that joins, and one whose copy ends before the log begins; from a newer snapshot
        await _lived(clients, 12, 16)
        assert (await clients[0].post("/v1/snapshots", {}))[0] == 200
        for name in ("late", "away"):
            joined = await stack.enter_async_context(opened(tmp_path / name, models, **whole))
            clients.append(joined[0])
            worlds.append(joined[1])
            await same(worlds)
        # what is pending is known to the snapshot alone
        assert await patiently(clients[1], ids[0], 1.0) == "accepted"
        assert await patiently(clients[2], ids[0], 1.0) == "duplicate"
        assert await patiently(clients[2], ids[1], 0.5) == "duplicate"
        await _lived(clients, 16, 20)
        # another policy learns the same at all of them, whatever snapshots they have
        assert (await clients[1].call("PUT", "/v1/policy", {"name": "eagle"}))[0] == 202
        async with asyncio.timeout(60):
            while any(one.serving != "eagle" for one in worlds):
                await asyncio.sleep(0.05)
        await _lived(clients, 20, 24)
        await same(worlds)
        later = await stack.enter_async_context(opened(tmp_path / "later", models, **whole))
        await same([*worlds, later[1]])
        status, told = await later[0].get("/v1/replicas")
        assert {row["differs"] for row in told["replicas"]} <= {False, None}
        status, told = await clients[0].get("/v1/events?after=0")
        assert (status, told["error"]["code"]) == (410, "expired")
    assert _begins(tmp_path / "r0") > base > last
    # who comes back goes on from its own directory
    plain = shared(tmp_path, engine)
    async with (
        opened(tmp_path / "r0", models, **plain) as (_, one_world),
        opened(tmp_path / "late", models, **plain) as (_, other),
    ):
        await same([one_world, other])


async def test_a_log_with_erased_and_deleted_events_is_migrated_there_on_and_back(
    tmp_path: Path, models: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tmp_path / "r0"
    async with opened(alone, models, **YOUNG) as (client, world):
        for i in range(12):
            decided = await client.decide(embedding=a_vector(i), unit="ann" if i % 3 else "")
            assert await client.reward(decided["decision_id"], quality=i % 2) == "accepted"
        assert (await client.post("/v1/snapshots", {}))[0] == 200
        async with asyncio.timeout(60):
            while not await _is_deleted(client):
                await asyncio.sleep(0.02)
    async with opened(alone, models) as (client, world):
        for i in range(6):
            await client.decide(embedding=a_vector(i), unit="ann" if i % 2 else "")
        assert await client.call("DELETE", "/v1/units/ann") == (200, {"erased": 3})
        last = (await client.decide(embedding=a_vector(7)))["decision_id"]
        digest = world.digest()
    began = _begins(alone)
    assert began > 1
    first, then = (shared(tmp_path / name, engine) for name in ("one", "other"))
    monkeypatch.setattr(migrating, "_AT_ONCE", 3)
    monkeypatch.setenv("BANDIT_DATA_DIR", str(alone))
    for environ in (first, then):
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        (alone / "replica.json").unlink(missing_ok=True)
        with monkeypatch.context() as patched:
            patched.setattr(type(_log(engine, tmp_path)), "append_copied", _once_more(engine))
            assert await asyncio.to_thread(cli.main, ["migrate"]) == 1
        assert await asyncio.to_thread(cli.main, ["migrate"]) == 0
        assert await asyncio.to_thread(cli.main, ["migrate"]) == 0  # there is nothing left to do
        for name in environ:
            monkeypatch.delenv(name)
        new = tmp_path / f"new-{Path(environ['BANDIT_LOG_NAME']).name}"
        async with opened(new, models, **environ) as (other, world):
            assert world.digest() == digest
            async with opened(alone, models, **environ) as (one, beside):
                assert await one.reward(last, quality=1.0) in ("accepted", "duplicate")
                assert await patiently(other, last, 1.0) == "duplicate"
                digest = await same([world, beside])
        assert _begins(new) == began
    async with opened(alone, models) as (_, world):
        assert world.digest() == digest


async def test_a_decision_that_was_killed_with_its_replica_is_not_appended_after_it_was_deleted(
    tmp_path: Path, models: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All stopped at once, and the others came back first: the log does not know it any more."""
    with monkeypatch.context() as killed:
        killed.setattr(Spool, "drop", lambda *_: None)  # it had no time to
        async with replicas(1, tmp_path, models, postgres) as [(client, world)]:
            for i in range(2):
                id = (await client.decide(embedding=a_vector(i)))["decision_id"]
                assert await patiently(client, id, 1.0) == "accepted"
            before = world.digest()
    log = _log(postgres, tmp_path)
    await log.connect()
    await log.trim(Offset((await log.find([id]))[id]))
    head = (await log.state()).head
    async with opened(tmp_path / "r0", models, **shared(tmp_path, postgres)) as (client, world):
        assert (world.digest(), (await log.state()).head) == (before, head)
        assert await patiently(client, id, 1.0) == "duplicate"
        await client.decide(embedding=a_vector(2))
    await log.close()


def _once_more(engine: Engine) -> Any:
    """Appends the first batch, and then the connection is gone."""
    append, left = type(_log(engine, Path())).append_copied, [1]

    async def fails(self: Any, records: Any) -> Any:
        if not left:
            raise Unsure("the connection is gone: planted")
        left.clear()
        return await append(self, records)

    return fails


async def _is_deleted(client: Client) -> bool:
    """Whether the first event is deleted."""
    async with client.session.get(f"{client.url}/v1/events?after=0") as response:
        return response.status == 410


async def _is_keeper(client: Client) -> None:
    async with asyncio.timeout(60):
        while True:
            _, told = await client.get("/v1/replicas")
            if any("keeper" in row["roles"] for row in told["replicas"]):
                return
            await asyncio.sleep(0.02)
