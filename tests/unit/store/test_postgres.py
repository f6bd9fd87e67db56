"""The log in PostgreSQL: what every log must do, and what several writers of one add."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bandit_service.testing.logs import LogSuite
from loadtest.postgres import Postgres
from store import (
    Corrupt,
    Duplicate,
    Entry,
    EventLog,
    Offset,
    Outdated,
    Record,
    Starting,
    Trimmed,
    Unfit,
    Unsure,
)
from store import _postgres_sql as sql
from store import postgres as postgres_log
from store._postgres_hosts import Host, hosts_of
from store._postgres_snapshots import newest, save
from store.postgres import PostgresLog
from tests.shared_log import Synchronous
from tests.unit.store.shared_suite import SharedSuite, all_of, entries

Joined = Callable[..., Awaitable[PostgresLog]]


class TestPostgresLog(LogSuite):
    durable = True
    dsn = ""

    @pytest.fixture(autouse=True)
    def _server(self, postgres: Postgres) -> None:
        type(self).dsn = postgres.dsn

    def make(self, path: Path) -> EventLog:
        return Synchronous(PostgresLog(self.dsn, str(path)))


class TestSharedPostgres(SharedSuite):
    """By the fixture `joined` below."""


@pytest.fixture
async def joined(postgres: Postgres, tmp_path: Path) -> AsyncIterator[Joined]:
    """Opens replicas of this test's log."""
    logs: list[PostgresLog] = []

    async def joining(name: str, key: str = "key", log: str = "") -> PostgresLog:
        opened = PostgresLog(postgres.dsn, f"{tmp_path}{log}")
        logs.append(opened)
        await opened.connect()
        await opened.join(name, key)
        return opened

    yield joining
    for log in logs:
        await log.close()


async def test_nobody_reads_what_is_not_durable_and_a_beat_settles_it(joined: Joined) -> None:
    one, other = await joined("one"), await joined("other")
    await one.append(entries(1, 3), 0.0)
    # as an append leaves it whose process was killed before it was settled
    await one._writing.execute("UPDATE bandit_replica SET durable = 1 WHERE log = $1", one.name)
    await one._writing.execute(
        "UPDATE bandit_log SET chain = 'x' WHERE log = $1 AND seq = 1", one.name
    )
    assert [each.offset for each in await other.tail(Offset(0))] == [1]
    await other.beat(0.0, 1)
    assert [each.offset for each in await other.tail(Offset(0))] == [1, 2, 3]


async def test_a_snapshot_that_is_deleted_leaves_no_blob(joined: Joined) -> None:
    log = await joined("one")
    for at in range(1, 6):
        await log.save_snapshot("key", Offset(at), bytes([at]) * ((1 << 20) + at), 3)
    await log.save_snapshot("other", Offset(9), b"another", 3)
    of_these = (
        "SELECT count(*) FROM bandit_blob b JOIN bandit_snapshot s USING (hash) WHERE log = $1"
    )
    assert await log._writing.fetchval(of_these, log.name) == 3 * 2 + 1
    orphans = (
        "SELECT count(*) FROM bandit_blob WHERE hash NOT IN (SELECT hash FROM bandit_snapshot)"
    )
    assert await log._writing.fetchval(orphans) == 0


async def test_snapshots_of_other_keys_are_deleted_after_a_day(joined: Joined) -> None:
    log = await joined("one")
    another = PostgresLog(log._hosts[0].dsn, f"{log.name}-another")
    await another.connect()
    for key in ("old", "recent"):
        await log.save_snapshot(key, Offset(1), f"{key} {log.name}".encode(), 3)
    await another.save_snapshot("old", Offset(1), another.name.encode(), 3)
    aged = "UPDATE bandit_snapshot SET made = made - interval '25 h' WHERE key = 'old'"
    await log._writing.execute(aged)
    await log.save_snapshot("key", Offset(2), log.name.encode(), 3)
    found = {
        key: await log.newest_snapshot(key, Offset(0), Offset(9)) is not None
        for key in ("old", "recent", "key")
    }
    assert found == {"old": False, "recent": True, "key": True}
    assert await another.newest_snapshot("old", Offset(0), Offset(9)) is not None
    parts = "SELECT count(*) FROM bandit_blob WHERE body = $1"
    assert await log._writing.fetchval(parts, f"old {log.name}".encode()) == 0
    await another.close()


