"""Every event log that can be opened by its name keeps the suite, without being listed here."""

from __future__ import annotations

from pathlib import Path

import pytest

import store
from bandit_service.testing.logs import LogSuite
from store import EventLog
from store.memory import MemoryLog


class TestMemoryLog(LogSuite):
    def make(self, path: Path) -> EventLog:
        return MemoryLog()


def _suite(engine: str) -> type[LogSuite]:
    class Suite(LogSuite):
        durable = True

        def make(self, path: Path) -> EventLog:
            return store.open_log(path, engine)

    return Suite


for _engine in store.ENGINES:
    globals()[f"Test{_engine.title()}Log"] = _suite(_engine)


def test_an_unknown_engine_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="engine: unknown value 'paper'; expected one of sqlite"):
        store.open_log(tmp_path / "log", "paper")
