"""What the file of a log holds: its tables, its checksums, and what is left of an erased record."""

from __future__ import annotations

import math
import sqlite3
import struct
import zlib
from pathlib import Path

from store._protocols import Record
from store.errors import Corrupt, WrongFormat

FORMAT = 2
READS = (1, FORMAT)

INSERT = "INSERT INTO log (seq, eid, ts, kind, owner, crc, body) VALUES (?, ?, ?, ?, ?, ?, ?)"
FOLLOWING = (
    "SELECT seq, eid, ts, kind, owner, crc, body FROM log WHERE seq > ? ORDER BY seq LIMIT ?"
)
# The second term lets SQLite use the index.
OWNED = (
    "SELECT seq, eid, ts, kind, owner, crc, body FROM log WHERE owner = ? AND owner != '' "
    "AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
)
Row = tuple[int, str, float, str, str, int, bytes]

# What damage that changes the type of a value leads to.
TYPES = (TypeError, ValueError, AttributeError, struct.error)

# What reading a damaged file leads to; the latter when SQLite puts the damage in its message.
UNREADABLE = (sqlite3.DatabaseError, UnicodeDecodeError)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS head (
  one INTEGER PRIMARY KEY CHECK (one = 1), seq BIGINT NOT NULL, epoch BIGINT NOT NULL,
  crc BIGINT NOT NULL, format INTEGER NOT NULL,
  base BIGINT NOT NULL DEFAULT 0, base_crc BIGINT NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS log (
  seq BIGINT PRIMARY KEY, eid TEXT NOT NULL UNIQUE, ts DOUBLE PRECISION NOT NULL,
  kind TEXT NOT NULL, crc BIGINT NOT NULL, body BLOB NOT NULL,
  owner TEXT NOT NULL DEFAULT '');
"""
_SINCE_FORMAT_1 = """
ALTER TABLE head ADD COLUMN base BIGINT NOT NULL DEFAULT 0;
ALTER TABLE head ADD COLUMN base_crc BIGINT NOT NULL DEFAULT 0;
ALTER TABLE log ADD COLUMN owner TEXT NOT NULL DEFAULT '';
"""
_INDEX = "CREATE INDEX IF NOT EXISTS log_owner ON log (owner, seq) WHERE owner != '';"


def check_record(record: Record) -> None:
    """ValueError for one that no log takes."""
    if not math.isfinite(record.ts):
        raise ValueError(f"ts: must be finite, got {record.ts}")
    if not record.body:
        raise ValueError("body: must not be empty; an empty body marks an erased record")


def rolling_crc(before: int, seq: int, record: Record) -> int:
    """CRC-32 over the previous CRC, the offset and the whole record.

    An owner is covered only where there is one: records of format 1 had none.
    """
    crc = zlib.crc32(struct.pack("<Iqd", before, seq, record.ts))
    crc = zlib.crc32(f"{record.eid}\0{record.kind}\0".encode(), crc)
    if record.owner:
        crc = zlib.crc32(f"{record.owner}\0".encode(), crc)
    return zlib.crc32(record.body, crc)


def seal(row: Row) -> bytes:
    """What the row of an erased record holds in place of its body.

    Four bytes that cover what is left of the record. Damage is never taken for an erasure, and
    what an erasure left is checked as any record is.
    """
    seq, eid, ts, kind, owner, crc, _ = row
    try:
        return struct.pack("<I", rolling_crc(crc, seq, Record(eid, kind, ts, b"erased", owner)))
    except TYPES:
        raise Corrupt(seq, "its columns have the wrong types") from None


def verified(before: int, at: int, row: Row) -> tuple[int, Record]:
    """The CRC and the record of the row that must be at offset `at`; Corrupt if it is not that.

    The body of an erased record is empty, and its stored CRC is taken as it is: the record
    after it covers it.
    """
    seq, eid, ts, kind, owner, stored, body = row
    if seq != at:
        raise Corrupt(at, "it is missing")
    record = Record(eid, kind, ts, body, owner)
    try:
        crc = rolling_crc(before, at, record)
    except TYPES:
        raise Corrupt(at, "its columns have the wrong types") from None
    if crc == stored:
        return crc, record
    if body == seal(row):
        return stored, Record(eid, kind, ts, b"", owner)
    raise Corrupt(at, "its checksum does not match")


def refuse_strangers(db: sqlite3.Connection, path: Path) -> None:
    """Nothing may be written into a file that is not ours."""
    names = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    if not names:
        return
    if "head" not in names:
        raise Corrupt(0, f"{path} is a database, not an event log")
    row = db.execute("SELECT format FROM head").fetchone()
    if row is not None and row[0] not in READS:
        raise WrongFormat(path, row[0], FORMAT)


def prepare(db: sqlite3.Connection, epoch: int) -> None:
    """Make what is missing, within the caller's transaction, and write the epoch."""
    known = {row[1] for row in db.execute("PRAGMA table_info(log)")}
    _run(db, _SCHEMA)
    if known and "owner" not in known:
        _run(db, _SINCE_FORMAT_1)
        db.execute("UPDATE head SET format = ?", (FORMAT,))
    _run(db, _INDEX)
    db.execute(
        "INSERT INTO head (one, seq, epoch, crc, format) VALUES (1, 0, ?, 0, ?) "
        "ON CONFLICT DO NOTHING",
        (epoch, FORMAT),
    )
    db.execute("UPDATE head SET epoch = ? WHERE one = 1", (epoch,))


def _run(db: sqlite3.Connection, statements: str) -> None:
    for statement in statements.split(";"):
        if statement.strip():
            db.execute(statement)


def last_of(db: sqlite3.Connection) -> int:
    """The last offset that the head names, 0 where there is none that can be read."""
    try:
        row = db.execute("SELECT seq FROM head").fetchone()
    except sqlite3.OperationalError:
        return 0
    return row[0] if row is not None and isinstance(row[0], int) else 0


def checked_head(db: sqlite3.Connection) -> tuple[int, int, int, int]:
    """(last, its CRC, last trimmed, its CRC), if they agree with the records there are."""
    head = db.execute("SELECT seq, crc, base, base_crc FROM head").fetchone()
    if head is None or not all(isinstance(value, int) for value in head):
        raise Corrupt(0, "the row that holds the end of the log is damaged")
    seq, crc, base, base_crc = head
    last = db.execute("SELECT seq, crc FROM log ORDER BY seq DESC LIMIT 1").fetchone()
    found = last or (base, base_crc)
    if found != (seq, crc):
        at = found[0]
        first = seq if at == seq or not isinstance(at, int) else min(at, seq) + 1
        raise Corrupt(first, f"the head names (offset, crc) {(seq, crc)}, but the log ends {found}")
    row = db.execute("SELECT crc FROM log WHERE seq = ?", (base,)).fetchone()
    before = row[0] if row else base_crc if base else 0
    if not 0 <= base <= seq or before != base_crc:
        raise Corrupt(
            max(0, min(base, seq)) + 1,
            f"the head says that the log was trimmed up to (offset, crc) {(base, base_crc)}, but "
            f"the record there has {before}",
        )
    return seq, crc, base, base_crc
