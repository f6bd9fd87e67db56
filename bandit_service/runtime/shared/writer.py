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
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import chain
from typing import Protocol

from bandit_service import clock
from bandit_service.core import events as ev
from bandit_service.core.errors import Expired, NotYet, ServiceError, Unavailable
from bandit_service.core.resolve import owner_of
from bandit_service.core.world import World
from bandit_service.runtime.backlog import Booked
from bandit_service.runtime.group_commit import fail
from bandit_service.runtime.live_world import Then
from bandit_service.runtime.shared.appending import Appender, Outgoing
from bandit_service.runtime.shared.busy import Busy
from bandit_service.runtime.shared.digests import Digests
from bandit_service.runtime.shared.latecomers import Latecomers
from bandit_service.runtime.shared.link import Link
from bandit_service.runtime.shared.parking import Parking
from bandit_service.runtime.shared.reached import Reached
from bandit_service.runtime.shared.spool import Spool, copied
from bandit_service.runtime.shared.tailing import Came, Tailer
from bandit_service.runtime.supervisor import Kept
from bandit_service.runtime.turn import Command, Ready, Turn
from bandit_service.runtime.writer import Writer
from bandit_service.telemetry.replica_metrics import ReplicaMetrics
from bandit_service.telemetry.telemetry import Telemetry
from store import (
    Entry,
    EventLog,
    Full,
    Offset,
    Replica,
    StoreError,
    Tailed,
    can_erase_shared,
)

_log = logging.getLogger("bandit.replica")
_TRIM_S, _ABSENT_S = 1.0, 0.1


@dataclass(frozen=True, slots=True)
class SharedRules:
    """The settings that the writer of a replica reads."""

    max_batch: int
    poll_s: float
    timeout_s: float
    park_s: float
    max_parked: int
    max_spool: int
    after_wait_s: float
    digest_every: int
    keep_snapshots: int


