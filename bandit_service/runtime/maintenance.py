"""Maintenance of the log while serving: when snapshots are made, retention, and erasure.

The service decides meanwhile. `snapshot_making.py` makes the snapshots, `policy_training.py` trains
other policies.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from bandit_service import clock
from bandit_service.core import events as ev
from bandit_service.runtime.folding import (
    Folded,
)
from bandit_service.runtime.policy_training import PolicyTraining
from bandit_service.runtime.snapshot_making import SnapshotMaking
from bandit_service.runtime.supervisor import Kept
from bandit_service.runtime.writer import Writer
from bandit_service.settings import PolicySettings, Settings
from bandit_service.telemetry.telemetry import Telemetry
from store import Offset, StoreError, Unsupported, can_erase, can_trim, first_of
from store.snapshots import FileSnapshots

_log = logging.getLogger("bandit.keeper")
_LOOK_S, _AGAIN_S = 1.0, 30.0


class SharedErasing(Protocol):
    """How records are erased where several processes share the log."""

    async def look(self) -> None:
        """Do what is left to do."""
        ...

    async def carry_out(self) -> None:
        """Erase this process' copy, as far as it is ordered."""
        ...

    async def done(self, owner: str) -> int:
        """Wait until it is erased; how many records of the copy."""
        ...


class SharedRetaining(Protocol):
    """How old records are deleted where several processes share the log."""

    async def look(self) -> None:
        """Do what is left to do."""
        ...

    async def carry_out(self) -> None:
        """Delete from this process' copy, as far as it is ordered."""
        ...


