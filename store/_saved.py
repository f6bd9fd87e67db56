"""What can be saved of a damaged log of format 3.

A row can be verified by itself: its CRC covers its offset and the CRC of the row before, and its
marks cover its records one by one. So only damaged records are lost, and records after a hole are
saved. Damaged marks are computed again from the content. If a page is lost, the records of the row
before that page are read.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Generator, Iterator
from typing import Any

from store import _batch, _format
from store._batch import Row
from store._seen import Seen, read_head, top

_TOPS = ("SELECT first FROM batch ORDER BY first DESC LIMIT 1",)
_PIECE = 1024


def head_of(db: sqlite3.Connection) -> _format.Head | None:
    """The values of the head, None if it cannot be read."""
    return read_head(db, "seq, crc, base, base_crc")


def seen(db: sqlite3.Connection, base: int, crc: int) -> Iterator[Seen]:
    """Every record that can be read after `base`, which has this CRC."""
    at, before = base, crc
    for stored in _rows(db):
        if stored[0] <= base and stored[4] == b"":
            continue  # trimmed, and its row is not deleted yet
        row, repaired = _mended(stored, at + 1, before)
        if row is None and stored[0] <= base and _batch.well_formed(stored):
            row = stored  # the row before is trimmed; its records are verified by themselves
        found = list(_batch.whole(row)) if row is not None else []
        if row is None or not found:
            yield Seen(stored[0], [], -1, "its checksum does not match", chained=False)
            if stored[0] == at + 1:
                at = _batch.last(stored, at)
            before = stored[3]
            continue
        linked = row[2] == before or row[0] != at + 1 or row[0] <= base
        why = "its checksum does not match" if repaired or not linked else ""
        for seq, record, sound in found:
            if seq <= base:
                continue
            if record is None:
                yield Seen(seq, [], -1, "its checksum does not match", chained=False)
                continue
            why = why if sound else "its checksum does not match"
            end = row[3] if seq == found[-1][0] else -1
            yield Seen(seq, [(seq, record)], end, why, chained=False)
            why = ""
        at, before = found[-1][0], row[3]


def _mended(row: Row, first: int, before: int) -> tuple[Row | None, bool]:
    """The verifiable row, and whether it had to be changed.

    first, before: its offset and the CRC before it, if none is missing before it.
    """
    if _batch.proven(row):
        return row, False
    times = {row[1], *_batch.first_time(row[6])}
    for others in itertools.product({row[0], first}, times, {row[2], before}):
        one: Row = (*others, *row[3:])
        if _batch.proven(one):
            return one, True
    marks = _batch.marks_of(row)
    if marks is None:
        return None, True
    again: Row = (*row[:4], marks, *row[5:])
    if _batch.proven(again):
        return again, True
    if marks == row[4]:  # only the row's CRC is damaged: its records verify its offset
        return (*row[:3], _batch.crc_of(again), *row[4:]), True
    return None, True


def base_of(db: sqlite3.Connection) -> tuple[int, int]:
    """Up to where the log was trimmed: by the head if the rows agree with it, otherwise by the
    rows.
    """
    head, rows = head_of(db), _rows(db)
    spent: tuple[int, int] | None = None
    live = next(rows, None)
    while live is not None and live[4] == b"":
        spent = (live[0], live[3])
        live = next(rows, None)
    rows.close()
    if live is None:
        return head[2:] if head is not None else spent or (0, 0)
    zeros = _batch.trimmed(live)
    base = live[0] - 1 + zeros
    crc = _batch.crc_at(live[4], zeros - 1) if zeros else live[2]
    if head is not None:
        untouched = spent is None and not zeros
        if head[2:] in ((base, crc), (base, spent and spent[1])):
            return head[2], head[3]
        if untouched and (head[2:] == (0, 0) or head[2] < live[0]):
            return head[2], head[3]
    return (base, crc) if spent is not None or zeros else (0, 0)


def _rows(db: sqlite3.Connection) -> Generator[Row, None, None]:
    """Every row that can be read, in order;

    a row with a lost page with the part before that page.
    """
    at, end = 0, top(db, head_of(db), *_TOPS)
    query = f"{_format.ROW} WHERE first > ? ORDER BY first LIMIT 1"
    while True:
        try:
            row: Any = db.execute(query, (at,)).fetchone()
            if row is None:
                return
        except _format.UNREADABLE:
            row = _beginning(db, at)
        if row is None:
            at += 1  # skip one unreadable row
            if at > end:
                return
        elif row[0] <= at:
            return  # damage can lead to a loop
        else:
            at = row[0]
            if all(isinstance(each, bytes) for each in row[4:]) and isinstance(row[1], float):
                yield row


def _beginning(db: sqlite3.Connection, at: int) -> Row | None:
    """The row after `at` with the readable part of its content."""
    query = "SELECT first, ts, before, crc, marks, gone FROM batch WHERE first > ? ORDER BY first"
    try:
        row = db.execute(f"{query} LIMIT 1", (at,)).fetchone()
        if row is None:
            return None
        content = bytearray()
        with db.blobopen("batch", "content", row[0], readonly=True) as blob:
            while piece := _piece(blob):
                content += piece
    except (*_format.UNREADABLE, SystemError):
        return None
    found: Row = (*row, bytes(content))
    return found


def _piece(blob: sqlite3.Blob) -> bytes:
    try:
        return blob.read(_PIECE)
    except _format.UNREADABLE:
        return b""
