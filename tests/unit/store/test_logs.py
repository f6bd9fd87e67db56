"""Every event log that can be opened by its name keeps the suite, without being listed here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import store
from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.testing.logs import LogSuite
from store import EventLog, can_erase, can_trim, first_of
from store.memory import MemoryLog
from tests.unit.store.small_log import SmallLog


class TestMemoryLog(LogSuite):
    def make(self, path: Path) -> EventLog:
        return MemoryLog()


class Paper(MemoryLog):
    """An engine as somebody may add one."""

    def __init__(self, path: Path) -> None:
        super().__init__()


class TestSmallLog(LogSuite):
    def make(self, path: Path) -> EventLog:
        return SmallLog()


def test_a_log_is_asked_what_it_can_do_without_being_used() -> None:
    small, whole = SmallLog(), MemoryLog()
    small.close()
    whole.close()
    assert (can_trim(small), can_erase(small), first_of(small)) == (False, False, 1)
    assert (can_trim(whole), can_erase(whole)) == (True, True)


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


def test_a_configured_engine_opens_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(store.ENGINES, "paper", f"{__name__}:Paper")
    chosen = replace(settings.Settings(), data_dir=str(tmp_path))
    chosen = replace(chosen, log=replace(chosen.log, engine="paper"))
    for to_read in (False, True):
        assert isinstance(assembly.open_log(chosen, to_read=to_read), Paper)
    assert not chosen.log.shared
