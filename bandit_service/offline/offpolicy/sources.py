"""Where the past comes from: a log, a running service, or an export of JSON lines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bandit_service.core import snapshot
from bandit_service.core.world import World, new_world
from bandit_service.data import jsonl
from bandit_service.data.log_source import (
    LogSource,
    ServiceSource,
    Source,
    Stored,
    Unreadable,
)
from bandit_service.offline.offpolicy.fold import Asked
from bandit_service.settings import Settings
from store import Offset, open_to_read
from store.snapshots import FileSnapshots


class LinesSource:
    """Events as `bandit-service export --format jsonl` writes them; a gap is of erased ones."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.first, self.last = 1, 0
        for offset, _ in self._read():
            if not self.last:
                self.first = offset
            if offset <= self.last:
                raise Unreadable(f"{path}: offset {offset} comes after {self.last}")
            self.last = offset

    def events(self, after: int) -> Iterator[Stored]:
        """The events after `after`, in order."""
        at = max(after, self.first - 1)
        for offset, event in self._read():
            if offset > after:
                yield from ((gone, None) for gone in range(at + 1, offset))
                yield offset, event
                at = offset

    def _read(self) -> Iterator[Stored]:
        with self._path.open("rb") as file:
            for number, text in enumerate(file, 1):
                try:
                    yield jsonl.read(text)
                except msgspec.MsgspecError as error:
                    raise Unreadable(f"{self._path}, line {number}: {error}") from None


@contextlib.contextmanager
def opened(
    where: str, chosen: Settings, key: str = "", ca: Path | None = None, pool: str = ""
) -> Iterator[tuple[Source, Path | None]]:
    """The source that `where` names, and the directory of its snapshots, if there is one.

    where: a URL of a running service, a data directory, a log, JSON lines, or "" for the configured
    log. pool: the one that a running service is asked for. Raises Unreadable or StoreError.
    """
    if where.startswith(("http://", "https://")):
        yield ServiceSource(where, key, ca, pool=pool), None
        return
    path = Path(where or chosen.data_dir)
    snapshots = None
    if path.is_dir() or not where:
        snapshots, path = path / chosen.snapshots.directory, path / chosen.log.path
    if not path.is_file():
        raise Unreadable(f"--from-log: there is no log at {path}")
    if path.suffix == ".jsonl":
        yield LinesSource(path), None
        return
    log = open_to_read(path)
    try:
        yield LogSource(log), snapshots
    finally:
        log.close()


def beginning(first: int, asked: Asked, snapshots: Path | None) -> tuple[int, World]:
    """The offset after which events are needed, and the world before them.

    first: the log's first offset. If that is later than 1, the oldest snapshot that reaches it has
    the earlier state; without one the arms are unknown until the log describes them.
    """
    if first > 1 and snapshots is not None and snapshots.is_dir():
        files = FileSnapshots(snapshots)
        for each in sorted(files.found(), key=lambda one: one.offset):
            found = files.oldest(each.key)
            if found is not None and found[0] >= first - 1:
                return int(found[0]), world_of(found)
    return first - 1, new_world({}, "", asked.capacity, asked.per_item)


def world_of(found: tuple[Offset, bytes | bytearray]) -> World:
    """A snapshot's world without policies and experiments, which would only cost time."""
    world = snapshot.restore_unlearned(snapshot.read(found[1]))
    world.experiments.trials.clear()
    world.experiments.specs.clear()
    return world
