"""Old records, deleted from the copy of every replica and from the shared log.

The keeper orders by an event up to where, which is never beyond the oldest snapshot that the shared
log keeps; so whoever joins, or was away, begins from one. Each replica that applies the order
deletes from its copy, once it has a snapshot of its own that covers the records. The keeper deletes
from the shared log when every open replica has applied what goes.

As with erasures, no order is given while a policy is built, and none is built before a replica has
carried out its orders: so all of them fold the same records.
"""

from __future__ import annotations

import logging
import time

from bandit_service import clock
from bandit_service.core import events as ev
from bandit_service.core.errors import Conflict, ServiceError
from bandit_service.runtime.maintenance import Maintenance
from bandit_service.runtime.shared.writer import SharedWriter
from store import Offset, SharedLog, can_trim, first_of

_log = logging.getLogger("bandit.replica")
_KEY = "catalogue"
_EVERY_S = 10.0
_SHARE = 100
"""An order deletes at least one in so many of the records that are kept, so orders are few."""


class SharedRetention:
    """`look` again and again; it is the maintenance that does. keep_s: younger records stay, since
    a replica that was away may still ask whether the log has them.
    """

    def __init__(
        self, writer: SharedWriter, maintenance: Maintenance, shared: SharedLog, keep_s: float
    ) -> None:
        self._writer = writer
        self._maintenance = maintenance
        self._shared = shared
        self._keep_s = keep_s
        self._not_before = 0.0
        maintenance.retaining = self

    @property
    def _ordered(self) -> Offset:
        return Offset(self._writer.world.retention.upto)

    async def look(self) -> None:
        """Carry out what was ordered; as the keeper, delete it everywhere, and order more."""
        await self.carry_out()
        if self._writer.membership.keeps and time.monotonic() >= self._not_before:
            self._not_before = time.monotonic() + _EVERY_S
            await self._everywhere()
            await self._order()

    async def carry_out(self) -> None:
        """Delete from this replica's copy, as far as it is ordered."""
        upto = self._ordered
        if upto >= first_of(self._writer.log):
            await self._maintenance.trim_copy(upto)
            _log.info("old records deleted", extra={"upto": int(upto)})

    async def _everywhere(self) -> None:
        upto = self._ordered
        if not upto or (await self._shared.state()).base >= upto:
            return
        rows = await self._shared.replicas()
        if all(row.applied >= upto for row in rows if not row.closed):
            await self._shared.trim(upto)
            _log.info("old records deleted in the shared log", extra={"upto": int(upto)})

    async def _begins(self) -> int:
        """The oldest offset that a replica can begin from; 0 if the newest snapshot is damaged."""
        key = self._maintenance.key
        found = [at for other, at in await self._shared.snapshots() if other == key]
        if not found:
            return 0
        before = Offset(found[0] - 1)
        newest = await self._shared.newest_snapshot(key, before, found[0])
        return 0 if newest is None else int(found[-1])

    async def _order(self) -> None:
        log, writer = self._writer.log, self._writer
        if writer.world.building or not can_trim(log):
            return
        upto = self._maintenance.beyond_the_limits()
        upto = min(upto, int(log.offset_at(clock.now() - self._keep_s)))
        if upto >= log.first:
            upto = min(upto, await self._begins())
        if upto - log.first + 1 < max(1, (log.last - log.first + 1) // _SHARE):
            return

        def order() -> ev.AnyEvent | None:
            if writer.world.building:
                raise Conflict("a policy is being trained")
            if not writer.membership.keeps or upto <= writer.world.retention.upto:
                return None
            return ev.TrimOrdered(ts=writer.now(), upto=upto)

        try:
            await writer.submit(order, key=_KEY)
        except ServiceError as error:  # it is looked at again
            _log.warning("old records are not deleted yet", extra={"why": error.message})
