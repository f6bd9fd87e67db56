"""One row of the log: the records of a batch, one after another, and their checksums.

content: of each record its time, lengths, id, kind, owner and body. marks: of each record its CRC,
and where its body begins and ends in the content. The CRC covers the CRC of the record before it;
that of the first covers the row's seed, which is made of its first offset, time and count and of
the CRC of the row before. crc: covers the seed and the marks. So one CRC of the content and one of
the marks verify a row, and the marks show which record is damaged. gone: of each record four bytes,
zero unless it was erased. Then its body is zeros, and the four bytes cover the rest of it: damage
is never mistaken for an erasure.

An erasure changes no length, so SQLite writes the row in place. If it moved other rows to make
room, copies of them would be left behind, which a later erasure does not reach.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple
from zlib import crc32

from store._protocols import Record
from store.errors import Corrupt

Row = tuple[int, float, int, int, bytes, bytes, bytes]
"""(first, ts, before, crc, marks, gone, content)."""

MOST, MAX_BYTES = 64, 128 * 1024
"""The maximum of records and of bytes in a row; a larger record has its own row."""

_HEAD = struct.Struct("<dIIII")  # time, length of the id, the kind, the owner and the body
_SEED = struct.Struct("<qdII")
_ONE = struct.Struct("<III")
_MARK, _NOT_GONE = _ONE.size, bytes(4)
_TYPES = (TypeError, ValueError, AttributeError, IndexError, struct.error)
_MISMATCH = "its checksum does not match"


class Packed(NamedTuple):
    """A row to be written, and the entries by which its records are found."""

    row: Row
    eids: list[bytes]
    owners: set[str]

    @property
    def crc(self) -> int:
        """The CRC of the row, which the next one covers."""
        return self.row[3]


def pack(first: int, before: int, records: Sequence[Record]) -> Packed:
    """The row of these records; one whose body is empty counts as erased."""
    n, ts = len(records), records[0].ts
    if n == 1:
        return _pack_one(first, before, records[0])
    seed = crc = _seed(first, ts, n, before)
    parts, marks, eids, owners = list[bytes](), list[int](), list[bytes](), set[str]()
    seals, end, head = dict[int, int](), 0, _HEAD.pack
    for eid_text, kind_text, made, body, owner_text in records:
        eid, kind, owner, size = eid_text.encode(), kind_text.encode(), b"", len(body)
        if owner_text:
            owners.add(owner_text)
            owner = owner_text.encode()
        begun = head(made, len(eid), len(kind), len(owner), size) + eid + kind + owner
        crc = crc32(body, crc32(begun, crc))
        start = end + len(begun)
        end = start + size
        marks += (crc, start, end)
        parts += (begun, body)
        if not body:
            seals[len(eids)] = seal(begun, crc)
        eids.append(eid)
    packed = _marks(n).pack(*marks)
    gone = bytes(4 * n)
    if seals:
        gone = struct.pack(f"<{n}I", *(seals.get(i, 0) for i in range(n)))
    row = (first, ts, before, crc32(packed, seed), packed, gone, b"".join(parts))
    return Packed(row, eids, owners)


def _pack_one(first: int, before: int, each: Record) -> Packed:
    """The same in fewer steps: a service with little traffic appends one record at a time."""
    eid, kind, owner, body = each.eid.encode(), each.kind.encode(), each.owner.encode(), each.body
    begun = _HEAD.pack(each.ts, len(eid), len(kind), len(owner), len(body)) + eid + kind + owner
    content = begun + body
    seed = _seed(first, each.ts, 1, before)
    crc = crc32(content, seed)
    marks = _ONE.pack(crc, len(begun), len(content))
    gone = _NOT_GONE if body else struct.pack("<I", seal(begun, crc))
    row = (first, each.ts, before, crc32(marks, seed), marks, gone, content)
    return Packed(row, [eid], {each.owner} if owner else set())


def cut(records: Sequence[Record]) -> list[Sequence[Record]]:
    """The records of an append, row by row."""
    if len(records) == 1:
        return [records]
    if len(records) <= MOST and sum([len(each.body) for each in records]) <= MAX_BYTES:
        return [records]
    rows, begun, size = list[Sequence[Record]](), 0, 0
    for i, each in enumerate(records):
        if i > begun and (i - begun == MOST or size + len(each.body) > MAX_BYTES):
            rows.append(records[begun:i])
            begun, size = i, 0
        size += len(each.body)
    return [*rows, records[begun:]]


def count(marks: Any) -> int:
    """How many records a row has; 0 if all of them were trimmed."""
    return len(marks) // _MARK if isinstance(marks, bytes) else 0


def last(row: Sequence[Any], of_empty: int) -> int:
    """The last offset of a row; `of_empty` where all its records were trimmed."""
    records = count(row[4])
    return int(row[0]) + records - 1 if records else of_empty


def crc_at(marks: bytes, i: int) -> int:
    """The CRC of the row's record number `i`."""
    found = struct.unpack_from("<I", marks, _MARK * i) if 0 <= i < count(marks) else (-1,)
    return int(found[0])