class Maintenance:
    """Keeps recovery short, and deletes old and erased records.

    erasing, retaining: how records are erased, and old ones deleted, where several processes share
    the log, else None. forget_beside: deletes what is kept of an owner beside the log. due: whether
    a snapshot is made for all as soon as that can be.
    """

    def __init__(
        self,
        writer: Writer,
        snapshots: FileSnapshots,
        settings: Settings,
        telemetry: Telemetry,
        serving: PolicySettings,
        recovered_at: int,
    ) -> None:
        self.making = SnapshotMaking(writer, snapshots, settings, telemetry, serving, recovered_at)
        self.training = PolicyTraining(writer, self.making, settings, self.tried, self.carried_out)
        self._writer = writer
        self._settings = settings
        self._telemetry = telemetry
        self._not_before = 0.0
        self._erasing: dict[str, asyncio.Future[int]] = {}
        self.erasing: SharedErasing | None = None
        self.forget_beside: Callable[[str], Awaitable[None]] = _nothing_beside
        self.retaining: SharedRetaining | None = None
        self.due = False
        self._looking: Kept | None = None

    def start(self) -> None:
        """Begin to make snapshots and to delete old records."""
        self._looking = self._writer.tasks.keep("upkeep", self._look_forever)

    async def close(self) -> None:
        """Stop; if anything is new, a last snapshot of the present world is made."""
        if self._looking is not None:
            await self._looking.end()
        await self.training.close()
        self.making.last()

    @property
    def serving(self) -> PolicySettings:
        """The policy that serves."""
        return self.making.serving

    @property
    def key(self) -> str:
        """The key of snapshots of the present world."""
        return self.making.key

    def kept(self) -> AbstractAsyncContextManager[None]:
        """Within this, no record is deleted or erased, and no snapshot is made."""
        return self.making.lock

    # --- snapshots and retention ----------------------------------------------------------

    async def snapshot(self) -> Folded:
        """Make a snapshot of everything up to now. Raises StoreError or FoldFailed."""
        async with self.making.lock:
            folded = await self.making.make(await self._writer.synced())
            await self.tried("shared snapshot", self.making.share(self.key, Offset(folded.at)))
        return folded

    async def snapshot_for_all(self) -> Offset:
        """One that lies in the shared log; StoreError where it does not."""
        async with self.making.lock:
            at = Offset((await self.making.make(await self._writer.synced())).at)
            shared = await self.making.share(self.key, at)
        if not shared:
            raise StoreError("the snapshot was not shared: another is the keeper, or states differ")
        return at

    async def _look_forever(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            if time.monotonic() < self._not_before:
                continue
            due = self._settings.snapshots
            new = self._writer.log.last - self.making.at
            waited = time.monotonic() - self.making.time
            now = self.due and self._writer.membership.keeps
            if new >= due.every_events or (new and (now or waited >= due.every_s)):
                self.due = not await self.tried("snapshots", self.snapshot())
            await self._erase_left()
            await self.tried("retention", self._retain())
            self._writer.tasks.well("upkeep")

    async def tried(self, name: str, work: Awaitable[object]) -> bool:
        """One piece of upkeep; an error is reported, and it is tried again later."""
        tasks = self._writer.tasks
        try:
            await work
        except Exception as error:  # noqa: BLE001 - the next round comes whatever this one met
            self._not_before = time.monotonic() + _AGAIN_S
            self._telemetry.metrics.upkeep_failures.inc()
            tasks.failed(name, error)
            return False
        tasks.well(name)
        return True

    async def _retain(self) -> None:
        """Delete records beyond the limits of age and size, up to the oldest snapshot that may be
        needed.
        """
        if self.retaining is not None:
            await self.retaining.look()
            return
        upto = self.beyond_the_limits()
        if upto < first_of(self._writer.log):
            return
        kept = self.making.kept.offsets(self.key)
        async with self.making.lock:
            await self._trimmed(min(upto, int(kept[0])) if kept else 0)

    def beyond_the_limits(self) -> int:
        """Up to where records are beyond the limits of age and size; 0 if none is."""
        log, rules = self._writer.log, self._settings.retention
        if not can_trim(log):
            return 0  # a start refuses rules of retention in this case
        upto = 0
        if rules.max_age_s:
            upto = int(log.offset_at(clock.now() - rules.max_age_s))
        if rules.max_bytes and log.size_bytes > rules.max_bytes:
            over = 1.0 - rules.max_bytes / log.size_bytes
            upto = max(upto, int(log.first) - 1 + int(over * (log.last - log.first + 1)))
        return upto

    async def _trimmed(self, upto: int) -> None:
        log = self._writer.log
        left = int(can_trim(log) and upto >= log.first)
        while left and can_trim(log):
            left = log.trim(Offset(upto))
            await asyncio.sleep(0)

    async def trim_copy(self, upto: Offset) -> None:
        """Delete the records up to an offset from this process' copy, once a snapshot of its own
        covers them.
        """
        async with self.making.lock:
            kept = self.making.kept.offsets(self.key)
            if not kept or kept[-1] < upto:
                await self.making.make(await self._writer.synced())
            await self._trimmed(int(upto))
            self.making.kept.forget(upto)  # from which nothing can begin any more

    # --- erasure --------------------------------------------------------------------------

    async def _erase_left(self) -> None:
        """What was begun before a restart, or when it failed."""
        if self.erasing is not None:
            await self.tried("erasure", self.erasing.look())
            return
        owners = self._writer.world.erasures.owners
        for owner in [one for one in owners if one not in self._erasing]:
            await self.tried("erasure", self.erase(owner))
        if not owners:
            self._writer.tasks.well("erasure")

    async def carried_out(self) -> bool:
        """Erase and delete from this process' copy what is ordered; whether its log begins later
        than the first event.
        """
        if self.erasing is not None:
            await self.erasing.carry_out()
        if self.retaining is not None:
            await self.retaining.carry_out()
        return first_of(self._writer.log) > 1

    async def erase_copy(self, orders: Sequence[ev.ErasureOrdered]) -> dict[str, int]:
        """Erase what is ordered of this process' copy, once a snapshot knows it; how many records
        of each owner.
        """
        log, counts = self._writer.log, dict[str, int]()
        if not can_erase(log):
            raise Unsupported(log, "erase the records of a unit")
        async with self.making.lock:
            folded = await self.making.make(await self._writer.synced())
            for each in orders:
                await self.forget_beside(each.owner)
                count = log.forget(each.owner, Offset(each.upto))
                counts[each.owner] = counts.get(each.owner, 0) + count
            self.making.kept.forget(Offset(folded.at))
        return counts

    async def erase(self, owner: str) -> int:
        """Erase the records of an owner that the world has forgotten; returns how many.

        An erasure that is under way is waited for. Raises Unsupported if the log cannot erase.
        """
        if self.erasing is not None:
            return await self.erasing.done(owner)
        while (under_way := self._erasing.get(owner)) is not None:
            await asyncio.wait([under_way])
            if not under_way.cancelled():
                return under_way.result()
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._erasing[owner] = ended
        try:
            ended.set_result(await self._erase(owner))
        except Exception as error:  # noqa: BLE001 - told to all who wait for it
            ended.set_exception(error)
        finally:
            del self._erasing[owner]
            ended.cancel()  # nothing where it has ended
        return ended.result()

    async def _erase(self, owner: str) -> int:
        """In this order: a snapshot without the owner, the records, the older snapshots.

        So at any moment a valid snapshot covers every record that can no longer be applied.
        """
        log = self._writer.log
        if not can_erase(log):
            raise Unsupported(log, "erase the records of a unit")
        await self.forget_beside(owner)
        folded = await self.snapshot()
        async with self.making.lock:
            count = log.forget(owner, Offset(folded.at))
            self.making.kept.forget(Offset(folded.at))
        await self._writer.submit(lambda: ev.Erased(ts=self._writer.now(), owner=owner))
        _log.info("erased", extra={"records": count})
        return count


async def _nothing_beside(_: str) -> None:
    """Nothing is kept beside the log."""
