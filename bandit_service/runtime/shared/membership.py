"""This replica among those that share the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bandit_service.core import events as ev
from bandit_service.core.errors import Unavailable
from bandit_service.runtime.membership import LogMembership
from bandit_service.runtime.shared.digests import Digests
from bandit_service.runtime.shared.link import Link
from store import Offset, Replica, StoreError, can_erase_shared


class SharedMembership(LogMembership):
    """keep_snapshots: how many the shared log keeps; 0 for none."""

    def __init__(self, link: Link, digests: Digests, keep_snapshots: int) -> None:
        self._link = link
        self._digests = digests
        self._keep_snapshots = keep_snapshots

    @property
    def slot(self) -> int:
        """The number of this replica."""
        return self._link.slot

    @property
    def keeps(self) -> bool:
        """Whether this replica is the keeper."""
        return self._link.lease is not None

    @property
    def barred(self) -> str:
        """Why this replica is not ready although it runs; "" if it is ready."""
        return self._link.barred

    @property
    def in_touch_since(self) -> float:
        """Since when the others cannot have considered this replica lost."""
        return self._link.in_touch_since

    @property
    def cannot_erase(self) -> str:
        """Why the records of a unit cannot be erased; "" where they can."""
        if not can_erase_shared(self._link.shared):
            return "this shared log cannot erase the records of a unit"
        if why := self._link.shared.cannot_erase:
            return why
        if not self._keep_snapshots:
            return "replicas erase the records of a unit only with log.share_snapshots"
        return ""

    @property
    def known(self) -> list[Replica]:
        """The processes that share the log, as of a moment ago."""
        return self._link.rows

    async def replicas(self) -> list[Replica]:
        """The processes that share the log. Raises Unavailable if the log is unreachable."""
        try:
            return await self._link.shared.replicas()
        except StoreError as error:
            raise Unavailable(f"the shared log cannot be reached: {error}") from None

    def differs(self, row: Replica) -> bool | None:
        """Whether it had another state at an offset that both know; None if there is none."""
        return self._digests.differs(row)

    async def share_snapshot(self, key: str, at: Offset, read: Callable[[], bytes]) -> bool:
        """Let other processes begin from a snapshot, if this is the one that does it for all.

        Not while another replica has another state: this one may be wrong.
        """
        if self.keeps and self._keep_snapshots and not self._digests.any_differ:
            state = await asyncio.to_thread(read)
            await self._link.shared.save_snapshot(key, at, state, self._keep_snapshots)
            return True
        return False

    def check_read_by_all(self, kind: type[ev.Event]) -> None:
        """Raise Unavailable if an open replica cannot read events of this kind."""
        self.check_format(ev.format_of(kind), ev.tag(kind))

    def check_format(self, needed: int, kind: str) -> None:
        """Raise Unavailable if an open replica cannot read events of this format."""
        if needed > self._link.format:
            raise Unavailable(
                f"a replica of an older release is open, which cannot read {kind!r}; it "
                "can be written when all are of the newer one"
            )
