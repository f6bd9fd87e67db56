"""The records of a unit, erased at every replica and in the shared log.

The unit is forgotten by an event, as where one process has the log. Then the keeper puts a snapshot
into the shared log that knows what the records taught, and orders the erasure by an event that
names its offset. Each replica that applies the order makes a snapshot of its own, then erases its
copy. When every open replica has applied it, the keeper erases the shared log, and says `erased`. A
keeper that follows begins again with what was not said.

No order is given while a policy is built, and none is built before a replica has carried out its
orders: so all of them fold the same records.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bandit_service.core import events as ev
from bandit_service.core.errors import Conflict, ServiceError
from bandit_service.core.resolved import Resolved
from bandit_service.core.world import World
from bandit_service.runtime.maintenance import Maintenance
from bandit_service.runtime.shared.checkpoint import Checkpoint
from bandit_service.runtime.shared.writer import SharedWriter
from store import EventLog, Offset, SharedErasable, StoreError, can_erase, first_of

_log = logging.getLogger("bandit.replica")
_KEY = "catalogue"
_LOOK_S, _APPLIES_S, _PATIENCE_S = 0.1, 30.0, 60.0
_SWEEP_S = 60.0
_TAGS = tuple(ev.tag(kind).encode() for kind in (ev.ErasureOrdered, ev.Forgotten))


@dataclass(frozen=True, slots=True)
class _Begun:
    """What was ordered up to an offset; at: all orders are in the log up to here."""

    owners: Sequence[str]
    upto: Offset
    at: int


class SharedErasure:
    """`look` again and again; it is the maintenance that does."""

    def __init__(
        self, writer: SharedWriter, maintenance: Maintenance, shared: SharedErasable
    ) -> None:
        self._writer = writer
        self._maintenance = maintenance
        self._shared = shared
        self._orders: list[tuple[int, ev.ErasureOrdered]] = []  # with their offsets
        self._begun: _Begun | None = None
        self._forgotten: dict[str, int] = {}
        self._awaited: dict[str, int] = {}
        self._swept = -_SWEEP_S
        self._one = asyncio.Lock()
        writer.listen(self._heard)
        maintenance.erasing = self

    def _heard(self, what: Resolved, _: World) -> None:
        at = self._writer.seen + 1
        match what.event:
            case ev.Forgotten(owner=owner):
                self._forgotten[owner] = at
            case ev.ErasureOrdered() as order:
                self._orders.append((at, order))
            case ev.Erased(owner=owner):
                self._forgotten.pop(owner, None)

    async def look(self) -> None:
        """Carry out what was ordered; as the keeper, begin what nobody has ended."""
        await self.carry_out()
        owners = list(self._writer.world.erasures.owners)
        if owners and self._writer.membership.keeps:
            await self._everywhere(owners)
        if self._writer.membership.keeps and time.monotonic() - self._swept >= _SWEEP_S:
            await self._sweep()
            self._swept = time.monotonic()

    async def _sweep(self) -> None:
        """Delete what a keeper of before, that stood still, put there after an erasure."""
        before = Offset(self._writer.link.ordered)
        offsets = [at for _, at in await self._shared.snapshots()] if before else []
        if offsets and min(offsets) < before <= max(offsets):
            await self._shared.forget_snapshots(before)
            _log.warning("a snapshot of before an erasure is deleted", extra={"before": before})

    async def carry_out(self) -> None:
        """Erase this replica's copy, as far as it is ordered."""
        async with self._one:
            if not self._orders:
                return
            orders = list(self._orders)
            counts = await self._maintenance.erase_copy([order for _, order in orders])
            for owner, count in counts.items():
                self._writer.forget_spooled(owner)
                if owner in self._awaited:  # by a request to this replica
                    self._awaited[owner] += count
            self._writer.link.carried_out(orders[-1][0], max(order.upto for _, order in orders))
            del self._orders[: len(orders)]
            _log.info("erased", extra={"units": len(counts), "records": sum(counts.values())})

    async def done(self, owner: str) -> int:
        """Wait until it is erased, here and in the shared log; how many records of the copy."""
        self._awaited.setdefault(owner, 0)
        last = time.monotonic() + _PATIENCE_S
        try:
            while self._is_under_way(owner):
                if time.monotonic() > last:
                    raise StoreError(f"the keeper has not done it within {_PATIENCE_S:g} s")
                await asyncio.sleep(_LOOK_S)
            return self._awaited.get(owner, 0)
        finally:
            self._awaited.pop(owner, None)

    def _is_under_way(self, owner: str) -> bool:
        ordered = any(order.owner == owner for _, order in self._orders)
        return ordered or owner in self._writer.world.erasures.owners

    async def _everywhere(self, owners: Sequence[str]) -> None:
        """If a step fails, the next look goes on from what was ordered."""
        if self._begun is None:
            self._begun = await self._ordered(owners)
        if self._begun is None:
            return
        begun = self._begun
        await self._applied_by_all(begun.at)
        await self.carry_out()
        count = await self._shared.forget(begun.owners, begun.upto)
        await self._shared.forget_snapshots(begun.upto)
        _log.info("erased in the shared log", extra={"units": len(begun.owners), "records": count})
        for owner in begun.owners:
            await self._say_erased(owner, begun.upto)
        self._begun = None

    async def _ordered(self, owners: Sequence[str]) -> _Begun | None:
        if self._writer.world.building:
            return None  # all replicas fold the log for it
        upto = await self._maintenance.snapshot_for_all()
        ordered = [owner for owner in owners if await self._order(owner, upto)]
        return _Begun(ordered, upto, self._writer.seen) if ordered else None

    async def _order(self, owner: str, upto: Offset) -> bool:
        writer = self._writer

        def order() -> ev.AnyEvent | None:
            if writer.world.building:
                raise Conflict("a policy is being trained")
            if not writer.membership.keeps or owner not in writer.world.erasures.owners:
                return None
            return ev.ErasureOrdered(ts=writer.now(), owner=owner, upto=int(upto))

        return await self._submitted(order)

    async def _say_erased(self, owner: str, upto: Offset) -> None:
        """Unless it was forgotten again since the snapshot: then it begins anew."""
        writer = self._writer

        def erased() -> ev.AnyEvent | None:
            if not writer.membership.keeps or self._forgotten.get(owner, 0) > upto:
                return None
            return ev.Erased(ts=writer.now(), owner=owner)

        await self._submitted(erased)

    async def _submitted(self, prepare: Callable[[], ev.AnyEvent | None]) -> bool:
        try:
            return await self._writer.submit(prepare, key=_KEY) is not None
        except Conflict:
            return False
        except ServiceError as error:
            raise StoreError(error.message) from None

    async def _applied_by_all(self, offset: int) -> None:
        """Whoever has not applied it by then meets erased records, and begins from a snapshot."""
        last = time.monotonic() + _APPLIES_S
        while time.monotonic() < last:
            rows = await self._writer.link.shared.replicas()
            if all(row.applied >= offset for row in rows if not row.closed):
                return
            await asyncio.sleep(_LOOK_S)
        raise StoreError(f"an open replica has not applied offset {offset} within {_APPLIES_S:g} s")


@dataclass
class Since:
    """What a log says of erasures after an offset. upto: the greatest of all orders ever carried
    out; forgotten: the newest time at which each owner was forgotten.
    """

    upto: int = 0
    forgotten: dict[str, float] = field(default_factory=dict)


def carry_out_at_start(copy: EventLog, checkpoint: Checkpoint) -> Since:
    """Erase in the copy what was ordered while this replica was away, or ended in the middle."""
    found, orders = Since(checkpoint.ordered), list[ev.ErasureOrdered]()
    after = max(int(first_of(copy)) - 1, min(checkpoint.erased, int(copy.last)))
    for _, body in copy.replay(Offset(after)):
        if not any(tag in body for tag in _TAGS):
            continue
        event = ev.decode(body)
        if isinstance(event, ev.ErasureOrdered):
            orders.append(event)
        elif isinstance(event, ev.Forgotten):
            found.forgotten[event.owner] = event.ts
    for order in orders:
        if can_erase(copy):
            copy.forget(order.owner, Offset(order.upto))
        found.upto = max(found.upto, order.upto)
    return found
