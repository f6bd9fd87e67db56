"""What can be saved of a damaged log, and a new log of that. The damaged file is only read.

A record is saved if its checksum holds over that of the record before it as it is stored, also
when that record is itself damaged: so one that follows a hole cannot be told from a damaged one
and is left out, but those after it are saved. Nothing is guessed. In the place of a lost record
stands an empty one, as if it had been erased: every other keeps its offset, and snapshots fit.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store import _format, _mark, _wal
from store._disk import held, sync_directory
from store._protocols import START, Offset, Record
from store.errors import Corrupt, Full

_CHUNK = 512
_PAGE = 4096
_MOST_PER_PAGE = 200
_GIVE_UP = 100_000  # rows tried where nothing says how many there are
_Row = tuple[int, Any, Any, Any, Any, Any, Any]  # as in _format, and not checked
_Keep = Callable[[Record], None]
_UNREADABLE = "it cannot be read"


@dataclass(frozen=True, slots=True)
class Report:
    """What a log holds and what of it is lost; offsets are those of the damaged log.

    damaged:       the first offset that is not as it was written; None if all is whole.
    why:           what is wrong there, or with the row that says where the log ends.
    first, last:   what the log had: the oldest record kept and the newest one known of.
    before, after: how many records are saved, before and after `damaged`.
    lost:          ranges of offsets, both ends included, that cannot be saved.
    unverifiable:  offsets of `lost` that can be read and follow a hole: what the checksum
                   covers is missing, so nobody can say whether they are as they were written.
    erased:        how many of the saved ones had been erased, and stay so.
    """

    damaged: Offset | None
    why: str
    first: Offset
    last: Offset
    before: int
    after: int
    lost: tuple[tuple[int, int], ...]
    unverifiable: tuple[int, ...]
    erased: int

    @property
    def gap(self) -> bool:
        """Whether records after a lost one are saved."""
        return self.after > 0 and bool(self.lost)

    @property
    def lost_count(self) -> int:
        """How many are lost."""
        return sum(last - first + 1 for first, last in self.lost)


def examine(path: Path, known: Offset = START) -> Report:
    """What `repair` would save. Raises Locked when another process has the log open.

    known: an offset that is known to have been there, as of a snapshot.
    """
    with held(path), _best(path, _known(path, known)) as (_, report):
        return report


def repair(path: Path, into: Path, known: Offset = START) -> Report:
    """Write a new log of all that can be saved, at the same offsets; `into` must not be there."""
    known = _known(path, known)
    with held(path), _best(path, known) as (db, _):
        if into.exists():
            raise Full(f"{into} already exists")
        try:
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
    base, crc = _base(db, _head(db))
    seq, rows = base, list[_Row]()

    def keep(record: Record) -> None:
        nonlocal seq, crc
        seq += 1
        crc = _format.rolling_crc(crc, seq, record)
        whole = (seq, record.eid, record.ts, record.kind, record.owner, crc, record.body)
        # an erased record has its checksum from what is left of it
        rows.append(whole if record.body else (*whole[:6], _format.seal(whole)))
        if len(rows) == _CHUNK:
            new.executemany(_format.INSERT, rows)
            rows.clear()

    new.execute("BEGIN IMMEDIATE")
    _format.prepare(new, 1)
    base_crc = crc
    report = _examined(db, keep, known)
    new.executemany(_format.INSERT, rows)
    new.execute(
        "UPDATE head SET seq = ?, crc = ?, base = ?, base_crc = ?", (seq, crc, base, base_crc)
    )
    new.execute("COMMIT")
    return report


@contextlib.contextmanager
def _best(path: Path, known: Offset) -> Iterator[tuple[sqlite3.Connection, Report]]:
    """A copy of the log, and what can be saved of it; another copy if that is more.

    One without the WAL, since a WAL that lost its end while the main file was ahead of it makes old
    pages of new ones. And one with all frames of the WAL, also those behind a damaged one.
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
            copies.append((db, _examined(db, lambda *_: None, known)))
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
            # SQLite reads nothing of a file that is shorter than it says; a flipped bit says much
            if header[:16] == b"SQLite format 3\0" and size < pages * _PAGE < 64 * (size + _PAGE):
                file.truncate(pages * _PAGE)
    except OSError as error:
        raise Full(f"{source} cannot be copied ({error.strerror})") from None


