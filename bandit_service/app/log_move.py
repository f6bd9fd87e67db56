"""A log that moves from its file into a database, and what a killed process continues from.

A note in the directory says that a move was begun. A start whose settings name that database then
copies what is left, before it opens the log there.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from bandit_service.app.sharing import migrate, open_shared
from bandit_service.runtime.recovery import Progress
from bandit_service.settings import Settings
from store import EventLog, write_whole
from store.snapshots import FileSnapshots

_log = logging.getLogger("bandit.app")
NOTE, _REPLICA = "moving.json", "replica.json"


def begin(settings: Settings) -> None:
    """Note that the log in this directory moves to where these settings have it."""
    undo(settings)
    write_whole(Path(settings.data_dir) / NOTE, json.dumps(_target(settings)).encode())


def undo(settings: Settings) -> None:
    """The log in this directory is the whole one, and not the copy of an earlier replica."""
    (Path(settings.data_dir) / _REPLICA).unlink(missing_ok=True)


def end(settings: Settings) -> None:
    """The log is there."""
    (Path(settings.data_dir) / NOTE).unlink(missing_ok=True)


async def finish(
    log: EventLog, snapshots: FileSnapshots, settings: Settings, progress: Progress | None
) -> None:
    """Copy what is left of a move that was begun. Raises StoreError as `migrate`."""
    directory = Path(settings.data_dir)
    if _noted(directory) != _target(settings):
        return
    if not (directory / _REPLICA).exists():  # else a replica was opened on the whole log
        shared = open_shared(settings)
        assert shared is not None
        try:
            count = await migrate(shared, log, snapshots, settings, progress)
        finally:
            await shared.close()
        _log.info("a move of the log was finished", extra={"events": count})
    end(settings)


def _target(settings: Settings) -> dict[str, str]:
    return {"engine": settings.log.engine, "log": settings.log.name}


def _noted(directory: Path) -> object:
    try:
        return json.loads((directory / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
