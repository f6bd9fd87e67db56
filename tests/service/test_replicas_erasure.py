"""`DELETE /v1/units/{unit}` where several services share one log in PostgreSQL."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.core import events as ev
from bandit_service.core.events import owner_of
from bandit_service.core.world import World
from bandit_service.runtime import maintenance, recovery
from bandit_service.runtime.shared import erasing
from bandit_service.runtime.shared.erasing import SharedErasure
from bandit_service.runtime.shared.policy_switch import PolicyTurn
from loadtest.nats import NatsServers
from loadtest.postgres import Postgres
from store import Offset, SharedLog, StoreError, Unsure
from store.jetstream import JetStreamLog
from store.postgres import PostgresLog
from store.sqlite import SqliteLog
from tests.service.folding_here import fold_here
from tests.service.running import Client, Process, a_vector, opened
from tests.service.test_replicas import patiently, replicas, same, shared
from tests.unit.store.shared_suite import all_of

Engine = Postgres | NatsServers
UNIT = "someone-0192-marked"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step of an erasure waits for upkeep to look, and for a snapshot."""
    monkeypatch.setattr(maintenance, "_LOOK_S", 0.02)
    monkeypatch.setattr(erasing, "_SWEEP_S", 0.5)
    fold_here(monkeypatch)


async def _lived(clients: list[Client], first: int, last: int, unit: str = "other") -> None:
    n = len(clients)
    for i in range(first, last):
        decided = await clients[i % n].decide(embedding=a_vector(i), unit=unit)
        assert (
            await patiently(clients[(i + 1) % n], decided["decision_id"], i % 3 / 2) == "accepted"
        )


def _holders(data: Path) -> list[str]:
    """The files of a replica in which the unit's name is still to be read."""
    return [
        str(path)
        for path in data.rglob("*")
        if path.is_file() and not path.is_symlink() and UNIT.encode() in path.read_bytes()
    ]


def _kinds(data: Path) -> list[str]:
    """Of the events that a replica's copy has, in order."""
    copy = SqliteLog(data / "events.sqlite3")
    kinds = [ev.kind(ev.decode(body)) for _, body in copy.replay(Offset(0)) if body]
    copy.close()
    return kinds


async def _in_the_database(postgres: Engine, path: Path) -> tuple[int, int]:
    """How many records, and how many snapshots, of this log hold the unit's name."""
    if isinstance(postgres, NatsServers):
        return await _in_the_streams(shared(path, postgres), postgres)
    db = await asyncpg.connect(postgres.dsn)
    try:
        log = shared(path, postgres)["BANDIT_LOG_NAME"]
        records = await db.fetchval(
            "SELECT count(*) FROM bandit_log WHERE log = $1 AND position($2 IN body) > 0",
            log,
            UNIT.encode(),
        )
        parts = await db.fetchval(
            "SELECT count(*) FROM bandit_snapshot s JOIN bandit_blob b USING (hash) "
            "WHERE s.log = $1 AND position($2 IN b.body) > 0",
            log,
            UNIT.encode(),
        )
    finally:
        await db.close()
    return int(records), int(parts)


async def _in_the_streams(environ: dict[str, str], nats: NatsServers) -> tuple[int, int]:
    log = _on_jetstream(environ["BANDIT_LOG_NAME"], nats)
    await log.connect()
    records = [each for each in await all_of(log) if UNIT.encode() in each.record.body]
    states = [
        await log.newest_snapshot(key, Offset(at - 1), at) for key, at in await log.snapshots()
    ]
    await log.close()
    return len(records), sum(UNIT.encode() in found[1] for found in states if found)


def _on_jetstream(name: str, nats: NatsServers) -> JetStreamLog:
    return JetStreamLog(nats.address, name, insecure_single=len(nats.servers) == 1)


async def _erased_everywhere(postgres: Engine, path: Path, *names: str) -> None:
    """Each replica erases its copy when it applies the order, which may be a moment later."""
    async with asyncio.timeout(60):
        while [each for name in names for each in _holders(path / name)]:
            await asyncio.sleep(0.1)
    assert await _in_the_database(postgres, path) == (0, 0)


