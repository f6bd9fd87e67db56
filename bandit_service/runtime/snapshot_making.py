"""Snapshots of the present world, made by a child process that applies the events.

The event loop only reads the log in chunks of some tens of events.
"""

from __future__ import annotations

import asyncio
import logging
import time

from bandit_service.core import snapshot
from bandit_service.runtime.folding import Folded, Progress, Stalled, Task, fold_elsewhere
from bandit_service.runtime.recovery import mark_at, snapshot_key, task_arguments
from bandit_service.runtime.writer import Writer
from bandit_service.settings import PolicySettings, Settings
from bandit_service.telemetry.telemetry import Telemetry
from store import Offset, StoreError, first_of
from store.snapshots import FileSnapshots

_log = logging.getLogger("bandit.keeper")


class SnapshotMaking:
    """serving: the policy that serves the present world. lock: held while snapshots are made, or
    records deleted. at, time: of the newest snapshot, by time.monotonic.
    """

    def __init__(
        self,
        writer: Writer,
        kept: FileSnapshots,
        settings: Settings,
        telemetry: Telemetry,
        serving: PolicySettings,
        recovered_at: int,
    ) -> None:
        self.serving = serving
        self.kept = kept
        self.lock = asyncio.Lock()
        self.at, self.time = recovered_at, time.monotonic()
        self._writer = writer
        self._settings = settings
        self._telemetry = telemetry
        made = kept.made_at(snapshot_key(serving, settings), Offset(recovered_at))
        telemetry.snapshot(recovered_at, made=made)

    @property
    def key(self) -> str:
        """The key of snapshots of the present world."""
        return self.key_of(self.serving)

    def key_of(self, policy: PolicySettings) -> str:
        """The key of snapshots of a world that this policy serves."""
        return snapshot_key(policy, self._settings)

    def last(self) -> None:
        """A snapshot of the present world, made here, if anything is new."""
        last = self._writer.log.last
        if last > self.at and not self._writer.broken.done():
            mark = mark_at(self._writer.log, last)
            try:
                self.kept.save(last, self.key, snapshot.dump(self._writer.world, mark))
            except StoreError as error:
                _log.error("no snapshot at the end", extra={"why": str(error)})

    async def share(self, key: str, at: Offset) -> bool:
        """Put the one of this offset into the shared log; whether it lies there.

        Under the lock, or an older one might come there after an erasure has deleted those.
        """

        def read() -> bytes:
            found = self.kept.latest(key)
            if found is None or found[0] != at:
                raise StoreError(f"the snapshot of offset {at} is not there any more")
            return bytes(found[1])

        return await self._writer.membership.share_snapshot(key, at, read)

    async def make(self, upto: Offset) -> Folded:
        """A snapshot of durable events: never of an event that a power cut may undo."""
        log = self._writer.log
        task = Task(
            **task_arguments(self.serving, self._settings),
            directory=str(self.kept.directory),
            first=int(first_of(log)),
        )
        begun = time.monotonic()
        folded = await self.fold(task, upto)
        self.at, self.time = folded.at, time.monotonic()
        self._telemetry.snapshot(folded.at, folded.size, self.time - begun)
        self._writer.tasks.well("snapshots")
        _log.info("snapshot", extra={"offset": folded.at, "bytes": folded.size})
        return folded

    async def fold(self, task: Task, upto: Offset, progress: Progress | None = None) -> Folded:
        """Apply events in a child process. Raises FoldFailed."""
        stalled_s = self._settings.snapshots.stalled_s
        try:
            return await fold_elsewhere(task, self._writer.log, upto, progress, stalled_s)
        except Stalled:
            self._writer.child_ended()
            raise