async def test_a_snapshot_that_is_deleted_while_it_is_read_is_read_whole(joined: Joined) -> None:
    reads, saves = await joined("reads"), await joined("saves")
    state = bytes(3 << 20)
    await saves.save_snapshot("key", Offset(1), state, 1)
    async with reads._apart() as ask:

        async def meanwhile(statement: str, *given: Any) -> list[Any]:
            rows = await ask(statement, *given)
            if given[:2] == (reads.name, "key"):
                await saves.save_snapshot("key", Offset(2), b"newer", 1)
            return rows

        found = await newest(meanwhile, reads.name, "key", Offset(0), Offset(9))
    assert found == (1, state)
    assert await reads.newest_snapshot("key", Offset(0), Offset(9)) == (2, b"newer")


async def test_a_damaged_snapshot_is_told(joined: Joined) -> None:
    log = await joined("one")
    await log.save_snapshot("key", Offset(7), b"a state", 3)
    turned = "UPDATE bandit_blob SET body = set_byte(body, 2, 0) WHERE body = 'a state'"
    await log._writing.execute(turned)
    with pytest.raises(Corrupt, match="not as it was put there"):
        await log.newest_snapshot("key", Offset(0), Offset(7))
    await log._writing.execute("DELETE FROM bandit_blob WHERE length(body) = 7")
    with pytest.raises(Corrupt, match="not as it was put there"):
        await log.newest_snapshot("key", Offset(0), Offset(7))


async def test_a_client_that_stands_still_holds_nobody_up(joined: Joined) -> None:
    """Its call is under way, and its connection is not read from."""
    one, other = await joined("one"), await joined("other")
    big = [Entry(Record(f"big{i}", "decision", 1.0, b"x" * 200_000)) for i in range(20)]
    transport = one._writing._transport
    transport.pause_reading()
    standing = asyncio.create_task(one.append(big, 0.0))
    await asyncio.sleep(0.1)
    await other.append(entries(1, 1), 0.0)
    assert not standing.done()
    transport.resume_reading()
    await standing


async def test_who_leaves_in_the_middle_cuts_nobody_off(joined: Joined) -> None:
    """A client of GET /v1/replicas that goes does not take the log from its replica."""
    log = await joined("one")
    await log.append(entries(1, 2), 0.0)
    for work in (log.replicas(), log.append(entries(3, 4), 0.0), log.tail(Offset(0))):
        under_way = asyncio.ensure_future(work)
        while not log._write_lock.locked() and not log._read_lock.locked():
            await asyncio.sleep(0)
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
    assert len(await log.replicas()) == 1
    assert [each.offset for each in await all_of(log)] == [1, 2, 3, 4]
    assert await log.append(entries(5, 5), 0.0) == 5


async def test_what_cannot_be_reached_or_entered_is_told(postgres: Postgres) -> None:
    nowhere = PostgresLog("postgresql://bandit:x@127.0.0.1:9/postgres")
    with pytest.raises(Unsure, match="ConnectionRefused"):
        await nowhere.connect()
    wrong = PostgresLog(postgres.dsn.replace("bandit:", "bandit:not"))
    with pytest.raises(Unfit, match="lets nobody in"):
        await wrong.connect()
    odd = PostgresLog("postgresql://bandit:top/secret@127.0.0.1:9/postgres")
    with pytest.raises(Unfit, match="must be percent-encoded") as refused:
        await odd.connect()
    assert "top" not in str(refused.value)


