"""The embedded log: SQLite in WAL mode, one connection, one writer. See docs/adr/0006-durability.

Two promises, kept apart so that a decision never waits for a disk:

- `append` commits with `synchronous=NORMAL`, which in WAL mode writes the frames to the kernel
  and does not fsync. The death of the process loses nothing.
- `sync` is one fdatasync of the `-wal` file through a descriptor of our own, from another
  thread and without SQLite's lock. Frames that a checkpoint has moved out of the WAL before
  are durable in the main file, since a checkpoint fsyncs the WAL first and the main file after.

SQLite does not checksum pages, so every record carries a CRC that covers the one before it. A WAL
that lost its end would be a shorter log that nobody could tell from a whole one: so its frames are
looked at before it is opened, and a small file beside it says how far it was synced.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from store import _mark, _wal
from store._disk import close_to_others, private, sync_data, sync_directory
from store._format import (
    FOLLOWING,
    INSERT,
    OWNED,
    UNREADABLE,
    check_record,
    checked_head,
    last_of,
    prepare,
    refuse_strangers,
    rolling_crc,
    seal,
    verified,
)
from store._protocols import START, Offset, Record
from store.errors import Closed, Corrupt, Duplicate, Full, Locked, StoreError, Trimmed

_CHUNK = 512
_PAGE = 4096
_CHECKPOINT_PAGES = 1000
_FSYNC_ERRORS = ("SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC")
# Trimmed records are emptied at once and their rows deleted when so many more are trimmed.
# Deleting makes SQLite move the rows of the next two pages together, which leaves copies of
# them in the gaps of these pages; so those rows must be empty ones. At least 27 bytes each.
_SPENT = 512


class SqliteLog:
    """An EventLog in one file.

    `sync` may be called from any thread, everything else from one. About every
    `_CHECKPOINT_PAGES` pages (4 MB) an append also moves the WAL into the main file, which
    fsyncs; the ADR has the length of that pause. We do it ourselves, since SQLite's own
    checkpoint within a commit keeps quiet about an fsync that failed. `forget` does it too.
    """

    def __init__(self, path: Path | str, epoch: int = 1) -> None:
        self.path = Path(path)
        self._closed = False
        self._broken = ""
        self._pages = 0
        self._stale = False
        self._erasures = 0
        self._descriptor = threading.Lock()
        _put_back_wal(self.path)
        if _missing(self.path):
            raise Corrupt(1, f"{self.path} is missing or empty, but files that belong to it exist")
        private(self.path)
        close_to_others(Path(f"{self.path}-wal"))  # of a version that made it for all
        try:
            self._db = sqlite3.connect(
                self.path, timeout=0.0, isolation_level=None, check_same_thread=False
            )
        except sqlite3.OperationalError as error:
            raise Full(f"{self.path} cannot be opened ({error})") from None
        try:
            self._open(epoch)
        except UNREADABLE as error:
            refused = self._refused(error)
            if isinstance(refused, Corrupt):
                self._close_and_keep_wal()
            self._db.close()
            raise refused from None
        except Corrupt:
            self._close_and_keep_wal()
            raise
        except StoreError:
            self._db.close()
            raise
        try:
            sync_directory(self.path.parent)
            self._wal = os.open(f"{self.path}-wal", os.O_RDONLY)
            self._mark = _mark.Mark(self.path)
        except OSError as error:
            self._db.close()
            raise Full(f"{self.path} cannot be made durable ({error.strerror})") from None

    def _open(self, epoch: int) -> None:
        db = self._db
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        # the first read takes the lock; nothing is written into a file that is not ours
        refuse_strangers(db, self.path)
        self._refuse_shortened(db)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA wal_autocheckpoint=0")
        db.execute("PRAGMA secure_delete=ON")
        db.execute("BEGIN IMMEDIATE")
        # writes, so that the WAL file is there and the exclusive lock is held from now on
        prepare(db, epoch)
        db.execute("COMMIT")
        self._seq, self._crc, self._base, self._base_crc = checked_head(db)
        # an erasure that was cut off by a crash may have left its text in the WAL
        self._empty_wal()

    def _refuse_shortened(self, db: sqlite3.Connection) -> None:
        """Before anything is written, while all that is left of a lost end is still there."""
        last = last_of(db)
        why = _wal.cut_short(Path(f"{self.path}-wal"))
        if why:
            raise Corrupt(last + 1, why)
        synced = _mark.read(self.path)
        if synced > last:
            raise Corrupt(
                last + 1,
                f"it ends at {last}, but {synced} events were on disk; if an older log was put "
                f"here on purpose, move {_mark.beside(self.path).name} and the snapshots away",
            )

    def _close_and_keep_wal(self) -> None:
        """Closing deletes the WAL, with all that could not be read of it; so it gets a new name."""
        wal, kept = _wal_and_kept(self.path)
        with contextlib.suppress(OSError):
            kept.unlink(missing_ok=True)
            kept.hardlink_to(wal)
        self._db.close()
        _put_back_wal(self.path)

    def _refused(self, error: Exception) -> StoreError:
        if "locked" in str(error):
            return Locked(self.path)
        if isinstance(error, sqlite3.OperationalError) and _name(error) != "SQLITE_ERROR":
            return Full(f"{self.path} cannot be written ({error})")
        return Corrupt(0, f"{self.path} is not an event log ({error})")

    def append(self, records: Sequence[Record]) -> Offset:
        """All records to the kernel in one transaction, or none; the last offset.

        Raises Duplicate, Full (the log is usable again when there is space) and Closed.
        """
        self._check()
        rows, seq, crc, size = [], self._seq, self._crc, 0
        for each in records:
            check_record(each)
            seq += 1
            crc = rolling_crc(crc, seq, each)
            size += len(each.body)
            rows.append((seq, each.eid, each.ts, each.kind, each.owner, crc, each.body))
        if not rows:
            return Offset(self._seq)
        try:
            with self._transaction():
                self._db.executemany(INSERT, rows)
                self._db.execute("UPDATE head SET seq = ?, crc = ? WHERE one = 1", (seq, crc))
        except sqlite3.IntegrityError:
            raise Duplicate(self._first_known(records)) from None
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
                sync_data(self._wal)
            except OSError as error:
                raise self._break(error.strerror or str(error)) from None
            self._mark.reached(upto)
        return Offset(upto)

    def replay(self, after: Offset = START) -> Iterator[tuple[Offset, bytes]]:
        """Bodies after `after`, in order, in chunks; every CRC up to the end is verified.

        What is erased while the chunk is read is read again: no body that was erased is yielded.
        """
        self._check()
        seq, crc, damage = int(after), self._base_crc, ""
        if after > self._base:
            before, damage = self._read("SELECT crc FROM log WHERE seq = ?", (after,))
            if damage or not before:
                raise Corrupt(after, damage or "the record before it is missing")
            crc = before[0][0]
        while True:
            if seq < self._base:  # also when it was trimmed under way
                raise Trimmed(seq, self.first)
            if seq >= self._seq:
                return
            known = self._erasures
            rows, damage = self._read(FOLLOWING, (seq, _CHUNK))
            for row in rows:
                if known != self._erasures:
                    damage = ""  # those before it are read again, and then it
                    break
                seq += 1
                crc, record = verified(crc, seq, row)
                yield Offset(seq), record.body
            if damage or not rows:
                raise Corrupt(seq + 1, damage or f"it is missing, but the head says {self._seq}")
            self._check()

    def forget(self, owner: str, upto: Offset) -> int:
        """Erase an owner's bodies from the file and from its WAL; how many that were.

        Costs time in the number of the owner's records, and the pause of a checkpoint.
        """
        self._check()
        if not owner:
            raise ValueError("owner: must not be empty")
        erased, seq = 0, self._base
        self._erasures += 1
        with self._transaction():
            while rows := self._db.execute(OWNED, (owner, seq, upto, _CHUNK)).fetchall():
                new = [(seal(row), row[0]) for row in rows if row[6] != seal(row)]
                self._db.executemany("UPDATE log SET body = ? WHERE seq = ?", new)
                erased, seq = erased + len(new), rows[-1][0]
        self._stale = self._stale or erased > 0
        if self._stale:
            try:
                self._empty_wal()
            except sqlite3.DatabaseError as error:
                raise self._failed(
                    "the WAL, which still holds the erased records,", error
                ) from None
        return erased

    def trim(self, upto: Offset, most: int = 100) -> int:
        """Empty the oldest records and delete rows of older ones; how many are left to do."""
        self._check()
        base, upto = self._base, min(upto, Offset(self._seq))
        new = min(upto, base + most)
        if new > base:
            rows, damage = self._read("SELECT crc FROM log WHERE seq = ?", (new,))
            if damage or not rows:
                raise Corrupt(new, damage or "it is missing")
            with self._transaction():
                self._db.execute(
                    "UPDATE log SET body = x'', owner = '' WHERE seq > ? AND seq <= ?", (base, new)
                )
                self._db.execute("DELETE FROM log WHERE seq <= ?", (new - _SPENT,))
                self._db.execute(
                    "UPDATE head SET base = ?, base_crc = ? WHERE one = 1", (new, rows[0][0])
                )
            self._base, self._base_crc = new, rows[0][0]
            self._erasures += 1
            self._stale = True  # the WAL may hold them still, and `forget` will not find them
            self._written(3 + 2 * (new - base))
        return max(0, upto - self._base)

    def offset_at(self, ts: float) -> Offset:
        """The newest record older than `ts`, by halving."""
        self._check()
        low, high = self._base, self._seq
        while low < high:
            middle = (low + high + 1) // 2
            rows, damage = self._read("SELECT ts FROM log WHERE seq = ?", (middle,))
            if damage or not rows or not isinstance(rows[0][0], float):
                raise Corrupt(middle, damage or "it has no time")
            low, high = (middle, high) if rows[0][0] < ts else (low, middle - 1)
        return Offset(low) if low > self._base else START

    @property
    def first(self) -> Offset:
        """The oldest offset that is kept."""
        return Offset(self._base + 1)

    @property
    def last(self) -> Offset:
        """The newest offset, 0 when empty."""
        return Offset(self._seq)

    @property
    def size_bytes(self) -> int:
        """The pages in use; what was freed is used again before the file grows."""
        self._check()
        used, free = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count")
        )
        return int(used - free) * _PAGE

    def _read(self, query: str, values: tuple[object, ...]) -> tuple[list[tuple[Any, ...]], str]:
        """All rows up to the first that cannot be read, and why that one cannot ("" if none)."""
        rows: list[tuple[Any, ...]] = []
        try:
            for row in self._db.execute(query, values):
                rows.append(row)  # noqa: PERF402 - those before a damaged one are kept
        except UNREADABLE as error:
            return rows, f"it cannot be read ({error})"
        return rows, ""

    def close(self) -> None:
        """Make everything durable (closing checkpoints and fsyncs) and let go of the file."""
        if not self._closed:
            with self._descriptor:
                self._closed = True
                os.close(self._wal)
                self._mark.close()
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
            if _name(error) in _FSYNC_ERRORS:
                self._break(str(error))

    def _empty_wal(self) -> None:
        """Move the WAL into the main file and cut it off: what it held is in neither.

        The file stays the same one, and what `sync` promised is in the main file before.
        """
        busy, *_ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert not busy, "there is one connection, and it reads in whole chunks"
        self._stale, self._pages = False, 0

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of it or nothing; errors of SQLite become ours, but for IntegrityError."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.IntegrityError:
            self._rollback()
            raise
        except sqlite3.DatabaseError as error:
            raise self._failed("the log", error) from None
        except BaseException:
            self._rollback()
            raise

    def _failed(self, what: str, error: sqlite3.DatabaseError) -> StoreError:
        """Undo a transaction that could not be written; what to raise."""
        self._rollback()
        if _name(error) in _FSYNC_ERRORS:
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


def _wal_and_kept(path: Path) -> tuple[Path, Path]:
    return Path(f"{path}-wal"), Path(f"{path}-wal.kept")


def _put_back_wal(path: Path) -> None:
    """The WAL of an opening that was refused, also of one that was cut off meanwhile."""
    wal, kept = _wal_and_kept(path)
    with contextlib.suppress(OSError):
        if not wal.exists():
            kept.replace(wal)
        kept.unlink(missing_ok=True)  # where nothing was deleted, both are one file


def _missing(path: Path) -> bool:
    """Whether the file is not there, and what lies beside it says that it should be."""
    if path.exists() and path.stat().st_size:
        return False
    wal = Path(f"{path}-wal")
    return _mark.read(path) > 0 or (wal.exists() and wal.stat().st_size > 0)


def _name(error: Exception) -> str:
    """SQLite's name of an error; those that Python raises itself have none."""
    return getattr(error, "sqlite_errorname", "SQLITE_ERROR")