@dataclass(slots=True)
class _Own:
    """An event of this replica that was not read back from the log yet, and the waiting caller."""

    event: ev.AnyEvent
    command: Command | None = None


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
        self._ids = clock.Ids()
        self._now = 0.0
        self._own: dict[str, _Own] = {}
        self._owed: dict[str, str] = {}  # of those, the costs that were owed
        self._keys: dict[str, deque[Command]] = {}
        self._again: list[tuple[int, Command]] = []
        self._led = self._lost = 0
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
        self._parking = Parking(
            rules.park_s, rules.max_parked, self._prepare_again, lambda: self._applied
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
        self._latecomers = Latecomers(
            lambda owner, ts: self._appender.of(owner, ts) & self._own.keys(),
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
        left = [self._outgoing(event, "") for event in self._still_needed()]
        for each in left:
            self._own[each.entry.record.eid] = _Own(each.event)
        self._appender.put_left(left)
        if left:
            _log.info("decisions of before are appended", extra={"decisions": len(left)})
        self._latecomers.look(self._own.keys())
        keep = self.tasks.keep
        self._running = [
            keep("append", self._appender.run, self._end),
            keep("tail", self._tailer.run, self._end),
            keep("beat", self.link.beat_forever),
            keep("connect", self.link.reconnect_forever),
            keep("park", self._park_forever),
            keep("spool", self._trim_forever),
        ]

    def _still_needed(self) -> list[ev.Decided]:
        """What the spool has, but what is of a unit that was forgotten while this was away, and
        what would be deleted if it were in the log, or was. All may have been there already.
        """
        found, left = list[ev.Decided](), list(self._spool.left())
        there = copied(self.log, left) if self.link.base else set()
        for event in left:
            begins, pending = self.link.begins_ts, self.world.pending.decisions
            if begins and (event.ts < begins or event.id in pending):
                self._spool.drop(event.id)
                continue
            owner = owner_of(self.world, event)
            forgotten = self.link.forgotten.get(owner)
            if forgotten is not None and self._latecomers.add(owner, forgotten, event.id, event.ts):
                continue
            if event.id in there:
                self._spool.drop(event.id)
            else:
                found.append(event)
        return found

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
                await self._until(lambda: all(own.command is None for own in self._own.values()))
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
    def barred(self) -> str:
        """Why this replica is not ready although it runs; "" if it is ready."""
        return self.link.barred

    @property
    def _goes_on(self) -> bool:
        """Whether an event that is sent can be read back and applied."""
        return self.link.up.is_set() and not self._is_stuck

    @property
    def _is_stuck(self) -> bool:
        """Whether no event can be applied, so that no outcome can be answered."""
        return "tail" in self.tasks.failing

    @property
    def _is_crowded(self) -> bool:
        """Whether no further outcome may join those that wait."""
        return len(self._own) >= self._rules.max_spool

    @property
    def seen(self) -> int:
        """The offset up to which the world is folded."""
        return self._applied

    @property
    def slot(self) -> int:
        """The number of this replica."""
        return self.link.slot

    @property
    def known(self) -> list[Replica]:
        """The processes that share the log, as of a moment ago."""
        return self.link.rows

    def differs(self, row: Replica) -> bool | None:
        """Whether it had another state at an offset that both know; None if there is none."""
        return self.digests.differs(row)

    async def replicas(self) -> list[Replica]:
        """The processes that share the log. Raises Unavailable if the log is unreachable."""
        try:
            return await self.link.shared.replicas()
        except StoreError as error:
            raise Unavailable(f"the shared log cannot be reached: {error}") from None

    @property
    def keeps(self) -> bool:
        """Whether this replica is the keeper."""
        return self.link.lease is not None

    def forget_spooled(self, owner: str) -> None:
        """Erase from the spool what the shared log has of an owner."""
        self._spool.forget(owner)

    @property
    def cannot_erase(self) -> str:
        """Why the records of a unit cannot be erased; "" where they can."""
        if not can_erase_shared(self.link.shared):
            return "this shared log cannot erase the records of a unit"
        if why := self.link.shared.cannot_erase:
            return why
        if not self._rules.keep_snapshots:
            return "replicas erase the records of a unit only with log.share_snapshots"
        return ""

    async def share_snapshot(self, key: str, at: Offset, read: Callable[[], bytes]) -> bool:
        """Let other processes begin from a snapshot, if this is the one that does it for all.

        Not while another replica has another state: this one may be wrong.
        """
        if self.keeps and self._rules.keep_snapshots and not self.digests.any_differ:
            state = await asyncio.to_thread(read)
            await self.link.shared.save_snapshot(key, at, state, self._rules.keep_snapshots)
            return True
        return False

    def may_come(self, decision_id: str) -> bool:
        """Whether an unknown decision may still come."""
        if decision_id in self.world.pending.decisions:
            return False
        return decision_id in self._own or self._parking.may_come(decision_id)

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
        return decision_id in self._own

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

    def _send_owed(self) -> None:
        """Append the costs that there was no room for."""
        room = self._rules.max_spool - len(self._own)
        sent, waiting = set(self._owed.values()), next(self._backlog.oldest(), ())
        for key, event in [each for each in waiting if each[0] not in sent][:room]:
            outgoing = self._outgoing(event, "")
            eid = outgoing.entry.record.eid
            self._own[eid], self._owed[eid] = _Own(event), key
            self._appender.put(outgoing)

    def _left(self, eid: str) -> _Own | None:
        """An own event that is applied, and does not wait any more."""
        if (owed := self._owed.pop(eid, None)) is not None:
            self._backlog.written(owed)
            self._backlog.count()
        return self._own.pop(eid, None)

    def check_read_by_all(self, kind: type[ev.Event]) -> None:
        """Raise Unavailable if an open replica cannot read events of this kind."""
        self._check_read(ev.format_of(kind), ev.tag(kind))

    def _check_read(self, needed: int, kind: str) -> None:
        if needed > self.link.format:
            raise Unavailable(
                f"a replica of an older release is open, which cannot read {kind!r}; it "
                "can be written when all are of the newer one"
            )

    @property
    def _coding(self) -> str:
        """How an embedding is written now: as float32 while an open replica reads nothing else."""
        return self._embeddings if self.link.format >= ev.LEAN else ev.FLOAT32

    def under_way(self, key: str) -> bool:
        """Whether something submitted under this key is not applied yet, and still may be."""
        return key in self._keys or self._parking.holds(key)

    @property
    def in_touch_since(self) -> float:
        """Since when the others cannot have considered this replica lost."""
        return self.link.in_touch_since

    def _looked_for(self, decision_id: str) -> None:
        if self.may_come(decision_id):
            raise NotYet.of(decision_id)

    def append_now(self, *events: ev.AnyEvent, then: Then | None = None) -> bool:
        """Append the keeper's events; False if another replica is the keeper, or the last ones are
        still pending. They are applied when they are read back.
        """
        if then is not None or self._led or not self.keeps:
            return not events
        for event in events:
            outgoing = self._outgoing(event, "", led=True)
            self._own[outgoing.entry.record.eid] = _Own(event)
            self._led += 1
            self._appender.put(outgoing)
        return True

    # --- what came in one turn of the loop ------------------------------------------------

    def _take(self, commands: list[Command]) -> None:
        commands.sort(key=lambda command: command.late)
        turn = Turn(self._record, self._commit, self._settle)
        for command in commands:
            if command.among is not None:
                turn.take(command)
            elif command.key and command.key in self._keys:
                if self._takes(command):
                    self._keys[command.key].append(command)
                else:
                    fail(command.done, Unavailable(self.degraded))
            else:
                self._check(command)
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
            self._own[record.eid] = _Own(event)
            self._appender.put(Outgoing(Entry(record), event))
            if not command.done.done():
                command.done.set_result(event)
        self._bound_spool()
        took_s = (time.perf_counter() - begun) / len(batch)
        self._telemetry.stage("record", took_s, len(batch))

    def _bound_spool(self) -> None:
        """Drop decisions that are in the log but cannot be applied; then drop the oldest ones."""
        while len(self._own) > self._rules.max_spool:
            gone = self._appender.let_go()
            is_lost = gone is None
            if gone is None and (gone := self._appender.drop_oldest()) is None:
                return
            eid = gone.entry.record.eid
            self._own.pop(eid, None)
            self._spool.drop(eid)
            if is_lost:
                self._parking.came(eid)  # and finds that it does not
                self._telemetry.metrics.unlogged.inc()

    def _check(self, command: Command) -> None:
        """Check against the applied state; then it is pending, or answered."""
        answered = command.done.done() if command.durable else command.done.cancelled()
        if (
            answered or command.prepare is None
        ):  # a client that got an error may have sent another one
            self._next_of(command.key)
            return
        try:
            event = command.prepare()
            if event is not None and not self._takes(command):
                raise Unavailable(self.degraded)
            outgoing = None if event is None else self._outgoing(event, command.key)
        except NotYet as error:
            self._park(command, error)
            self._next_of(command.key)
            return
        except Exception as error:  # noqa: BLE001 - one command's bug is not the others'
            fail(command.done, error)
            self._next_of(command.key)
            return
        if outgoing is None:
            if not command.done.done():
                command.done.set_result(None)
            self._next_of(command.key)
            return
        if command.key:
            self._keys.setdefault(command.key, deque())
        self._own[outgoing.entry.record.eid] = _Own(outgoing.event, command)
        self._appender.put(outgoing)
        if not command.durable and not command.done.done():
            command.done.set_result(outgoing.event)

    def _park(self, command: Command, error: NotYet) -> None:
        """Keep it until its decision is here.

        The service's own observation of its decision waits as long as the decision itself. No
        caller waits for it, so it does not hold up an answer while the log is unreachable.
        """
        self._appender.appended.set()  # its decision may be there
        own = self._own.get(command.key)
        if own is not None and not command.durable:
            self._parking.put(command.key, command, error, patient=True)
            if not command.done.done():
                command.done.set_result(own.event)
        elif self._goes_on:
            self._parking.put(command.key, command, error)
        else:
            fail(command.done, Unavailable(self.degraded))

    def _takes(self, command: Command) -> bool:
        """Whether it can be written, or may wait because no client gets an acknowledgement."""
        if self._is_crowded:
            return False
        return not (self.link.why or self._is_stuck) or not command.durable

    def _next_of(self, key: str) -> None:
        """Check the next outcome that waited for the one before it."""
        waiting = self._keys.get(key)
        if waiting is None:
            return
        if not waiting:
            del self._keys[key]
            return
        following = waiting.popleft()
        asyncio.get_running_loop().call_soon(self._check, following)

    def _prepare_again(self, command: Command) -> None:
        if command.key and command.key in self._keys:
            self._keys[command.key].append(command)
        else:
            self._check(command)

    def _outgoing(self, event: ev.AnyEvent, key: str, led: bool = False) -> Outgoing:
        self._check_read(ev.format_needed(event), ev.kind(event))
        record = self._record(event)
        subject = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        return Outgoing(Entry(record, subject if key else b"", self._applied), event, led)

    def _outdated(self, outgoing: Outgoing, newer: Offset) -> None:
        """Another replica was first: it is checked again once that one's record is applied."""
        own = self._own.pop(outgoing.entry.record.eid, None)
        self._metrics.conflicts.inc()
        if own is not None and own.command is not None:
            self._again.append((int(newer), own.command))
            self._check_outdated()

    def _check_outdated(self) -> None:
        due = [command for newer, command in self._again if newer <= self._applied]
        if due:
            self._again = [one for one in self._again if one[0] > self._applied]
            for command in due:
                self._check(command)

    def _found(self, outgoing: Outgoing, offset: Offset) -> None:
        """The log has it; if it was applied here before, it will not be read back."""
        if offset <= self._applied:
            eid = outgoing.entry.record.eid
            self._left(eid)
            self._spool.drop(eid)
            self._appender.applied(eid)

    def _refused(self, outgoing: Outgoing) -> None:
        self._own.pop(outgoing.entry.record.eid, None)
        self._led -= 1

    # --- what comes out of the log --------------------------------------------------------

    def _apply_slice(self, came: Sequence[Came]) -> None:
        begun, cpu = time.perf_counter(), time.thread_time()
        self._syncing.appended()
        for row, event in came:
            self._apply_one(row, event)
        self._busy.took(time.thread_time() - cpu)
        self._latecomers.look(self._own.keys())
        if self._backlog and not self._is_crowded:
            self._send_owed()
        self._check_outdated()
        self._reached.to(self._applied)
        self._metrics.lag.observe(max(0.0, clock.now() - came[-1][1].ts))
        self._telemetry.applied(time.perf_counter() - begun, self.log.last)

    def _own_event(self, eid: str) -> ev.AnyEvent | None:
        own = self._own.get(eid)
        return None if own is None else own.event

    def _apply_one(self, row: Tailed, event: ev.AnyEvent) -> None:
        left = self._has_left(event)
        if isinstance(event, ev.Rewarded | ev.Compared) and event.decision_id:
            self.before_outcome(event.decision_id)
        why = self.apply(event, None if self.turn is None else self.turn.switching(event))
        self._applied = int(row.offset)
        if self.digests.wanted(self._applied):
            self.digests.note(self._applied, self.world.digest())
        own = self._left(row.record.eid)
        self._appender.applied(row.record.eid)
        if isinstance(event, ev.Forgotten):
            self._latecomers.heard(event)
        if isinstance(event, ev.Decided):
            if not self._latecomers.holds(row.record.owner, event.id):
                self._spool.drop(event.id)
            self._parking.came(event.id)
        if own is None:
            return
        if own.command is None:
            self._led -= not isinstance(event, ev.Decided | ev.Spent)
            return
        done = own.command.done
        if why:
            fail(done, ServiceError(why))
        elif left:
            fail(done, Expired(f"decision_id: {left!r} has expired", param="decision_id"))
        elif not done.done():
            done.set_result(event)
        self._next_of(own.command.key)

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
        made.spool_ratio.set(len(self._own) / self._rules.max_spool)
        made.parked.set(len(self._parking))
        made.keeper.set(float(self.keeps))
        made.epoch.set(self.link.epoch)
        made.barred.set(float(bool(self.barred)))
        made.skew.set(self.link.skew_s)
        made.busy.set(self._busy.ratio(time.monotonic()))

    async def _park_forever(self) -> None:
        while True:
            await self._parking.parked.wait()
            if self._goes_on:
                with suppress(StoreError):
                    self._parking.learned(await self.link.shared.state())
            else:
                self._parking.fail_all(lambda: Unavailable(self.degraded))
            self._parking.look()
            await asyncio.sleep(_ABSENT_S)

    async def _trim_forever(self) -> None:
        while True:
            await asyncio.sleep(_TRIM_S)
            self._spool.trim()
            if not self._goes_on:
                self._fail_under_way()
            self.tasks.well("spool")

    def _fail_under_way(self) -> None:
        """Report the error to the waiting callers.

        Their events may still be appended; a resend is then a duplicate.
        """
        under_way = [own.command for own in self._own.values() if own.command is not None]
        again = (command for _, command in self._again)
        for command in chain(under_way, again, *self._keys.values()):
            if command.durable:
                fail(command.done, Unavailable(self.degraded))


def _as_it_is(event: ev.AnyEvent) -> ev.AnyEvent:
    """There is nothing to check."""
    return event
