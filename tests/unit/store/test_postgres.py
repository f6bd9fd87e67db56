"""The log in PostgreSQL: what every log must do, and what several writers of one add."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bandit_service.testing.log_records import record, records
from bandit_service.testing.logs import LogSuite
from loadtest.postgres import Postgres
from store import (
    Corrupt,
    Duplicate,
    Entry,
    EventLog,
    Fenced,
    Mark,
    Offset,
    OtherKey,
    Outdated,
    Record,
    Tailed,
    Unfit,
    Unsure,
)
from store._postgres_hosts import Host, hosts_of
from store._postgres_snapshots import newest
from store.postgres import PostgresLog
from tests.shared_log import Synchronous

Joined = Callable[..., Awaitable[PostgresLog]]


class TestPostgresLog(LogSuite):
    durable = True
    dsn = ""

    @pytest.fixture(autouse=True)
    def _server(self, postgres: Postgres) -> None:
        type(self).dsn = postgres.dsn

    def make(self, path: Path) -> EventLog:
        return Synchronous(self.dsn, str(path))


@pytest.fixture
async def joined(postgres: Postgres, tmp_path: Path) -> AsyncIterator[Joined]:
    """Opens replicas of this test's log."""
    logs: list[PostgresLog] = []

    async def joining(name: str, key: str = "key") -> PostgresLog:
        log = PostgresLog(postgres.dsn, str(tmp_path))
        logs.append(log)
        await log.connect()
        await log.join(name, key)
        return log

    yield joining
    for log in logs:
        await log.close()


def _entries(first: int, last: int, subject: str = "", seen: int = 0) -> list[Entry]:
    return [Entry(each, subject.encode(), seen) for each in records(first, last)]


async def test_appends_of_several_writers_have_one_order_without_gaps(joined: Joined) -> None:
    logs = [await joined(f"r{i}") for i in range(3)]

    async def writes(log: PostgresLog, first: int) -> None:
        for i in range(20):
            await log.append(_entries(first + 5 * i, first + 5 * i + 4), 0.0)

    await asyncio.gather(*(writes(log, 1000 * i) for i, log in enumerate(logs, 1)))
    seen = [[(one.offset, one.record.eid) for one in await _all(log)] for log in logs]
    assert seen[0] == seen[1] == seen[2]
    assert [int(at) for at, _ in seen[0]] == list(range(1, 301))
    assert len({eid for _, eid in seen[0]}) == 300
    for i in range(3):  # each writer's own stand in the order in which it appended them
        own = [int(eid[1:]) for _, eid in seen[0] if eid.startswith(f"e{i + 1}")]
        assert own == sorted(own)


async def _all(log: PostgresLog) -> list[Tailed]:
    found: list[Tailed] = []
    at = Offset(0)
    while some := await log.tail(at):
        found += some
        at = some[-1].offset
    return found


async def test_a_record_that_was_checked_against_less_than_there_is_is_refused(
    joined: Joined,
) -> None:
    one, other = await joined("one"), await joined("other")
    assert await one.append(_entries(1, 2, "decision"), 0.0) == 2
    with pytest.raises(Outdated) as refused:
        await other.append([Entry(record(3)), *_entries(4, 4, "decision", seen=1)], 0.0)
    assert refused.value.newer == {1: 2}
    assert (await other.state()).head == 2
    # what was seen, and another subject, are no conflict
    assert await other.append(_entries(5, 5, "decision", seen=2), 0.0) == 3
    assert await other.append(_entries(6, 6, "another"), 0.0) == 4


async def test_nobody_reads_what_is_not_durable_and_a_beat_settles_it(joined: Joined) -> None:
    one, other = await joined("one"), await joined("other")
    await one.append(_entries(1, 3), 0.0)
    # as an append leaves it whose process was killed before it was settled
    await one._writing.execute("UPDATE bandit_replica SET durable = 1 WHERE log = $1", one.name)
    await one._writing.execute(
        "UPDATE bandit_log SET chain = 'x' WHERE log = $1 AND seq = 1", one.name
    )
    assert [each.offset for each in await other.tail(Offset(0))] == [1]
    await other.beat(0.0, 1)
    assert [each.offset for each in await other.tail(Offset(0))] == [1, 2, 3]


async def test_a_silent_replica_is_closed_and_appends_no_more_until_it_joins(
    joined: Joined,
) -> None:
    one, other = await joined("one"), await joined("other")
    assert await other.close_silent(60.0) == 0
    silent = (
        "UPDATE bandit_replica SET seen = seen - interval '1 h' WHERE log = $1 AND name = 'one'"
    )
    await other._writing.execute(silent, other.name)
    assert await other.close_silent(60.0) == 1
    with pytest.raises(Fenced):
        await one.append(_entries(1, 1), 0.0)
    with pytest.raises(Fenced):
        await one.beat(0.0, 0)
    assert (await other.state()).head == 0
    before = one.member
    await one.join("one", "key")
    assert (one.member.slot, one.member.epoch) == (before.slot, before.epoch + 1)
    assert await one.append(_entries(1, 1), 0.0) == 1


async def test_a_second_process_of_one_name_fences_the_first(joined: Joined) -> None:
    first = await joined("one")
    second = await joined("one")
    assert second.member.slot == first.member.slot
    with pytest.raises(Fenced):
        await first.append(_entries(1, 1), 0.0)
    assert await second.append(_entries(1, 1), 0.0) == 1


async def test_who_folds_otherwise_may_not_join_beside_an_open_replica(joined: Joined) -> None:
    one = await joined("one", "nested")
    with pytest.raises(OtherKey, match="nested"):
        await joined("other", "uniform")
    await one.leave()
    assert (await joined("other", "uniform")).member.slot == 2


