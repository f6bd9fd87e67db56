"""Alarms of drift, written to the log."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from bandit_service.core import events as ev
from bandit_service.core.resolved import Resolved
from bandit_service.core.world import World
from bandit_service.runtime.detectors import DriftWatch
from bandit_service.runtime.writer import Writer


class DriftAlarms:
    """Appends the alarms of a watch after what gave them. `start` once the writer is there."""

    def __init__(self, watch: DriftWatch, writer: Writer) -> None:
        self._watch = watch
        self._writer = writer

    def start(self) -> None:
        """Catch up on the world as it is, and listen from here on."""
        for alarm in self._watch.begin(self._writer.world):
            self._append(alarm)
        self._writer.listen(self.heard)

    def heard(self, what: Resolved, world: World) -> None:
        """One event that was applied."""
        alarm = self._watch.happened(what, world)
        if alarm is not None:
            self._append(alarm)

    def _append(self, alarm: ev.DriftDetected) -> None:
        """After all that is being applied, which came before it in the log.

        Of several processes on one log only one writes it; the others find it once more, until they
        hear of it.
        """
        if not self._writer.keeps:
            self._watch.forget(alarm.arm)
            return

        def done(appended: asyncio.Future[ev.AnyEvent | None]) -> None:
            if not appended.cancelled() and appended.exception() is not None:
                self._watch.forget(alarm.arm)  # it could not be written, and is found once more

        writer = self._writer
        submitted = writer.submit(lambda: replace(alarm, ts=writer.now()), durable=False)
        submitted.add_done_callback(done)
