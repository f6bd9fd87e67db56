"""Writes logs of format 2, one row per record, as the versions before format 3 did."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from store import Offset, Record
from store._format import check_record
from store._old_rows import rolling_crc, seal

_SCHEMA = """
CREATE TABLE head (
  one INTEGER PRIMARY KEY CHECK (one = 1), seq BIGINT NOT NULL, epoch BIGINT NOT NULL,
  crc BIGINT NOT NULL, format INTEGER NOT NULL,
  base BIGINT NOT NULL DEFAULT 0, base_crc BIGINT NOT NULL DEFAULT 0);
CREATE TABLE log (
  seq BIGINT PRIMARY KEY, eid TEXT NOT NULL UNIQUE, ts DOUBLE PRECISION NOT NULL,
  kind TEXT NOT NULL, crc BIGINT NOT NULL, body BLOB NOT NULL,
  owner TEXT NOT NULL DEFAULT '');
CREATE INDEX log_owner ON log (owner, seq) WHERE owner != '';
INSERT INTO head (one, seq, epoch, crc, format) VALUES (1, 0, 1, 0, 2);
"""
_INSERT = "INSERT INTO log (seq, eid, ts, kind, owner, crc, body) VALUES (?, ?, ?, ?, ?, ?, ?)"
_CHECKPOINT_PAGES = 1000


class OldWriter:
    """A new log of format 2; `append` as it was."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=NORMAL"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute("PRAGMA wal_autocheckpoint=0")
        self._db.execute("PRAGMA secure_delete=ON")
        self._db.executescript(_SCHEMA)
        self._seq = self._crc = self._pages = 0

    def append(self, records: Sequence[Record]) -> Offset:
        """All records in one transaction."""
        rows, size = [], 0
        for each in records:
            check_record(each)
            self._seq += 1
            self._crc = rolling_crc(self._crc, self._seq, each)
            size += len(each.body)
            row = (self._seq, each.eid, each.ts, each.kind, each.owner, self._crc, each.body)
            rows.append(row)
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(_INSERT, rows)
        self._db.execute("UPDATE head SET seq = ?, crc = ? WHERE one = 1", (self._seq, self._crc))
        self._db.execute("COMMIT")
        self._pages += 3 + 2 * len(rows) + size // 4096
        if self._pages >= _CHECKPOINT_PAGES:
            self._pages = 0
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return Offset(self._seq)

    def forget(self, owner: str) -> None:
        """Erase the bodies of an owner."""
        query = "SELECT seq, eid, ts, kind, owner, crc, body FROM log WHERE owner = ?"
        for row in self._db.execute(query, (owner,)).fetchall():
            self._db.execute("UPDATE log SET body = ? WHERE seq = ?", (seal(row), row[0]))

    def trim(self, upto: int) -> None:
        """Empty the records up to `upto`; their rows stay, as the last 512 did."""
        (crc,) = self._db.execute("SELECT crc FROM log WHERE seq = ?", (upto,)).fetchone()
        self._db.execute("UPDATE log SET body = x'', owner = '' WHERE seq <= ?", (upto,))
        self._db.execute("UPDATE head SET base = ?, base_crc = ?", (upto, crc))

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()


def as_format_1(path: Path) -> None:
    """Make a log of format 2 one of format 1, which knew no owners and no trimming."""
    db = sqlite3.connect(path)
    db.executescript("""
        DROP INDEX log_owner;
        ALTER TABLE log DROP COLUMN owner;
        ALTER TABLE head DROP COLUMN base;
        ALTER TABLE head DROP COLUMN base_crc;
        UPDATE head SET format = 1;
        CREATE TABLE snapshot (key TEXT, seq BIGINT, body BLOB);
        INSERT INTO snapshot VALUES ('world', 7, x'00');
    """)
    db.close()
