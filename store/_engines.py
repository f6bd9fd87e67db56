"""The one list of event logs: a new one is a file of this package and a line here."""

from __future__ import annotations

import importlib
from pathlib import Path

from store._protocols import EventLog

ENGINES = {"sqlite": "store.sqlite:SqliteLog"}
"""By name the class that opens a log at a path. It is imported when it is opened."""


def open_log(path: Path, engine: str = "sqlite") -> EventLog:
    """The event log at `path`, made if it is not there; ValueError for an unknown engine."""
    if engine not in ENGINES:
        raise ValueError(f"engine: unknown value {engine!r}; expected one of {', '.join(ENGINES)}")
    return _called(ENGINES[engine], path)


def open_to_read(path: Path) -> EventLog:
    """The event log at `path`, to be read only: one of an old format stays one."""
    return _called("store.sqlite:open_to_read", path)


def _called(where: str, path: Path) -> EventLog:
    module, _, name = where.partition(":")
    opened: EventLog = getattr(importlib.import_module(module), name)(path)
    return opened
