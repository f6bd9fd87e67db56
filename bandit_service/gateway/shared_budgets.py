"""Budgets that several replicas of one log keep together, each by slices of its own."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from bandit_service.core import events as ev
from bandit_service.core.resolved import Resolved
from bandit_service.core.spend import Payer, accounts_of
from bandit_service.core.world import World
from bandit_service.gateway.budget_slices import Slices
from bandit_service.gateway.budgets import Budgets
from bandit_service.runtime.writer import Writer
from bandit_service.settings.budgets import BudgetSpec

_CLOSE_S, _LOOK_S = 2.0, 0.01


class SharedBudgets(Budgets):
    """A call holds its maximum until its cost is applied here;

    then the cost is taken from the slice.
    """

    def __init__(self, specs: tuple[BudgetSpec, ...], writer: Writer, lost_after_s: float) -> None:
        super().__init__(specs)
        self._writer = writer
        self._slices = Slices(writer, self._limits, self._held_of, lost_after_s)
        self._paid: dict[str, float] = {}
        self._settling: dict[str, None] = {}
        writer.listen(self._heard)

    def start(self) -> None:
        """Start returning slices that nobody needs."""
        self._slices.start()

    async def close(self) -> None:
        """Return this replica's slices, once the costs of its last calls are applied."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                while self._settling:
                    await asyncio.sleep(_LOOK_S)
                    self._look()
        await self._slices.close()

    async def secured(self, usd: float, payer: Payer, now: float) -> bool:
        """Whether the call may begin at once.

        If not, this has waited: check again. Raises BudgetExhausted if the money is not available.
        """
        self._look()
        accounts = accounts_of(payer)
        if not self._slices.covered(accounts, usd, now):
            await self._slices.secure(accounts, usd, now)
            return False
        self._slices.refill(accounts, now)
        return True

    def settle(self, decision_id: str) -> None:
        """Release what was held, once its cost is applied or will never come."""
        if decision_id in self._reserved:
            self._settling[decision_id] = None
            self._look()

    def booked(self, id: str, usd: float) -> None:
        """A cost of what is held under this id was booked on no decision."""
        if id in self._reserved:
            self._paid[id] = self._paid.get(id, 0.0) + usd

    def _others(self, account: str, per: str, now: float) -> float:
        return self._slices.others(account, per, now)

    def _look(self) -> None:
        for id in [id for id in self._settling if not self._writer.under_way(id)]:
            del self._settling[id]
            accounts = self._reserved[id].accounts
            super().settle(id)
            self._slices.spent(accounts, self._paid.pop(id, 0.0))

    def _heard(self, what: Resolved, _: World) -> None:
        match what.event:
            case ev.Rewarded(decision_id=id, cost_usd=usd) if usd is not None:
                self.booked(id, usd)
            case ev.Spent(decision_id=id, judge="", usd=usd) if id:
                self.booked(id, usd)

    def _held_of(self, account: str) -> float:
        self._look()
        return self._held_usd(account)

    def _limits(self, account: str) -> dict[str, float]:
        """The lowest limit of each period that an account has."""
        scope, _, name = account.partition(":")
        least: dict[str, float] = {}
        for spec in self.specs:
            if spec.scope == scope and (scope == "service" or spec.id in ("*", name)):
                least[spec.per] = min(spec.usd, least.get(spec.per, spec.usd))
        return least
