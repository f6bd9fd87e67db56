"""The connection to the shared log: opened again whenever it breaks, with signs of life in between.

Each time the replica joins under a new epoch. So an unfinished append of an earlier connection is
either in the log by then, or is refused.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from bandit_service import clock
from bandit_service.core import events as ev
from bandit_service.runtime.shared.checkpoint import Checkpoint
from bandit_service.runtime.shared.copying import OtherLog, same_until, since_of
from store import (
    Corrupt,
    EventLog,
    Lease,
    Mark,
    Offset,
    OtherKey,
    Replica,
    SharedLog,
    StoreError,
    Trimmed,
)

_log = logging.getLogger("bandit.replica")
KEEPER = "keeper"
_BEAT_S, _ROUNDS = 0.2, 5
_AGAIN_S, _MAX_AGAIN_S = 0.1, 2.0


class WentBack(StoreError):
    """The log lost records that were read."""


class ClockOff(StoreError):
    """The clock of this machine is not that of the database."""


@dataclass(frozen=True, slots=True)
class LinkRules:
    """The settings that a link reads.

    trust_s: how long after its last sign of life a replica may use what the log gave it; the others
    take it back only much later.
    """

    key: str
    alive_s: float
    lease_s: float
    max_skew_s: float
    trust_s: float


class Link:
    """`up` while the log is reachable.

    settled: before which moment all that was answered is durable. applied: the newest offset
    applied. mark: the newest digest. compare: told of all replicas every second, and the slot of
    this one. may_lead: whether it may do what is done once for all. rejoined: called where the log
    was away and can be asked again. ends: called where the process cannot go on. The writer sets
    these. unreadable: why the fold stops, where an event is of a newer release. other_key: why it
    may not join, where others fold by another key. clock_off: why it may not take part, where this
    machine's clock is wrong; skew_s: by how much it was last ahead of the database's. forgotten,
    ordered: the owners that were forgotten since the start before, and when, and up to where
    records were ever erased. begins_ts: the time of the log's oldest record, if this replica was
    away when others were deleted. base: up to where the log's records were deleted when this
    replica joined.
    """

    def __init__(
        self, shared: SharedLog, copy: EventLog, checkpoint: Checkpoint, rules: LinkRules
    ) -> None:
        self.shared = shared
        self._copy = copy
        self.up = asyncio.Event()
        self.why = "the database was not reached yet"
        self.place = checkpoint.place
        self.lease: Lease | None = None
        self.rows: list[Replica] = []
        self.lost = self.epoch = self.slot = self.base = 0
        self.forgotten: dict[str, float] = {}
        self.ordered, self.begins_ts = 0, 0.0
        self.other_key = self.unreadable = self.clock_off = ""
        self.skew_s = 0.0
        self.may_lead: Callable[[], bool] = lambda: True
        self.floor_ts = 0.0
        self.settled: Callable[[], float] = lambda: 0.0
        self.applied: Callable[[], int] = lambda: 0
        self.rejoined: Callable[[], None] = lambda: None
        self.ends: Callable[[str], None] = lambda _: None
        self.mark: Callable[[], Mark] = Mark
        self.compare: Callable[[Sequence[Replica], int], None] = lambda *_: None
        self._checkpoint = checkpoint
        self._rules = rules
        self._fell = asyncio.Event()
        self._heard_at = self._in_touch_since = -math.inf

    @property
    def in_touch_since(self) -> float:
        """Since when (time.monotonic) no two signs of life were further apart than `trust_s`;
        infinite if the last one is older than that.
        """
        late = time.monotonic() - self._heard_at > self._rules.trust_s
        return math.inf if late else self._in_touch_since

    def _heard(self, sent_at: float) -> None:
        """The log accepted a sign of life that was sent at this moment."""
        if sent_at - self._heard_at > self._rules.trust_s:
            self._in_touch_since = sent_at
        self._heard_at = sent_at

    @property
    def barred(self) -> str:
        """Why this replica is not ready although it runs; "" if it is ready."""
        return self.other_key or self.unreadable or self.clock_off

    @property
    def format(self) -> int:
        """The newest format that every open replica reads; nobody writes more than that."""
        return min((row.reads for row in self.rows if not row.closed), default=ev.READS)

    @property
    def name(self) -> str:
        """Of this replica."""
        return self._checkpoint.name

    @property
    def max_skew_s(self) -> float:
        """By how much two clocks may differ."""
        return self._rules.max_skew_s

    @property
    def key(self) -> str:
        """The key of this replica's fold."""
        return self._rules.key

    async def join(self) -> None:
        """Become a replica of the log. Raises the reason if that is impossible."""
        begun = time.monotonic()
        member = await self.shared.join(self._checkpoint.name, self._rules.key, ev.READS)
        self.slot, self.epoch, self.floor_ts = member.slot, member.epoch, member.settled
        await self._check_clock()
        await self._compare()
        self.rows = await self.shared.replicas()
        self.rejoined()
        self.why = self.other_key = self.clock_off = ""
        self._fell.clear()
        self._heard(begun)
        self.up.set()
        _log.info("joined", extra={"slot": member.slot, "epoch": member.epoch})

    async def _check_clock(self) -> None:
        """Raise ClockOff if this clock is certainly wrong, however long the answer took."""
        begun = clock.now()
        now = (await self.shared.state()).now
        ended = clock.now()
        self.skew_s = (begun + ended) / 2 - now
        ahead, behind = begun - now, now - ended
        if max(ahead, behind) > self._rules.max_skew_s:
            raise ClockOff(
                f"the clock of this machine is {max(ahead, behind):.1f} s "
                f"{'ahead of' if ahead > behind else 'behind'} that of the database; "
                f"log.max_skew_s is {self._rules.max_skew_s:g}: set the clock"
            )

    async def _compare(self) -> None:
        """Check that the log has all applied records: up to `place` by its chain, the rest one by
        one. Nothing is applied meanwhile, since the epoch has changed.
        """
        last = self._copy.last
        base = self.base = (await self.shared.state()).base
        if last < base:
            raise Trimmed(int(last), base + 1)
        place = since_of(self.place, self._copy, base)
        if place.chain and (await self.shared.chain_at(Offset(place.offset))).hex() != place.chain:
            raise _went_back(place.offset)
        if place.offset < last:
            # a failover may keep records and lose the mark that they are durable
            await self.shared.beat(0.0, self.applied(), self.mark())
            try:
                self.place = await same_until(self.shared, self._copy, place, last)
            except OtherLog:
                raise _went_back(int(last)) from None

    def reads(self, epoch: int) -> bool:
        """Whether records read under this epoch are still those of the log."""
        return self.up.is_set() and self.epoch == epoch

    def behind_erased(self, offset: int) -> None:
        """What a record taught is known to a snapshot alone, which a start begins from."""
        self.behind(f"the record at offset {offset} was erased while this replica was away")

    def behind(self, why: str) -> None:
        """The log alone does not bring this replica up to the others."""
        self.ends(f"{why}; at its next start it begins from a snapshot of another")

    def behind_trimmed(self, error: Trimmed) -> None:
        """The records that it would read next are deleted."""
        self.behind(
            f"the log's records up to offset {error.first - 1} were deleted while this replica was "
            f"away, which had applied {error.after}"
        )

    def damaged(self, error: Corrupt) -> None:
        """Another connection does not repair it."""
        self.ends(f"the log in the database is damaged: {error}")

    def down(self, error: Exception) -> None:
        """The log is unreachable; this is tried again."""
        if not self.why:
            self.why = str(error)
            self.lost += 1
            _log.error("the shared log cannot be reached", extra={"why": self.why})
        self.lease = None
        self.up.clear()
        self._fell.set()

    async def reconnect_forever(self) -> None:
        """Join again whenever the connection is down."""
        wait_s = _AGAIN_S
        while True:
            await self._fell.wait()
            try:
                await self.shared.connect()
                await self.join()
                wait_s = _AGAIN_S
            except OtherKey as error:  # until they have left, or have the same key
                if not self.other_key:
                    _log.error("this replica may not join", extra={"why": str(error)})
                self.why = self.other_key = str(error)
                await asyncio.sleep(_MAX_AGAIN_S)
            except ClockOff as error:  # until it is set
                if not self.clock_off:
                    _log.error("the clock is wrong", extra={"why": str(error)})
                self.why = self.clock_off = str(error)
                await asyncio.sleep(_MAX_AGAIN_S)
            except WentBack as error:
                self.ends(str(error))
                return
            except Trimmed as error:
                self.behind_trimmed(error)
                return
            except Corrupt as error:
                self.damaged(error)
                return
            except StoreError as error:
                self.why = str(error)
                await asyncio.sleep(wait_s)
                wait_s = min(_MAX_AGAIN_S, 2 * wait_s)

    async def beat_forever(self) -> None:
        """Send a sign of life; take or keep the role of the keeper."""
        rounds = 0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_BEAT_S):
                    await self._fell.wait()
            await self.up.wait()
            try:
                begun = time.monotonic()
                await self.shared.beat(self.settled(), self.applied(), self.mark())
                self._heard(begun)
                if rounds % _ROUNDS == 0:
                    await self._upkeep()
            except StoreError as error:
                self.down(error)
            rounds += 1

    async def _upkeep(self) -> None:
        await self._check_clock()
        closed = await self.shared.close_silent(self._rules.alive_s)
        if closed:
            _log.warning("replicas were silent and are closed", extra={"replicas": closed})
        before = self.lease
        leads = self.may_lead() and not self.unreadable
        self.lease = await self.shared.lead(KEEPER, before, self._rules.lease_s) if leads else None
        if self.lease is not None and before is None:
            _log.info("keeper", extra={"epoch": self.lease.epoch})
        self._checkpoint.save(self.place)
        self.rows = await self.shared.replicas()
        self.compare(self.rows, self.slot)

    def carried_out(self, offset: int, upto: int) -> None:
        """Of the orders of erasures, those up to here, which erased records up to `upto`."""
        self.ordered = max(self.ordered, upto)
        self._checkpoint.erased = offset
        self._checkpoint.ordered = max(self._checkpoint.ordered, upto)
        self._checkpoint.write()

    def lease_lost(self) -> None:
        """An append by the lease was refused."""
        self.lease = None

    async def leave(self) -> None:
        """Leave cleanly: no answered event is missing in the log."""
        try:
            await self.shared.leave()
        except StoreError as error:
            _log.warning("not left", extra={"why": str(error)})
        self._checkpoint.save(self.place)


def _went_back(upto: int) -> WentBack:
    return WentBack(
        f"the log in the database is not the one that was read up to {upto}: it went back, as in a "
        "failover that lost records; docs/scale.md says what to do"
    )
