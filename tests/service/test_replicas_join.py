"""A new replica begins from the newest snapshot of another, and folds only what is after it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from loadtest.postgres import Postgres
from tests.service.running import Client, a_vector, opened
from tests.service.test_replicas import same, shared

Change = Callable[[Any, str], Awaitable[None]]


async def snapshot(client: Client) -> int:
    """By the keeper, whose snapshots are for all."""
    async with asyncio.timeout(60):
        while not any(
            "keeper" in each["roles"] for each in (await client.get("/v1/replicas"))[1]["replicas"]
        ):
            await asyncio.sleep(0.05)
    status, made = await client.post("/v1/snapshots", None)
    assert status == 200, made
    return int(made["offset"])


async def lived(client: Client, first: int, last: int) -> None:
    for i in range(first, last):
        id = (await client.decide(embedding=a_vector(i)))["decision_id"]
        assert await client.reward(id, quality=i % 3 / 2) == "accepted"


async def _turned(db: Any, log: str) -> None:
    of = "hash IN (SELECT hash FROM bandit_snapshot WHERE log = $1)"
    await db.execute(f"UPDATE bandit_blob SET body = set_byte(body, 99, 7) WHERE {of}", log)


async def _other_fold(db: Any, log: str) -> None:
    await db.execute("UPDATE bandit_snapshot SET key = key || '1' WHERE log = $1", log)


async def _later(db: Any, log: str) -> None:
    """As after a failover: it is of a past that this log has not."""
    await db.execute("UPDATE bandit_snapshot SET seq = seq - 2 WHERE log = $1", log)


async def _beyond(db: Any, log: str) -> None:
    await db.execute("UPDATE bandit_snapshot SET seq = 1000000 WHERE log = $1", log)


async def _whole(db: Any, log: str) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_whole, ""),
        (_turned, "not as it was put there"),
        (_later, "of another log"),
        (_other_fold, None),
        (_beyond, None),
    ],
)
async def test_a_new_replica_begins_from_the_snapshot_or_folds_the_log(
    tmp_path: Path,
    models: Path,
    postgres: Postgres,
    caplog: pytest.LogCaptureFixture,
    change: Change,
    told: str | None,
) -> None:
    import asyncpg

    environ = shared(tmp_path, postgres)
    caplog.set_level(logging.INFO, "bandit")
    async with opened(tmp_path / "one", models, **environ) as (one, world):
        await lived(one, 0, 8)
        at = await snapshot(one)
        await lived(one, 8, 12)
        db = await asyncpg.connect(postgres.dsn)
        await change(db, environ["BANDIT_LOG_NAME"])
        await db.close()
        caplog.clear()
        async with opened(tmp_path / "two", models, **environ) as (two, joined):
            recovered = next(each for each in caplog.records if each.message == "recovered")
            said = [each for each in caplog.records if each.message.startswith("no snapshot of")]
            if change is _whole:
                assert recovered.from_snapshot == at  # type: ignore[attr-defined]
                assert recovered.events == world.events > at  # type: ignore[attr-defined]
            else:
                assert recovered.from_snapshot == 0  # type: ignore[attr-defined]
                assert bool(said) == bool(told)
                assert all(str(told) in each.why for each in said)  # type: ignore[attr-defined]
            await same([world, joined])
            await lived(two, 12, 14)
            await same([world, joined])


async def test_snapshots_are_not_shared_where_that_is_not_wanted(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    import asyncpg

    environ = shared(tmp_path, postgres) | {"BANDIT_LOG_SHARE_SNAPSHOTS": "false"}
    async with opened(tmp_path / "one", models, **environ) as (one, _):
        await lived(one, 0, 2)
        await snapshot(one)
        db = await asyncpg.connect(postgres.dsn)
        count = "SELECT count(*) FROM bandit_snapshot WHERE log = $1"
        assert await db.fetchval(count, environ["BANDIT_LOG_NAME"]) == 0
        await db.close()


async def test_a_lone_replica_starts_where_only_what_is_durable_was_lost(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    import asyncpg

    environ = shared(tmp_path, postgres)
    async with opened(tmp_path / "r0", models, **environ) as (client, world):
        await lived(client, 0, 3)
        digest = await same([world])
    db = await asyncpg.connect(postgres.dsn)
    try:  # as a standby has it that was promoted before the last flushed commit reached it
        log = environ["BANDIT_LOG_NAME"]
        await db.execute("UPDATE bandit_replica SET durable = 2 WHERE log = $1", log)
    finally:
        await db.close()
    async with opened(tmp_path / "r0", models, **environ) as (client, world):
        assert world.digest() == digest
        await lived(client, 3, 5)
