"""A `SharedLog` in PostgreSQL 14 or newer, by asyncpg. See docs/adr/0017.

The head is a row: its lock orders the appends of all processes, and it is held for one statement.
Durable is what a flushed commit after it covers; `tail` gives nothing beyond that.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from store import _postgres_snapshots as shared_snapshots
from store import _postgres_sql as sql
from store._format import check_record
from store._postgres_hosts import Host, hosts_of
from store._protocols import Offset, Record
from store._shared import (
    NO_MARK,
    Entry,
    Fenced,
    Lease,
    LogState,
    Mark,
    Membership,
    OtherKey,
    Outdated,
    Replica,
    Starting,
    Tailed,
    Unfit,
    Unsure,
)
from store.errors import Corrupt, Duplicate, StoreError, Trimmed

_OLDEST = 14
_GONE = timedelta(days=1)
_GRACE_S = 0.5
_AT_ONCE, _VACUUM_S = 5000, 600.0
T = TypeVar("T")


class PostgresLog:
    """One named log of a database. Two calls at a time at most wait for each other: an append has
    a connection of its own, and so have all other calls.

    timeout_s: of every call; the connection of one that takes longer is cut off. alive_s: a replica
    that was silent for less is there. lost_after_s: what a replica that was closed may still bring
    is waited for so long.
    """

    def __init__(
        self,
        dsn: str,
        name: str = "main",
        *,
        timeout_s: float = 3.0,
        alive_s: float = 5.0,
        lost_after_s: float = 600.0,
    ) -> None:
        self.name = name
        self.member = Membership(0, 0, 0.0)
        self._hosts = hosts_of(dsn)  # the one that was reached last is the first
        self._timeout_s = timeout_s
        self._alive = timedelta(seconds=alive_s)
        self._lost_after = timedelta(seconds=lost_after_s)
        self._writing: Any = None
        self._reading: Any = None
        self._write_lock, self._read_lock = asyncio.Lock(), asyncio.Lock()

    async def connect(self) -> None:
        """Connect, and make the tables where there are none. Unsure, Starting where a host says
        that it takes connections later, or Unfit for a database that cannot hold them.

        It ends with a flushed commit. So what is read from here on is durable by the rules of the
        database, also where it was restarted while it waited for a standby. A host that cannot do
        it is no place to stay at, and the next one is asked: an old primary whose standby was
        promoted takes connections, and no commit.
        """
        told, hosts, kind = list[str](), self._hosts, Unsure
        for i, host in enumerate(hosts):
            self._drop()
            try:
                await self._connect_to(host)
            except Unsure as error:
                if len(hosts) == 1:
                    raise
                told.append(f"{host.name}: {error}")
                kind = Starting if isinstance(error, Starting) else kind
            else:
                self._hosts = [*hosts[i:], *hosts[:i]]
                return
        raise kind("; ".join(told))

    async def _connect_to(self, host: Host) -> None:
        """Both connections to one host: two may be two databases after a failover."""
        share_s = self._timeout_s / len(self._hosts)
        async with self._told():
            self._writing = await self._connection(host, share_s)
            self._reading = await self._connection(host, share_s)
            await self._bounded(self._writing, self._prepare_schema(self._writing))
            await self._bounded(self._writing, self._writing.execute(sql.FLUSH))

    async def join(self, name: str, key: str, reads: int = 1) -> Membership:
        """Take the slot of this name, or a free one, under a new epoch."""
        async with self._write_lock:
            row = await self._row(
                self._writing,
                "CALL bandit_join(NULL::int, NULL::bigint, NULL::float8, NULL::text, "
                "$1, $2, $3, $4, $5, $6)",
                self.name,
                name,
                key,
                self._alive,
                _GONE,
                reads,
            )
            if row["other"] is not None:
                raise OtherKey(row["other"])
            self.member = Membership(row["slot"], row["epoch"], row["settled"])
        return self.member

    async def append(
        self, entries: Sequence[Entry], settled: float, lease: Lease | None = None
    ) -> Offset:
        """One call of `bandit_put`."""
        for each in entries:
            check_record(each.record)
        return await self._append(entries, settled, lease)

    async def append_copied(self, records: Sequence[Record]) -> Offset:
        """The same."""
        return await self._append([Entry(each) for each in records], 0.0, None)

    async def begin_after(self, offset: Offset) -> None:
        """One statement."""
        async with self._write_lock:
            await self._rows(self._writing, sql.BEGIN_AFTER, self.name, int(offset))

    async def _append(
        self, entries: Sequence[Entry], settled: float, lease: Lease | None
    ) -> Offset:
        ids: set[str] = set()
        for each in entries:
            if each.record.eid in ids:
                raise Duplicate(each.record.eid)
            ids.add(each.record.eid)
        if not entries:
            return Offset((await self.state()).head)
        records = [each.record for each in entries]
        subjects = [each.subject or None for each in entries]
        seens = [each.seen for each in entries]
        async with self._write_lock:
            try:
                row = await self._row(
                    self._writing,
                    "CALL bandit_put(NULL::bigint, $1, $2, $3, $4, $5, $6, $7::bytea[], "
                    "$8::float8[], $9::text[], $10::bytea[], $11::bytea[], $12::bigint[], "
                    "$13::bigint[], $14::bytea[])",
                    self.name,
                    self.member.slot,
                    self.member.epoch,
                    "" if lease is None else lease.role,
                    0 if lease is None else lease.epoch,
                    settled,
                    [each.eid.encode() for each in records],
                    [each.ts for each in records],
                    [each.kind for each in records],
                    [each.owner.encode() for each in records],
                    subjects,
                    seens,
                    [zlib.crc32(each.body) for each in records],
                    [each.body for each in records],
                )
            except _Conflict:
                rows = await self._rows(self._writing, sql.CONFLICTS, self.name, subjects, seens)
                raise Outdated({i - 1: Offset(seq) for i, seq in rows if seq is not None}) from None
            except _NotUnique:
                known = await self._find(self._writing, [each.eid for each in records])
                raise Duplicate(next(iter(known), records[0].eid)) from None
        return Offset(row["s"])

    async def beat(self, settled: float, applied: int, mark: Mark = NO_MARK) -> None:
        """One call of `bandit_beat`. Fenced where this replica was closed."""
        member = self.member
        async with self._read_lock:
            row = await self._row(
                self._reading,
                "CALL bandit_beat(NULL::boolean, $1, $2, $3, $4, $5, $6, $7)",
                self.name,
                member.slot,
                member.epoch,
                settled,
                applied,
                mark.offset,
                mark.digest,
            )
        if not row["ok"]:
            raise Fenced("this replica was silent for too long and was closed")

    async def tail(self, after: Offset, most: int = 512) -> list[Tailed]:
        """At least one whole append, if any is durable, even if that is more than `most`."""
        while True:
            async with self._read_lock:
                rows = await self._rows(self._reading, sql.TAIL, self.name, int(after), most)
            while rows and rows[-1]["chain"] is None:
                rows.pop()
            if rows and rows[0]["seq"] > after + 1:
                await self._refuse_trimmed(int(after))
            if rows or most >= 1 << 20:
                return _checked(int(after), rows)
            async with self._read_lock:
                more = await self._rows(self._reading, sql.TAIL, self.name, int(after), 1)
            if not more:
                return []
            most *= 4

    async def _refuse_trimmed(self, after: int) -> None:
        async with self._read_lock:
            [row] = await self._rows(self._reading, sql.BASE, self.name)
        if row["base"] > after:
            raise Trimmed(after, row["base"] + 1)

    async def find(self, eids: Sequence[str]) -> dict[str, Offset]:
        """By the index of ids."""
        async with self._read_lock:
            return await self._find(self._reading, eids)

    async def state(self) -> LogState:
        """One query."""
        async with self._read_lock:
            row = await self._row(self._reading, sql.STATE, self.name, self._lost_after)
        return LogState(row["head"], row["horizon"], row["settled"], row["now"], row["base"])

    async def replicas(self) -> list[Replica]:
        """One query."""
        async with self._read_lock:
            rows = await self._rows(self._reading, sql.REPLICAS, self.name)
        return [
            Replica(
                slot=row["id"],
                name=row["name"],
                epoch=row["epoch"],
                applied=row["applied"],
                durable=row["durable"],
                settled=row["settled"],
                unseen_s=row["unseen"],
                closed=row["closed_at"] is not None,
                key=row["key"],
                roles=tuple(row["roles"]),
                mark=Mark(row["digest_at"], row["digest"]),
                reads=row["reads"],
            )
            for row in rows
        ]

    async def chain_at(self, offset: Offset) -> bytes:
        """Of the row that has this offset."""
        async with self._read_lock:
            rows = await self._rows(self._reading, sql.CHAIN_AT, self.name, int(offset))
        return rows[0]["chain"] or b"" if rows else b""

    async def lead(self, role: str, held: Lease | None, ttl_s: float) -> Lease | None:
        """One call of `bandit_lead`."""
        async with self._read_lock:
            row = await self._row(
                self._reading,
                "CALL bandit_lead(NULL::bigint, $1, $2, $3, $4, $5)",
                self.name,
                role,
                self.member.slot,
                0 if held is None else held.epoch,
                timedelta(seconds=ttl_s),
            )
        return None if row["got"] is None else Lease(role, row["got"])

    async def close_silent(self, ttl_s: float) -> int:
        """One call of `bandit_close_stale`."""
        async with self._read_lock:
            row = await self._row(
                self._reading,
                "CALL bandit_close_stale(NULL::int, $1, $2)",
                self.name,
                timedelta(seconds=ttl_s),
            )
        return int(row["n"])

    async def save_snapshot(self, key: str, at: Offset, state: bytes, keep: int) -> None:
        """In one transaction on a connection of its own."""
        async with self._apart() as ask:
            stored = await shared_snapshots.save(ask, self.name, key, at, state, keep)
        if not stored:
            await self._vacuum("bandit_blob")

    async def newest_snapshot(
        self, key: str, after: Offset, upto: Offset
    ) -> tuple[Offset, bytes] | None:
        """In one transaction on a connection of its own."""
        async with self._apart() as ask:
            return await shared_snapshots.newest(ask, self.name, key, after, upto)

    async def snapshots(self) -> list[tuple[str, Offset]]:
        """One query."""
        async with self._read_lock:
            rows = await self._rows(self._reading, shared_snapshots.ALL, self.name)
        return [(row["key"], Offset(row["seq"])) for row in rows]

    async def trim(self, upto: Offset) -> None:
        """By statements of some thousand records each, on a connection of its own.

        The new beginning comes first: a reader between the two is told of it. It is not flushed
        there, since that would hold the head; the first deletion flushes it.
        """
        async with self._apart() as ask:
            await ask("SET synchronous_commit = off")
            await ask(sql.SET_BASE, self.name, int(upto))
            await ask("SET synchronous_commit = on")
            # asked once: what was deleted is skipped slowly until a VACUUM
            oldest = await ask(sql.OLDEST, self.name)
            for first in range(oldest[0]["seq"] if oldest else int(upto) + 1, upto + 1, _AT_ONCE):
                last = min(int(upto), first + _AT_ONCE - 1)
                await ask(sql.TRIM, self.name, first, last)

    @property
    def cannot_erase(self) -> str:
        """It always can."""
        return ""

    async def forget(self, owners: Sequence[str], upto: Offset) -> int:
        """By statements of some thousand records each, then a VACUUM, so that none is left to be
        read in the tables. On a connection of its own.
        """
        if not all(owners):
            raise ValueError("owners: none must be empty")
        encoded = [owner.encode() for owner in owners]
        erased = 0
        async with self._apart() as ask:
            await ask("SET synchronous_commit = on")
            for first in range(1, int(upto) + 1, _AT_ONCE):
                last = min(int(upto), first + _AT_ONCE - 1)
                rows = await ask(sql.FORGET, self.name, first, last, encoded)
                erased += rows[0]["n"]
        await self._vacuum("bandit_log")
        return erased

    async def forget_snapshots(self, before: Offset) -> None:
        """In one transaction on a connection of its own; then a VACUUM."""
        async with self._apart() as ask:
            await shared_snapshots.forget(ask, self.name, before)
        await self._vacuum("bandit_blob")

    async def _vacuum(self, table: str) -> None:
        async with self._told():
            db = await self._connection(self._hosts[0], self._timeout_s)
            try:
                await db.execute(f"VACUUM {table}", timeout=_VACUUM_S)
            finally:
                db.terminate()

    async def leave(self) -> None:
        """One call of `bandit_leave`."""
        leave, member = "CALL bandit_leave($1, $2, $3)", self.member
        async with self._write_lock:
            await self._rows(self._writing, leave, self.name, member.slot, member.epoch)

    async def close(self) -> None:
        """Close both connections; what is under way on them fails."""
        self._drop()
        await asyncio.sleep(0)  # until the sockets are closed, too

    # --- inside ---------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _apart(self) -> AsyncIterator[shared_snapshots.Ask]:
        """A connection for what is large, so that nothing waits for it."""
        async with self._told():
            db = await self._connection(self._hosts[0], self._timeout_s)
        try:
            yield partial(self._rows, db)
        finally:
            db.terminate()

    async def _row(self, db: Any, statement: str, *given: Any) -> Any:
        return (await self._rows(db, statement, *given))[0]

    async def _rows(self, db: Any, statement: str, *given: Any) -> list[Any]:
        async with self._told():
            return await self._bounded(db, db.fetch(statement, *given))

    async def _bounded(self, db: Any, work: Coroutine[Any, Any, T]) -> T:
        """What comes of it within `timeout_s`; the connection is cut off where nothing does.

        It is never cancelled. A commit that waits for a standby and is told to wait no more counts
        at once, on this server alone; one whose client has gone waits on.
        """
        loop, running, late = asyncio.get_running_loop(), asyncio.ensure_future(work), False

        def cut_off() -> None:
            nonlocal late
            late = True
            db.terminate()

        timer = loop.call_later(self._timeout_s, cut_off)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            running.add_done_callback(_retrieved)
            try:  # most end by themselves, and others go on with this connection
                await asyncio.wait([running], timeout=_GRACE_S)
            finally:
                if not running.done():
                    db.terminate()
            raise
        except Exception as error:
            if late:
                raise Unsure(f"it did not answer within {self._timeout_s:g} s") from error
            raise
        finally:
            timer.cancel()

    def _drop(self) -> None:
        for one in (self._writing, self._reading):
            if one is not None:
                one.terminate()
        self._writing = self._reading = None

    async def _connection(self, host: Host, timeout_s: float) -> Any:
        import asyncpg

        try:
            return await asyncpg.connect(
                host.dsn,
                timeout=timeout_s,
                server_settings={
                    "application_name": "bandit-service",
                    "statement_timeout": "0",  # it would cancel a commit that waits for a standby
                    "lock_timeout": str(int(self._timeout_s * 1000)),
                    "idle_in_transaction_session_timeout": str(int(self._timeout_s * 1000)),
                },
            )
        except ValueError:  # whose message repeats a part of the address, maybe of its password
            raise Unfit(
                "the address of the database cannot be read; what is special in its user and its "
                "password must be percent-encoded"
            ) from None

    async def _prepare_schema(self, db: Any) -> None:
        if db.get_server_version().major < _OLDEST:
            raise Unfit(
                f"the database is PostgreSQL {db.get_server_version().major}; "
                f"{_OLDEST} or newer is needed"
            )
        await make(db, sql.THERE, sql.SCHEMA)
        found = await db.fetchval("SELECT version FROM bandit_schema")
        if found != sql.VERSION:
            raise Unfit(
                f"the tables in the database have version {found}, this program knows "
                f"{sql.VERSION}; use the program that made them"
            )
        # a release before has others
        await make(db, sql.JOIN_THERE, (sql.READS_TABLE, sql.JOIN))
        await make(db, sql.BASE_THERE, (sql.BASE_COLUMN, sql.PUT))

    async def _find(self, db: Any, eids: Sequence[str]) -> dict[str, Offset]:
        rows = await self._rows(db, sql.FIND, self.name, [each.encode() for each in eids])
        return {bytes(row["eid"]).decode(): Offset(row["seq"]) for row in rows}

    @contextlib.asynccontextmanager
    async def _told(self) -> AsyncIterator[None]:
        """Errors of the database become ours. A driver raises many kinds when a connection dies
        under it, so whatever is not known to have changed nothing is Unsure.
        """
        try:
            yield
        except (StoreError, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - see above
            raise _ours(error) from None


async def make(db: Any, there: str, statements: Sequence[str]) -> None:
    """Make what is not `there`."""
    if await db.fetchval(there) is None:
        async with db.transaction():
            await db.execute("SELECT pg_advisory_xact_lock(7246533)")  # two that start at once
            if await db.fetchval(there) is None:
                for statement in statements:
                    await db.execute(statement)


def _retrieved(task: asyncio.Future[Any]) -> None:
    """Its error is nobody's any more."""
    if not task.cancelled():
        task.exception()


