"""Opens the file of a log: nothing is written before it is known to be a complete log.

SQLite does not report that a WAL lost its end, and deletes it when it closes. So the WAL is checked
first, and kept if the log is refused.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from store import _mark, _wal
from store._disk import close_to_others, private
from store._format import UNREADABLE, found_format, last_of
from store.errors import Corrupt, Full, Locked, StoreError


def opened(path: Path) -> tuple[sqlite3.Connection, int]:
    """A connection that has the lock of the file, and the format of the log in it."""
    _put_back_wal(path)
    if _missing(path):
        raise Corrupt(1, f"{path} is missing or empty, but files that belong to it exist")
    private(path)
    close_to_others(Path(f"{path}-wal"))  # of a version that made it readable for all
    try:
        db = sqlite3.connect(path, timeout=0.0, isolation_level=None, check_same_thread=False)
    except sqlite3.OperationalError as error:
        raise Full(f"{path} cannot be opened ({error})") from None
    with closed_on_failure(path, db):
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        # the first read takes the lock; nothing is written into another program's file
        found = found_format(db, path)
        refuse_shortened(db, path)
        # writes nothing, and nobody else can read the file from now on
        db.execute("PRAGMA journal_mode=WAL")
    return db, found


@contextlib.contextmanager
def closed_on_failure(path: Path, db: sqlite3.Connection) -> Iterator[None]:
    """Errors of SQLite become errors of the store;

    any of them closes the connection, and damage keeps the WAL.
    """
    try:
        yield
    except UNREADABLE as error:
        refused = _refused(path, error)
        if isinstance(refused, Corrupt):
            _close_and_keep_wal(path, db)
        db.close()
        raise refused from None
    except Corrupt:
        _close_and_keep_wal(path, db)
        raise
    except StoreError:
        db.close()
        raise


def refuse_shortened(db: sqlite3.Connection, path: Path) -> None:
    """Check the WAL before anything is written, while the rest of a lost end is still there."""
    last = last_of(db)
    why = _wal.cut_short(Path(f"{path}-wal"))
    if why:
        raise Corrupt(last + 1, why)
    synced = _mark.read(path)
    if synced > last:
        raise Corrupt(
            last + 1,
            f"it ends at {last}, but {synced} events were on disk; if an older log was put "
            f"here on purpose, move {_mark.beside(path).name} and the snapshots away",
        )


def name_of(error: Exception) -> str:
    """SQLite's name of an error; errors of Python itself have none."""
    return getattr(error, "sqlite_errorname", "SQLITE_ERROR")


def _refused(path: Path, error: Exception) -> StoreError:
    if "locked" in str(error):
        return Locked(path)
    if isinstance(error, sqlite3.OperationalError) and name_of(error) != "SQLITE_ERROR":
        return Full(f"{path} cannot be written ({error})")
    return Corrupt(0, f"{path} is not an event log ({error})")


def _close_and_keep_wal(path: Path, db: sqlite3.Connection) -> None:
    """Closing deletes the WAL, with its unreadable part; so it gets a new name."""
    wal, kept = _wal_and_kept(path)
    with contextlib.suppress(OSError):
        kept.unlink(missing_ok=True)
        kept.hardlink_to(wal)
    db.close()
    _put_back_wal(path)


def _wal_and_kept(path: Path) -> tuple[Path, Path]:
    return Path(f"{path}-wal"), Path(f"{path}-wal.kept")


def _put_back_wal(path: Path) -> None:
    """The WAL of a refused opening, also of an interrupted one."""
    wal, kept = _wal_and_kept(path)
    with contextlib.suppress(OSError):
        if not wal.exists():
            kept.replace(wal)
        kept.unlink(missing_ok=True)  # where nothing was deleted, both are one file


def _missing(path: Path) -> bool:
    """Whether the file is missing although files next to it show that it existed."""
    if _has_bytes(path):
        return False
    return _mark.read(path) > 0 or _has_bytes(Path(f"{path}-wal"))


def absent(path: Path) -> bool:
    """Whether there is no log here, nor the rest of one."""
    wal, kept = _wal_and_kept(path)
    return not (any(map(_has_bytes, (path, wal, kept))) or _mark.read(path) > 0)


def _has_bytes(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0
