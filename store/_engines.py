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
    module, _, name = ENGINES[engine].partition(":")
    opened: EventLog = getattr(importlib.import_module(module), name)(path)
    return opened
