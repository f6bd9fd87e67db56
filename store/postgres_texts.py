"""Sealed texts beside a shared log in PostgreSQL, so that every replica reads them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from store._postgres_hosts import hosts_of
from store.errors import StoreError
from store.postgres import make

_THERE = "SELECT to_regclass('bandit_text')"
_SCHEMA = (
    "CREATE TABLE bandit_text (log text NOT NULL, id text NOT NULL, ts double precision NOT NULL, "
    "owner text NOT NULL, event bigint, sealed bytea NOT NULL, PRIMARY KEY (log, id))",
    "ALTER TABLE bandit_text ALTER sealed SET STORAGE EXTERNAL",  # it cannot be compressed
    "CREATE INDEX bandit_text_ts ON bandit_text (log, ts)",
    "CREATE INDEX bandit_text_owner ON bandit_text (log, owner) WHERE owner <> ''",
    "CREATE INDEX bandit_text_event ON bandit_text (log, event) WHERE event IS NOT NULL",
)
_PUT = (
    "INSERT INTO bandit_text (log, id, ts, owner, event, sealed) VALUES ($1, $2, $3, $4, $5, $6) "
    "ON CONFLICT (log, id) DO UPDATE SET sealed = excluded.sealed"
)
_REMEMBERED = "UPDATE bandit_text SET event = $3 WHERE log = $1 AND id = $2 AND event IS NULL"
_GET = "SELECT ts, sealed FROM bandit_text WHERE log = $1 AND id = $2 AND ts >= $3"
_OF_EVENTS = (
    "SELECT event, id, sealed FROM bandit_text WHERE log = $1 AND event = ANY($2) AND ts >= $3"
)
_NEWEST = (
    "SELECT id, owner, event, sealed FROM bandit_text WHERE log = $1 AND ts >= $2 "
    "ORDER BY ts DESC, id LIMIT $3"
)
_FORGET = "DELETE FROM bandit_text WHERE log = $1 AND owner = $2"
_OWNED = "SELECT id FROM bandit_text WHERE log = $1 AND owner <> '' AND ts < $2"
_DELETE = "DELETE FROM bandit_text WHERE log = $1 AND id = ANY($2)"
_OLD = "DELETE FROM bandit_text WHERE log = $1 AND ts < $2"
_MORE = (
    "DELETE FROM bandit_text WHERE log = $1 AND id IN (SELECT id FROM bandit_text "
    "WHERE log = $1 ORDER BY ts DESC, id OFFSET $2)"
)
_ALL = "DELETE FROM bandit_text WHERE log = $1"


class PostgresTexts:
    """The rows of one log, by a connection of their own, which is made where it is needed.

    Every method raises StoreError where the database cannot be used; then nothing was changed, or
    it was and the answer was lost. All of them may be called again.
    """

    def __init__(self, dsn: str, log: str, timeout_s: float) -> None:
        self._hosts = hosts_of(dsn)
        self._log, self._timeout_s = log, timeout_s
        self._db: Any = None
        self._made = False

    async def put(self, id: str, ts: float, owner: str, event: int | None, sealed: bytes) -> None:
        """Keep a row in the place of one of this id; its event stays."""
        await self._rows(_PUT, id, ts, owner, event, sealed)

    async def remembered(self, id: str, event: int) -> None:
        """The event of a row that has none."""
        await self._rows(_REMEMBERED, id, event)

    async def get(self, id: str, since: float) -> tuple[float, bytes] | None:
        """Time and text of one that is not older."""
        rows = await self._rows(_GET, id, since)
        return (rows[0]["ts"], rows[0]["sealed"]) if rows else None

    async def of_events(self, events: Sequence[int], since: float) -> list[tuple[int, str, bytes]]:
        """Event, id and text of those that are not older."""
        return [tuple(row) for row in await self._rows(_OF_EVENTS, events, since)]

    async def newest(self, most: int, since: float) -> list[tuple[str, str, int | None, bytes]]:
        """Id, owner, event and text, newest first."""
        return [tuple(row) for row in await self._rows(_NEWEST, since, most)]

    async def forget(self, owner: str) -> None:
        """Delete those of an owner."""
        await self._rows(_FORGET, owner)

    async def owned(self, before: float) -> list[str]:
        """The ids of those that have an owner and are older."""
        return [row["id"] for row in await self._rows(_OWNED, before)]

    async def delete(self, ids: Sequence[str]) -> None:
        """Delete these."""
        await self._rows(_DELETE, ids)

    async def trim(self, since: float, most: int) -> None:
        """Delete what is older, and the oldest beyond so many."""
        await self._rows(_OLD, since)
        await self._rows(_MORE, most)

    async def delete_all(self) -> None:
        """Delete all of the log, if there ever was one."""
        if await self._called("fetchval", _THERE) is not None:
            await self._called("fetch", _ALL, self._log)

    async def close(self) -> None:
        """Close the connection."""
        db, self._db = self._db, None
        if db is not None:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await db.close()
            except Exception:  # noqa: BLE001 - it may be dead in many ways
                db.terminate()

    async def _drop(self) -> None:
        """Cut off the connection, of which nobody knows what it does."""
        db, self._db = self._db, None
        if db is not None:
            db.terminate()
            await asyncio.sleep(0)

    async def _rows(self, statement: str, *arguments: Any) -> list[Any]:
        if not self._made:
            await self._called("fetchval", _THERE)
            await self._bounded(make(self._db, _THERE, _SCHEMA))
            self._made = True
        found: list[Any] = await self._called("fetch", statement, self._log, *arguments)
        return found

    async def _called(self, how: str, *arguments: Any) -> Any:
        """The answer; asked once more where the connection had died meanwhile."""
        is_new = self._db is None
        if is_new:
            await self._connect()
        try:
            return await self._bounded(getattr(self._db, how)(*arguments))
        except StoreError:
            if is_new:
                raise
        await self._connect()
        return await self._bounded(getattr(self._db, how)(*arguments))

    async def _connect(self) -> None:
        """To the first host that takes changes."""
        import asyncpg

        why = "no host takes changes"
        for host in self._hosts:
            try:
                async with asyncio.timeout(self._timeout_s):
                    db = await asyncpg.connect(
                        host.dsn, server_settings={"application_name": "bandit-service texts"}
                    )
                    if not await db.fetchval("SELECT pg_is_in_recovery()"):
                        self._db = db
                        return
                    await db.close()
            except Exception as error:  # noqa: BLE001 - a driver raises many kinds
                why = type(error).__name__  # its text may have a part of the address
        raise StoreError(f"the database is not reached: {why}")

    async def _bounded(self, call: Any) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await call
        except Exception as error:  # noqa: BLE001 - as above
            await self._drop()
            raise StoreError(f"the database did not do it: {type(error).__name__}") from None
