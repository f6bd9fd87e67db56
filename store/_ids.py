"""That every id is there once, without an index of all ids.

Ids usually come in ascending order. So each row has a range of ids, from `low` to `high`, and no
two ranges overlap: an id is in the one row whose range holds it, or it is a stray. A stray came
where its order does not allow it into the range of its row; each has an entry of its own.

Of a new row those ids make the range that ascend and meet no range that is there; the others become
strays. The ids of a row that ascends beyond all others need no look at all.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from store import _batch
from store._format import AT, INSERT
from store.errors import Duplicate

_ABOVE = "SELECT first, low, high FROM batch WHERE high >= ? ORDER BY high LIMIT 1"


class Ids:
    """The ids of an open log. `taken` says what is to be written of a row, and writes nothing."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.read()

    def read(self) -> None:
        """Read again what is there, as after a transaction that was undone."""
        row = self._db.execute("SELECT high FROM batch ORDER BY high DESC LIMIT 1").fetchone()
        self._top = row[0] if row is not None and isinstance(row[0], bytes) else None
        row = self._db.execute("SELECT eid FROM stray ORDER BY eid DESC LIMIT 1").fetchone()
        self._top_stray = row[0] if row is not None and isinstance(row[0], bytes) else None

    def taken(self, eids: Sequence[bytes]) -> tuple[bytes | None, bytes | None, list[bytes]]:
        """The range of a row of these ids and the strays among them; Duplicate for a known id.

        Rows that were taken before must have been written.
        """
        low, high, strays = self._split(eids)
        if high is None:
            return None, None, strays
        self._top = high if self._top is None or high > self._top else self._top
        return low, high, strays

    def _split(self, eids: Sequence[bytes]) -> tuple[bytes | None, bytes | None, list[bytes]]:
        first, last = eids[0], eids[-1]
        ascends = all(map(bytes.__lt__, eids, eids[1:]))
        if ascends and self._free(first, last):
            return first, last, []
        low: bytes | None = None
        high: bytes | None = None
        strays, seen = list[bytes](), set[bytes]()
        for eid in eids:
            if eid in seen or self._known(eid):
                raise Duplicate(eid.decode())
            seen.add(eid)
            if low is None:
                fits = self._meets_none(eid, eid)
                low = eid if fits else None
            else:
                fits = high is not None and eid > high and self._meets_none(low, eid)
            if fits:
                high = eid
            else:
                strays.append(eid)
        if strays:
            most = max(strays)
            top = self._top_stray
            self._top_stray = most if top is None or most > top else top
        return low, high, strays

    def _free(self, low: bytes, high: bytes) -> bool:
        """Whether no id of the log is in this range, nor may be."""
        if self._top_stray is not None and self._top_stray >= low:
            query = "SELECT 1 FROM stray WHERE eid >= ? AND eid <= ? LIMIT 1"
            if self._db.execute(query, (low, high)).fetchone() is not None:
                return False
        return self._meets_none(low, high)

    def _meets_none(self, low: bytes, high: bytes) -> bool:
        """Whether no row's range meets this one."""
        if self._top is None or self._top < low:
            return True
        above = self._db.execute(_ABOVE, (low,)).fetchone()
        return above is None or (above[2] if above[1] is None else above[1]) > high

    def _known(self, eid: bytes) -> bool:
        """Whether a record of this id is in the log."""
        if self._top_stray is not None and self._top_stray >= eid:
            query = "SELECT 1 FROM stray WHERE eid = ?"
            if self._db.execute(query, (eid,)).fetchone() is not None:
                return True
        if self._top is None or self._top < eid:
            return False
        above = self._db.execute(_ABOVE, (eid,)).fetchone()
        if above is None or (above[2] if above[1] is None else above[1]) > eid:
            return False
        row = self._db.execute(AT, (above[0],)).fetchone()
        return any(each.record.eid.encode() == eid for each in _batch.records(row))

    def remove(self, eids: Iterable[bytes]) -> None:
        """Of records that were trimmed, within the caller's transaction."""
        if self._top_stray is not None:
            self._db.executemany("DELETE FROM stray WHERE eid = ?", [(each,) for each in eids])


def write(db: sqlite3.Connection, ids: Ids, packed: _batch.Packed) -> None:
    """The row and what it is found by, within the caller's transaction; Duplicate for a known id.

    `ids` must be read again where the transaction is undone.
    """
    first, ts, before, crc, marks, gone, content = packed.row
    low, high, strays = ids.taken(packed.eids)
    low = None if low == high else low
    db.execute(INSERT, (first, ts, before, crc, low, high, marks, gone, content))
    if strays:
        db.executemany("INSERT INTO stray (eid) VALUES (?)", [(each,) for each in strays])
    if packed.owners:
        found_by = [(owner, first) for owner in packed.owners]
        db.executemany("INSERT INTO owned (owner, first) VALUES (?, ?)", found_by)