async def test_units_are_erased_at_every_replica_and_in_the_database(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    environ = {"BANDIT_LOG_DIGEST_EVERY": "1"}
    async with replicas(2, tmp_path, models, postgres, **environ) as found:
        clients, worlds = [one for one, _ in found], [world for _, world in found]
        await _lived(clients, 0, 4)
        await _lived(clients, 4, 8, UNIT)
        await same(worlds)
        await _keeper(clients)  # who shares its snapshot
        await asyncio.gather(*(client.post("/v1/snapshots", {}) for client in clients))
        assert _holders(tmp_path / "r0")
        assert _holders(tmp_path / "r1")
        assert min(await _in_the_database(postgres, tmp_path)) > 0
        before = await same(worlds)
        # two at once, one at the replica that is not the keeper
        assert tuple(
            await asyncio.gather(
                clients[1].call("DELETE", f"/v1/units/{UNIT}"),
                clients[0].call("DELETE", "/v1/units/never-seen"),
            )
        ) == ((200, {"erased": 8}), (200, {"erased": 0}))
        await _erased_everywhere(postgres, tmp_path, "r0", "r1")
        assert not worlds[0].erasures.owners
        await _stored_by_one_that_stood_still(postgres, tmp_path)
        await _erased_everywhere(postgres, tmp_path, "r0", "r1")
        await _lived(clients, 8, 10)
        assert await same(worlds) != before
        # another policy learns from the same records everywhere
        status, _ = await clients[1].call("PUT", "/v1/policy", {"name": "knn"})
        assert status == 202
        async with asyncio.timeout(60):
            while any(one.serving != "knn" for one in worlds):
                await asyncio.sleep(0.05)
        # and who joins begins from a snapshot of it, which is shared at once
        whole = shared(tmp_path, postgres) | environ
        async with AsyncExitStack() as stack:
            late, world = await _joined(stack, tmp_path / "late", models, whole)
            await same([*worlds, world])
            assert _holders(tmp_path / "late") == []
            await _lived([*clients, late], 10, 13)
            await same([*worlds, world])
            _, rows = await late.get("/v1/replicas")
            assert {row["differs"] for row in rows["replicas"]} <= {False, None}
    async with replicas(2, tmp_path, models, postgres, **environ) as found:
        await same([world for _, world in found])


async def _stored_by_one_that_stood_still(postgres: Engine, path: Path) -> None:
    """An earlier keeper wakes, and ends what it had begun; it is gone soon."""
    log = _shared_log(postgres, path)
    await log.connect()
    late = (await log.snapshots())[0][0], Offset(3)
    await log.save_snapshot(*late, UNIT.encode(), 3)
    async with asyncio.timeout(60):
        while late in await log.snapshots():
            await asyncio.sleep(0.05)
    assert await log.snapshots()
    await log.close()


def _shared_log(engine: Engine, path: Path) -> SharedLog:
    name = shared(path, engine)["BANDIT_LOG_NAME"]
    return (
        _on_jetstream(name, engine)
        if isinstance(engine, NatsServers)
        else PostgresLog(engine.dsn, name)
    )


async def _joined(
    stack: AsyncExitStack, path: Path, models: Path, environ: dict[str, str]
) -> tuple[Client, World]:
    """A new replica, which may be refused until the keeper has shared its snapshot."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await stack.enter_async_context(opened(path, models, **environ))
            except StoreError as error:
                assert "no snapshot in the database knows" in str(error)  # noqa: PT017


async def test_a_replica_that_was_away_erases_its_copy_and_has_the_same_state(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    async with replicas(2, tmp_path, models, postgres) as found:
        await _lived([one for one, _ in found], 0, 4)
        await _lived([one for one, _ in found], 4, 8, UNIT)
        await same([world for _, world in found])
    backup = shutil.copytree(tmp_path / "r1", tmp_path / "backup", symlinks=True)
    whole = shared(tmp_path, postgres)
    async with opened(tmp_path / "r0", models, **whole) as (one, first):
        await _lived([one], 8, 12, UNIT)
        status, told = await one.call("DELETE", f"/v1/units/{UNIT}")
        assert (status, told) == (200, {"erased": 16})
        assert _holders(tmp_path / "r1")
        async with opened(tmp_path / "r1", models, **whole) as (other, second):
            assert _holders(tmp_path / "r1") == []
            await _lived([one, other], 12, 16)
            await same([first, second])
        # what a backup brings back beside the newest replica.json is erased again
        for pattern in ("snapshots/*", "events.sqlite3*"):
            for path in (tmp_path / "r1").glob(pattern):
                path.unlink()
            for path in backup.glob(pattern):
                shutil.copy(path, tmp_path / "r1" / path.relative_to(backup))
            assert _holders(tmp_path / "r1")
            async with opened(tmp_path / "r1", models, **whole) as (_, second):
                assert _holders(tmp_path / "r1") == []
                await same([first, second])


async def test_what_a_unit_writes_during_its_erasure_is_erased_when_it_asks_again(
    tmp_path: Path, models: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget, again = PostgresLog.forget, list[asyncio.Task[tuple[int, Any]]]()

    async def meanwhile(log: PostgresLog, owners: Sequence[str], upto: Offset) -> int:
        if not again:
            await _lived([one], 2, 4, UNIT)
            again.append(asyncio.create_task(one.call("DELETE", f"/v1/units/{UNIT}")))
            await _written(postgres, log.name, "forgotten", 2)
        return await forget(log, owners, upto)

    monkeypatch.setattr(PostgresLog, "forget", meanwhile)
    async with replicas(1, tmp_path, models, postgres) as [(one, world)]:
        await _lived([one], 0, 2, UNIT)
        status, _ = await one.call("DELETE", f"/v1/units/{UNIT}")
        assert (status, (await again[0])[0]) == (200, 200)
        assert not world.erasures.owners
        await _erased_everywhere(postgres, tmp_path, "r0")


async def test_an_erasure_that_was_cut_off_is_done_by_whoever_is_the_keeper_then(
    tmp_path: Path, models: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "_AGAIN_S", 0.2)
    forget, failed = PostgresLog.forget, list[str]()

    async def fails_once(log: PostgresLog, owners: Sequence[str], upto: Offset) -> int:
        if not failed:
            failed.extend(owners)
            raise Unsure("the database did not do it: planted")
        return await forget(log, owners, upto)

    monkeypatch.setattr(PostgresLog, "forget", fails_once)
    async with replicas(2, tmp_path, models, postgres) as found:
        clients, worlds = [one for one, _ in found], [world for _, world in found]
        await _lived(clients, 0, 4, UNIT)
        status, _ = await clients[0].call("DELETE", f"/v1/units/{UNIT}")
        assert (status, failed) == (200, [owner_of("", UNIT)])
        await _erased_everywhere(postgres, tmp_path, "r0", "r1")
        await _lived(clients, 4, 8)
        await same(worlds)
    assert _kinds(tmp_path / "r1").count("erasure_ordered") == 1, "it went on from what was ordered"
    with monkeypatch.context() as patched:
        patched.setattr(PostgresLog, "forget", _never)
        patched.setattr(SharedErasure, "done", _at_once)
        async with replicas(1, tmp_path, models, postgres) as [(one, _)]:
            await _lived([one], 8, 10, UNIT)
            await one.call("DELETE", f"/v1/units/{UNIT}")
    async with opened(tmp_path / "r1", models, **shared(tmp_path, postgres)) as (_, world):
        async with asyncio.timeout(60):
            while world.erasures.owners:
                await asyncio.sleep(0.05)
        await _erased_everywhere(postgres, tmp_path, "r1")


async def _never(_: PostgresLog, owners: Sequence[str], upto: Offset) -> int:
    raise Unsure(f"the database did not do it: planted for {owners} up to {upto}")


async def _at_once(_: SharedErasure, owner: str) -> int:
    return len(owner) * 0


async def test_without_a_snapshot_nobody_joins_others_that_know_more(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    whole = shared(tmp_path, postgres)
    async with replicas(1, tmp_path, models, postgres) as [(one, first)]:
        await _lived([one], 0, 4, UNIT)
        assert (await one.call("DELETE", f"/v1/units/{UNIT}"))[0] == 200
        db = await asyncpg.connect(postgres.dsn)
        await db.execute("DELETE FROM bandit_snapshot WHERE log = $1", whole["BANDIT_LOG_NAME"])
        await db.close()
        with pytest.raises(StoreError, match="8 records of the log are erased, and no snapshot"):
            async with opened(tmp_path / "late", models, **whole):
                pass
        assert (await one.post("/v1/snapshots", {}))[0] == 200
        async with opened(tmp_path / "late", models, **whole) as (_, second):
            await same([first, second])
    # by another policy the log is folded without them, once, and its snapshot is shared at once
    whole |= {"BANDIT_POLICY_NAME": "uniform"}
    async with opened(tmp_path / "r0", models, **whole) as (one, first), AsyncExitStack() as stack:
        await _lived([one], 4, 6)
        _, second = await _joined(stack, tmp_path / "late", models, whole)
        await same([first, second])


async def test_what_cannot_be_erased_by_replicas_is_refused_before_anything_is_forgotten(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    off = {"BANDIT_LOG_SHARE_SNAPSHOTS": "false"}
    async with replicas(1, tmp_path, models, postgres, **off) as [(one, world)]:
        before = world.events
        status, told = await one.call("DELETE", f"/v1/units/{UNIT}")
        assert (status, told["error"]["code"]) == (501, "not_implemented")
        assert "log.share_snapshots" in told["error"]["message"]
        assert world.events == before


async def test_nothing_is_erased_while_a_policy_is_built(
    tmp_path: Path, models: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or replicas that fold the log before and after it would have two states."""
    switch, look, rounds = PolicyTurn._switch_all, SharedErasure.look, list[set[str]]()

    async def waits(_: PolicyTurn) -> None:
        return

    async def looks(self: SharedErasure) -> None:
        await look(self)
        if self._writer.membership.keeps:
            rounds.append(set(self._writer.world.erasures.owners))

    monkeypatch.setattr(PolicyTurn, "_switch_all", waits)
    monkeypatch.setattr(SharedErasure, "look", looks)
    async with replicas(2, tmp_path, models, postgres) as found:
        clients, worlds = [one for one, _ in found], [world for _, world in found]
        await _lived(clients, 0, 4, UNIT)
        assert (await clients[0].call("PUT", "/v1/policy", {"name": "knn"}))[0] == 202
        asked = asyncio.create_task(clients[1].call("DELETE", f"/v1/units/{UNIT}"))
        async with asyncio.timeout(60):
            while sum(owner_of("", UNIT) in each for each in rounds) < 2:
                await asyncio.sleep(0.05)
        assert not asked.done()
        monkeypatch.setattr(PolicyTurn, "_switch_all", switch)
        assert await asked == (200, {"erased": 8})
        await same(worlds)
    kinds = _kinds(tmp_path / "r0")
    assert kinds.index("policy_changed") < kinds.index("erasure_ordered") < kinds.index("erased")


@pytest.mark.long
async def test_kill_9_of_the_keeper_after_its_order_leaves_one_log_and_one_state(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    environ = shared(tmp_path, postgres) | {
        "BANDIT_LOG_REPLICA_TTL_S": "3",
        "BANDIT_LOG_LEASE_TTL_S": "2",
    }
    started = [Process(tmp_path / f"r{i}", models, **environ) for i in range(2)]
    try:
        async with aiohttp.ClientSession() as session:
            clients = [Client(session, await each.url()) for each in started]
            await _lived(clients, 0, 6)
            await _lived(clients, 6, 16, UNIT)
            keeper = await _keeper(clients)
            asked = asyncio.create_task(clients[1 - keeper].call("DELETE", f"/v1/units/{UNIT}"))
            await _written(postgres, environ["BANDIT_LOG_NAME"], "erasure_ordered", 1)
            started[keeper].kill()
            assert (await asked)[0] in (200, 503)  # a busy machine may take longer than a minute
            started[keeper] = Process(tmp_path / f"r{keeper}", models, **environ)
            clients[keeper] = Client(session, await started[keeper].url())
            status, _ = await clients[keeper].call("DELETE", f"/v1/units/{UNIT}")
            assert status == 200
            await _erased_everywhere(postgres, tmp_path, "r0", "r1")
            await _lived(clients, 16, 20)
        assert [await asyncio.to_thread(each.stop) for each in started] == [0, 0]
    finally:
        for each in started:
            if each.popen.poll() is None:
                each.kill()
    bodies, digests = list[list[bytes]](), set[str]()
    for i in range(2):
        chosen = settings.read(None, {"BANDIT_DATA_DIR": str(tmp_path / f"r{i}"), **environ})
        log = assembly.open_log(chosen)
        bodies.append([body for _, body in log.replay(Offset(0))])
        found = recovery.recover(log, chosen, assembly.open_snapshots(chosen))
        assert (found.after, found.unknown) == (log.last, 0)
        digests.add(found.world.digest())
        log.close()
    assert bodies[0] == bodies[1]
    assert sum(not body for body in bodies[0]) == 20
    assert len(digests) == 1


async def _keeper(clients: list[Client]) -> int:
    async with asyncio.timeout(60):
        while True:
            for i, client in enumerate(clients):
                _, told = await client.get("/v1/replicas")
                for row in told["replicas"]:
                    if row["slot"] == told["this"] and "keeper" in row["roles"]:
                        return i
            await asyncio.sleep(0.05)


async def _written(postgres: Engine, log: str, kind: str, count: int) -> None:
    """Wait until the database has so many events of this kind."""
    if isinstance(postgres, NatsServers):
        jetstream = _on_jetstream(log, postgres)
        await jetstream.connect()
        async with asyncio.timeout(60):
            while sum(each.record.kind == kind for each in await all_of(jetstream)) < count:
                await asyncio.sleep(0.005)
        await jetstream.close()
        return
    db = await asyncpg.connect(postgres.dsn)
    asked = "SELECT count(*) FROM bandit_log WHERE log = $1 AND kind = $2"
    try:
        async with asyncio.timeout(60):
            while await db.fetchval(asked, log, kind) < count:
                await asyncio.sleep(0.005)
    finally:
        await db.close()
