"""Converts a log of an old format to format 3: in a new file, which takes its name when it is
complete.

Until then the old file is only read, and remains the log whenever the process is killed. The new
one is written next to it as `...-migrating`. The next opening continues it, if the old file has not
changed since. It needs about as much free space as the old log takes.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from store import _batch
from store._disk import held, private, sync_directory
from store._format import ROW, UNREADABLE, checked_head, prepare
from store._ids import Ids, write
from store._old_rows import OldLog
from store._opening import closed_on_failure, opened
from store._protocols import Record
from store.errors import Corrupt, Full, StoreError

_log = logging.getLogger("bandit.store")
_AT_ONCE = 8192  # records of a transaction: this much is repeated after a kill
_TOLD_S = 5.0
_HEAD = "UPDATE head SET seq = ?, crc = ?, base = ?, base_crc = ?"


def beside(path: Path) -> Path:
    """The file of the new log for the log at `path`."""
    return Path(f"{path}-migrating")


def migrated(path: Path, db: sqlite3.Connection) -> sqlite3.Connection:
    """Convert the log that `db` has open to this format; returns a connection to the new one and
    closes `db`. Raises Corrupt, naming a damaged record, and Full without space; after any error
    the old log is unchanged.
    """
    with closed_on_failure(path, db):
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # so that all of it is in one file
        old, new = OldLog(path, db), beside(path)
        extra = {"events": int(old.last), "bytes": old.size_bytes, "path": str(path)}
        _log.info("the log is changed to a new format", extra=extra)
        try:
            try:
                _copied(path, old, new)
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                remove(new)  # what an earlier process left of it is damaged
                _copied(path, old, new)
        except Corrupt:
            remove(new)  # it is not continued: a repair comes first
            raise
        except (sqlite3.OperationalError, OSError) as error:
            raise Full(
                f"{new} cannot be written ({error}); the log gets a new format, for which about "
                f"{old.size_bytes} bytes must be free beside it"
            ) from None
        except sqlite3.DatabaseError as error:
            remove(new)
            raise StoreError(
                f"{new} does not hold what was written to it ({error}); the log is as it was, and "
                "gets a new format at the next start: check the disk"
            ) from None
    try:
        with held(new):  # nobody opens it before the old one is closed
            new.replace(path)
            sync_directory(path.parent)
            db.close()  # which deletes the WAL of this name, and that is empty
    except StoreError:  # of `held`
        db.close()
        raise
    except OSError as error:
        db.close()
        raise Full(f"{path} cannot be replaced ({error.strerror})") from None
    _log.info("the log has the new format", extra={"events": int(old.last)})
    return opened(path)[0]


def remove(new: Path) -> None:
    """Delete an unfinished new log that is not continued."""
    for each in (new, Path(f"{new}-journal")):
        each.unlink(missing_ok=True)


def _copied(path: Path, old: OldLog, new: Path) -> None:
    """Copy the whole old log to the new file, durably, and verify it."""
    is_now = path.stat()
    of = (is_now.st_size, is_now.st_mtime_ns, *old.end)
    if not _is_of(new, of):
        remove(new)
    private(new)
    with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as db:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("BEGIN IMMEDIATE")
        if not db.execute("SELECT 1 FROM sqlite_master").fetchone():
            prepare(db, 1)
            db.execute("CREATE TABLE migration (size, changed, seq, crc)")
            db.execute("INSERT INTO migration VALUES (?, ?, ?, ?)", of)
            db.execute(_HEAD, (*old.base, *old.base))
        db.execute("COMMIT")
        _fill(db, old)
        _verify(db, old)


def _is_of(new: Path, of: tuple[int, ...]) -> bool:
    """Whether an unfinished new log was begun from this old one, which has not changed since."""
    if not new.exists():
        return False
    with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as db:
        try:
            found = db.execute("SELECT size, changed, seq, crc FROM migration").fetchone()
        except UNREADABLE:
            return False
    return bool(found == of)


def _verify(db: sqlite3.Connection, old: OldLog) -> None:
    """Read and verify the whole new log, since it will be the only copy."""
    head = checked_head(db)
    seq, crc = old.base
    for row in db.execute(f"{ROW} ORDER BY first"):
        bodies, wrong = _batch.bodies(row, seq + 1, crc)
        if wrong is not None:
            raise sqlite3.DatabaseError(wrong.reason)
        seq, crc = seq + len(bodies), row[3]
    if (seq, crc) != head[:2] or seq != old.last:
        raise sqlite3.DatabaseError(f"it ends at {seq}, and the old one at {old.last}")


def _fill(db: sqlite3.Connection, old: OldLog) -> None:
    """Copy the missing records, some in a transaction."""
    seq, crc = db.execute("SELECT seq, crc FROM head").fetchone()
    ids, told = Ids(db), time.monotonic()
    for some in _in_pieces(old, seq):
        db.execute("BEGIN IMMEDIATE")
        for rows in _batch.cut(some):
            packed = _batch.pack(seq + 1, crc, rows)
            write(db, ids, packed)
            seq, crc = seq + len(rows), packed.crc
        db.execute(_HEAD, (seq, crc, *old.base))
        db.execute("COMMIT")
        if time.monotonic() - told > _TOLD_S:
            told = time.monotonic()
            extra = {"offset": seq, "events": int(old.last)}
            _log.info("the log is being changed to a new format", extra=extra)


def _in_pieces(old: OldLog, after: int) -> Iterator[list[Record]]:
    records = (record for _, record in old.records(after))
    while some := list(itertools.islice(records, _AT_ONCE)):
        yield some