async def test_a_role_without_rights_and_an_old_server_are_told(
    joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await joined("one")
    await log._writing.execute(
        "DO $$ BEGIN CREATE ROLE guest LOGIN PASSWORD 'guest'; "
        "EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    )
    dsn = log._hosts[0].dsn
    guest = PostgresLog(f"postgresql://guest:guest@{dsn.rpartition('@')[2]}", log.name)
    with pytest.raises(Unfit, match="refuses it: permission denied for table bandit_"):
        await guest.connect()
    await guest.close()
    monkeypatch.setattr(postgres_log, "_OLDEST", 99)
    old = PostgresLog(dsn, log.name)
    with pytest.raises(Unfit, match=r"the database is PostgreSQL \d+; 99 or newer is needed"):
        await old.connect()
    await old.close()


@asynccontextmanager
async def _host(answers: bytes | None) -> AsyncIterator[str]:
    """One that takes connections, and answers the first message in plain text so, or never."""

    async def serve(reads: asyncio.StreamReader, writes: asyncio.StreamWriter) -> None:
        while answers is not None:
            length = int.from_bytes(await reads.readexactly(4), "big")
            body = await reads.readexactly(length - 4)
            if int.from_bytes(body[:4], "big") == _ASKS_FOR_TLS:
                writes.write(b"N")
                continue
            writes.write(b"E" + (len(answers) + 4).to_bytes(4, "big") + answers)
            break
        if answers is None:
            await reads.read()
        writes.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield "{}:{}".format(*server.sockets[0].getsockname())


_ASKS_FOR_TLS = 80877103
_STARTING = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"
_NO_ENTRY = b"SFATAL\0VFATAL\0C28000\0Mno entry for this host\0\0"


@pytest.mark.parametrize("answers", [None, _STARTING], ids=["silent", "starting"])
async def test_a_host_that_does_not_answer_or_is_not_ready_leads_to_the_next(
    postgres: Postgres, answers: bytes | None
) -> None:
    async with _host(answers) as first:
        dsn = postgres.dsn.replace("@", f"@{first},")
        log = PostgresLog(f"{dsn}?target_session_attrs=read-write", timeout_s=2.0)
        await log.connect()
        await log.join("one", "key")
        assert (await log.state()).head >= 0
        await log.save_snapshot("hosts", Offset(1), b"a state", 1)
        await log.connect()  # the host that was reached last is asked first
        assert log._hosts[0].dsn.partition("?")[0] == postgres.dsn
        await log.close()


async def test_a_host_that_lets_nobody_in_is_told_and_no_other_is_asked(
    postgres: Postgres,
) -> None:
    async with _host(_NO_ENTRY) as first:
        log = PostgresLog(postgres.dsn.replace("@", f"@{first},"), timeout_s=2.0)
        with pytest.raises(Unfit, match="no entry for this host"):
            await log.connect()


async def test_where_no_host_can_be_reached_each_is_told() -> None:
    async with _host(_STARTING) as one:
        log = PostgresLog(f"postgresql://bandit:x@{one},127.0.0.1:9/postgres", timeout_s=2.0)
        with pytest.raises(Starting, match=rf"{one}: .*starting up.*; 127.0.0.1:9: .*Refused"):
            await log.connect()


async def test_a_host_that_says_that_it_is_starting_is_no_host_that_is_away() -> None:
    async with _host(_STARTING) as one:
        log = PostgresLog(f"postgresql://bandit:x@{one}/postgres", timeout_s=2.0)
        with pytest.raises(Starting, match="starting up"):
            await log.connect()
    log = PostgresLog("postgresql://bandit:x@127.0.0.1:9/postgres", timeout_s=2.0)
    with pytest.raises(Unsure) as away:
        await log.connect()
    assert not isinstance(away.value, Starting)


def test_each_host_of_an_address_has_an_address_of_its_own() -> None:
    many = "postgresql://u:p%2C@a:1,b,[::1]:3/db?target_session_attrs=read-write"
    assert [(each.name, each.dsn) for each in hosts_of(many)] == [
        (name, f"postgresql://u:p%2C@{name}/db?target_session_attrs=read-write")
        for name in ("a:1", "b", "[::1]:3")
    ]
    named = "postgresql:///db?host=a,/run/pg&port=1,2&user=u"
    assert [each.dsn for each in hosts_of(named)] == [
        "postgresql:///db?host=a&port=1&user=u",
        "postgresql:///db?host=%2Frun%2Fpg&port=2&user=u",
    ]
    for one in ("postgresql://u@a/db", "postgresql:///db", "postgresql://[a/db", "", "a,b"):
        assert hosts_of(one) == [Host("", one)]


async def test_replicas_that_start_at_once_make_the_tables_once(postgres: Postgres) -> None:
    first = PostgresLog(postgres.dsn)
    await first.connect()
    await first._writing.execute("DROP SCHEMA IF EXISTS twice CASCADE; CREATE SCHEMA twice")
    await first.close()
    logs = [PostgresLog(f"{postgres.dsn}?options=-csearch_path%3Dtwice") for _ in range(4)]
    await asyncio.gather(*(log.connect() for log in logs))
    await asyncio.gather(*(log.join(f"r{i}", "key") for i, log in enumerate(logs)))
    assert sorted(log.member.slot for log in logs) == [1, 2, 3, 4]
    await logs[0]._writing.execute("UPDATE bandit_schema SET version = 99")
    with pytest.raises(Unfit, match="have version 99, this program knows 2"):
        await logs[1].connect()
    for log in logs:
        await log.close()


async def test_a_schema_that_a_release_before_made_is_added_to(joined: Joined) -> None:
    """That release said apart what it reads, or said nothing; both can join."""
    one = await joined("one")
    before = "slot int, INOUT epoch bigint, INOUT settled float8, INOUT other text"
    async with one._apart() as ask:
        await ask("DROP PROCEDURE bandit_join")
        await ask("DROP TABLE bandit_reads")
        await ask(
            f"CREATE PROCEDURE bandit_join(INOUT {before}, l text, n text, k text, "
            "alive interval, gone interval) LANGUAGE plpgsql AS $$ BEGIN slot := 7; END $$"
        )
        new = await joined("new")
        await new.join("new", "key", 2)
        assert {each.name: each.reads for each in await one.replicas()} == {"one": 1, "new": 2}
        nulls = "NULL::int, NULL::bigint, NULL::float8, NULL::text"
        values = f"{nulls}, 'log', 'old', 'key', '1 h', '1 d'"
        assert (await ask(f"CALL bandit_join({values})"))[0]["slot"] == 7


async def test_a_trim_that_was_cut_off_is_continued(
    joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.postgres._AT_ONCE", 3)
    log, left = await joined("one"), [2]
    await log.append(entries(1, 20), 0.0)
    rows = PostgresLog._rows

    async def stops(self: PostgresLog, db: Any, statement: str, *given: Any) -> list[Any]:
        if statement == sql.TRIM:
            if not left[0]:
                raise Unsure("no answer: planted")
            left[0] -= 1
        return await rows(self, db, statement, *given)

    with monkeypatch.context() as patched:
        patched.setattr(PostgresLog, "_rows", stops)
        with pytest.raises(Unsure, match="planted"):
            await log.trim(Offset(13))
    assert (await log.state()).base == 13
    with pytest.raises(Trimmed):
        await log.tail(Offset(0))
    there = "SELECT count(*) FROM bandit_log WHERE log = $1"
    assert await log._writing.fetchval(there, log.name) == 14
    await log.trim(Offset(13))
    assert await log._writing.fetchval(there, log.name) == 7
    assert [int(each.offset) for each in await log.tail(Offset(13))] == list(range(14, 21))


async def test_tables_of_a_release_before_that_trimmed_nothing_are_added_to(
    joined: Joined,
) -> None:
    one = await joined("one")
    await one.append(entries(1, 3), 0.0)
    async with one._apart() as ask:
        await ask("ALTER TABLE bandit_head DROP COLUMN base")
        await ask("DROP PROCEDURE bandit_put")
        old = sql.PUT.replace(", base INTO s, c, gone", " INTO s, c")
        await ask(old.replace("CREATE OR REPLACE", "CREATE"))
        new = await joined("new")
        assert (await new.state()).base == 0
        assert await one.append(entries(4, 4), 0.0) == 4  # which is still connected
        await new.trim(Offset(2))
        with pytest.raises(Outdated):
            await one.append(entries(5, 5, "subject", seen=1), 0.0)
        assert (await one.state()).base == 2


async def test_an_owner_is_erased_up_to_an_offset_and_its_ids_stay(
    joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.postgres._AT_ONCE", 2)
    log, other = await joined("one"), await joined("two")
    records = [
        Record(f"e{i}", "decided", 1.0, f"body {i}".encode(), "ann" if i % 2 else "bob")
        for i in range(8)
    ]
    await log.append([Entry(each) for each in records[:5]], 0.0)
    await other.append([Entry(each) for each in records[5:]], 0.0)
    chains = [each.chain for each in await log.tail(Offset(0))]
    assert await log.forget(["ann", "nobody"], Offset(6)) == 3
    assert await log.forget(["ann"], Offset(6)) == 0
    assert await log.forget(["nobody"], Offset(8)) == 0
    rows = await other.tail(Offset(0))
    assert [each.record.body for each in rows] == [
        b"" if i in (1, 3, 5) else f"body {i}".encode() for i in range(8)
    ]
    assert [(each.record.eid, each.record.owner) for each in rows] == [
        (each.eid, each.owner) for each in records
    ]
    assert [each.chain for each in rows] == chains
    assert await log.chain_at(Offset(5)) == chains[4]
    assert await log.find(["e1", "e2"]) == {"e1": 2, "e2": 3}
    with pytest.raises(Duplicate):
        await log.append([Entry(records[1])], 0.0)
    with pytest.raises(ValueError, match="owners: none must be empty"):
        await log.forget(["ann", ""], Offset(8))
    # what is left is checked as before
    await log._writing.execute(
        "UPDATE bandit_log SET body = 'else' WHERE log = $1 AND seq = 3", log.name
    )
    with pytest.raises(Corrupt, match="its checksum in the database does not match"):
        await other.tail(Offset(0))


async def test_a_snapshot_of_before_an_erasure_that_comes_late_is_never_there(
    joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A keeper that stood still has it; the next one erased a unit meanwhile."""
    late, keeper = await joined("late"), await joined("keeper")
    await keeper.save_snapshot("key", Offset(9), b"of 9", 3)
    await keeper.forget_snapshots(Offset(8))
    for key, at in (("key", 7), ("other", 3)):
        await late.save_snapshot(key, Offset(at), b"of ann", 3)
    assert await keeper.snapshots() == [("key", 9)]
    parts = "SELECT count(*) FROM bandit_blob WHERE body = 'of ann'"
    assert await keeper._writing.fetchval(parts) == 0
    for at in (8, 10):
        await late.save_snapshot("key", Offset(at), b"of %d" % at, 3)
    assert await keeper.snapshots() == [("key", 10), ("key", 9), ("key", 8)]
    await keeper._writing.execute(
        "UPDATE bandit_snapshot SET made = made - interval '25 h' WHERE log = $1", keeper.name
    )
    await keeper.save_snapshot("another", Offset(11), b"of 11", 3)  # and deletes what is old
    await late.save_snapshot("key", Offset(7), b"of ann", 3)
    assert await keeper.snapshots() == [("another", 11)]


@pytest.mark.parametrize("waits_for", ["an append of parts", "the lock"])
async def test_an_erasure_while_an_older_snapshot_is_stored_leaves_nothing_of_it(
    joined: Joined, waits_for: str
) -> None:
    late, keeper = await joined("late"), await joined("keeper")
    await keeper.save_snapshot("key", Offset(9), b"of 9", 3)
    erasing: list[asyncio.Task[None]] = []
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    async with late._apart() as ask:

        async def standing(statement: str, *given: Any) -> list[Any]:
            rows = await ask(statement, *given)
            if waits_for == "an append of parts" and "bandit_blob (hash" in statement:
                await keeper.forget_snapshots(Offset(8))
            elif waits_for == "the lock" and "RETURNING seq" in statement:
                erasing.append(asyncio.create_task(keeper.forget_snapshots(Offset(8))))
                while not erasing[0].done() and not await keeper._writing.fetchval(waiting):
                    await asyncio.sleep(0)
            return rows

        stored = await save(standing, late.name, "key", Offset(7), b"of ann and bob", 3)
    assert stored is (waits_for == "the lock")
    await asyncio.gather(*erasing)
    assert await keeper.snapshots() == [("key", 9)]
    parts = "SELECT count(*) FROM bandit_blob WHERE body = 'of ann and bob'"
    assert await keeper._writing.fetchval(parts) == 0


async def test_snapshots_of_before_an_offset_are_deleted_whatever_their_key(
    joined: Joined,
) -> None:
    log = await joined("one")
    for key, at in (("one", 3), ("one", 5), ("other", 4)):
        await log.save_snapshot(key, Offset(at), f"{log.name} {key} {at}".encode(), 9)
    await log.forget_snapshots(Offset(5))
    assert await log.newest_snapshot("one", Offset(0), Offset(4)) is None
    assert await log.newest_snapshot("other", Offset(0), Offset(9)) is None
    found = await log.newest_snapshot("one", Offset(0), Offset(9))
    assert found == (5, f"{log.name} one 5".encode())
    parts = "SELECT count(*) FROM bandit_blob WHERE position($1 IN body) > 0"
    assert await log._writing.fetchval(parts, log.name.encode()) == 1
