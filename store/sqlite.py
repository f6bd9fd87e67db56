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

import math
import os
import sqlite3
import struct
import sys
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from store._protocols import START, Offset, Record
from store.errors import Closed, Corrupt, Duplicate, Full, Locked, StoreError, WrongFormat

FORMAT = 1
_CHUNK = 512
_KEPT_SNAPSHOTS = 3
_PAGE = 4096
_CHECKPOINT_PAGES = 1000
_FSYNC_ERRORS = ("SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC")

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
    from another. About every `_CHECKPOINT_PAGES` pages (4 MB) an append also moves the WAL into
    the main file, which fsyncs; the ADR has the length of that pause. We do it ourselves, since
    SQLite's own checkpoint within a commit keeps quiet about an fsync that failed.
    """

    def __init__(self, path: Path | str, epoch: int = 1) -> None:
        self.path = Path(path)
        self._closed = False
        self._broken = ""
        self._pages = 0
        self._descriptor = threading.Lock()
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
        try:
            _sync_directory(self.path.parent)
            self._wal = os.open(f"{self.path}-wal", os.O_RDONLY)
        except OSError as error:
            self._db.close()
            raise Full(f"{self.path} cannot be made durable ({error.strerror})") from None

    def _open(self, epoch: int) -> None:
        db = self._db
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        # the first read takes the lock; nothing is written into a file that is not ours
        self._refuse_strangers()
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA wal_autocheckpoint=0")
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
        self._seq, self._crc = db.execute("SELECT seq, crc FROM head").fetchone()
        last = db.execute("SELECT seq, crc FROM log ORDER BY seq DESC LIMIT 1").fetchone()
        found = last or (0, 0)
        if found != (self._seq, self._crc):
            first = self._seq if found[0] == self._seq else min(found[0], self._seq) + 1
            raise Corrupt(
                first, f"the head says (offset, crc) {(self._seq, self._crc)}, the log ends {found}"
            )

    def _refuse_strangers(self) -> None:
        names = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master")}
        if not names:
            return
        if "head" not in names:
            raise Corrupt(0, f"{self.path} is a database, and not a log of ours")
        row = self._db.execute("SELECT format FROM head").fetchone()
        if row is not None and row[0] != FORMAT:
            raise WrongFormat(self.path, row[0], FORMAT)

    def append(self, records: Sequence[Record]) -> Offset:
        """All records to the kernel in one transaction, or none; the last offset.

        Raises Duplicate, Full (the log is usable again when there is space) and Closed.
        """
        self._check()
        rows, seq, crc, size = [], self._seq, self._crc, 0
        for record in records:
            if not math.isfinite(record.ts):
                raise ValueError(f"ts: must be finite, got {record.ts}")
            seq += 1
            crc = rolling_crc(crc, seq, record)
            size += len(record.body)
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
        except sqlite3.DatabaseError as error:
            raise self._failed("the log", error) from None
        except BaseException:
            self._rollback()
            raise
        self._seq, self._crc = seq, crc
        self._written(3 + 2 * len(rows) + size // _PAGE)
        return Offset(seq)

    def sync(self) -> Offset:
        """One fdatasync of the WAL; the last offset that is durable by it.

        A failed fsync leaves it unknown what reached the disk, so the log is broken by it and
        says so from then on; opening it again tells what is there.
        """
        with self._descriptor:  # so that `close` waits, and no other file has this descriptor
            self._check()
            upto = self._seq
            try:
                _sync_data(self._wal)
            except OSError as error:
                raise self._break(error.strerror or str(error)) from None
        return Offset(upto)

    def replay(self, after: Offset = START) -> Iterator[tuple[Offset, bytes]]:
        """Bodies after `after`, in order, in chunks; every CRC up to the end is verified."""
        self._check()
        crc, seq, damage = 0, int(after), ""
        if after:
            before, damage = self._read("SELECT crc FROM log WHERE seq = ?", (after,))
            if damage or not before:
                raise Corrupt(after, damage or "the record before it is missing")
            crc = before[0][0]
        while seq < self._seq:
            rows, damage = self._read(
                "SELECT seq, eid, ts, kind, crc, body FROM log WHERE seq > ? ORDER BY seq LIMIT ?",
                (seq, _CHUNK),
            )
            for found, eid, ts, kind, stored, body in rows:
                seq += 1
                try:
                    crc = rolling_crc(crc, seq, Record(eid, kind, ts, body))
                except (TypeError, ValueError, struct.error):  # damage can change a type, too
                    raise Corrupt(seq, "it is not of the types that were written") from None
                if found != seq or stored != crc:
                    raise Corrupt(seq, "its checksum does not match")
                yield Offset(seq), body
            if damage or not rows:
                raise Corrupt(seq + 1, damage or f"missing, though the head says {self._seq}")
            self._check()

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
        except sqlite3.DatabaseError as error:
            raise self._failed("the snapshot", error) from None
        except BaseException:
            self._rollback()
            raise
        self._written(4 + len(state) // _PAGE)

    def latest(self, key: str) -> tuple[Offset, bytes] | None:
        """The newest snapshot under `key` whose checksum holds."""
        self._check()
        rows, _ = self._read(
            "SELECT seq, checksum, CAST(body AS BLOB) FROM snapshot WHERE key = ? AND format = ? "
            "ORDER BY seq DESC",
            (key, FORMAT),
        )
        for seq, checksum, body in rows:
            if isinstance(body, bytes) and zlib.crc32(body) == checksum:
                return Offset(seq), body
        return None

    def _read(self, query: str, values: tuple[object, ...]) -> tuple[list[tuple[Any, ...]], str]:
        """All rows up to the first that cannot be read, and why that one cannot ("" if none)."""
        rows: list[tuple[Any, ...]] = []
        try:
            for row in self._db.execute(query, values):
                rows.append(row)  # noqa: PERF402 - those before a damaged one are kept
        except sqlite3.DatabaseError as error:
            return rows, f"it cannot be read ({error})"
        return rows, ""

    def close(self) -> None:
        """Make everything durable (closing checkpoints and fsyncs) and let go of the file."""
        if not self._closed:
            with self._descriptor:
                self._closed = True
                os.close(self._wal)
            self._db.close()

    def _check(self) -> None:
        if self._broken:
            raise Closed(self._broken)
        if self._closed:
            raise Closed

    def _written(self, pages: int) -> None:
        """Count about what a commit wrote; move the WAL into the main file when it is much.

        What was committed is in the WAL whatever becomes of this. So a full disk only puts it
        off, and a failed fsync is told by the next call, as one that `sync` met.
        """
        self._pages += pages
        if self._pages < _CHECKPOINT_PAGES:
            return
        self._pages = 0
        try:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorname in _FSYNC_ERRORS:
                self._break(str(error))

    def _failed(self, what: str, error: sqlite3.DatabaseError) -> StoreError:
        """Undo a transaction that could not be written; what to raise."""
        self._rollback()
        if error.sqlite_errorname in _FSYNC_ERRORS:
            return self._break(str(error))
        if isinstance(error, sqlite3.OperationalError):
            return Full(f"{what} cannot be written ({error})")
        return Corrupt(self._seq + 1, f"{what} cannot be written ({error})")

    def _break(self, why: str) -> Closed:
        """After a failed fsync nobody knows what reached the disk: refuse all from here on."""
        self._broken = f"the log could not be made durable ({why}); open it again"
        return Closed(self._broken)

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


def _sync_data(descriptor: int) -> None:
    if sys.platform == "darwin":  # has no fdatasync, and its fsync stops short of the disk
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def _sync_directory(path: Path) -> None:
    """Make the names of the files durable too: the WAL is made anew at each opening."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
