"""Makes files and their names durable, and counts a database's pages."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from store.errors import Full, Locked

PAGE = 4096
"""Bytes of a page of SQLite."""
PARTIAL = ".partial"
"""How the name of a file ends that is not whole yet."""
PIECE = 1 << 20
"""At most so many bytes of a file go to the disk at once: what another file's fsync waits for."""

# The bytes of a file that SQLite locks to read and write it, and how many.
_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510


def sync_data(descriptor: int) -> None:
    """The content of an open file, and its length."""
    if sys.platform == "darwin":  # macOS has no fdatasync, and its fsync does not reach the disk
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def sync_directory(path: Path) -> None:
    """The names of the files in it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, *parts: bytes | bytearray) -> None:
    """Write a private file as a whole or not at all; it is on the disk before it has its name.

    It is synced piece by piece, since a journaling file system makes the fsyncs of all files wait
    for what was written: the log's checkpoint must not wait for a whole snapshot. Raises OSError,
    and leaves nothing behind.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        partial.unlink(missing_ok=True)
        opened = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(opened, "wb") as file:
            for piece in _pieces(parts):
                file.write(piece)
                if len(piece) == PIECE:
                    file.flush()
                    sync_data(file.fileno())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_directory(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def _pieces(parts: Sequence[bytes | bytearray]) -> Iterator[memoryview]:
    """The parts one after the other, large ones in pieces; nothing is copied."""
    for part in parts:
        whole = memoryview(part)
        for at in range(0, len(whole), PIECE):
            yield whole[at : at + PIECE]


def private(path: Path) -> None:
    """A file that others may not read: created if it is missing, otherwise its rights are reduced.

    If neither is possible, using the file fails with an error.
    """
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    close_to_others(path)


def close_to_others(path: Path) -> None:
    """Remove others' rights to a file; a group's rights stay as they are."""
    with contextlib.suppress(OSError):  # by name: a descriptor of it would end SQLite's locks
        mode = path.stat().st_mode & 0o777
        if mode & 0o007:
            path.chmod(mode & ~0o007)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Prevent other processes from opening a SQLite file, without opening it as a database.

    Must not be used if this process has it open: POSIX locks end with any descriptor.
    """
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError as error:
        raise Full(f"{path} cannot be opened ({error.strerror})") from None
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_FIRST)
        yield
    except BlockingIOError:
        raise Locked(path) from None
    finally:
        os.close(descriptor)


def bytes_in_use(db: sqlite3.Connection) -> int:
    """The used pages of a database."""
    used, free = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count")
    )
    return int(used - free) * PAGE