def bodies(row: Row, at: int, before: int | None) -> tuple[list[bytes], Corrupt | None]:
    """The bodies from offset `at` on, and what is wrong with the record after them, if anything.

    before: the CRC of the row before; None if it is unknown.
    """
    first, ts, linked, crc, marks, gone, content = row
    try:
        skip, n = at - first, len(marks) // _MARK
        if not 0 <= skip < n:
            return [], Corrupt(at, "it is missing")
        seed = _seed(first, ts, n, linked)
        if crc32(marks, seed) != crc or (before is not None and before != linked):
            return [], Corrupt(at, _MISMATCH)
        values = _marks(n).unpack(marks)
        if n == 1 and crc32(content, seed) == values[0] and gone == _NOT_GONE:
            return [content[values[1] : values[2]]], None
        if crc32(content, seed) == values[-3] and gone == bytes(4 * n):
            spans = zip(values[1 + 3 * skip :: 3], values[2 + 3 * skip :: 3], strict=True)
            return [content[begin:end] for begin, end in spans], None
        return _one_by_one(row, skip, seed, values)
    except _TYPES:
        return [], Corrupt(at, "its columns have the wrong types")


def _one_by_one(
    row: Row, skip: int, seed: int, values: tuple[int, ...]
) -> tuple[list[bytes], Corrupt | None]:
    first, *_, gone, content = row
    seals, found = struct.unpack(f"<{len(values) // 3}I", gone), list[bytes]()
    for i in range(skip, len(seals)):
        crc, start, end = values[3 * i : 3 * i + 3]
        before, begin = (values[3 * i - 3], values[3 * i - 1]) if i else (seed, 0)
        if not seals[i] and crc32(content[begin:end], before) == crc:
            found.append(content[start:end])
        elif seals[i] and seals[i] == seal(content[begin:start], crc):
            found.append(b"")
        else:
            return found, Corrupt(first + i, _MISMATCH)
    return found, None


def seal(begun: bytes, crc: int) -> int:
    """The mark of an erased record: it covers the rest of the record, and is never 0."""
    return crc32(begun, crc) or 1


@dataclass(frozen=True, slots=True)
class Found:
    """A record of a row as it is stored, with the places of its bytes."""

    seq: int
    record: Record
    begin: int
    start: int
    end: int
    crc: int
    gone: int


def records(row: Row) -> list[Found]:
    """All records of a row; only their form is checked.

    Raises Corrupt if it is wrong. A trimmed record is zeros, and has neither id nor owner.
    """
    first, *_, marks, gone, content = row
    try:
        n = len(marks) // _MARK
        values, seals = struct.unpack(f"<{3 * n}I", marks), struct.unpack(f"<{n}I", gone)
        begin, found = 0, list[Found]()
        for i in range(n):
            crc, start, end = values[3 * i : 3 * i + 3]
            record = _record(content, begin, start, b"" if seals[i] else content[start:end])
            found.append(Found(first + i, record, begin, start, end, crc, seals[i]))
            begin = end
    except _TYPES:
        raise Corrupt(first, "its columns have the wrong types") from None
    return found


def _record(content: bytes, begin: int, start: int, body: bytes) -> Record:
    ts, eid, kind, owner, _ = _HEAD.unpack_from(content, begin)
    at = begin + _HEAD.size
    texts = []
    for size in (eid, kind, owner):
        texts.append(content[at : at + size].decode())
        at += size
    if at > start:
        raise ValueError("it begins before it ends")
    return Record(texts[0], texts[1], ts, body, texts[2])


