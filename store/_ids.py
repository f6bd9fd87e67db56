"""Keeps ids unique, without an index of all ids.

Ids usually ascend. A row whose ids ascend above all earlier ones needs no entry: `top` of every row
is the largest id so far, so a binary search finds the only row that may have an id. The ascending
ids of another row are its range, from `low` to `high`, if no other row has ids there; an index has
the ranges. All other ids are strays, and have an entry each. So an id in the log is in the row that
the binary search finds, in the row whose range includes it, or among the strays.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from store import _batch
from store._format import AT, INSERT
from store.errors import Corrupt, Duplicate

_TOP_AT = "SELECT first, top FROM batch WHERE first <= ? ORDER BY first DESC LIMIT 1"
_NEXT = "SELECT first FROM batch WHERE first > ? ORDER BY first LIMIT 1"
_ENDS = (
    "SELECT (SELECT first FROM batch WHERE top IS NOT NULL ORDER BY first LIMIT 1), "
    "(SELECT first FROM batch WHERE top IS NOT NULL ORDER BY first DESC LIMIT 1)"
)
_RANGE = "SELECT first, low FROM batch WHERE high >= ? ORDER BY high LIMIT 1"
_SEEN = 64

Found = tuple[bytes | None, bytes | None, bytes | None, list[bytes]]
"""(top, low, high, strays) of a row."""


class Ids:
    """The ids of an open log."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._read_again()

    def undone(self) -> None:
        """After an undone transaction: the entries must be read again."""
        self._read = False

    def _read_again(self) -> None:
        self._read = True
        self._seen = dict[int, frozenset[bytes]]()
        self._gap: tuple[bytes, bytes] | None = None
        self._top = self._bytes("SELECT top FROM batch ORDER BY first DESC LIMIT 1")
        self._top_stray = self._bytes("SELECT eid FROM stray ORDER BY eid DESC LIMIT 1")

    def _bytes(self, query: str) -> bytes:
        """A value that is not damaged, or b"": less than all."""
        row = self._db.execute(query).fetchone()
        return row[0] if row is not None and isinstance(row[0], bytes) else b""

    def taken(self, eids: Sequence[bytes]) -> Found:
        """The entries of a row of these ids.

        Raises Duplicate for a known id. Rows that were taken before must have been written.
        """
        if not self._read:
            self._read_again()
        first, last = eids[0], eids[-1]
        if len(eids) == 1 or all(map(bytes.__lt__, eids, eids[1:])):
            if first > self._top and first > self._top_stray:
                self._top = last
                return last, None, None, []
            if self._free(first, last):
                return self._top, first, last, []
        return self._one_by_one(eids)

    def _one_by_one(self, eids: Sequence[bytes]) -> Found:
        before = self._top  # those above it make no range, and need none
        low, high = None, b""
        strays, seen = list[bytes](), set[bytes]()
        for eid in eids:
            if eid in seen or self._known(eid, before):
                raise Duplicate(eid.decode())
            seen.add(eid)
            if eid > self._top:
                self._top = eid
            elif self._top == before and eid > high and self._meets_none(low or eid, eid):
                low, high = low or eid, eid
            else:
                strays.append(eid)
        self._top_stray = max([self._top_stray, *strays])
        return self._top, low, high or None, strays

    def _known(self, eid: bytes, top: bytes) -> bool:
        """Whether a record of this id is in the log; top: the largest top of its rows."""
        if eid <= self._top_stray and self._is_stray(eid, eid):
            return True
        if not eid or eid > top:
            return False
        found = self._db.execute(_RANGE, (eid,)).fetchone()
        if found is not None and found[1] <= eid and eid in self._ids_of(found[0]):
            return True
        above = self._row_of(eid)
        return above is not None and eid in self._ids_of(above[0])

    def _free(self, low: bytes, high: bytes) -> bool:
        """Whether the log has no id in this range, and cannot have one."""
        if low <= self._top_stray and self._is_stray(low, high):
            return False
        return self._meets_none(low, high)

    def _is_stray(self, low: bytes, high: bytes) -> bool:
        query = "SELECT 1 FROM stray WHERE eid >= ? AND eid <= ? LIMIT 1"
        return self._db.execute(query, (low, high)).fetchone() is not None

    def _meets_none(self, low: bytes, high: bytes) -> bool:
        """Whether no row's range is here, and there is room between two ascending rows."""
        if not low or low > self._top:
            return False  # the empty id is a stray; above all others a row has no range
        if self._gap is None or not self._gap[0] < low <= high < self._gap[1]:
            above = self._row_of(low)
            if above is None:
                return False
            first, below, top = above
            own = [each for each in self._ids_of(first) if each > below]
            self._gap = below, min(own, default=top)
            if not below < low <= high < self._gap[1]:
                return False
        found = self._db.execute(_RANGE, (low,)).fetchone()
        return found is None or bool(found[1] > high)

    def _row_of(self, eid: bytes) -> tuple[int, bytes, bytes] | None:
        """The first row whose top is not below this id;

        the top of the row before it, and its own.
        """
        low, high = self._db.execute(_ENDS).fetchone()
        if low is None:
            return None  # all were trimmed
        while low < high:
            first, top = self._db.execute(_TOP_AT, ((low + high) // 2,)).fetchone()
            if top >= eid:
                high = first
            else:
                (low,) = self._db.execute(_NEXT, (first,)).fetchone()
        below = self._db.execute(_TOP_AT, (low - 1,)).fetchone()
        (_, top) = self._db.execute(_TOP_AT, (low,)).fetchone()
        return low, (below and below[1]) or b"", top

    def _ids_of(self, first: int) -> frozenset[bytes]:
        """The ids of the row that begins there, cached: ids out of order often fall into the same
        row.
        """
        found = self._seen.get(first)
        if found is None:
            row = self._db.execute(AT, (first,)).fetchone()
            found = frozenset(each.record.eid.encode() for each in _batch.records(row))
            if len(self._seen) == _SEEN:
                self._seen.clear()
            self._seen[first] = found
        return found

    def remove(self, eids: Iterable[bytes]) -> None:
        """Delete the entries of trimmed records, within the caller's transaction."""
        self._seen.clear()
        self._gap = None
        if self._top_stray:
            self._db.executemany("DELETE FROM stray WHERE eid = ?", [(each,) for each in eids])


def write(db: sqlite3.Connection, ids: Ids, packed: _batch.Packed) -> int:
    """Write the row and its entries, within the caller's transaction; returns the number of
    entries. Raises Duplicate for a known id. `ids` must be told if the transaction is undone.
    """
    try:
        top, low, high, strays = ids.taken(packed.eids)
    except TypeError:
        raise Corrupt(packed.row[0], "what ids are found by is damaged before it") from None
    db.execute(INSERT, (*packed.row, top, low, high))
    if strays:
        db.executemany("INSERT INTO stray (eid) VALUES (?)", [(each,) for each in strays])
    if packed.owners:
        found_by = [(owner, packed.row[0]) for owner in packed.owners]
        db.executemany("INSERT INTO owned (owner, first) VALUES (?, ?)", found_by)
    return len(strays) + len(packed.owners)
