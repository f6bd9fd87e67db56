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
from collections.abc import Callable
from dataclasses import dataclass, field

from bandit_service.core import events as ev
from bandit_service.core.errors import Conflict, ServiceError
from bandit_service.core.resolved import Resolved
from bandit_service.core.world import World
from bandit_service.runtime.maintenance import Maintenance
from bandit_service.runtime.shared.checkpoint import Checkpoint
from bandit_service.runtime.shared.writer import SharedWriter
from store import EventLog, Offset, SharedErasable, StoreError, can_erase

_log = logging.getLogger("bandit.replica")
_KEY = "catalogue"
_LOOK_S, _APPLIES_S, _PATIENCE_S = 0.1, 30.0, 60.0
_TAGS = tuple(ev.tag(kind).encode() for kind in (ev.ErasureOrdered, ev.Forgotten))


@dataclass(frozen=True, slots=True)
class _Order:
    """at: the offset of the event; upto: up to where records are erased."""

    owner: str
    upto: int
    at: int


class SharedErasure:
    """`look` again and again; it is the maintenance that does."""

    def __init__(
        self, writer: SharedWriter, maintenance: Maintenance, shared: SharedErasable
    ) -> None:
        self._writer = writer
        self._maintenance = maintenance
        self._shared = shared
        self._orders: list[_Order] = []
        self._awaited: dict[str, int] = {}
        self._one = asyncio.Lock()
        writer.listen(self._heard)
        maintenance.erasing = self

    def _heard(self, what: Resolved, _: World) -> None:
        event = what.event
        if isinstance(event, ev.ErasureOrdered):
            self._orders.append(_Order(event.owner, event.upto, self._writer.seen + 1))

    async def look(self) -> None:
        """Carry out what was ordered; as the keeper, begin what nobody has ended."""
        await self.carry_out()
        for owner in list(self._writer.world.erasures.owners):
            if self._writer.keeps:
                await self._everywhere(owner)

    async def carry_out(self) -> None:
        """Erase this replica's copy, as far as it is ordered."""
        async with self._one:
            while self._orders:
                order = self._orders[0]
                count = await self._maintenance.erase_copy(order.owner, Offset(order.upto))
                self._writer.forget_spooled(order.owner)
                self._writer.link.carried_out(order.at)
                if order.owner in self._awaited:  # by a request to this replica
                    self._awaited[order.owner] += count
                self._orders.remove(order)
                _log.info("erased", extra={"records": count})

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
        ordered = any(order.owner == owner for order in self._orders)
        return ordered or owner in self._writer.world.erasures.owners

    async def _everywhere(self, owner: str) -> None:
        writer = self._writer
        if writer.world.building:
            return  # all replicas fold the log for it
        upto = await self._maintenance.snapshot_for_all()

        def order() -> ev.AnyEvent | None:
            if writer.world.building:
                raise Conflict("a policy is being folded")
            if not writer.keeps or owner not in writer.world.erasures.owners:
                return None
            return ev.ErasureOrdered(ts=writer.now(), owner=owner, upto=int(upto))

        if not await self._submitted(order):
            return
        await self._applied_by_all(writer.seen)
        await self.carry_out()
        count = await self._shared.forget(owner, upto)
        await self._shared.forget_snapshots(upto)
        _log.info("erased in the shared log", extra={"records": count})

        def erased() -> ev.AnyEvent | None:
            return ev.Erased(ts=writer.now(), owner=owner) if writer.keeps else None

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
    """What a log says of erasures after an offset. upto: the greatest of all orders; forgotten:
    the newest time at which each owner was forgotten.
    """

    upto: int = 0
    forgotten: dict[str, float] = field(default_factory=dict)


def carry_out_at_start(copy: EventLog, checkpoint: Checkpoint) -> Since:
    """Erase in the copy what was ordered while this replica was away, or ended in the middle."""
    found, orders = Since(), list[ev.ErasureOrdered]()
    for _, body in copy.replay(Offset(min(checkpoint.erased, int(copy.last)))):
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
