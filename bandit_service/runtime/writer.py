"""The only writer: take the commands of one turn of the loop, append once, apply each in order.

`command_batches.py` checks the commands of a turn, `group_commit.py` makes them durable,
`live_world.py` applies them, `backlog.py` keeps what cannot be written yet.

Everything here runs on the event loop's thread, and between checking an event against the
world and applying it there is no await; so there is no lock, and the order of the log is the
order in which the world changed. Only the fsync leaves the loop, which an outcome's answer waits
for and which all outcomes under way share (group commit).

When the disk is full, decisions continue: they wait in a bounded backlog and are appended before
anything else when there is space again. Outcomes are refused until then. A failed fsync is final:
`broken` is set, and the process must end and recover. The same holds if an event in the log could
not be applied for lack of memory: then the world no longer matches the log.
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
from bandit_service.core.resolved import owner_of_subject
from bandit_service.core.world import World
from bandit_service.runtime.backlog import Backlog, Booked
from bandit_service.runtime.command_batches import Among, Command, Prepare, Q, Ready, Turn
from bandit_service.runtime.group_commit import Done, GroupCommit, fail
from bandit_service.runtime.live_world import NOT_APPLIED, OURS, Heard, HeardMany, LiveWorld, Then
from bandit_service.runtime.membership import LogMembership
from bandit_service.runtime.supervisor import Kept, Supervisor
from bandit_service.telemetry.telemetry import Telemetry
from store import Closed, EventLog, Full, Offset, Record, StoreError

_log = logging.getLogger("bandit.writer")
_TURNS, _ALONE = 16, 2
"""How many turns of the loop patient commands wait for others at most, and how many without a new
one end the wait: data from a socket takes two turns to become a command.
"""
_late = attrgetter("late")


class Writer:
    """Appends and applies events, one order for all. Make one inside the running loop.

    before_outcome: called with a decision before another process' outcome of it is applied.
    embeddings: how the log keeps those of decisions, of `vector_bytes.CODINGS`. id_code: what names
    this log in ids, where a process serves several.
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
        embeddings: str = ev.FLOAT32,
        id_code: int | None = None,
    ) -> None:
        self.world = world
        self.log = log
        self._embeddings = embeddings
        self.membership = LogMembership()
        self.loop = asyncio.get_running_loop()
        """The loop that it runs in. To ask Python for it is a system call each time, up to 3.11."""
        self.broken: asyncio.Future[str] = self.loop.create_future()
        self._telemetry = telemetry
        self.tasks = Supervisor(telemetry.task_failed, telemetry.task_failing)
        self._live = LiveWorld(world, telemetry, self.tasks, self._cannot_apply)
        self._syncing = self.group_commit(
            log, sync_interval_s, telemetry.metrics.log_sync.observe, self._break
        )
        self._backlog = Backlog(max_backlog, telemetry.metrics)
        self.before_outcome: Callable[[str], None] = lambda _: None
        self._ids = clock.Ids(world.ts, id_code)
        self._commands: list[Command] = []
        self._patient = False
        self._committing: Kept | None = None

    def start(self) -> None:
        """Begin to commit."""
        self._committing = self.tasks.keep("commit", self._commit_forever, self._end)

    def listen(
        self, heard: Heard, *kinds: type[ev.AnyEvent], many: HeardMany | None = None
    ) -> None:
        """Call this listener with every event of these kinds, or of all without any, that is
        applied from now on, in order, with the world after it. many: called once with decisions
        that follow one another, in the place of `heard`.
        """
        self._live.listen(heard, *kinds, many=many)

    def before_next(self, do: Callable[[], None]) -> None:
        """Do this once, before the next event is applied."""
        self._live.before_next = do

    def lessons(self) -> AbstractContextManager[list[Lesson]]:
        """All lessons from now on, for a policy that is being trained on the past elsewhere."""
        return self._live.lessons()

    async def synced(self) -> Offset:
        """Make everything appended up to now durable; the last offset of it."""
        return await self._syncing.synced()

    async def close(self) -> None:
        """Flush what is pending, make it durable, stop. The caller closes the log itself."""
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
        """The log's time, UTC seconds: it stands still while the clock is behind."""
        return max(clock.now(), self.world.ts)

    def new_id(self, ts: float) -> str:
        """An id greater than all before it."""
        return self._ids.new(ts)

    @property
    def degraded(self) -> str:
        """Why nothing can be written now, "" when it can."""
        return "" if self._backlog.full is None else str(self._backlog.full)

    def in_backlog(self, decision_id: str, tenant: str | None = None) -> bool:
        """Whether this decision, of this tenant if one is given, waits for space on the disk."""
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
        """Up to which offset the log is applied, if other processes append too."""
        return 0

    def may_come(self, decision_id: str) -> bool:  # noqa: ARG002 - others can
        """Whether an unknown decision may still come from another process."""
        return False

    async def caught_up(self) -> None:
        """Wait until everything in the log is applied, also from other processes."""

    async def reached(self, offset: int, patience_s: float | None = None) -> None:
        """Wait until the log is applied up to this offset; a single process always is.

        patience_s: a limit, if it is less than the setting.
        """

    async def arrived(self, decision_id: str) -> None:
        """Wait for a decision that may still come."""

    def made_here(self, decision_id: str) -> bool:  # noqa: ARG002 - another may be another's
        """Whether this process made a decision that is being applied."""
        return True

    def append_own(self, *events: ev.AnyEvent) -> None:
        """Append and apply events of the keeper; they are dropped if they cannot be written."""
        self.append_now(*events)

    def under_way(self, key: str) -> bool:  # noqa: ARG002 - others are not done at once
        """Whether something submitted under this key is not applied yet, and still may be."""
        return False

    def submit(
        self, prepare: Prepare, *, key: str = "", durable: bool = True, late: bool = False
    ) -> asyncio.Future[ev.AnyEvent | None]:
        """Check, append and apply together with all commands of this turn of the loop.

        late: after all others of this turn, and it may wait for more of them. So the service's own
        commands do not separate decisions that can be prepared together.

        The future gets the event when it is with the kernel, or on the disk if `durable`; None if
        `prepare` found nothing to do; or the error, and then nothing was changed.
        """
        done: asyncio.Future[ev.AnyEvent | None] = self.loop.create_future()
        self._submit(Command(done, durable, key, late, prepare), patient=late)
        return done

    def submit_late(self, prepare: Prepare, done: Done, *, key: str) -> None:
        """`submit` of a late command that does not wait for the disk; calls `done`."""
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
        """`submit` of a command that is prepared together with others of this turn; calls `done`.

        patient: also with others of the next turns, as long as all commands are patient.
        """
        self._submit(Command(done, durable, among=among, asked=asked), patient)

    def _submit(self, command: Command, patient: bool) -> None:
        if not self._commands:
            self._patient = True
            self.loop.call_soon(self._gather, _TURNS, 0, _ALONE)
        self._patient = self._patient and patient
        self._commands.append(command)

    def _gather(self, turns: int, before: int, alone: int) -> None:
        """Flush, or wait a turn for more while all are patient: at most this many turns, and at
        most `alone` of them in a row without a new one.
        """
        there = len(self._commands)
        alone = alone - 1 if there == before else _ALONE
        if self._patient and turns and alone:
            self.loop.call_soon(self._gather, turns - 1, there, alone)
        else:
            self._flush()

    def append_now(self, *events: ev.AnyEvent, then: Then | None = None) -> bool:
        """Append and apply the service's own events at once; False if they cannot be written now.

        then: changes unfolded state together with each event, before listeners hear of it.
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
        """Write everything of this turn of the loop, in order, in as few appends as possible."""
        logs.request_id.set("")  # log lines here do not belong to the request that came first
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
        events = [event for _, event, _ in batch]
        for (command, event, _), why in zip(batch, self._apply_many(events), strict=True):
            if why:
                fail(command.done, ServiceError(why))
            else:
                self._settle(command, event)
        self._telemetry.appended(len(batch), appended_s)
        decisions = sum(type(event) is ev.Decided for event in events)
        self._telemetry.stage("record", appended_s / len(batch), decisions)
        self._telemetry.applied(time.perf_counter() - begun)

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
        """An earlier record is damaged: the service must end with a message."""
        self._break(error)

    def _break(self, error: StoreError) -> None:
        self._end(str(error))

    def _end(self, why: str) -> None:
        """The process must end and recover: its memory no longer matches the log."""
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
        body = ev.encode(event, self._coding)
        if isinstance(event, ev.Decided):
            return Record(event.id, ev.kind(event), event.ts, body, owner_of_subject(event))
        eid = self._ids.new(event.ts)
        return Record(eid, ev.kind(event), event.ts, body, owner_of(self.world, event))

    @property
    def _coding(self) -> str:
        """How an embedding is written now."""
        return self._embeddings

    def apply(self, event: ev.AnyEvent, then: Then | None = None) -> str:
        """Apply an event that is in the log; returns why it was not fully applied, "" if it was."""
        return NOT_APPLIED if self.broken.done() else self._live.apply(event, then)

    def _apply_many(self, events: Sequence[ev.AnyEvent]) -> list[str]:
        """`apply` for each."""
        if self.broken.done():
            return [NOT_APPLIED] * len(events)
        return self._live.apply_many(events)

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
