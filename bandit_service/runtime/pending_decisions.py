"""The decisions that may still be rewarded: found, dropped when they are too many, expired."""

from __future__ import annotations

import asyncio
from itertools import islice

from bandit_service import clock
from bandit_service.core import events as ev
from bandit_service.core.errors import Expired, NotYet, Unavailable, Unknown
from bandit_service.core.resolved import Pending
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.runtime.supervisor import Kept
from bandit_service.runtime.writer import Writer

_SWEEP = 1000


class PendingDecisions:
    """Of the writer's world."""

    def __init__(self, writer: Writer, rules: RouterRules) -> None:
        self._writer, self._rules = writer, rules
        self._kept: Kept | None = None

    def start(self) -> None:
        """Begin to sweep."""
        self._kept = self._writer.tasks.keep("sweep", self._sweep_forever)

    async def close(self) -> None:
        """No decision expires any more."""
        if self._kept is not None:
            await self._kept.end()

    def find(self, decision_id: str, tenant: str | None = None) -> Pending:
        """A decision that may still be rewarded; Unknown or Expired otherwise."""
        # report another tenant's decision as unknown
        pending = self._writer.world.pending.decisions.get(decision_id)
        if pending is not None and tenant in (None, pending.decided.tenant):
            return pending
        if self._writer.in_backlog(decision_id, tenant):
            raise Unavailable(f"the event log cannot be written: {self._writer.degraded}")
        # Decisions leave oldest first and their ids sort by age, so whatever sorts before the
        # oldest one kept was forgotten.
        oldest = next(iter(self._writer.world.pending.decisions), decision_id)
        made = clock.time_of(decision_id)
        late = made is not None and made < self._writer.now() - self._rules.ttl_s
        if not late and self._writer.may_come(decision_id):
            raise NotYet.of(decision_id)
        if made is not None and (late or decision_id < oldest):
            raise Expired(
                f"decision_id: {decision_id!r} has expired; "
                f"reward.ttl_s is {self._rules.ttl_s:g}, "
                f"reward.max_pending is {self._rules.max_pending}",
                param="decision_id",
            )
        raise Unknown(f"decision_id: no decision {decision_id!r}", param="decision_id")

    def bound(self) -> bool:
        """Drop the oldest decisions beyond max_pending; whether there are more to drop.

        They teach nothing, since their time was not over. One event drops few, so that it stays
        small and the loop free when the bound becomes much lower.
        """
        excess = len(self._writer.world.pending.decisions) - self._rules.max_pending
        if excess <= 0:
            return False
        oldest = islice(self._writer.world.pending.decisions, min(excess, _SWEEP))
        return self._expire(list(oldest)) and excess > _SWEEP

    def _expire(self, ids: list[str], default_reward: float | None = None) -> bool:
        return self._writer.append_now(
            ev.DecisionsExpired(
                ts=self._writer.now(), ids=tuple(ids), default_reward=default_reward
            )
        )

    def sweep(self, now: float) -> int:
        """Forget the decisions that were made before `now` − ttl_s; returns how many."""
        gone: list[str] = []
        for id, pending in self._writer.world.pending.decisions.items():
            if pending.decided.ts >= now - self._rules.ttl_s or len(gone) == _SWEEP:
                break
            gone.append(id)
        if not gone or not self._expire(gone, self._rules.default_reward):
            return 0
        return len(gone)

    async def _sweep_forever(self) -> None:
        while True:
            more = self.sweep(self._writer.now()) == _SWEEP or self.bound()
            self._writer.tasks.well("sweep")
            await asyncio.sleep(0 if more else min(5.0, self._rules.ttl_s))
