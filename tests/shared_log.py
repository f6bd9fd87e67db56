"""Servers for the tests, and a shared log with the synchronous face that `LogSuite` knows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from itertools import count
from typing import Any, TypeVar

from loadtest import nats, postgres
from store import START, Closed, Entry, Offset, Record, SharedLog
from tests.tools import missing, needed

T = TypeVar("T")


def wanted() -> None:
    """Skip where there is no PostgreSQL, but fail where CI is set."""
    needed("asyncpg")
    if postgres.programs() is None:
        missing(postgres.INSTALL)


def nats_wanted() -> None:
    """The same for NATS."""
    needed("nats")
    if nats.program() is None:
        missing(nats.INSTALL)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


def run(work: Coroutine[Any, Any, T]) -> T:
    """What it gives, run on a loop that outlives the call."""
    return asyncio.run_coroutine_threadsafe(work, _loop()).result(120)


class Synchronous:
    """An `EventLog` over a shared log: one replica that reads what is durable.

    most: records of one append; more are appended by several.
    """

    def __init__(self, log: SharedLog, most: int = 1 << 30) -> None:
        self._log, self._most = log, most
        self._closed = False
        run(self._log.connect())
        run(self._log.join("one", "key"))

    def append(self, records: Sequence[Record]) -> Offset:
        self._check()
        entries, last = [Entry(each) for each in records], START
        for first in range(0, max(1, len(entries)), self._most):
            last = run(self._log.append(entries[first : first + self._most], 0.0))
        return last

    def sync(self) -> Offset:
        self._check()
        run(self._log.beat(0.0, 0))
        return Offset(run(self._log.state()).horizon)

    def replay(self, after: Offset = START) -> Iterator[tuple[Offset, bytes]]:
        self._check()
        return self._replayed(after)

    def _replayed(self, after: Offset) -> Iterator[tuple[Offset, bytes]]:
        # not from within an append: a tail begins where one ended
        at = START
        while found := run(self._log.tail(at, 512)):
            for each in found:
                at = each.offset
                if at > after:
                    yield at, each.record.body

    @property
    def last(self) -> Offset:
        return Offset(run(self._log.state()).head)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            run(self._log.close())

    def _check(self) -> None:
        if self._closed:
            raise Closed


@asynccontextmanager
async def standby_away(server: postgres.Postgres) -> AsyncIterator[Any]:
    """Every flushed commit waits for a synchronous standby that is not there; a connection."""
    import asyncpg

    waiting, asking = await asyncpg.connect(server.dsn), await asyncpg.connect(server.dsn)
    await asking.execute("CREATE TABLE IF NOT EXISTS commits (n int)")
    await _standby(asking, "nobody")
    pid = waiting.get_server_pid()
    for _ in count():  # until the server heeds it
        commit = asyncio.ensure_future(waiting.execute("INSERT INTO commits VALUES (1)"))
        event = "SELECT wait_event FROM pg_stat_activity WHERE pid = $1"
        while not commit.done() and await asking.fetchval(event, pid) != "SyncRep":
            await asyncio.sleep(0.01)
        if not commit.done():
            break
    try:
        yield asking
    finally:
        await _standby(asking, "")
        await commit
        await waiting.close()
        await asking.close()


async def _standby(db: Any, name: str) -> None:
    await db.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    await db.execute("SELECT pg_reload_conf()")
