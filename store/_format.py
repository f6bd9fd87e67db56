"""The file of a log: its tables, and the checks of its head.

Format 3 keeps one row per batch (`store._batch`); 1 and 2 kept one per record (`store._old_rows`).
"""

from __future__ import annotations

import math
import sqlite3
import struct
from pathlib import Path
from typing import Any

from store import _batch
from store._protocols import Record
from store.errors import Corrupt, WrongFormat

FORMAT = 3
OLD = (1, 2)

# The errors after damage that changes the type of a value.
TYPES = (TypeError, ValueError, AttributeError, struct.error)

# The errors of reading a damaged file; the latter if SQLite puts the damage into its message.
UNREADABLE = (sqlite3.DatabaseError, UnicodeDecodeError)

Head = tuple[int, int, int, int]
"""(last, its CRC, last trimmed, its CRC)."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS head (
  one INTEGER PRIMARY KEY CHECK (one = 1), seq BIGINT NOT NULL, epoch BIGINT NOT NULL,
  crc BIGINT NOT NULL, format INTEGER NOT NULL,
  base BIGINT NOT NULL DEFAULT 0, base_crc BIGINT NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS batch (
  first INTEGER PRIMARY KEY, ts REAL NOT NULL, before INTEGER NOT NULL, crc INTEGER NOT NULL,
  top BLOB, low BLOB, high BLOB,
  marks BLOB NOT NULL, gone BLOB NOT NULL, content BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS batch_ids ON batch (high) WHERE high IS NOT NULL;
CREATE TABLE IF NOT EXISTS stray (eid BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS owned (
  owner TEXT NOT NULL, first INTEGER NOT NULL, PRIMARY KEY (owner, first)) WITHOUT ROWID;
"""

INSERT = (
    "INSERT INTO batch (first, ts, before, crc, marks, gone, content, top, low, high) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
ROW = "SELECT first, ts, before, crc, marks, gone, content FROM batch"
AT = f"{ROW} WHERE first <= ? ORDER BY first DESC LIMIT 1"
FROM = f"{ROW} WHERE first >= ? ORDER BY first LIMIT ?"


def check_record(record: Record) -> None:
    """Raise ValueError for a record that no log accepts."""
    if not math.isfinite(record.ts):
        raise ValueError(f"ts: must be finite, got {record.ts}")
    if not record.body:
        raise ValueError("body: must not be empty; an empty body marks an erased record")


def found_format(db: sqlite3.Connection, path: Path) -> int:
    """The format of the log in this file, or of a new one if there is none.

    Nothing may be written into another program's file.
    """
    names = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    if not names:
        return FORMAT
    if "head" not in names:
        raise Corrupt(0, f"{path} is a database, not an event log")
    row = db.execute("SELECT format FROM head").fetchone()
    if row is None:
        return FORMAT if "batch" in names else max(OLD)
    if row[0] not in (*OLD, FORMAT):
        raise WrongFormat(path, row[0], FORMAT)
    return int(row[0])


def prepare(db: sqlite3.Connection, epoch: int) -> None:
    """Create missing tables, within the caller's transaction, and write the epoch.

    If there are records, the head is never created: a missing head was lost, and `read_head`
    reports that.
    """
    for statement in SCHEMA.split(";"):
        if statement.strip():
            db.execute(statement)
    db.execute("DROP TABLE IF EXISTS migration")  # of the old log that this one was made of
    db.execute(
        "INSERT INTO head (one, seq, epoch, crc, format) SELECT 1, 0, ?, 0, ? "
        "WHERE NOT EXISTS (SELECT 1 FROM batch) ON CONFLICT DO NOTHING",
        (epoch, FORMAT),
    )
    db.execute("UPDATE head SET epoch = ? WHERE one = 1", (epoch,))


def last_of(db: sqlite3.Connection) -> int:
    """The last offset by the head, 0 if it cannot be read."""
    try:
        row = db.execute("SELECT seq FROM head").fetchone()
    except sqlite3.OperationalError:
        return 0
    return row[0] if row is not None and isinstance(row[0], int) else 0


def read_head(db: sqlite3.Connection, columns: str = "seq, crc, base, base_crc") -> Head:
    """The values of the head. Raises Corrupt if there are none."""
    head = db.execute(f"SELECT {columns} FROM head").fetchone()  # noqa: S608 - ours
    if head is None or not all(isinstance(value, int) for value in head):
        raise Corrupt(0, "the row that holds the end of the log is damaged")
    seq, crc, base, base_crc = head
    return seq, crc, base, base_crc


def checked_head(db: sqlite3.Connection) -> Head:
    """The values of the head, if they agree with the records."""
    head = read_head(db)
    _, _, base, base_crc = head
    last = db.execute("SELECT first, crc, marks FROM batch ORDER BY first DESC LIMIT 1").fetchone()
    # a row of trimmed records only is empty, and the head says up to where they were
    found = (base, base_crc) if last is None else (_end(last[0], last[2], base), last[1])
    agree(head, found)
    row = db.execute(AT, (base,)).fetchone() if base > 0 else None
    before = base_crc if base else 0
    if row is not None:
        first, _, _, before, marks, _, _ = row
        if marks and _end(first, marks, base) != base:
            before = _batch.crc_at(marks, base - first)
    agree_on_base(head, before)
    return head


def agree(head: Head, found: tuple[Any, Any]) -> None:
    """Raise Corrupt if the head has another end than (offset, crc)."""
    seq, crc, _, _ = head
    if found != (seq, crc):
        at = found[0]
        first = seq if at == seq or not isinstance(at, int) else min(at, seq) + 1
        raise Corrupt(first, f"the head names (offset, crc) {(seq, crc)}, but the log ends {found}")


def agree_on_base(head: Head, before: object) -> None:
    """Raise Corrupt if the CRC of the last trimmed record is not the head's."""
    seq, _, base, base_crc = head
    if not 0 <= base <= seq or before != base_crc:
        raise Corrupt(
            max(0, min(base, seq)) + 1,
            f"the head says that the log was trimmed up to (offset, crc) {(base, base_crc)}, but "
            f"the record there has {before}",
        )


def _end(first: int, marks: object, base: int) -> int:
    """The last offset of a row; an empty row had only trimmed records."""
    count = _batch.count(marks)
    return first + count - 1 if count else base