def _examined(db: sqlite3.Connection, keep: _Keep, known: Offset) -> Report:
    """Read all rows in order and call `keep` with the records that can be saved.

    known: what was there up to this offset and is not is lost.
    """
    head, most = _head(db), _pages(db) * _MOST_PER_PAGE
    base, base_crc = _base(db, head)
    at = newest = base  # the last one saved, and the last one seen
    chain = _Chain(base_crc)
    kept, erased, ts, ended = 0, 0, 0.0, base_crc
    lost, unverifiable = list[tuple[int, int]](), list[int]()
    places: list[tuple[int, str, int]] = []  # (offset, why, how many were saved before)
    why = doubted = ""
    for row in _rows(db):
        if row[0] <= base and row[6] == b"":
            continue  # trimmed, and its row is not deleted yet
        saved = [each for each in chain.saved(row) if each[0] > at]
        for seq, record in saved:
            if seq > at + 1:
                places.append((at + 1, why or _UNREADABLE, kept))
                lost.append((at + 1, seq - 1))
                _keep_empty(keep, lost[-1], record.ts)
            elif len(saved) == 2 and seq != row[0]:
                places.append((seq, why, kept))
            at, kept, erased, why = seq, kept + 1, erased + (not record.body), ""
            ts = record.ts
            keep(record)
        ended = chain.crc if saved else ended
        if not saved:
            why = why or (chain.why if row[0] == at + 1 else "")
            if doubted or row[0] != newest + 1:
                unverifiable.append(row[0])
        doubted = "" if saved else chain.why
        newest = max(newest, row[0] if row[0] <= base + most else 0)
    end = max(at, newest)
    # the head knows of lost ones at the end, unless its checksum is that of the last one saved
    if head is not None and at <= head[0] <= end + most:
        end = head[0] if head[1] != ended else at
    if known - end <= _GIVE_UP:  # more than that is of another log
        end = max(end, known)
    if end > at:
        places.append((at + 1, why or _UNREADABLE, kept))
        lost.append((at + 1, end))
        _keep_empty(keep, lost[-1], ts)
    if not places and head != (at, ended, base, base_crc):
        places.append((at + 1, "the row that holds the end of the log is damaged", kept))
    place, why, before = places[0] if places else (None, "", kept)
    return Report(
        damaged=None if place is None else Offset(place),
        why=why,
        first=Offset(base + 1),
        last=Offset(end),
        before=before,
        after=kept - before,
        lost=tuple(lost),
        unverifiable=tuple(
            each for each in unverifiable if any(first <= each <= to for first, to in lost)
        ),
        erased=erased,
    )


def _keep_empty(keep: _Keep, lost: tuple[int, int], ts: float) -> None:
    """Empty records in the place of lost ones, of a time at which none goes backwards."""
    for offset in range(lost[0], lost[1] + 1):
        keep(Record(f"lost-{offset}", "lost", ts, b""))


class _Chain:
    """Which rows are as they were written, by the checksums of their neighbours."""

    def __init__(self, crc: int) -> None:
        self.crc = crc  # as the row before has it stored
        self.why = ""
        self._doubtful: tuple[int, int, Record] | None = None

    def saved(self, row: _Row) -> list[tuple[int, Record]]:
        """This row if it is whole, and the one before if only its own checksum was damaged."""
        doubtful, self._doubtful = self._doubtful, None
        seq, before = row[0], self.crc
        self.crc = row[5] if isinstance(row[5], int) else -1
        try:
            return [(seq, _format.verified(before, seq, row)[1])]
        except Corrupt as error:
            self.why = error.reason
        if doubtful is not None:
            # the checksum of this one covers what the row before has as its content
            with contextlib.suppress(Corrupt):
                record = _format.verified(doubtful[0], seq, row)[1]
                return [doubtful[1:], (seq, record)]
        with contextlib.suppress(*_format.TYPES):
            record = Record(row[1], row[3], row[2], row[6], row[4])
            self._doubtful = (_format.rolling_crc(before, seq, record), seq, record)
        return []


