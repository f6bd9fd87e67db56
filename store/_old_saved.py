"""What can be saved of a damaged log of the formats 1 and 2.

A record is saved if its checksum is right with the stored checksum of the record before it, even if
that record is damaged. So a record that follows a hole cannot be distinguished from a damaged one
and is left out, but those after it are saved.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator, Iterator
from typing import Any

from store import _format, _old_rows
from store._protocols import Record
from store._seen import Seen, read_head, top
from store.errors import Corrupt

_CHUNK = 512
_TOPS = (
    "SELECT rowid FROM log ORDER BY rowid DESC LIMIT 1",
    "SELECT rowid FROM log ORDER BY seq DESC LIMIT 1",
)
_Row = tuple[int, Any, Any, Any, Any, Any, Any]  # as in _old_rows, and not checked


def head_of(db: sqlite3.Connection) -> _format.Head | None:
    """The values of the head, None if it cannot be read."""
    try:
        columns = _old_rows.columns(db)[1]
    except _format.UNREADABLE:
        return None
    return read_head(db, columns)


def seen(db: sqlite3.Connection, base: int, crc: int) -> Iterator[Seen]:
    """Every record that can be read after `base`, which has this CRC."""
    chain = _Chain(crc)
    for row in _rows(db):
        if row[0] <= base and row[6] == b"":
            continue  # trimmed, and its row is not deleted yet
        saved = chain.saved(row)
        yield Seen(row[0], saved, chain.crc, "" if saved else chain.why, chained=True)


class _Chain:
    """Which rows are undamaged, by the checksums of their neighbours."""

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
            return [(seq, _old_rows.verified(before, seq, row)[1])]
        except Corrupt as error:
            self.why = error.reason
        if doubtful is not None:
            # the checksum of this one covers the content of the row before
            with contextlib.suppress(Corrupt):
                record = _old_rows.verified(doubtful[0], seq, row)[1]
                return [doubtful[1:], (seq, record)]
        with contextlib.suppress(*_format.TYPES):
            record = Record(row[1], row[3], row[2], row[6], row[4])
            self._doubtful = (_old_rows.rolling_crc(before, seq, record), seq, record)
        return []


def base_of(db: sqlite3.Connection) -> tuple[int, int]:
    """Up to where the log was trimmed: by the head if the rows agree with it, otherwise by the
    rows.
    """
    head, rows = head_of(db), _rows(db)
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


def _rows(db: sqlite3.Connection) -> Generator[_Row, None, None]:
    """Every row that can be read, in the order in which they were appended."""
    try:
        columns = _old_rows.columns(db)[0]
    except _format.UNREADABLE:
        return
    query = f"SELECT rowid, {columns} FROM log WHERE rowid > ? ORDER BY rowid LIMIT ?"  # noqa: S608
    at, end = 0, top(db, head_of(db), *_TOPS)
    while True:
        before, rows, whole = at, list[Any](), True
        try:
            for row in db.execute(query, (at, _CHUNK)):
                rows.append(row)
        except _format.UNREADABLE:
            whole = False
        for rowid, *row in rows:
            if rowid <= at:  # damage can lead to a loop
                whole = False
            elif isinstance(row[0], int):
                yield row[0], row[1], row[2], row[3], row[4], row[5], row[6]
            at = max(at, rowid)
        if whole and len(rows) < _CHUNK:
            return
        at += at == before  # skip one unreadable row
        if not whole and at > end:
            return
