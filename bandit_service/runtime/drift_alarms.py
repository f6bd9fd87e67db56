"""Alarms of drift, written to the log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec.structs import replace

from bandit_service.core import events as ev
from bandit_service.core.resolved import Resolved
from bandit_service.core.world import World
from bandit_service.runtime.detectors import DriftWatch
from bandit_service.runtime.writer import Writer


class DriftAlarms:
    """Appends the alarms of a watch after the events that raised them. `start` it when the writer
    exists.

    If several processes share a log, only the keeper watches. The watched values are folded state,
    so the next keeper starts with them.
    """

    def __init__(self, watch: DriftWatch, writer: Writer) -> None:
        self._watch = watch
        self._writer = writer
        self._watches = False

    def start(self) -> None:
        """Catch up on the present world, and listen from now on."""
        if self._writer.membership.keeps:
            self._begin(self._writer.world)
        self._writer.listen(self.heard, many=self._decided)

    def _begin(self, world: World) -> None:
        self._watches = True
        for alarm in self._watch.begin(world):
            self._append(alarm)

    def heard(self, what: Resolved, world: World) -> None:
        """One event that was applied."""
        if not self._writer.membership.keeps:
            if self._watches:
                self._watches = False
                self._watch.forget_all()
            return
        if not self._watches:
            self._begin(world)
            return
        alarm = self._watch.happened(what, world)
        if alarm is not None:
            self._append(alarm)

    def _decided(self, some: Sequence[Resolved], world: World) -> None:
        """Decisions that were applied one after another: the watch sees all their values."""
        self.heard(some[-1], world)

    def _append(self, alarm: ev.DriftDetected) -> None:
        """Append it after all events that are being applied, which come before it in the log."""

        def done(appended: asyncio.Future[ev.AnyEvent | None]) -> None:
            if not appended.cancelled() and appended.exception() is not None:
                self._watch.forget(alarm.arm)  # it could not be written, and will be found again

        writer = self._writer
        submitted = writer.submit(lambda: replace(alarm, ts=writer.now()), durable=False)
        submitted.add_done_callback(done)
