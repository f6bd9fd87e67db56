"""The records of a damaged log of any format, as they are read, each with what is wrong there."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import NamedTuple

from store import _format
from store._protocols import Record

MAX_PER_PAGE = 200
GIVE_UP = 100_000  # rows tried if their number is unknown


class Seen(NamedTuple):
    """A place of the log that was read.

    seq: its offset. saved: its undamaged records. crc: the head's CRC if the log ends here. why:
    what is wrong, "" if nothing is. chained: whether a record that follows a hole cannot be
    distinguished from a damaged one.
    """

    seq: int
    saved: list[tuple[int, Record]]
    crc: int
    why: str
    chained: bool


def read_head(db: sqlite3.Connection, columns: str) -> _format.Head | None:
    """(last, its CRC, last trimmed, its CRC), or None where they cannot be read."""
    try:
        head = db.execute(f"SELECT {columns} FROM head").fetchone()  # noqa: S608 - ours
    except _format.UNREADABLE:
        return None
    if head is None or not all(isinstance(value, int) and value >= 0 for value in head):
        return None
    return head[0], head[1], head[2], head[3]


def pages(db: sqlite3.Connection) -> int:
    """How many there are; 0 if that cannot be read."""
    try:
        return int(db.execute("PRAGMA page_count").fetchone()[0])
    except _format.UNREADABLE:
        return 0


def top(db: sqlite3.Connection, head: _format.Head | None, *queries: str) -> int:
    """No row is beyond this one, by the first readable source."""
    most = pages(db) * MAX_PER_PAGE
    if head is not None:
        return min(head[0], most + head[2])
    for query in queries:
        with contextlib.suppress(*_format.UNREADABLE):
            row = db.execute(query).fetchone()
            return int(row[0]) if row else 0
    return min(most, GIVE_UP)
