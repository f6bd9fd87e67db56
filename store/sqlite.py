"""The embedded log: SQLite in WAL mode, one connection, one writer. See docs/adr/0006-durability.

Two promises, kept apart so that a decision never waits for a disk:

- `append` commits with `synchronous=NORMAL`, which in WAL mode writes the frames to the kernel
  and does not fsync. The death of the process loses nothing.
- `sync` is one fdatasync of the `-wal` file through a descriptor of our own, from another
  thread and without SQLite's lock. Frames that a checkpoint has moved out of the WAL before
  are durable in the main file, since a checkpoint fsyncs the WAL first and the main file after.

The records of an append lie in one row, or a few (`store._batch`). SQLite does not checksum pages,
so every record carries a CRC that covers the one before it. A WAL that lost its end would be a
shorter log, which looks like a complete one. So its frames are checked before it is opened
(`store._opening`), and a small file next to it has the offset of the last sync.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from store import _batch, _mark
from store._batch import Row
from store._disk import PAGE, bytes_in_use, sync_data, sync_directory
from store._format import (
    AT,
    OLD,
    ROW,
    UNREADABLE,
    check_record,
    checked_head,
    prepare,
)
from store._ids import Ids, write
from store._migrate import beside, migrated, remove
from store._old_rows import OldLog
from store._opening import absent, closed_on_failure, name_of, opened
from store._protocols import START, EventLog, Offset, Record
from store.errors import Absent, Closed, Corrupt, Full, StoreError, Trimmed

_ROWS, _BYTES = 128, 1 << 18  # how much a replay reads at once: the loop may wait for it
_CHECKPOINT_PAGES = 1000
_FSYNC_ERRORS = ("SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC")
# Rows of trimmed records are emptied at once and deleted when so many more are trimmed.
# Deleting makes SQLite move the rows of the next two pages together, which leaves copies of
# them in the gaps of these pages; so those rows must be empty ones. At least 27 bytes each.
_SPENT = 512
_BEGUN = "(SELECT max(first) FROM batch WHERE first <= ?)"
_FOLLOWING = f"{ROW} WHERE first >= {_BEGUN} ORDER BY first LIMIT ?"
_BETWEEN = f"{ROW} WHERE first >= {_BEGUN} AND first <= ? ORDER BY first"
_BEFORE = (
    "SELECT first, ts, before, crc, marks FROM batch WHERE first <= ? ORDER BY first DESC LIMIT 1"
)
_BEGIN = "SELECT first, ts, marks FROM batch WHERE first <= ? ORDER BY first DESC LIMIT 1"
_NOT_OWNED = "DELETE FROM owned WHERE owner = ? AND first = ?"
_OWNED = "SELECT first FROM owned WHERE owner = ? AND first <= ? ORDER BY first"
_REWRITE = "UPDATE batch SET gone = ?, content = ? WHERE first = ?"
_EMPTY = (
    "UPDATE batch SET top = NULL, low = NULL, high = NULL, marks = x'', gone = x'', content = x'' "
    "WHERE first = ?"
)
_DELETE_SPENT = (
    "DELETE FROM batch WHERE first < "
    "(SELECT first FROM batch WHERE first <= ? ORDER BY first DESC LIMIT 1 OFFSET ?)"
)


class SqliteLog:
    """An EventLog in one file.

    `sync` may be called from any thread, everything else from one. About every `_CHECKPOINT_PAGES`
    pages (4 MB) an append also moves the WAL into the main file, which fsyncs; the ADR has the
    length of that pause. The log runs the checkpoint itself, since SQLite's own checkpoint within a
    commit does not report a failed fsync. `forget` does it too. A log of an old format is converted
    at opening (`store._migrate`).
    """

    def __init__(
        self, path: Path | str, epoch: int = 1, *, connected: sqlite3.Connection | None = None
    ) -> None:
        self.path = Path(path)
        self._closed = False
        self._broken = ""
        self._pages = 0
        self._stale = False
        self._erasures = 0
        self._descriptor = threading.Lock()
        self._db = _connected(self.path) if connected is None else connected
        with closed_on_failure(self.path, self._db):
            self._open(epoch)
        try:
            sync_directory(self.path.parent)
            self._wal = os.open(f"{self.path}-wal", os.O_RDONLY)
            self._mark = _mark.Mark(self.path)
        except OSError as error:
            self._db.close()
            raise Full(f"{self.path} cannot be made durable ({error.strerror})") from None

    def _open(self, epoch: int) -> None:
        db = self._db
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA wal_autocheckpoint=0")
        db.execute("PRAGMA secure_delete=ON")
        db.execute("BEGIN IMMEDIATE")
        # writes, so that the WAL file is there and the exclusive lock is held from now on
        prepare(db, epoch)
        db.execute("COMMIT")
        self._seq, self._crc, self._base, self._base_crc = checked_head(db)
        self._ids = Ids(db)
        # an erasure that was cut off by a crash may have left its text in the WAL
        self._empty_wal()

    def append(self, records: Sequence[Record]) -> Offset:
        """Write all records to the kernel in one transaction, or none; returns the last offset.

        Raises Duplicate, Full (the log is usable again when there is space) and Closed.
        """
        for each in records:
            check_record(each)
        return self.append_copied(records)

    def append_copied(self, records: Sequence[Record]) -> Offset:
        """As `append`; a record without a body is kept as an erased one."""
        self._check()
        if not records:
            return Offset(self._seq)
        seq, crc, size, entries = self._seq, self._crc, 0, 0
        try:
            with self._transaction():
                for some in _batch.cut(records):
                    packed = _batch.pack(seq + 1, crc, some)
                    entries += write(self._db, self._ids, packed)
                    seq, crc = seq + len(some), packed.crc
                    size += len(packed.row[6])
                self._db.execute("UPDATE head SET seq = ?, crc = ? WHERE one = 1", (seq, crc))
        except BaseException:
            self._ids.undone()
            raise
        self._seq, self._crc = seq, crc
        self._written(4 + entries + size // PAGE)
        return Offset(seq)

    def sync(self) -> Offset:
        """One fdatasync of the WAL; returns the last durable offset.

        After a failed fsync it is unknown what reached the disk, so every later call raises Closed;
        opening the log again shows what is there.
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
        """Bodies after `after`, in order; every CRC from there to the end is verified.

        Rows that are erased while they are read are read again: no erased body is yielded.
        """
        self._check()
        if after > self._seq:
            raise Corrupt(after, "the record before it is missing")
        seq: Any = after  # an Offset; creating each of them would take a tenth of the time
        while True:
            if seq < self._base:  # also if it was trimmed meanwhile
                raise Trimmed(seq, self.first)
            if seq >= self._seq:
                return
            known, crc = self._erasures, self._crc_after(seq)
            rows, damage = self._following(seq + 1)
            for row in rows:
                bodies, wrong = _batch.bodies(row, seq + 1, crc)
                for body in bodies:
                    if known != self._erasures:
                        break
                    seq += 1
                    yield seq, body
                if known != self._erasures:
                    damage = ""  # the rows after it are read again, and then this one
                    break
                if wrong is not None:
                    raise wrong
                crc = row[3]
            if damage or not rows:
                raise Corrupt(seq + 1, damage or f"it is missing, but the head says {self._seq}")
            rows = []  # before the next are read, so that there is never a second list
            self._check()

    def records(self, after: Offset = START) -> Iterator[tuple[Offset, Record]]:
        """As `replay`, with all of each record; one without a body was erased."""
        found = dict[int, Record]()
        for seq, body in self.replay(after):
            if seq not in found:
                rows, damage = self._read(AT, (seq,))
                if damage or not rows:
                    raise Corrupt(seq, damage or "it is missing")
                found = {each.seq: each.record for each in _batch.records(rows[0])}
            yield seq, found[seq]._replace(body=body)

    def _crc_after(self, seq: int) -> Any:
        """What a row that begins after `seq` covers; None if none begins there."""
        rows, damage = self._read(_BEFORE, (seq,))
        if damage:
            raise Corrupt(seq, damage)
        if seq == self._base and (not rows or _batch.last(rows[0], seq) == seq):
            return self._base_crc
        if not rows:
            raise Corrupt(seq, "the record before it is missing")
        return rows[0][3] if _batch.last(rows[0], seq) == seq else None

    def _following(self, seq: int) -> tuple[list[Row], str]:
        """The row that has `seq` and some of those after it."""
        return self._read(_FOLLOWING, (seq, _ROWS), _BYTES)

    def forget(self, owner: str, upto: Offset) -> int:
        """Erase an owner's bodies from the file and from its WAL; returns how many.

        It takes time in proportion to the owner's records, and the pause of a checkpoint.
        """
        self._check()
        if not owner:
            raise ValueError("owner: must not be empty")
        erased = 0
        self._erasures += 1
        with self._transaction():
            for (first,) in self._db.execute(_OWNED, (owner, upto)).fetchall():
                erased += self._forget_in(first, owner, upto)
        self._stale = self._stale or erased > 0
        if self._stale:
            try:
                self._empty_wal()
            except sqlite3.DatabaseError as error:
                raise self._failed(
                    "the WAL, which still holds the erased records,", error
                ) from None
        return erased

    def _forget_in(self, first: int, owner: str, upto: int) -> int:
        rows, damage = self._read(f"{ROW} WHERE first = ?", (first,))
        if first <= self._base and not (damage or (rows and rows[0][4])):
            return 0  # of a row that was trimmed
        if damage or not rows or not _batch.proven(rows[0]):
            raise Corrupt(max(first, self._base + 1), damage or "its checksum does not match")
        _, wrong = _batch.bodies(rows[0], max(first, self._base + 1), None)
        if wrong is not None:  # a damaged owner belongs to nobody, and a seal would hide the damage
            raise wrong
        found = [
            each
            for each in _batch.records(rows[0])
            if each.record.owner == owner and self._base < each.seq <= upto and not each.gone
        ]
        if found:
            self._db.execute(_REWRITE, (*_batch.without(rows[0], found), first))
        return len(found)

    def trim(self, upto: Offset, most: int = 100) -> int:
        """Empty the oldest records and delete rows of older ones; returns how many are left."""
        self._check()
        base, upto = self._base, min(upto, Offset(self._seq))
        new = min(upto, base + most)
        if new > base:
            rows, damage = self._read(_BETWEEN, (base + 1, new))
            if damage or not rows:
                raise Corrupt(new, damage or "it is missing")
            with self._transaction():
                for row in rows:
                    crc = self._trim_in(row, new)
                self._db.execute(_DELETE_SPENT, (new, _SPENT))
                self._db.execute("UPDATE head SET base = ?, base_crc = ? WHERE one = 1", (new, crc))
            self._base, self._base_crc = new, crc
            self._erasures += 1
            self._stale = True  # the WAL may still have them, and `forget` will not find them
            self._written(4 + 2 * len(rows))
        return max(0, upto - self._base)

    def begin_after(self, offset: Offset) -> None:
        """Delete all records; the next one has the offset after this one, which must not be less
        than the last.
        """
        if offset < self._seq:
            raise ValueError(f"offset: must be at least {self._seq}, got {offset}")
        while self.trim(Offset(self._seq), 1000):
            pass
        with self._transaction():
            for table in ("batch", "stray", "owned"):
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - ours
            self._db.execute(
                "UPDATE head SET seq = ?, base = ?, base_crc = crc WHERE one = 1", (offset, offset)
            )
        self._seq = self._base = int(offset)
        self._base_crc = self._crc
        self._ids.undone()
        self._empty_wal()

    def _trim_in(self, row: Row, upto: int) -> int:
        """Empty the records of a row up to `upto`; the CRC of the last one of them."""
        first, last, marks = row[0], _batch.last(row, 0), row[4]
        whole = last <= upto
        if not (whole or _batch.proven(row)):
            raise Corrupt(upto, "its checksum does not match")
        try:
            found = [each for each in _batch.records(row) if each.seq > self._base]
        except Corrupt:
            if not whole:
                raise
            found = []  # damage may be deleted, too; its entries stay, and find nothing
        left = {each.record.owner for each in found if each.seq > upto}
        gone = [each.record for each in found if each.seq <= upto]
        owners = {each.owner for each in gone} - left
        self._db.executemany(_NOT_OWNED, [(owner, first) for owner in owners if owner])
        self._ids.remove(each.eid.encode() for each in gone)
        if whole:
            self._db.execute(_EMPTY, (first,))
            return row[3]
        self._db.execute(_REWRITE, (*_batch.without(row, (), upto), first))
        return _batch.crc_at(marks, upto - first)

    def offset_at(self, ts: float) -> Offset:
        """The newest record older than `ts`: its row by binary search, then one by one."""
        self._check()
        if self._base == self._seq:
            return START
        low, high = self._begin_of(self._base + 1)[0], self._seq
        while True:
            first, begun, last = self._begin_of((low + high + 1) // 2)
            if first == low:
                if last >= high:
                    break
                first, begun, _ = self._begin_of(last + 1)
            low, high = (first, high) if begun < ts else (low, first - 1)
        rows, damage = self._read(AT, (low,))
        if damage:
            raise Corrupt(low, damage)
        times = enumerate(_batch.times(rows[0]), low)
        older = [at for at, each in times if each < ts and at > self._base]
        return Offset(older[-1]) if older else START

    def _begin_of(self, seq: int) -> tuple[int, float, int]:
        """The row with this offset: its first offset, its time, its last offset."""
        rows, damage = self._read(_BEGIN, (seq,))
        if damage or not rows or not isinstance(rows[0][1], float):
            raise Corrupt(seq, damage or "it has no time")
        first, begun, marks = rows[0]
        last = first + _batch.count(marks) - 1
        if last < seq:
            raise Corrupt(seq, "it is missing")
        return first, begun, last

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
        """The pages in use; freed pages are used again before the file grows."""
        self._check()
        return bytes_in_use(self._db)

    def _read(
        self, query: str, values: tuple[object, ...], most_bytes: int = 0
    ) -> tuple[list[Any], str]:
        """All rows up to the first unreadable one, and why it is unreadable ("" if none is).

        most_bytes: of their contents, after which no more are read; 0 for no limit.
        """
        rows, size = list[Any](), 0
        try:
            for row in self._db.execute(query, values):
                rows.append(row)
                size += len(row[-1]) if most_bytes else 0
                if most_bytes and size >= most_bytes:
                    break
        except UNREADABLE as error:
            return rows, f"it cannot be read ({error})"
        except TypeError:  # the content of the last one has no length
            return rows, ""
        return rows, ""

    def close(self) -> None:
        """Make everything durable (closing checkpoints and fsyncs) and close the file."""
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

        Committed records are in the WAL whatever the result. So a full disk only delays this, and
        the next call reports a failed fsync, like one of `sync`.
        """
        self._pages += pages
        if self._pages < _CHECKPOINT_PAGES:
            return
        self._pages = 0
        try:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.DatabaseError as error:
            if name_of(error) in _FSYNC_ERRORS:
                self._break(str(error))

    def _empty_wal(self) -> None:
        """Move the WAL into the main file and cut it off, so that erased text is in neither.

        The file stays the same one, and what `sync` promised is in the main file before.
        """
        busy, *_ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert not busy, "there is one connection, and it reads in whole chunks"
        self._stale, self._pages = False, 0

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Run all of it or nothing;

        errors of SQLite become errors of the store, except IntegrityError.
        """
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
        """Undo a transaction that could not be written; returns the error to raise."""
        self._rollback()
        if name_of(error) in _FSYNC_ERRORS:
            return self._break(str(error))
        if isinstance(error, sqlite3.OperationalError):
            return Full(f"{what} cannot be written ({error})")
        return Corrupt(self._seq + 1, f"{what} cannot be written ({error})")

    def _break(self, why: str) -> Closed:
        """After a failed fsync it is unknown what reached the disk: refuse everything."""
        self._broken = f"the log could not be made durable ({why}); open it again"
        return Closed(self._broken)

    def _rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")


def open_to_read(path: Path | str) -> EventLog:
    """A log for reading only: a log of an old format is not converted.

    Raises Absent if there is none, or an empty file.
    """
    if absent(Path(path)):
        raise Absent(path)
    db, found = opened(Path(path))
    if found not in OLD:
        return SqliteLog(path, connected=db)
    with closed_on_failure(Path(path), db):
        return OldLog(Path(path), db)


def _connected(path: Path) -> sqlite3.Connection:
    db, found = opened(path)
    if found in OLD:
        return migrated(path, db)
    remove(beside(path))  # the conversion of an old log was started, and another log is here now
    return db
