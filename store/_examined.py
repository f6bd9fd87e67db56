"""Finds the undamaged records of a damaged log. The log is only read, and nothing is guessed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from store import _format, _old_saved, _saved
from store._protocols import Offset, Record
from store._seen import GIVE_UP, MAX_PER_PAGE, pages
from store.errors import Corrupt

Keep = Callable[[Record], None]
_UNREADABLE = "it cannot be read"


@dataclass(frozen=True, slots=True)
class Report:
    """What a log has and what of it is lost; offsets are those of the damaged log.

    damaged:       the first damaged offset; None if there is none.
    why:           what is wrong there, or with the row that says where the log ends.
    first, last:   the oldest record kept and the newest one known of.
    before, after: how many records are saved, before and after `damaged`.
    lost:          ranges of offsets, both ends included, that cannot be saved.
    unverifiable:  offsets of `lost` that can be read and follow a hole: a part that the checksum
                   covers is missing, so they cannot be verified.
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


def base_of(db: sqlite3.Connection) -> tuple[int, int]:
    """Up to where the log was trimmed, and the CRC there, by the head or by the records."""
    return _old_saved.base_of(db) if _is_old(db) else _saved.base_of(db)


def examined(db: sqlite3.Connection, keep: Keep, known: Offset) -> Report:
    """Read all of a log in order and call `keep` with the records that can be saved.

    known: records up to this offset existed, so missing ones are lost.
    """
    of = _old_saved if _is_old(db) else _saved
    head, most = of.head_of(db), pages(db) * MAX_PER_PAGE
    base, base_crc = of.base_of(db)
    at = newest = base  # the last one saved, and the last one seen
    kept, erased, ts, ended = 0, 0, 0.0, base_crc
    lost, unverifiable = list[tuple[int, int]](), list[int]()
    places: list[tuple[int, str, int]] = []  # (offset, why, how many were saved before)
    why = doubted = ""
    for seen in of.seen(db, base, base_crc):
        saved = [each for each in seen.saved if each[0] > at]
        for seq, record in saved:
            if seq > at + 1:
                places.append((at + 1, why or _UNREADABLE, kept))
                lost.append((at + 1, seq - 1))
                _keep_empty(keep, lost[-1], record.ts)
            elif (len(saved) == 2 and seq != seen.seq) or seen.why:
                places.append((seq, seen.why or why, kept))
            at, kept, erased, why = seq, kept + 1, erased + (not record.body), ""
            ts = record.ts
            keep(record)
        ended = seen.crc if saved else ended
        if not saved:
            why = why or (seen.why if seen.seq == at + 1 else "")
            if seen.chained and (doubted or seen.seq != newest + 1):
                unverifiable.append(seen.seq)
        doubted = "" if saved else seen.why
        newest = max(newest, seen.seq if seen.seq <= base + most else 0)
    end = max(at, newest)
    # the head knows of lost ones at the end, unless its checksum is that of the last one saved
    if head is not None and at <= head[0] <= end + most:
        end = head[0] if head[1] != ended else at
    if known - end <= GIVE_UP:  # more than that is of another log
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


def _keep_empty(keep: Keep, lost: tuple[int, int], ts: float) -> None:
    """Empty records in place of lost ones, with a time that keeps times in order."""
    for offset in range(lost[0], lost[1] + 1):
        keep(Record(f"lost-{offset}", "lost", ts, b""))


def _is_old(db: sqlite3.Connection) -> bool:
    """Whether one row is one record; a file that does not show it counts as new."""
    try:
        return _format.found_format(db, Path("it")) in _format.OLD
    except (*_format.UNREADABLE, Corrupt):
        pass
    try:
        names = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    except _format.UNREADABLE:
        return False
    return "batch" not in names and "log" in names
