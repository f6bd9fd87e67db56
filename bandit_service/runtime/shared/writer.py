"""The writer of one of several processes on one log.

A decision is made from the applied state, kept in the spool, answered, and appended soon after. An
outcome is checked against the applied state, appended with the offset of that state, and answered
when it was read back from the log and applied. If another replica wrote about the same decision in
between, the log refuses it, and it is checked again. So the world is at any moment the fold of a
durable prefix of the log, as on every other replica.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from typing import Protocol

from bandit_service import clock
from bandit_service.core import events as ev
from bandit_service.core.errors import Expired, NotYet, ServiceError, Unavailable
from bandit_service.core.world import World
from bandit_service.runtime.backlog import Booked
from bandit_service.runtime.command_batches import Command, Ready, Turn
from bandit_service.runtime.group_commit import fail
from bandit_service.runtime.live_world import Then
from bandit_service.runtime.shared.appending import Appender, Outgoing
from bandit_service.runtime.shared.digests import Digests
from bandit_service.runtime.shared.fold_load import Busy
from bandit_service.runtime.shared.latecomers import Latecomers
from bandit_service.runtime.shared.leftover_decisions import left_over
from bandit_service.runtime.shared.link import Link
from bandit_service.runtime.shared.membership import SharedMembership
from bandit_service.runtime.shared.offset_waits import Reached
from bandit_service.runtime.shared.outcome_checks import Checking
from bandit_service.runtime.shared.own_events import UnderWay
from bandit_service.runtime.shared.parking import Parking
from bandit_service.runtime.shared.rules import SharedRules
from bandit_service.runtime.shared.spool import Spool
from bandit_service.runtime.shared.tailing import Came, Tailer
from bandit_service.runtime.supervisor import Kept
from bandit_service.runtime.writer import Writer
from bandit_service.telemetry.replica_metrics import ReplicaMetrics
from bandit_service.telemetry.telemetry import Telemetry
from store import (
    Entry,
    EventLog,
    Full,
    Offset,
    StoreError,
    Tailed,
)

_log = logging.getLogger("bandit.replica")
_TRIM_S, _ABSENT_S = 1.0, 0.1


class Turning(Protocol):
    """Handles the event that switches to another policy."""

    def waits(self, event: ev.AnyEvent) -> bool:
        """Whether the event cannot be applied yet."""
        ...

    def switching(self, event: ev.AnyEvent) -> Then | None:
        """What to do with it."""
        ...


class SharedWriter(Writer):
    """Make one inside the running loop, `start`, then wait until it `caught_up`.

    turn: asked about each event before it is applied.
    """

    shared = True
    membership: SharedMembership

    def __init__(
        self,
        world: World,
        log: EventLog,
        telemetry: Telemetry,
        link: Link,
        spool: Spool,
        rules: SharedRules,
        *,
        sync_interval_s: float,
        embeddings: str = ev.FLOAT32,
        id_code: int | None = None,
    ) -> None:
        super().__init__(
            world,
            log,
            telemetry,
            sync_interval_s=sync_interval_s,
            max_backlog=rules.max_spool,
            embeddings=embeddings,
        )
        self.link = link
        self._rules = rules
        self._spool = spool
        self._metrics = ReplicaMetrics(telemetry.metrics.registry)
        telemetry.looks.append(self._look)
        self._ids = clock.Ids(code=id_code)
        self._now = 0.0
        self._lost = 0
        self._spool_full = ""
        self._applied = int(log.last)
        self._appender = Appender(
            link,
            rules.max_batch,
            self.now,
            outdated=self._outdated,
            refused=self._refused,
            found=self._found,
            took_s=self._metrics.append.observe,
        )
        self._under_way = UnderWay(self._appender, self._backlog)
        self._parking = Parking(
            rules.park_s,
            rules.max_parked,
            lambda command: self._checking.again(command),
            lambda: self._applied,
        )
        self._checking = Checking(
            self, link.shared, self._under_way, self._parking, self._appender.appended
        )
        self._reached = Reached(rules.after_wait_s)
        self._tailer = Tailer(
            link,
            log,
            self.tasks,
            self._appender.appended,
            rules.poll_s,
            own=self._own_event,
            waits=lambda event: self.turn is not None and self.turn.waits(event),
            apply=self._apply_slice,
        )
        self.digests = Digests(
            rules.digest_every,
            link.key,
            differing=self._differing,
            failed=partial(self.tasks.failed, "digest"),
            well=partial(self.tasks.well, "digest"),
        )
        self.membership = SharedMembership(link, self.digests, rules.keep_snapshots)
        self._latecomers = Latecomers(
            lambda owner, ts: self._appender.of(owner, ts) & self._under_way.ids(),
            self._forget_again,
            spool.drop,
            link.max_skew_s,
        )
        self.turn: Turning | None = None
        self._busy = Busy(time.monotonic())
        self._running: list[Kept] = []
        link.settled, link.applied = self._appender.settled, lambda: self._applied
        link.may_lead = lambda: not self.digests.in_minority
        link.mark, link.compare = lambda: self.digests.newest, self.digests.compare
        link.rejoined, link.ends = self._appender.rejoined, self._end

    def start(self) -> None:
        """Begin to append, to read and to send signs of life."""
        super().start()
        decisions = left_over(self._spool, self.log, self.link, self.world, self._latecomers)
        self._under_way.send_left([self.outgoing(event, "") for event in decisions])
        if decisions:
            _log.info("decisions of before are appended", extra={"decisions": len(decisions)})
        self._latecomers.look(self._under_way.ids())
        keep = self.tasks.keep
        self._running = [
            keep("append", self._appender.run, self._end),
            keep("tail", self._tailer.run, self._end),
            keep("beat", self.link.beat_forever),
            keep("connect", self.link.reconnect_forever),
            keep("park", self._checking.look_forever),
            keep("spool", self._trim_forever),
        ]

    def _forget_again(self, owner: str, ts: float) -> None:
        again = partial(_as_it_is, ev.Forgotten(ts=ts, owner=owner))
        self.submit(again, key="catalogue", durable=False)

    async def caught_up(self) -> None:
        """Wait until everything in the log is applied, and the decisions of an earlier process are
        in it.
        """
        await self._appender.empty.wait()
        while True:
            await self.link.up.wait()
            with suppress(StoreError):
                horizon = (await self.link.shared.state()).horizon
                break
            await asyncio.sleep(_ABSENT_S)
        await self._until(lambda: self._applied >= horizon)

    async def _until(self, there: Callable[[], bool]) -> None:
        """Check this after each poll."""
        while not there():  # noqa: ASYNC110 - no event is set by each of what it may ask for
            await asyncio.sleep(self._rules.poll_s)

    async def close(self) -> None:
        """Append what is pending, leave, stop."""
        self._flush()
        self._flush()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._rules.timeout_s):
                await self._appender.empty.wait()
                await self._until(lambda: not any(self._under_way.callers()))
        for task in self._running:
            await task.end()
        if self.link.up.is_set() and not self._appender:
            await self.link.leave()
        elif self._appender:
            _log.warning("decisions wait in the spool", extra={"decisions": len(self._spool)})
        with suppress(StoreError):
            self._spool.trim()
        self._spool.close()
        await self.link.shared.close()
        await super().close()

    def now(self) -> float:
        """UTC seconds of this machine; they never go back, not even at a restart."""
        self._now = max(clock.now(), self._now, self.link.floor_ts)
        return self._now

    @property
    def degraded(self) -> str:
        """Why outcomes cannot be written now, "" when they can."""
        if self.link.why:
            return f"the shared log cannot be reached: {self.link.why}"
        if self._is_stuck:
            return f"what the others write cannot be applied: {self.tasks.failing['tail']}"
        if self._is_crowded:
            return (
                f"log.max_spool = {self._rules.max_spool} events wait for the shared log, which is "
                "slower than what comes; the oldest decisions are given up"
            )
        return self._spool_full or super().degraded

    @property
    def goes_on(self) -> bool:
        """Whether an event that is sent can be read back and applied."""
        return self.link.up.is_set() and not self._is_stuck

    @property
    def _is_stuck(self) -> bool:
        """Whether no event can be applied, so that no outcome can be answered."""
        return "tail" in self.tasks.failing

    @property
    def _is_crowded(self) -> bool:
        """Whether no further outcome may join those that wait."""
        return len(self._under_way) >= self._rules.max_spool

    @property
    def seen(self) -> int:
        """The offset up to which the world is folded."""
        return self._applied

    def forget_spooled(self, owner: str) -> None:
        """Erase from the spool what the shared log has of an owner."""
        self._spool.forget(owner)

    def may_come(self, decision_id: str) -> bool:
        """Whether an unknown decision may still come."""
        if decision_id in self.world.pending.decisions:
            return False
        return decision_id in self._under_way or self._parking.may_come(decision_id)

    async def reached(self, offset: int, patience_s: float | None = None) -> None:
        """Wait until this replica has applied the log up to this offset.

        Raises Behind if it takes too long. patience_s: a limit, if it is less than
        `log.after_wait_s`.
        """
        if offset > self._applied:
            self._appender.appended.set()  # the log is polled at once
            await self._reached.wait(offset, self._applied, patience_s)

    async def arrived(self, decision_id: str) -> None:
        """Wait for a decision that may still come, as long as an outcome would."""
        if self.may_come(decision_id):
            with suppress(ServiceError):
                await self.submit(lambda: self._looked_for(decision_id), key=decision_id)

    def made_here(self, decision_id: str) -> bool:
        """Whether this replica made a decision that is being applied."""
        return decision_id in self._under_way

    def waits(self, decision_id: str) -> bool:
        """Whether a decision that was answered here was not read back yet."""
        return self.made_here(decision_id)

    def append_own(self, *events: ev.AnyEvent) -> None:
        """They are applied when they are read back; if the log is unreachable, they wait for it."""
        for event in events:
            self.submit(partial(_as_it_is, event), durable=False)

    def owe(self, event: ev.Spent, booked: Booked) -> bool:
        """It waits until less waits for the shared log; False if it is lost."""
        if self.broken.done():
            self._backlog.lost(event)
            booked()
            return False
        self._backlog.owe(event, booked)
        return True

    @property
    def _coding(self) -> str:
        """How an embedding is written now: as float32 while an open replica reads nothing else."""
        return self._embeddings if self.link.format >= ev.LEAN else ev.FLOAT32

    def under_way(self, key: str) -> bool:
        """Whether something submitted under this key is not applied yet, and still may be."""
        return self._checking.holds(key) or self._parking.holds(key)

    def _looked_for(self, decision_id: str) -> None:
        if self.may_come(decision_id):
            raise NotYet.of(decision_id)

    def append_now(self, *events: ev.AnyEvent, then: Then | None = None) -> bool:
        """Append the keeper's events; False if another replica is the keeper, or the last ones are
        still pending. They are applied when they are read back.
        """
        if then is not None or self._under_way.led or not self.membership.keeps:
            return not events
        for event in events:
            self._under_way.send(self.outgoing(event, "", led=True))
        return True

    # --- what came in one turn of the loop ------------------------------------------------

    def _take(self, commands: list[Command]) -> None:
        commands.sort(key=lambda command: command.late)
        turn = Turn(self._record, self._commit, self._settle)
        for command in commands:
            if command.among is not None:
                turn.take(command)
            else:
                self._checking.take(command)
        turn.commit()

    def _commit(self, batch: Sequence[Ready]) -> None:
        """Decisions: write them to the kernel, answer, then append."""
        begun = time.perf_counter()
        if self.broken.done():
            for command, _, _ in batch:
                fail(command.done, Unavailable(f"the service ends: {self.broken.result()}"))
            return
        try:
            self._spool.keep([record for _, _, record in batch])
            self._spool_full = ""
        except Full as error:
            self._spool_full = f"decisions are kept in memory only: {error}"
        for command, event, record in batch:
            self._under_way.send(Outgoing(Entry(record), event))
            if not command.done.done():
                command.done.set_result(event)
        self._bound_spool()
        took_s = (time.perf_counter() - begun) / len(batch)
        self._telemetry.stage("record", took_s, len(batch))

    def _bound_spool(self) -> None:
        """Drop decisions that are in the log but cannot be applied; then drop the oldest ones."""
        while len(self._under_way) > self._rules.max_spool:
            gone = self._appender.let_go()
            is_lost = gone is None
            if gone is None and (gone := self._appender.drop_oldest()) is None:
                return
            eid = gone.entry.record.eid
            self._under_way.remove(eid)
            self._spool.drop(eid)
            if is_lost:
                self._parking.came(eid)  # and finds that it does not
                self._telemetry.metrics.unlogged.inc()

    def takes(self, command: Command) -> bool:
        """Whether it can be written, or may wait because no client gets an acknowledgement."""
        if self._is_crowded:
            return False
        return not (self.link.why or self._is_stuck) or not command.durable

    def outgoing(self, event: ev.AnyEvent, key: str, led: bool = False) -> Outgoing:
        """The entry for the shared log. Raises Unavailable if a replica cannot read it."""
        self.membership.check_format(ev.format_needed(event), ev.kind(event))
        record = self._record(event)
        subject = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        return Outgoing(Entry(record, subject if key else b"", self._applied), event, led)

    def _outdated(self, outgoing: Outgoing, newer: Offset) -> None:
        """Another replica was first: it is checked again once that one's record is applied."""
        own = self._under_way.remove(outgoing.entry.record.eid)
        self._metrics.conflicts.inc()
        if own is not None and own.command is not None:
            self._checking.outdated(own.command, int(newer))

    def _found(self, outgoing: Outgoing, offset: Offset) -> None:
        """The log has it; if it was applied here before, it will not be read back."""
        if offset <= self._applied:
            eid = outgoing.entry.record.eid
            self._under_way.applied(eid)
            self._spool.drop(eid)
            self._appender.applied(eid)

    def _refused(self, outgoing: Outgoing) -> None:
        self._under_way.remove(outgoing.entry.record.eid)

    # --- what comes out of the log --------------------------------------------------------

    def _apply_slice(self, came: Sequence[Came]) -> None:
        begun, cpu = time.perf_counter(), time.thread_time()
        self._syncing.appended()
        for row, event in came:
            self._apply_one(row, event)
        self._busy.took(time.thread_time() - cpu)
        self._latecomers.look(self._under_way.ids())
        if self._backlog and not self._is_crowded:
            room = self._rules.max_spool - len(self._under_way)
            self._under_way.send_owed(lambda event: self.outgoing(event, ""), room)
        self._checking.check_outdated()
        self._reached.to(self._applied)
        self._metrics.lag.observe(max(0.0, clock.now() - came[-1][1].ts))
        self._telemetry.applied(time.perf_counter() - begun)

    def _own_event(self, eid: str) -> ev.AnyEvent | None:
        own = self._under_way.get(eid)
        return None if own is None else own.event

    def _apply_one(self, row: Tailed, event: ev.AnyEvent) -> None:
        left = self._has_left(event)
        if isinstance(event, ev.Rewarded | ev.Compared) and event.decision_id:
            self.before_outcome(event.decision_id)
        why = self.apply(event, None if self.turn is None else self.turn.switching(event))
        self._applied = int(row.offset)
        if self.digests.wanted(self._applied):
            self.digests.note(self._applied, self.world.digest())
        own = self._under_way.applied(row.record.eid)
        self._appender.applied(row.record.eid)
        if isinstance(event, ev.Forgotten):
            self._latecomers.heard(event)
        if isinstance(event, ev.Decided):
            if not self._latecomers.holds(row.record.owner, event.id):
                self._spool.drop(event.id)
            self._parking.came(event.id)
        if own is None or own.command is None:
            return
        done = own.command.done
        if why:
            fail(done, ServiceError(why))
        elif left:
            fail(done, Expired(f"decision_id: {left!r} has expired", param="decision_id"))
        elif not done.done():
            done.set_result(event)
        self._checking.next_of(own.command.key)

    def _has_left(self, event: ev.AnyEvent) -> str:
        """The decision of an outcome, if it expired while the outcome was pending."""
        if isinstance(event, ev.Rewarded | ev.Compared):
            id = event.decision_id
            if id and id not in self.world.pending.decisions:
                return id
        return ""

    # --- beside ---------------------------------------------------------------------------

    def _differing(self, replicas: int, new: int) -> None:
        self._metrics.differing.set(replicas)
        self._metrics.mismatches.inc(new)

    def _look(self) -> None:
        """Set every gauge."""
        made = self._metrics
        made.up.set(float(self.link.up.is_set()))
        made.lost.inc(self.link.lost - self._lost)
        self._lost = self.link.lost
        made.spool.set(len(self._spool))
        made.spool_ratio.set(len(self._under_way) / self._rules.max_spool)
        made.parked.set(len(self._parking))
        made.keeper.set(float(self.membership.keeps))
        made.epoch.set(self.link.epoch)
        made.barred.set(float(bool(self.membership.barred)))
        made.skew.set(self.link.skew_s)
        made.busy.set(self._busy.ratio(time.monotonic()))

    async def _trim_forever(self) -> None:
        while True:
            await asyncio.sleep(_TRIM_S)
            self._spool.trim()
            if not self.goes_on:
                self._checking.fail_all()
            self.tasks.well("spool")


def _as_it_is(event: ev.AnyEvent) -> ev.AnyEvent:
    """There is nothing to check."""
    return event
