"""The embedded log: SQLite in WAL mode, one connection, one writer. See docs/adr/0006-durability.

Two promises, kept apart so that a decision never waits for a disk:

- `append` commits with `synchronous=NORMAL`, which in WAL mode writes the frames to the kernel
  and does not fsync. The death of the process loses nothing.
- `sync` is one fdatasync of the `-wal` file through a descriptor of our own, from another
  thread and without SQLite's lock. Frames that a checkpoint has moved out of the WAL before
  are durable in the main file, since a checkpoint fsyncs the WAL first and the main file after.

SQLite does not checksum pages, so every record carries a CRC that covers the one before it.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from store._protocols import START, Offset, Record
from store.errors import Closed, Corrupt, Duplicate, Full, Locked, StoreError

FORMAT = 1
_CHUNK = 512
_KEPT_SNAPSHOTS = 3
_CHECKPOINT_PAGES = 1000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS head (
  one INTEGER PRIMARY KEY CHECK (one = 1), seq BIGINT NOT NULL, epoch BIGINT NOT NULL,
  crc BIGINT NOT NULL, format INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS log (
  seq BIGINT PRIMARY KEY, eid TEXT NOT NULL UNIQUE, ts DOUBLE PRECISION NOT NULL,
  kind TEXT NOT NULL, crc BIGINT NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS snapshot (
  key TEXT NOT NULL, seq BIGINT NOT NULL, format INTEGER NOT NULL, checksum BIGINT NOT NULL,
  body BLOB NOT NULL, PRIMARY KEY (key, seq));
"""


def rolling_crc(before: int, seq: int, record: Record) -> int:
    """CRC-32 over the previous CRC, the offset and the whole record."""
    crc = zlib.crc32(struct.pack("<Iqd", before, seq, record.ts))
    crc = zlib.crc32(f"{record.eid}\0{record.kind}\0".encode(), crc)
    return zlib.crc32(record.body, crc)


