"""The only list of event logs: a new one is a file of this package and a line here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

from store._protocols import EventLog

DEFAULT = "sqlite"
ENGINES = {DEFAULT: "store.sqlite:SqliteLog"}
"""The class of each engine's log, by name. It is imported when a log is opened."""
_TO_READ = {DEFAULT: "store.sqlite:open_to_read"}
"""The engines that open a log in another way for reading only."""


def open_log(path: Path, engine: str = DEFAULT) -> EventLog:
    """The event log at `path`, created if it is missing.

    Raises ValueError for an unknown engine.
    """
    return _called(ENGINES, engine, path)


def open_to_read(path: Path, engine: str = DEFAULT) -> EventLog:
    """The event log at `path`, for reading only: a log of an old format is not converted."""
    return _called(ENGINES | _TO_READ, engine, path)


def _called(engines: Mapping[str, str], engine: str, path: Path) -> EventLog:
    if engine not in engines:
        raise ValueError(f"engine: unknown value {engine!r}; expected one of {', '.join(engines)}")
    module, _, name = engines[engine].partition(":")
    opened: EventLog = getattr(importlib.import_module(module), name)(path)
    return opened