class _Conflict(StoreError):
    """A subject has a newer record."""


class _NotUnique(StoreError):
    """An id is there."""


def _ours(error: Exception) -> StoreError:
    match getattr(error, "sqlstate", None):
        case sql.FENCED:
            return Fenced("this replica was closed, or its role is another's now")
        case sql.CONFLICT:
            return _Conflict("conflict")
        case "23505":
            return _NotUnique("not unique")
        case "42501":
            return Unfit(f"the database refuses it: {error}")
        case "28P01" | "28000" | "3D000":
            return Unfit(f"the database lets nobody in by this DSN: {error}")
        case "55P03":
            return Unsure("it waits for another call, which maybe waits for a standby")
        case state:
            what = f" ({state})" if state else ""
            kind = Starting if state == "57P03" else Unsure
            return kind(f"the database did not do it: {type(error).__name__}: {error}{what}")


def _checked(after: int, rows: Sequence[Any]) -> list[Tailed]:
    found = []
    for row in rows:
        after += 1
        body = bytes(row["body"])
        if row["seq"] != after:
            raise Corrupt(after, "it is missing in the database")
        if body and zlib.crc32(body) != row["crc"]:  # an erased one has none
            raise Corrupt(after, "its checksum in the database does not match")
        eid, owner = bytes(row["eid"]).decode(), bytes(row["owner"]).decode()
        record = Record(eid, row["kind"], row["ts"], body, owner)
        found.append(Tailed(Offset(after), record, row["chain"] or b""))
    return found