def _head(db: sqlite3.Connection) -> tuple[int, int, int, int] | None:
    """(last, its CRC, last trimmed, its CRC), or None where they cannot be read."""
    try:
        _format.refuse_strangers(db, Path("it"))
        known = {row[1] for row in db.execute("PRAGMA table_info(head)")}
        base = "base, base_crc" if "base" in known else "0, 0"
        head = db.execute(f"SELECT seq, crc, {base} FROM head").fetchone()  # noqa: S608 - ours
    except (*_format.UNREADABLE, Corrupt):
        return None
    if head is None or not all(isinstance(value, int) and value >= 0 for value in head):
        return None
    return head[0], head[1], head[2], head[3]


def _base(db: sqlite3.Connection, head: tuple[int, int, int, int] | None) -> tuple[int, int]:
    """Up to where the log was trimmed: what the head says if the rows agree, or what they say."""
    rows = _rows(db)
    row = next(rows, None)
    spent = None
    agreed = head is not None and head[2:] == (0, 0)
    while row is not None and row[6] == b"":
        spent = (row[0], row[5])
        agreed = agreed or (head is not None and head[2:] == spent)
        row = next(rows, None)
    rows.close()
    if head is not None and (agreed or (spent is None and (row is None or head[2] < row[0]))):
        return head[2], head[3]
    if spent is not None and isinstance(spent[1], int):
        return spent
    return 0, 0


def _pages(db: sqlite3.Connection) -> int:
    try:
        return int(db.execute("PRAGMA page_count").fetchone()[0])
    except _format.UNREADABLE:
        return 0


def _rows(db: sqlite3.Connection) -> Generator[_Row, None, None]:
    """Every row that can be read, in the order in which they were appended."""
    try:
        known = {row[1] for row in db.execute("PRAGMA table_info(log)")}
    except _format.UNREADABLE:
        return
    owner = "owner" if "owner" in known else "''"
    query = (
        f"SELECT rowid, seq, eid, ts, kind, {owner}, crc, body FROM log "  # noqa: S608 - ours
        "WHERE rowid > ? ORDER BY rowid LIMIT ?"
    )
    at, top = 0, _top(db)
    while True:
        before, rows, whole = at, list[Any](), True
        try:
            for row in db.execute(query, (at, _CHUNK)):
                rows.append(row)
        except _format.UNREADABLE:
            whole = False
        for rowid, *row in rows:
            if rowid <= at:  # damage can lead round in circles
                whole = False
            elif isinstance(row[0], int):
                yield row[0], row[1], row[2], row[3], row[4], row[5], row[6]
            at = max(at, rowid)
        if whole and len(rows) < _CHUNK:
            return
        at += at == before  # one further over what cannot be read
        if not whole and at > top:
            return


def _top(db: sqlite3.Connection) -> int:
    """No row is beyond this one; by the first that can be read of what may say it."""
    head, most = _head(db), _pages(db) * _MOST_PER_PAGE
    if head is not None:
        return min(head[0], most + head[2])
    for query in (
        "SELECT rowid FROM log ORDER BY rowid DESC LIMIT 1",
        "SELECT rowid FROM log ORDER BY seq DESC LIMIT 1",
    ):
        with contextlib.suppress(*_format.UNREADABLE):
            row = db.execute(query).fetchone()
            return int(row[0]) if row else 0
    return min(most, _GIVE_UP)


def take_place(repaired: Path, path: Path, number: int) -> Path:
    """Put the repaired log where the damaged one is, which keeps its content as `…damaged-N`."""
    damaged = path.with_name(f"{path.name}.damaged-{number}")
    wal, mark = Path(f"{path}-wal"), _mark.beside(path)
    with held(path):
        try:
            damaged.hardlink_to(path)  # at no time is there no log in this place
            if wal.exists():
                wal.rename(f"{damaged}-wal")
            if mark.exists():  # which the new log may fall short of
                mark.rename(f"{damaged}-synced")
            repaired.replace(path)
            sync_directory(path.parent)
        except OSError as error:
            raise Full(f"{path} cannot be replaced ({error.strerror})") from None
    return damaged