async def test_a_lease_has_one_holder_and_its_epoch_fences_the_one_before(joined: Joined) -> None:
    one, other = await joined("one"), await joined("other")
    held = await one.lead("keeper", None, 60.0)
    assert held is not None
    assert await other.lead("keeper", None, 60.0) is None
    assert await one.lead("keeper", held, 60.0) == held
    over = "UPDATE bandit_lease SET expires = expires - interval '1 h' WHERE log = $1"
    await one._writing.execute(over, one.name)
    taken = await other.lead("keeper", None, 60.0)
    assert taken is not None
    assert taken.epoch == held.epoch + 1
    with pytest.raises(Fenced):
        await one.append(_entries(1, 1), 0.0, held)
    assert await other.append(_entries(1, 1), 0.0, taken) == 1


async def test_settled_is_that_of_the_slowest_and_not_of_who_left(joined: Joined) -> None:
    one, other = await joined("one"), await joined("other")
    await one.beat(100.0, 0)
    assert (await one.state()).settled == 0.0
    await other.beat(50.0, 0)
    assert (await one.state()).settled == 50.0
    await other.leave()
    assert (await one.state()).settled == 100.0
    assert [(each.name, each.closed) for each in await one.replicas()] == [
        ("one", False),
        ("other", True),
    ]


async def test_a_digest_is_told_to_the_others_until_its_replica_joins_again(joined: Joined) -> None:
    one, other = await joined("one"), await joined("other")
    await one.beat(0.0, 5, Mark(4, "abc"))
    assert [each.mark for each in await other.replicas()] == [Mark(4, "abc"), Mark()]
    await one.join("one", "key")
    assert [each.mark for each in await other.replicas()] == [Mark(), Mark()]


async def test_a_snapshot_is_kept_whole_and_the_newest_is_found(joined: Joined) -> None:
    log = await joined("one")
    states = {at: bytes([at]) * ((1 << 20) + at) for at in range(1, 6)}
    for at, state in states.items():
        await log.save_snapshot("key", Offset(at), state, 3)
    await log.save_snapshot("other", Offset(9), b"another", 3)
    assert await log.newest_snapshot("key", Offset(0), Offset(99)) == (5, states[5])
    assert await log.newest_snapshot("key", Offset(0), Offset(4)) == (4, states[4])
    assert await log.newest_snapshot("key", Offset(0), Offset(2)) is None  # only three are kept
    assert await log.newest_snapshot("key", Offset(5), Offset(99)) is None
    assert await log.newest_snapshot("unheard of", Offset(0), Offset(99)) is None
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


async def test_an_id_that_is_there_is_refused_and_can_be_found(joined: Joined) -> None:
    log = await joined("one")
    await log.append(_entries(1, 2), 0.0)
    with pytest.raises(Duplicate, match="'e2'"):
        await log.append(_entries(2, 3), 0.0)
    assert await log.find(["e1", "e2", "e3"]) == {"e1": 1, "e2": 2}


async def test_a_chain_tells_one_past_from_another(joined: Joined, postgres: Postgres) -> None:
    one = await joined("one")
    await one.append(_entries(1, 2), 0.0)
    await one.append(_entries(3, 3), 0.0)
    chains = [each.chain for each in await one.tail(Offset(0))]
    assert chains[0] == b""
    assert await one.chain_at(Offset(2)) == chains[1] != b""
    assert await one.chain_at(Offset(9)) == b""
    another = PostgresLog(postgres.dsn, f"{one.name}-again")
    await another.connect()
    await another.join("one", "key")
    swapped = [Entry(record(2)), Entry(record(1))]
    await another.append(swapped, 0.0)
    await another.append(_entries(3, 3), 0.0)
    assert await another.chain_at(Offset(3)) != chains[2]
    await another.close()


async def test_an_append_larger_than_a_page_is_tailed_whole(joined: Joined) -> None:
    log = await joined("one")
    await log.append(_entries(1, 30), 0.0)
    assert len(await log.tail(Offset(0), 7)) == 30
    await log.append(_entries(31, 40), 0.0)
    assert [each.offset for each in await log.tail(Offset(0), 35)] == list(range(1, 31))


async def test_a_client_that_stands_still_holds_nobody_up(joined: Joined) -> None:
    """Its call is under way, and its connection is not read from."""
    one, other = await joined("one"), await joined("other")
    big = [Entry(Record(f"big{i}", "decision", 1.0, b"x" * 200_000)) for i in range(20)]
    transport = one._writing._transport
    transport.pause_reading()
    standing = asyncio.create_task(one.append(big, 0.0))
    await asyncio.sleep(0.1)
    begun = asyncio.get_running_loop().time()
    await other.append(_entries(1, 1), 0.0)
    assert asyncio.get_running_loop().time() - begun < 2.5
    transport.resume_reading()
    await standing


async def test_who_leaves_in_the_middle_cuts_nobody_off(joined: Joined) -> None:
    """A client of GET /v1/replicas that goes does not take the log from its replica."""
    log = await joined("one")
    await log.append(_entries(1, 2), 0.0)
    for work in (log.replicas(), log.append(_entries(3, 4), 0.0), log.tail(Offset(0))):
        under_way = asyncio.ensure_future(work)
        while not log._write_lock.locked() and not log._read_lock.locked():
            await asyncio.sleep(0)
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
    assert len(await log.replicas()) == 1
    assert [each.offset for each in await _all(log)] == [1, 2, 3, 4]
    assert await log.append(_entries(5, 5), 0.0) == 5


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
        with pytest.raises(Unsure, match=rf"{one}: .*starting up.*; 127.0.0.1:9: .*Refused"):
            await log.connect()


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
