"""The only writer: take what came in one turn of the loop, append once, apply each in order.

`turn.py` checks the commands of a turn, `group_commit.py` makes them durable, `live_world.py`
applies them, `backlog.py` keeps what cannot be written yet.

Everything here runs on the event loop's thread, and between checking an event against the
world and applying it there is no await; so there is no lock, and the order of the log is the
order in which the world changed. Only the fsync leaves the loop, which an outcome's answer waits
for and which all outcomes under way share (group commit).

When the disk is full, decisions go on: they wait in a bounded backlog and are appended before
anything else when there is space again. Outcomes are refused until then. An fsync that failed is
final: `broken` is set, and the process is to end and recover. So it is when an event that is in the
log could not be applied for want of memory: then the world is not the log's any more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from operator import attrgetter

from bandit_service import clock, logs
from bandit_service.core import events as ev
from bandit_service.core.errors import ServiceError, Unavailable
from bandit_service.core.learner import Lesson
from bandit_service.core.resolve import owner_of
from bandit_service.core.world import World
from bandit_service.runtime.backlog import Backlog, Booked
from bandit_service.runtime.group_commit import Done, GroupCommit, fail
from bandit_service.runtime.live_world import NOT_APPLIED, OURS, Heard, LiveWorld, Then
from bandit_service.runtime.supervisor import Kept, Supervisor
from bandit_service.runtime.turn import Among, Command, Prepare, Q, Ready, Turn
from bandit_service.telemetry.telemetry import Telemetry
from store import Closed, EventLog, Full, Offset, Record, Replica, StoreError

_log = logging.getLogger("bandit.writer")
_TURNS, _ALONE = 16, 2
"""Turns of the loop that the patient wait for company, at most; so many of them in a row without
any end it, since what has come from a socket takes two turns to become a command."""
_late = attrgetter("late")


class Writer:
    """Appends and applies events, one order for all. Make one inside the running loop.

    before_outcome: told of a decision before an outcome of it from another process is applied.
    """

    group_commit = GroupCommit
    shared = False
    """Whether other processes append to the same log."""

    def __init__(
        self,
        world: World,
        log: EventLog,
        telemetry: Telemetry,
        *,
        sync_interval_s: float,
        max_backlog: int,
    ) -> None:
        self.world = world
        self.log = log
        self.broken: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._telemetry = telemetry
        self.tasks = Supervisor(telemetry.task_failed, telemetry.task_failing)
        self._live = LiveWorld(world, telemetry, self.tasks, self._cannot_apply)
        self._syncing = self.group_commit(
            log, sync_interval_s, telemetry.metrics.log_sync.observe, self._break
        )
        self._backlog = Backlog(max_backlog, telemetry.metrics)
        self.before_outcome: Callable[[str], None] = lambda _: None
        self._ids = clock.Ids(world.ts)
        self._commands: list[Command] = []
        self._patient = False
        self._committing: Kept | None = None

    def start(self) -> None:
        """Begin to commit."""
        self._committing = self.tasks.keep("commit", self._commit_forever, self._end)

    def listen(self, heard: Heard) -> None:
        """Tell of every event that is applied from here on, in order, with the world after it."""
        self._live.listen(heard)

    def lessons(self) -> AbstractContextManager[list[Lesson]]:
        """What every policy is taught from here on, for one whose past is folded elsewhere."""
        return self._live.lessons()

    async def synced(self) -> Offset:
        """Make everything appended up to now durable; the last offset of it."""
        return await self._syncing.synced()

    async def close(self) -> None:
        """Flush what is under way, make it durable, stop. The log itself is the caller's."""
        self._flush()
        self._flush()  # what the first one gave the alarm for
        if self._backlog:
            lost = {"decisions": self._backlog.decisions, "usd": self._backlog.usd}
            _log.critical("decisions are lost", extra=lost)
        try:
            await self._syncing.sync()
        except Exception as error:  # noqa: BLE001 - closing the log makes it durable, too
            self.tasks.failed("commit", error)
        if self._committing is not None:
            await self._committing.end()
        self._syncing.close()

    def now(self) -> float:
        """The log's time, UTC seconds: it stands still while the clock is behind what it was."""
        return max(clock.now(), self.world.ts)

    def new_id(self, ts: float) -> str:
        """An id greater than all before it."""
        return self._ids.new(ts)

    @property
    def degraded(self) -> str:
        """Why nothing can be written now, "" when it can."""
        return "" if self._backlog.full is None else str(self._backlog.full)

    @property
    def barred(self) -> str:
        """Why nobody should ask this process, though it runs; "" where there is no reason."""
        return ""

    def in_backlog(self, decision_id: str, tenant: str | None = None) -> bool:
        """Whether this decision, of this tenant if one is named, waits for space on the disk."""
        return self._backlog.holds(decision_id, tenant)

    def owe(self, event: ev.Spent, booked: Booked) -> bool:
        """Write down a cost that could not be submitted, once there is space; False if it is lost.

        booked: is called when it is in the log and applied, or is given up.
        """
        if self._backlog.full is None and self.append_now(event):
            booked()
            return True
        if self._backlog.full is None or self.broken.done():
            self._backlog.lost(event)
            booked()
            return False
        self._backlog.owe(event, booked)
        return True

    @property
    def owed_usd(self) -> float:
        """Costs that wait to be written down."""
        return self._backlog.usd

    def waits(self, decision_id: str) -> bool:
        """Whether a decision that was answered here is not applied yet."""
        return self.in_backlog(decision_id)

    @property
    def seen(self) -> int:
        """Up to which offset the world is folded, where other processes append, too."""
        return 0

    @property
    def keeps(self) -> bool:
        """Whether this process does what is done once for all that share a log."""
        return True

    @property
    def slot(self) -> int:
        """The number of this process among those that share the log; 0 where none does."""
        return 0

    @property
    def known(self) -> list[Replica]:
        """Who shares the log, as it said a moment ago."""
        return []

    def differs(self, row: Replica) -> bool | None:  # noqa: ARG002 - others can
        """Whether a replica had another state at an offset that both know; None for not known."""
        return None

    async def replicas(self) -> list[Replica]:
        """Who shares the log."""
        return []

    async def share_snapshot(self, key: str, at: Offset, read: Callable[[], bytes]) -> None:
        """Let other processes begin from a snapshot; read: gives it, where it is wanted."""

    def may_come(self, decision_id: str) -> bool:  # noqa: ARG002 - others can
        """Whether a decision that the world has not may still come, from another process."""
        return False

    async def caught_up(self) -> None:
        """Wait until all is applied that the log has by now, of other processes too."""

    async def reached(self, offset: int, patience_s: float | None = None) -> None:
        """Wait until the log is applied up to here; one process has applied all that it said.

        patience_s: for how long at most, where that is less than the settings say.
        """

    async def arrived(self, decision_id: str) -> None:
        """Wait for a decision that may still come."""

    def made_here(self, decision_id: str) -> bool:  # noqa: ARG002 - another may be another's
        """Whether this process made a decision that is being applied."""
        return True

    def append_own(self, *events: ev.AnyEvent) -> None:
        """Append and apply what nobody else would; where it cannot be written, it is left out."""
        self.append_now(*events)

    def check_read_by_all(self, kind: type[ev.Event]) -> None:
        """Raise Unavailable where another process on the log cannot read events of this kind."""

    def under_way(self, key: str) -> bool:  # noqa: ARG002 - others are not done at once
        """Whether something submitted under this key is not applied yet, and still may be."""
        return False

    @property
    def in_touch_since(self) -> float:
        """Since when (time.monotonic) the others that share the log cannot have taken this process
        for lost; infinite while they may.
        """
        return 0.0

    def submit(
        self, prepare: Prepare, *, key: str = "", durable: bool = True, late: bool = False
    ) -> asyncio.Future[ev.AnyEvent | None]:
        """Check, append and apply with all that came in this turn of the loop.

        late: after all others of this turn, and it may wait for more of them. So what the service
        itself submits does not stand between decisions that can be prepared together.

        The future has the event when it is with the kernel, or on the disk if `durable`; None when
        `prepare` found nothing to do; or what went wrong, and then nothing was changed.
        """
        done: asyncio.Future[ev.AnyEvent | None] = asyncio.get_running_loop().create_future()
        self._submit(Command(done, durable, key, late, prepare), patient=late)
        return done

    def submit_late(self, prepare: Prepare, done: Done, *, key: str) -> None:
        """`submit` of what is late and waits for no disk; `done` is told."""
        self._submit(Command(done, False, key, late=True, prepare=prepare), patient=True)

    def submit_among(
        self,
        among: Among[Q],
        asked: Q,
        done: Done,
        *,
        durable: bool = False,
        patient: bool = False,
    ) -> None:
        """`submit` of what is prepared together with others of this turn; `done` is told.

        patient: and with others of the next ones, as long as nothing is submitted that is not.
        """
        self._submit(Command(done, durable, among=among, asked=asked), patient)

    def _submit(self, command: Command, patient: bool) -> None:
        if not self._commands:
            self._patient = True
            asyncio.get_running_loop().call_soon(self._gather, _TURNS, 0, _ALONE)
        self._patient = self._patient and patient
        self._commands.append(command)

    def _gather(self, turns: int, before: int, alone: int) -> None:
        """Flush, or wait a turn for more of them while all are patient, so many times at most, and
        `alone` of these in a row without any.
        """
        there = len(self._commands)
        alone = alone - 1 if there == before else _ALONE
        if self._patient and turns and alone:
            asyncio.get_running_loop().call_soon(self._gather, turns - 1, there, alone)
        else:
            self._flush()

    def append_now(self, *events: ev.AnyEvent, then: Then | None = None) -> bool:
        """Append and apply events of our own at once; False when they cannot be written now.

        then: changes what is not folded, with each event, before anybody is told of it.
        """
        if not events:
            return True
        try:
            self._append([self._record(event) for event in events])
        except StoreError as error:
            self._failed(error)
            return False
        self._syncing.appended()
        for event in events:
            self.apply(event, then)
        return not self.broken.done()

    def flush(self) -> None:
        """Append and apply now what was submitted."""
        self._flush()

    def _flush(self) -> None:
        """Everything that came in this turn of the loop, in order, in as few appends as can be."""
        logs.request_id.set("")  # what is logged here is not of the one request that came first
        logs.decision_id.set("")
        commands, self._commands = self._commands, []
        try:
            self._take(commands)
        except Exception as error:  # noqa: BLE001 - whoever waits is told, whatever it was
            self.tasks.failed("flush", error)
            written = {id(done) for done, _ in self._syncing.waiting}  # and wait for the disk only
            for command in commands:
                if id(command.done) not in written:
                    fail(command.done, ServiceError(OURS))
        else:
            self.tasks.well("flush")

    def _take(self, commands: list[Command]) -> None:
        self._catch_up()
        commands.sort(key=_late)  # what came first stays first
        turn = Turn(self._record, self._commit, self._settle)
        for command in commands:
            turn.take(command)
        turn.commit()

    def _commit(self, batch: Sequence[Ready]) -> None:
        begun = time.perf_counter()
        try:
            self._append([record for _, _, record in batch])
        except StoreError as error:
            self._failed(error)
            for command, event, _ in batch:
                self._put_off(command, event, error)
            return
        appended_s = time.perf_counter() - begun
        self._syncing.appended()
        for command, event, _ in batch:
            if why := self.apply(event):
                fail(command.done, ServiceError(why))
            else:
                self._settle(command, event)
        self._telemetry.appended(len(batch), appended_s)
        decisions = sum(isinstance(event, ev.Decided) for _, event, _ in batch)
        self._telemetry.stage("record", appended_s / len(batch), decisions)
        self._telemetry.applied(time.perf_counter() - begun, self.log.last)

    def _append(self, records: Sequence[Record]) -> None:
        if self._backlog.full is not None and self._backlog:
            raise self._backlog.full.with_traceback(None)
        if self.broken.done():
            raise Closed(self.broken.result())
        before = self.log.last
        try:
            self.log.append(records)
        except Exception as error:
            if self.log.last != before:  # they are in the log, and nobody will apply them
                self._end(f"an append was not finished ({type(error).__name__})")
            raise

    def _failed(self, error: StoreError) -> None:
        if isinstance(error, Full):
            self._backlog.filled(error)
        else:
            self._break(error)

    def damaged(self, error: StoreError) -> None:
        """A record of before is not as it was written: the service is to end and say so."""
        self._break(error)

    def _break(self, error: StoreError) -> None:
        self._end(str(error))

    def _end(self, why: str) -> None:
        """The process is to end and to recover: it cannot go on from what it has in memory."""
        if not self.broken.done():
            _log.critical("the log is broken", extra={"why": why})
            self.broken.set_result(why)

    def _put_off(self, command: Command, event: ev.AnyEvent, error: StoreError) -> None:
        if not isinstance(event, ev.Decided) or not isinstance(error, Full):
            fail(command.done, Unavailable(f"the event log cannot be written: {error}"))
            return
        self._backlog.put(event)
        if not command.done.done():
            command.done.set_result(event)

    def _catch_up(self) -> None:
        """Append what waits since nothing could be written."""
        if self._backlog.full is None:
            return
        try:
            for events in self._backlog.oldest():
                self.log.append([self._record(event) for _, event in events])
                for key, event in events:
                    self.apply(event)
                    self._backlog.written(key)
                self._syncing.appended()
        except StoreError as error:
            self._failed(error)
            return
        finally:
            self._backlog.count()
        self._backlog.emptied(self.log.last)

    def _record(self, event: ev.AnyEvent) -> Record:
        eid = event.id if isinstance(event, ev.Decided) else self._ids.new(event.ts)
        return Record(eid, ev.kind(event), event.ts, ev.encode(event), owner_of(self.world, event))

    def apply(self, event: ev.AnyEvent, then: Then | None = None) -> str:
        """Apply an event that is in the log; why it could not be applied whole, "" if it was."""
        return NOT_APPLIED if self.broken.done() else self._live.apply(event, then)

    def _cannot_apply(self, kind: str) -> None:
        self._end(f"event {self.log.last} could not be applied ({kind}); it is in the log")

    def _settle(self, command: Command, event: ev.AnyEvent | None = None) -> None:
        if command.durable:
            self._syncing.wait(command.done, event)
        elif not command.done.done():
            command.done.set_result(event)

    async def _commit_forever(self) -> None:
        while True:
            await self._syncing.due()
            self._catch_up()
            if self._syncing.needed:
                await self._syncing.sync()
            self.tasks.well("commit")

    def child_ended(self) -> None:
        """Count a child process that made no progress and was killed."""
        self._telemetry.metrics.children_ended.inc()
