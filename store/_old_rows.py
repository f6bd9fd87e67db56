"""Logs of the formats 1 and 2, which kept one row per record: read, and never written.

Their CRC covers the one of the record before, the offset and the whole record.
"""

from __future__ import annotations

import sqlite3
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from store._disk import bytes_in_use
from store._format import TYPES, UNREADABLE, Head, agree, agree_on_base, read_head
from store._protocols import START, Offset, Record
from store.errors import Closed, Corrupt, Trimmed, Unsupported

Row = tuple[int, str, float, str, str, int, bytes]
"""(offset, id, time, kind, owner, CRC, body)."""

_CHUNK = 512
_READ_ONLY = "be written: it is of an old format and was opened to be read"


def rolling_crc(before: int, seq: int, record: Record) -> int:
    """CRC-32 over the previous CRC, the offset and the whole record.

    An owner is covered only if there is one: records of format 1 had none.
    """
    crc = zlib.crc32(struct.pack("<Iqd", before, seq, record.ts))
    crc = zlib.crc32(f"{record.eid}\0{record.kind}\0".encode(), crc)
    if record.owner:
        crc = zlib.crc32(f"{record.owner}\0".encode(), crc)
    return zlib.crc32(record.body, crc)


def seal(row: Row) -> bytes:
    """The content of an erased record's row in place of its body.

    Four bytes that cover the rest of the record. Damage is never mistaken for an erasure, and the
    rest of an erased record is checked like any record.
    """
    seq, eid, ts, kind, owner, crc, _ = row
    try:
        return struct.pack("<I", rolling_crc(crc, seq, Record(eid, kind, ts, b"erased", owner)))
    except TYPES:
        raise Corrupt(seq, "its columns have the wrong types") from None


def verified(before: int, at: int, row: Row) -> tuple[int, Record]:
    """The CRC and the record of the row that must be at offset `at`; Corrupt if it is not that.

    The body of an erased record is empty, and its stored CRC is used as it is: the record after it
    covers it.
    """
    seq, eid, ts, kind, owner, stored, body = row
    if seq != at:
        raise Corrupt(at, "it is missing")
    record = Record(eid, kind, ts, body, owner)
    try:
        crc = rolling_crc(before, at, record)
    except TYPES:
        raise Corrupt(at, "its columns have the wrong types") from None
    if crc == stored:
        return crc, record
    if body == seal(row):
        return stored, Record(eid, kind, ts, b"", owner)
    raise Corrupt(at, "its checksum does not match")


def columns(db: sqlite3.Connection) -> tuple[str, str]:
    """The columns of `log` for a row, and of `head`: format 1 had no owners and no trimming."""
    log = {row[1] for row in db.execute("PRAGMA table_info(log)")}
    head = {row[1] for row in db.execute("PRAGMA table_info(head)")}
    owner = "owner" if "owner" in log else "''"
    base = "base, base_crc" if "base" in head else "0, 0"
    return f"seq, eid, ts, kind, {owner}, crc, body", f"seq, crc, {base}"


def checked_head(db: sqlite3.Connection) -> Head:
    """The values of the head, if they agree with the records."""
    head = read_head(db, columns(db)[1])
    _, _, base, base_crc = head
    last = db.execute("SELECT seq, crc FROM log ORDER BY seq DESC LIMIT 1").fetchone()
    agree(head, last or (base, base_crc))
    row = db.execute("SELECT crc FROM log WHERE seq = ?", (base,)).fetchone()
    agree_on_base(head, row[0] if row else base_crc if base else 0)
    return head


class OldLog:
    """A log of an old format, opened for reading. Its file is never changed."""

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = db
        self._columns = columns(db)[0]
        self._seq, self._crc, self._base, self._base_crc = checked_head(db)

    def records(self, after: int) -> Iterator[tuple[Offset, Record]]:
        """The records after `after`, in order; the body of an erased one is empty.

        Raises Corrupt naming the first that is not as it was written, and Trimmed.
        """
        if after < self._base:
            raise Trimmed(after, self.first)
        seq, crc = after, self._base_crc
        if after > self._base:
            before, damage = self._read("SELECT crc FROM log WHERE seq = ?", (after,))
            if damage or not before:
                raise Corrupt(after, damage or "the record before it is missing")
            crc = before[0][0]
        query = f"SELECT {self._columns} FROM log WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 - ours
        while seq < self._seq:
            rows, damage = self._read(query, (seq, _CHUNK))
            for row in rows:
                seq += 1
                crc, record = verified(crc, seq, row)
                yield Offset(seq), record
            if damage or not rows:
                raise Corrupt(seq + 1, damage or f"it is missing, but the head says {self._seq}")

    def replay(self, after: Offset = START) -> Iterator[tuple[Offset, bytes]]:
        """Bodies after `after`, in order; every CRC up to the end is verified."""
        self._opened()
        return ((at, record.body) for at, record in self.records(int(after)))

    def append(self, records: Sequence[Record]) -> Offset:
        """Raises Unsupported."""
        raise Unsupported(self, _READ_ONLY)

    def trim(self, upto: Offset, most: int = 100) -> int:
        """Raises Unsupported."""
        raise Unsupported(self, _READ_ONLY)

    def forget(self, owner: str, upto: Offset) -> int:
        """Raises Unsupported."""
        raise Unsupported(self, _READ_ONLY)

    def sync(self) -> Offset:
        """Nothing is written that could be lost."""
        self._opened()
        return self.last

    def offset_at(self, ts: float) -> Offset:
        """The newest record older than `ts`, by binary search."""
        low, high = self._base, self._seq
        while low < high:
            middle = (low + high + 1) // 2
            rows, damage = self._read("SELECT ts FROM log WHERE seq = ?", (middle,))
            if damage or not rows or not isinstance(rows[0][0], float):
                raise Corrupt(middle, damage or "it has no time")
            low, high = (middle, high) if rows[0][0] < ts else (low, middle - 1)
        return Offset(low) if low > self._base else START

    @property
    def base(self) -> tuple[int, int]:
        """Up to where it was trimmed, and the CRC there."""
        return self._base, self._base_crc

    @property
    def end(self) -> tuple[int, int]:
        """The last offset, and the CRC there."""
        return self._seq, self._crc

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
        """The pages in use."""
        return bytes_in_use(self._opened())

    def _read(self, query: str, values: tuple[object, ...]) -> tuple[list[Any], str]:
        """All rows up to the first unreadable one, and why it is unreadable ("" if none is)."""
        rows = list[Any]()
        try:
            for row in self._opened().execute(query, values):
                rows.append(row)
        except UNREADABLE as error:
            return rows, f"it cannot be read ({error})"
        return rows, ""

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            raise Closed
        return self._db

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            self._db.close()
            self._db = None
