"""A synchronous standby that is away: nothing that waits for it counts as durable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from bandit_service.testing.log_records import records
from loadtest.postgres import Postgres, Standby, of_servers, running, with_standby
from store import Entry, Offset, StoreError, Unsure
from store.postgres import PostgresLog
from tests import shared_log


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """One of these tests' own, whose configuration they change."""
    shared_log.wanted()
    with running() as one:
        yield one


@asynccontextmanager
async def opened(server: Postgres, log: str, *names: str) -> AsyncIterator[list[PostgresLog]]:
    logs = [PostgresLog(server.dsn, log, timeout_s=2.0) for _ in names]
    for one, name in zip(logs, names, strict=True):
        await one.connect()
        await one.join(name, "key")
    yield logs
    for one in logs:
        await one.close()


def _entries(first: int, last: int) -> list[Entry]:
    return [Entry(each) for each in records(first, last)]


_DURABLE = "SELECT max(durable) FROM bandit_replica WHERE log = $1"


async def test_an_append_that_waits_for_the_standby_is_in_doubt_and_nobody_reads_it(
    server: Postgres,
) -> None:
    async with opened(server, "append", "one", "other") as (one, other):
        await one.append(_entries(1, 1), 0.0)
        async with shared_log.standby_away(server) as db:
            with pytest.raises(Unsure, match=r"did not answer within 2 s"):
                await one.append(_entries(2, 2), 0.0)
            with pytest.raises(Unsure):
                await one.append(_entries(3, 3), 0.0)  # on the connection that was cut off
            assert await db.fetchval(_DURABLE, "append") == 1
            # nor by what another says, who sees it in the log
            with pytest.raises(Unsure):
                await other.beat(0.0, 1)
            assert await db.fetchval(_DURABLE, "append") == 1
            with pytest.raises(Unsure):
                await one.connect()
        await one.connect()
        await one.join("one", "key")
        assert await one.find(["e1", "e2", "e3"]) == {"e1": 1, "e2": 2}
        await one.beat(0.0, 1)
        assert [each.offset for each in await one.tail(Offset(0))] == [1, 2]


async def test_whoever_gives_up_while_the_standby_is_away_makes_nothing_durable(
    server: Postgres,
) -> None:
    async with opened(server, "cancelled", "one", "other", "third") as (one, other, third):
        await one.append(_entries(1, 1), 0.0)
        async with shared_log.standby_away(server) as db:
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            before = await db.fetchval(waits)
            for work in (one.append(_entries(2, 2), 0.0), other.beat(0.0, 0), third.leave()):
                under_way = asyncio.ensure_future(work)
                while not under_way.done() and await db.fetchval(waits) == before:
                    await asyncio.sleep(0.01)
                before = await db.fetchval(waits)
                under_way.cancel()
                await asyncio.gather(under_way, return_exceptions=True)
            assert await db.fetchval(_DURABLE, "cancelled") == 1


async def test_no_other_replica_stands_still_for_one_that_waits_for_the_standby(
    server: Postgres,
) -> None:
    """Who is closed, and who leads, is told under a lock that appends need, or a role's."""
    async with (
        opened(server, "closing", "one", "other") as (one, other),
        shared_log.standby_away(server) as db,
    ):
        await db.execute("SET synchronous_commit = off")
        await db.execute("UPDATE bandit_replica SET seen = seen - interval '1 h'")
        assert await one.close_silent(60.0) == 2
        assert await other.lead("keeper", None, 60.0) is not None


async def test_two_failovers_in_a_row_lose_nothing_acknowledged() -> None:
    """The second one is to a server in the place of the first, which copied the promoted one."""
    shared_log.wanted()
    with with_standby() as (first, second):
        address = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
        dsn = first.dsn.replace(f"127.0.0.1:{first.port}", address)
        log = PostgresLog(f"{dsn}?target_session_attrs=read-write", "twice", timeout_s=10.0)
        await log.connect()
        await log.join("one", "key")
        assert await log.append(_entries(1, 3), 0.0) == 3
        first.kill()
        second.promote()
        await _back(log)
        assert await log.append(_entries(4, 6), 0.0) == 6
        with of_servers() as directory:
            third = Standby(directory / "third", second, first.port)
            try:
                second.set("synchronous_standby_names", "*")
                assert await log.append(_entries(7, 9), 0.0) == 9
                second.kill()
                third.promote()
                await _back(log)
                assert await log.append(_entries(10, 10), 0.0) == 10
                found = [each.record.eid for each in await log.tail(Offset(0))]
                assert found == [each.record.eid for each in _entries(1, 10)]
                await log.close()
            finally:
                third.stop()


async def _back(log: PostgresLog) -> None:
    """Connected to whoever takes writes, as a replica does that lost its connection."""
    async with asyncio.timeout(60):
        while True:
            with suppress(StoreError):
                await log.connect()
                await log.join("one", "key")
                return
            await asyncio.sleep(0.05)


async def test_an_old_primary_whose_standby_was_promoted_leads_to_the_new_one(
    server: Postgres,
) -> None:
    """It takes connections, also ones that write; and no commit."""
    with running() as promoted:
        secret = promoted.dsn.partition("@")[0].rpartition(":")[2]
        for each in (server, promoted):
            log = PostgresLog(each.dsn, "old")
            await log.connect()
            await log._writing.execute(f"CREATE ROLE twin SUPERUSER LOGIN PASSWORD '{secret}'")
            await log.close()
        hosts = f"127.0.0.1:{server.port},127.0.0.1:{promoted.port}"
        dsn = f"postgresql://twin:{secret}@{hosts}/postgres?target_session_attrs=read-write"
        async with shared_log.standby_away(server):
            log = PostgresLog(dsn, "old", timeout_s=2.0)
            await log.connect()
            await log.join("one", "key")
            assert await log.append(_entries(1, 1), 0.0) == 1
            await log.close()
