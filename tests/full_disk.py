"""A log whose disk is full, until a test makes room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from store import Full
from store.sqlite import SqliteLog


def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From here on every append to a SQLite log fails; what is returned makes room again."""
    append, full = SqliteLog.append, [True]

    def appended(log: SqliteLog, records: Any) -> Any:
        if full:
            raise Full("no space left")
        return append(log, records)

    monkeypatch.setattr(SqliteLog, "append", appended)
    return full.clear
