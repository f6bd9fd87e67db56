from __future__ import annotations

from pathlib import Path

from store import EventLog
from store.memory import MemoryLog
from store.sqlite import SqliteLog
from tests.unit.store.log_suite import LogSuite


class TestMemoryLog(LogSuite):
    def make(self, path: Path) -> EventLog:
        return MemoryLog()


class TestSqliteLog(LogSuite):
    durable = True

    def make(self, path: Path) -> EventLog:
        return SqliteLog(path)
