"""Questions and answers in a file of their own beside the log, each encrypted.

A row has the time, the hash of tenant and unit that the log has, and the texts, sealed by
AES-256-GCM under the service's key and bound to the decision's id. What is deleted is overwritten
(secure_delete). The journal is emptied at the end of every change.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

_NONCE = 12
_SCHEMA = """
CREATE TABLE IF NOT EXISTS texts(
    id TEXT PRIMARY KEY, ts REAL NOT NULL, owner TEXT NOT NULL, event INTEGER, sealed BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS texts_by_ts ON texts(ts);
CREATE INDEX IF NOT EXISTS texts_by_owner ON texts(owner) WHERE owner != '';
CREATE INDEX IF NOT EXISTS texts_by_event ON texts(event) WHERE event IS NOT NULL;
"""


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of one decision. answer: None if it is not kept. redacted: places that a rule
    took something out of. cut: whether more was said than is kept.
    """

    question: str
    answer: str | None = None
    redacted: int = 0
    cut: bool = False


class KeptQuestion(msgspec.Struct, frozen=True):
    """One question that is kept. event: the number of that by which it was remembered, if it was.
    owner: the hash of tenant and unit; empty without a unit.
    """

    id: str
    owner: str
    event: int | None
    question: str


class OtherKey(Exception):
    """It was sealed under a key that is not there any more."""


class Sealing:
    """Encrypts texts, each bound to its decision. keys: the first seals, all open.

    Raises ImportError without the package cryptography.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        # few services keep texts, and have the package
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._wrong_key = InvalidTag
        self._keys = [AESGCM(key) for key in keys]

    def seal(self, id: str, text: Text) -> bytes:
        """The text of a decision, encrypted."""
        nonce = os.urandom(_NONCE)
        return nonce + self._keys[0].encrypt(nonce, msgspec.msgpack.encode(text), id.encode())

    def opened(self, id: str, sealed: bytes) -> Text:
        """The text of a decision. Raises OtherKey."""
        nonce, rest = sealed[:_NONCE], sealed[_NONCE:]
        for key in self._keys:
            try:
                plain = key.decrypt(nonce, rest, id.encode())
            except self._wrong_key:
                continue
            return msgspec.msgpack.decode(plain, type=Text)
        raise OtherKey(id)

    def by_event(self, rows: Iterable[tuple[int, str, bytes]]) -> dict[int, Text]:
        """Texts by event, of (event, id, sealed); without those under a key that is gone."""
        found = {}
        for event, id, sealed in rows:
            with suppress(OtherKey):
                found[event] = self.opened(id, sealed)
        return found

    def questions(self, rows: Iterable[tuple[str, str, int | None, bytes]]) -> list[KeptQuestion]:
        """Questions in this order, of (id, owner, event, sealed); without those of such a key."""
        found = []
        for id, owner, event, sealed in rows:
            with suppress(OtherKey):
                found.append(KeptQuestion(id, owner, event, self.opened(id, sealed).question))
        return found


class KeepsTexts(Protocol):
    """What `Texts` needs of a place for texts. What cannot be done raises OSError or sqlite3.Error.

    name: what messages call it.
    """

    name: str

    def put(self, id: str, ts: float, owner: str, text: Text, event: int | None = None) -> None:
        """Keep the texts of a decision, in the place of what was kept of it.

        event: the number of that by which its query was remembered, as far as it is known.
        """
        ...

    def remembered(self, id: str, event: int) -> None:
        """The number of the event by which the query of this decision was remembered."""
        ...

    def get(self, id: str, since: float) -> tuple[float, Text] | None:
        """When it was decided, and its texts; None if it is older, or not kept. OtherKey."""
        ...

    def of_events(self, events: Sequence[int], since: float) -> dict[int, Text]:
        """Texts by the number of the event, of those that are kept under a key that is there."""
        ...

    def questions(self, most: int, since: float) -> list[KeptQuestion]:
        """The newest so many under a key that is there, oldest first."""
        ...

    def forget(self, owner: str) -> object:
        """Delete all texts of a unit."""
        ...

    def forget_unless(self, present: Callable[[str], bool], before: float) -> object:
        """Delete the texts of units whose decision is not present any more, of before this time."""
        ...

    def trim(self, since: float, most: int) -> object:
        """Delete what is older, and the oldest beyond so many."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class TextStore:
    """The file, used by one thread at a time. Raises ImportError as `Sealing`."""

    name = "the file of texts"

    def __init__(self, path: Path, keys: Sequence[bytes]) -> None:
        self._sealing = Sealing(keys)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self._file = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        for pragma in ("secure_delete=ON", "journal_mode=TRUNCATE", "synchronous=FULL"):
            self._file.execute(f"PRAGMA {pragma}")
        self._file.executescript(_SCHEMA)

    def put(self, id: str, ts: float, owner: str, text: Text, event: int | None = None) -> None:
        """See `KeepsTexts`."""
        sealed = self._sealing.seal(id, text)
        self._file.execute(
            "INSERT INTO texts(id, ts, owner, event, sealed) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT(id) DO UPDATE SET sealed = excluded.sealed",
            (id, ts, owner, event, sealed),
        )

    def remembered(self, id: str, event: int) -> None:
        """See `KeepsTexts`."""
        self._file.execute("UPDATE texts SET event = ? WHERE id = ? AND event IS NULL", (event, id))

    def get(self, id: str, since: float) -> tuple[float, Text] | None:
        """See `KeepsTexts`."""
        row = self._file.execute(
            "SELECT ts, sealed FROM texts WHERE id = ? AND ts >= ?", (id, since)
        ).fetchone()
        return None if row is None else (row[0], self._sealing.opened(id, row[1]))

    def of_events(self, events: Sequence[int], since: float) -> dict[int, Text]:
        """See `KeepsTexts`."""
        marks = ", ".join("?" * len(events))
        rows = self._file.execute(
            f"SELECT event, id, sealed FROM texts WHERE event IN ({marks}) AND ts >= ?",  # noqa: S608 - only marks
            (*events, since),
        ).fetchall()
        return self._sealing.by_event(rows)

    def questions(self, most: int, since: float) -> list[KeptQuestion]:
        """See `KeepsTexts`."""
        rows = self._file.execute(
            "SELECT id, owner, event, sealed FROM texts WHERE ts >= ? ORDER BY ts DESC, id LIMIT ?",
            (since, most),
        ).fetchall()
        return self._sealing.questions(reversed(rows))

    def forget(self, owner: str) -> int:
        """Delete all texts of a unit; how many."""
        return self._file.execute("DELETE FROM texts WHERE owner = ?", (owner,)).rowcount

    def forget_unless(self, present: Callable[[str], bool], before: float = float("inf")) -> int:
        """Delete the texts of units whose decision is not present any more, of before this time;
        how many.
        """
        owned = self._file.execute(
            "SELECT id FROM texts WHERE owner != '' AND ts < ?", (before,)
        ).fetchall()
        gone = [(id,) for (id,) in owned if not present(id)]
        self._delete(gone)
        return len(gone)

    def trim(self, since: float, most: int) -> int:
        """Delete what is older, and the oldest beyond so many; how many."""
        count = self._file.execute("DELETE FROM texts WHERE ts < ?", (since,)).rowcount
        (there,) = self._file.execute("SELECT count(*) FROM texts").fetchone()
        if there > most:
            count += self._file.execute(
                "DELETE FROM texts WHERE id IN (SELECT id FROM texts ORDER BY ts LIMIT ?)",
                (there - most,),
            ).rowcount
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _delete(self, ids: Iterable[tuple[str]]) -> None:
        with self._file:  # nothing stays open where it fails
            self._file.execute("BEGIN")
            self._file.executemany("DELETE FROM texts WHERE id = ?", ids)