def times(row: Row) -> list[float]:
    """The time of each record; 0 where it was trimmed."""
    first, *_, marks, _, content = row
    try:
        n = len(marks) // _MARK
        ends = struct.unpack(f"<{3 * n}I", marks)[2::3]
        return [struct.unpack_from("<d", content, at)[0] for at in (0, *ends[:-1])]
    except _TYPES:
        raise Corrupt(first, "it has no time") from None


def proven(row: Row) -> bool:
    """Whether the marks are undamaged, so that they may be used for writing."""
    first, ts, linked, crc, marks, *_ = row
    try:
        return crc32(marks, _seed(first, ts, len(marks) // _MARK, linked)) == crc
    except _TYPES:
        return False


def well_formed(row: Row) -> bool:
    """Whether its marks have the right length."""
    return len(row[4]) % _MARK == 0


def crc_of(row: Row) -> int:
    """The CRC of a row as its seed and marks make it."""
    return crc32(row[4], _seed(row[0], row[1], count(row[4]), row[2]))


def whole(row: Row) -> Iterator[tuple[int, Record | None, bool]]:
    """Each record of a row with verified marks, None for a damaged one; and whether all of it is
    undamaged, since only the mark of an erasure may be damaged.
    """
    first, ts, linked, _, marks, gone, content = row
    n = count(marks)
    seals = struct.unpack(f"<{n}I", gone) if len(gone) == 4 * n else None
    values, before, begin = _marks(n).unpack(marks), _seed(first, ts, n, linked), 0
    for i in range(n):
        crc, start, end = values[3 * i : 3 * i + 3]
        record, sound = None, seals is not None
        if end <= len(content) and crc32(content[begin:end], before) == crc:
            record = _record(content, begin, start, content[start:end])
            sound = seals is not None and not (record.body and seals[i])
        elif seals and seals[i] and seals[i] == seal(content[begin:start], crc):
            record = _record(content, begin, start, b"")
        yield first + i, record, sound
        before, begin = crc, end


def marks_of(row: Row) -> bytes | None:
    """The marks of a row, computed again from its content; None if the content is malformed.

    The CRC of an erased record is only in its mark.
    """
    first, ts, linked, _, marks, gone, content = row
    n, values, begin = count(marks), list[int](), 0
    try:
        crc = _seed(first, ts, n, linked)
        seals, known = struct.unpack(f"<{n}I", gone), _marks(n).unpack(marks)
        for i in range(n):
            _, eid, kind, owner, body = _HEAD.unpack_from(content, begin)
            start = begin + _HEAD.size + eid + kind + owner
            crc = known[3 * i] if seals[i] else crc32(content[begin : start + body], crc)
            begin = start + body
            values += (crc, start, begin)
    except _TYPES:
        return None
    return _marks(n).pack(*values) if begin == len(content) else None


def first_time(content: bytes) -> list[float]:
    """The time of the first record in the content; None if the content is too short."""
    return [struct.unpack_from("<d", content)[0]] if len(content) >= _HEAD.size else []


def trimmed(row: Row) -> int:
    """How many of a row's first records were trimmed: they are zeros."""
    *_, marks, _, content = row
    found = 0
    for end in _marks(count(marks)).unpack(marks)[2::3] if len(marks) % _MARK == 0 else ():
        if content[:end].strip(b"\0") or not content[:end]:
            break
        found += 1
    return found


def without(row: Row, erased: Sequence[Found], upto: int = 0) -> tuple[bytes, bytes]:
    """`gone` and `content` without the bodies of these, nor anything of records up to `upto`."""
    first, *_, gone, content = row
    seals, kept = bytearray(gone), bytearray(content)
    for each in erased:
        whole = seal(content[each.begin : each.start], each.crc)
        struct.pack_into("<I", seals, 4 * (each.seq - first), whole)
        kept[each.start : each.end] = bytes(each.end - each.start)
    if upto >= first:
        end = struct.unpack_from("<I", row[4], _MARK * (upto - first) + 8)[0]
        kept[:end] = bytes(end)
    return bytes(seals), bytes(kept)


@cache
def _marks(n: int) -> struct.Struct:
    return struct.Struct(f"<{3 * n}I")


def _seed(first: int, ts: float, n: int, before: int) -> int:
    return crc32(_SEED.pack(first, ts, n, before))
