"""Snapshots in the database: the keeper stores its own there, and a new replica begins from it.

The state is stored in parts of a megabyte under its SHA-256, so that it can be verified. A row
without a key says that nothing before its offset may be stored: records up to there were erased. A
keeper that stood still, and stores its snapshot when it wakes, finds that row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

from store._protocols import Offset
from store.errors import Corrupt

Ask = Callable[..., Awaitable[list[Any]]]
"""Run one statement with arguments; returns its rows."""

_PART = 1 << 20
_SAVE_PART = "INSERT INTO bandit_blob (hash, part, body) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended('bandit_snapshot ' || $1, 0))"
"""So that an erasure sees every snapshot that was stored before it, and later ones see its row. The
server ends a transaction whose client stands still.
"""
_ERASED = "SELECT 1 FROM bandit_snapshot WHERE log = $1 AND key = '' AND seq > $2"
_SAVE = """
INSERT INTO bandit_snapshot (log, key, seq, hash, size, made)
  SELECT $1, $2, $3, $4, $5, clock_timestamp() WHERE NOT EXISTS (
    SELECT 1 FROM bandit_snapshot WHERE log = $1 AND key = '' AND seq > $3)
  ON CONFLICT (log, key, seq) DO UPDATE SET hash = $4, size = $5, made = clock_timestamp()
  RETURNING seq
"""
_DROP_OLD = """
DELETE FROM bandit_snapshot WHERE log = $1 AND key = $2 AND seq NOT IN (
  SELECT seq FROM bandit_snapshot WHERE log = $1 AND key = $2 ORDER BY seq DESC LIMIT $3)
"""
_DROP_OTHERS = """
DELETE FROM bandit_snapshot
  WHERE log = $1 AND key <> $2 AND key <> '' AND made < clock_timestamp() - interval '1 day'
"""
"""Deletes snapshots of another policy, settings or version after a day, when nobody needs them
quickly.
"""
_DROP_PARTS = """
DELETE FROM bandit_blob b WHERE NOT EXISTS (SELECT 1 FROM bandit_snapshot s WHERE s.hash = b.hash)
"""
_NEWEST = """
SELECT seq, hash, size FROM bandit_snapshot
  WHERE log = $1 AND key = $2 AND seq > $3 AND seq <= $4 ORDER BY seq DESC LIMIT 1
"""
ALL = """
SELECT key, seq FROM bandit_snapshot WHERE log = $1 AND key <> '' ORDER BY seq DESC, made DESC
"""
_FORGET = "DELETE FROM bandit_snapshot WHERE log = $1 AND seq < $2"
_BAR = """
INSERT INTO bandit_snapshot (log, key, seq, hash, size, made)
  VALUES ($1, '', $2, '', 0, clock_timestamp()) ON CONFLICT DO NOTHING
"""
_PART_OF = "SELECT body FROM bandit_blob WHERE hash = $1 AND part = $2"


async def save(ask: Ask, log: str, key: str, at: Offset, state: bytes, keep: int) -> bool:
    """All of it or nothing. The older ones but `keep` are deleted, and those of other keys that are
    older than a day.

    False if records after it were erased while it was on its way: its deleted bytes are in the
    table until a VACUUM.
    """
    if await ask(_ERASED, log, int(at)):
        return True
    digest = hashlib.sha256(state).digest()
    await ask("BEGIN")
    for part, first in enumerate(range(0, len(state), _PART)):
        await ask(_SAVE_PART, digest, part, state[first : first + _PART])
    await ask(_ONE_AT_A_TIME, log)
    if not await ask(_SAVE, log, key, int(at), digest, len(state)):
        await ask("ROLLBACK")
        return False
    await ask(_DROP_OLD, log, key, keep)
    await ask(_DROP_OTHERS, log, key)
    await ask(_DROP_PARTS)
    await ask("COMMIT")
    return True


async def forget(ask: Ask, log: str, before: Offset) -> None:
    """Delete those of less than this offset, of whatever key; none such is stored from now on."""
    await ask("BEGIN")
    await ask(_ONE_AT_A_TIME, log)
    await ask(_FORGET, log, int(before))
    await ask(_BAR, log, int(before))
    await ask(_DROP_PARTS)
    await ask("COMMIT")


async def newest(
    ask: Ask, log: str, key: str, after: Offset, upto: Offset
) -> tuple[Offset, bytes] | None:
    """The newest of a key between two offsets.

    Raises Corrupt if it is damaged. It is read in one transaction, since the keeper may delete it
    meanwhile.
    """
    await ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    rows = await ask(_NEWEST, log, key, int(after), int(upto))
    if not rows:
        return None
    at, digest, size = rows[0]["seq"], rows[0]["hash"], rows[0]["size"]
    state = bytearray()
    for part in range(-(-size // _PART)):
        for row in await ask(_PART_OF, digest, part):
            state += row["body"]
    await ask("COMMIT")
    if hashlib.sha256(state).digest() != digest:
        raise Corrupt(at, "the snapshot in the database is not as it was put there")
    return Offset(at), bytes(state)
