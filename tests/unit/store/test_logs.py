from __future__ import annotations

from pathlib import Path

from bandit_service.testing.logs import LogSuite
from store import EventLog
from store.memory import MemoryLog
from store.sqlite import SqliteLog


class TestMemoryLog(LogSuite):
    def make(self, path: Path) -> EventLog:
        return MemoryLog()


class TestSqliteLog(LogSuite):
    durable = True

    def make(self, path: Path) -> EventLog:
        return SqliteLog(path)
