"""Finds what can be saved of a damaged log, and writes a new log of it.

The damaged file is only read. `store._examined` finds what can be saved. A lost record is replaced
by an empty one, as if it had been erased. So every other record keeps its offset, and snapshots
remain valid. The new log has the newest format, whichever the damaged one has.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from store import _batch, _format, _mark, _wal
from store._disk import PAGE, held, private, sync_directory
from store._examined import Report, base_of, examined
from store._ids import Ids, write
from store._protocols import START, Offset, Record
from store.errors import Full

__all__ = ["Report", "examine", "repair", "take_place"]

_CHUNK = 512


def examine(path: Path, known: Offset = START) -> Report:
    """What `repair` would save.

    Raises Locked if another process has the log open. known: an offset that is known to have
    existed, for example from a snapshot.
    """
    with held(path), _best(path, _known(path, known)) as (_, report):
        return report


def repair(path: Path, into: Path, known: Offset = START) -> Report:
    """Write a new log of all that can be saved, at the same offsets; `into` must not exist."""
    known = _known(path, known)
    with held(path), _best(path, known) as (db, _):
        if into.exists():
            raise Full(f"{into} already exists")
        try:
            private(into)
            with contextlib.closing(sqlite3.connect(into, isolation_level=None)) as new:
                report = _written(db, new, known)
            sync_directory(into.parent)
        except (sqlite3.OperationalError, OSError) as error:
            into.unlink(missing_ok=True)
            raise Full(f"{into} cannot be written ({error})") from None
    return report


def _known(path: Path, known: Offset) -> Offset:
    return Offset(max(known, _mark.read(path)))


def _written(db: sqlite3.Connection, new: sqlite3.Connection, known: Offset) -> Report:
    base, crc = base_of(db)
    seq, waiting = base, list[Record]()
    new.execute("BEGIN IMMEDIATE")
    _format.prepare(new, 1)
    ids = Ids(new)

    def flush() -> None:
        nonlocal seq, crc
        for some in _batch.cut(waiting) if waiting else ():
            packed = _batch.pack(seq + 1, crc, some)
            write(new, ids, packed)
            seq, crc = seq + len(some), packed.crc
        waiting.clear()

    def keep(record: Record) -> None:
        waiting.append(record)
        if len(waiting) == _CHUNK:
            flush()

    base_crc = crc
    report = examined(db, keep, known)
    flush()
    new.execute(
        "UPDATE head SET seq = ?, crc = ?, base = ?, base_crc = ?", (seq, crc, base, base_crc)
    )
    new.execute("COMMIT")
    return report


@contextlib.contextmanager
def _best(path: Path, known: Offset) -> Iterator[tuple[sqlite3.Connection, Report]]:
    """A copy of the log, and what can be saved of it; the best of several copies.

    One is without the WAL: if a WAL lost its end while the main file was ahead of it, it would
    replace new pages by old ones. Another has all frames of the WAL, also those after a damaged
    one.
    """
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(_beside(path)))
        copies = []
        wal = Path(f"{path}-wal")
        for name, files in (("with", [path, wal]), ("without", [path]), ("healed", [path, wal])):
            for file in files:
                if file.exists():
                    _copy(file, directory / file.name.replace(path.name, name))
            if name == "healed":
                _wal.heal(directory / f"{name}-wal")
            db = stack.enter_context(contextlib.closing(sqlite3.connect(directory / name)))
            db.text_factory = lambda text: text.decode(errors="surrogateescape")
            copies.append((db, examined(db, lambda *_: None, known)))
            whole = copies[0][1].damaged is None and not _wal.cut_short(wal)
            if whole or not wal.exists():
                break
        yield max(copies, key=lambda one: one[1].before + one[1].after)


def _beside(path: Path) -> contextlib.AbstractContextManager[str]:
    try:
        return tempfile.TemporaryDirectory(prefix=f"{path.name}.examined-", dir=path.parent)
    except OSError as error:
        raise Full(f"{path.parent} cannot be written ({error.strerror})") from None


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
        with target.open("r+b") as file:
            header, size = file.read(100), file.seek(0, os.SEEK_END)
            pages = int.from_bytes(header[28:32], "big")
            # SQLite does not read a file that is shorter than its header says, and a bit may have
            # flipped there
            if header[:16] == b"SQLite format 3\0" and size < pages * PAGE < 64 * (size + PAGE):
                file.truncate(pages * PAGE)
    except OSError as error:
        raise Full(f"{source} cannot be copied ({error.strerror})") from None


def take_place(repaired: Path, path: Path, number: int) -> Path:
    """Put the repaired log in place of the damaged one, whose content is kept as `…damaged-N`."""
    damaged = path.with_name(f"{path.name}.damaged-{number}")
    wal, mark = Path(f"{path}-wal"), _mark.beside(path)
    with held(path):
        try:
            damaged.hardlink_to(path)  # there is a log in this place at any time
            if wal.exists():
                wal.rename(f"{damaged}-wal")
            repaired.replace(path)
            # until then it makes a start refuse: the old main file lacks the WAL's content
            if mark.exists():  # and the new log may end before it
                mark.rename(f"{damaged}-synced")
            sync_directory(path.parent)
        except OSError as error:
            raise Full(f"{path} cannot be replaced ({error.strerror})") from None
    return damaged
