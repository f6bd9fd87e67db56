"""Several services on one log in PostgreSQL: one order, one world, nothing acknowledged lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from bandit_service.core.world import World
from loadtest.postgres import Postgres
from tests.service.running import Client, a_vector, opened

pytestmark = pytest.mark.usefixtures("postgres")


@asynccontextmanager
async def replicas(
    n: int, path: Path, models: Path, postgres: Postgres, **environ: str
) -> AsyncIterator[list[tuple[Client, World]]]:
    """Services in this process on a log of this test."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                opened(path / f"r{i}", models, **shared(path, postgres), **environ)
            )
            for i in range(n)
        ]


def shared(path: Path, postgres: Postgres) -> dict[str, str]:
    """The settings of a replica of this test's log."""
    return {
        "BANDIT_LOG_ENGINE": "postgres",
        "BANDIT_LOG_DSN_ENV": "THE_DSN",
        "THE_DSN": postgres.dsn,
        "BANDIT_LOG_NAME": str(path)[-60:],
        "BANDIT_LOG_TIMEOUT_S": "20",  # a test that shares its machine waits long at times
        "BANDIT_LOG_REPLICA_TTL_S": "20",
    }


async def same(worlds: list[World]) -> str:
    """The one digest of all of them, once they are at one offset."""
    async with asyncio.timeout(30):
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
        for i in range(12):
            decided = await clients[i % 3].decide(embedding=a_vector(i))
            id = decided["decision_id"]
            # at once, so that it may be there before its decision
            assert await clients[(i + 1) % 3].reward(id, quality=0.5) == "accepted"
            assert await clients[(i + 2) % 3].reward(id, quality=0.5) == "duplicate"
        await same(worlds)
        assert [world.rewards for world in worlds] == [12] * 3
        assert all(world.decisions == 12 for world in worlds)
        begun = time.monotonic()
        status, _ = await clients[0].post(
            "/v1/rewards",
            {"decision_id": "0199aaaa-0000-7000-8000-000000000000", "quality": 1.0},
        )
        assert status in (404, 410)
        assert time.monotonic() - begun < 2.0