class SqliteLog:
    """An EventLog and Snapshots in one file.

    `append`, `replay`, `save`, `latest` and `close` belong to one thread; `sync` may be called
    from another. Every `_CHECKPOINT_PAGES` pages (4 MB) an append also moves the WAL into the
    main file, which fsyncs; docs/performance.md has the length of that pause.
    """

    def __init__(self, path: Path | str, epoch: int = 1) -> None:
        self.path = Path(path)
        self._closed = False
        self._broken = ""
        try:
            self._db = sqlite3.connect(
                self.path, timeout=0.0, isolation_level=None, check_same_thread=False
            )
        except sqlite3.OperationalError as error:
            raise Full(f"{self.path} cannot be opened ({error})") from None
        try:
            self._open(epoch)
        except sqlite3.OperationalError as error:
            self._db.close()
            if "locked" in str(error):
                raise Locked(self.path) from None
            raise Full(f"{self.path} cannot be written ({error})") from None
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise Corrupt(0, f"{self.path} is not a log of ours ({error})") from None
        except StoreError:
            self._db.close()
            raise
        self._wal = os.open(f"{self.path}-wal", os.O_RDONLY)
        _sync_directory(self.path.parent)

    def _open(self, epoch: int) -> None:
        db = self._db
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        db.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.split(";"):
            if statement.strip():
                db.execute(statement)
        db.execute(
            "INSERT INTO head VALUES (1, 0, ?, 0, ?) ON CONFLICT DO NOTHING", (epoch, FORMAT)
        )
        # a write, so that the WAL file is there and the exclusive lock is held from now on
        db.execute("UPDATE head SET epoch = ? WHERE one = 1", (epoch,))
        db.execute("COMMIT")
        self._seq, self._crc, found = db.execute("SELECT seq, crc, format FROM head").fetchone()
        if found != FORMAT:
            raise Corrupt(0, f"its format is {found}, this version reads {FORMAT}")
        last = db.execute("SELECT seq, crc FROM log ORDER BY seq DESC LIMIT 1").fetchone()
        if (last or (0, 0)) != (self._seq, self._crc):
            raise Corrupt(self._seq, f"the head says offset {self._seq}, the log ends at {last}")

    def append(self, records: Sequence[Record]) -> Offset:
        """All records to the kernel in one transaction, or none; the last offset.

        Raises Duplicate, Full (the log is usable again when there is space) and Closed.
        """
        self._check()
        rows, seq, crc = [], self._seq, self._crc
        for record in records:
            seq += 1
            crc = rolling_crc(crc, seq, record)
            rows.append((seq, record.eid, record.ts, record.kind, crc, record.body))
        if not rows:
            return Offset(self._seq)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)", rows)
            self._db.execute("UPDATE head SET seq = ?, crc = ? WHERE one = 1", (seq, crc))
            self._db.execute("COMMIT")
        except sqlite3.IntegrityError:
            self._rollback()
            raise Duplicate(self._first_known(records)) from None
        except sqlite3.OperationalError as error:
            self._rollback()
            raise Full(f"the log cannot be written ({error})") from None
        self._seq, self._crc = seq, crc
        return Offset(seq)

    def sync(self) -> Offset:
        """One fdatasync of the WAL; the last offset that is durable by it.

        A failed fsync leaves it unknown what reached the disk, so the log is broken by it and
        says so from then on; opening it again tells what is there.
        """
        self._check()
        upto = self._seq
        try:
            os.fdatasync(self._wal)
        except OSError as error:
            self._broken = f"the log could not be made durable ({error.strerror}); open it again"
            raise Closed(self._broken) from None
        return Offset(upto)

    def replay(self, after: Offset = START) -> Iterator[tuple[Offset, bytes]]:
        """Bodies after `after`, in order, in chunks; every CRC up to the end is verified."""
        self._check()
        crc, seq = 0, int(after)
        if after:
            row = self._db.execute("SELECT crc FROM log WHERE seq = ?", (after,)).fetchone()
            if row is None:
                raise Corrupt(after, "the record before it is missing")
            crc = row[0]
        while seq < self._seq:
            try:
                rows = self._db.execute(
                    "SELECT seq, eid, ts, kind, crc, body FROM log "
                    "WHERE seq > ? ORDER BY seq LIMIT ?",
                    (seq, _CHUNK),
                ).fetchall()
            except sqlite3.DatabaseError as error:
                raise Corrupt(seq + 1, str(error)) from None
            if not rows:
                raise Corrupt(seq + 1, f"missing, though the head says {self._seq}")
            for found, eid, ts, kind, stored, body in rows:
                seq += 1
                crc = rolling_crc(crc, seq, Record(eid, kind, ts, body))
                if found != seq or stored != crc:
                    raise Corrupt(seq, "its checksum does not match")
                yield Offset(seq), body

    @property
    def last(self) -> Offset:
        """The newest offset, 0 when empty."""
        return Offset(self._seq)

    def save(self, at: Offset, key: str, state: bytes) -> None:
        """Keep a snapshot under `key`, and of each key the newest three."""
        self._check()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "INSERT INTO snapshot VALUES (?, ?, ?, ?, ?) ON CONFLICT (key, seq) DO UPDATE SET "
                "checksum = excluded.checksum, body = excluded.body",
                (key, at, FORMAT, zlib.crc32(state), state),
            )
            self._db.execute(
                "DELETE FROM snapshot WHERE key = ? AND seq NOT IN "
                "(SELECT seq FROM snapshot WHERE key = ? ORDER BY seq DESC LIMIT ?)",
                (key, key, _KEPT_SNAPSHOTS),
            )
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            self._rollback()
            raise Full(f"the snapshot cannot be written ({error})") from None

    def latest(self, key: str) -> tuple[Offset, bytes] | None:
        """The newest snapshot under `key` whose checksum holds."""
        self._check()
        for seq, checksum, body in self._db.execute(
            "SELECT seq, checksum, body FROM snapshot WHERE key = ? ORDER BY seq DESC", (key,)
        ):
            if zlib.crc32(body) == checksum:
                return Offset(seq), body
        return None

    def close(self) -> None:
        """Make everything durable (closing checkpoints and fsyncs) and let go of the file."""
        if not self._closed:
            self._closed = True
            os.close(self._wal)
            self._db.close()

    def _check(self) -> None:
        if self._broken:
            raise Closed(self._broken)
        if self._closed:
            raise Closed

    def _rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _first_known(self, records: Sequence[Record]) -> str:
        seen: set[str] = set()
        for record in records:
            row = self._db.execute("SELECT 1 FROM log WHERE eid = ?", (record.eid,)).fetchone()
            if row is not None or record.eid in seen:
                return record.eid
            seen.add(record.eid)
        return "?"


def _sync_directory(path: Path) -> None:
    """Make the names of the files durable too: the WAL is made anew at each opening."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
