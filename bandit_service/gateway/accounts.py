"""Who pays for a call: money is held before the call, and booked when its cost is known."""

from __future__ import annotations

import logging
from typing import Protocol

import msgspec

from bandit_service.core import events as ev
from bandit_service.core.errors import ServiceError
from bandit_service.core.spend import Payer
from bandit_service.gateway.resources import Resources

_log = logging.getLogger("bandit.gateway")


class Account(Protocol):
    """What one call is charged to."""

    def reserve(self) -> None:
        """Hold the most that the call may cost."""
        ...

    def release(self) -> None:
        """Release what was held. A second call does nothing."""
        ...

    async def book(self, usd: float) -> bool:
        """Book a cost that no outcome reports. Returns whether it is in the log."""
        ...

    async def book_apart(self, usd: float) -> bool:
        """The same for a cost that stays, whatever the answer costs in the end."""
        ...


class CallerAccount(msgspec.Struct, frozen=True):
    """The budgets of the service and of the payer.

    id: of what is held. decision_id: the decision whose cost is unknown; one that is reported later
    replaces the booked one.
    """

    resources: Resources
    id: str
    max_usd: float
    payer: Payer
    decision_id: str = ""

    def reserve(self) -> None:
        """Hold the maximum cost of the call in every budget that it counts for."""
        self.resources.budgets.reserve(self.id, self.max_usd, self.payer)

    def release(self) -> None:
        """Let go of it."""
        self.resources.budgets.settle(self.id)

    async def book(self, usd: float) -> bool:
        """An event `spent`; whether it is in the log, or will be before the money is let go of.

        If it cannot be written, the service logs a line and raises no error: the answer is there
        and paid for, and is not withheld.
        """
        writer = self.resources.router.writer
        try:
            await writer.submit(
                lambda: ev.Spent(
                    ts=writer.now(),
                    decision_id=self.decision_id,
                    usd=usd,
                    tenant=self.payer.tenant,
                    caller=self.payer.key,
                    route=self.payer.route,
                ),
                key=self.decision_id or self.id,
                durable=False,
            )
        except ServiceError as error:
            _log.warning(
                "not booked", extra={"decision_id": self.decision_id, "why": error.message}
            )
            return False
        if not self.decision_id:
            self.resources.budgets.booked(self.id, usd)
        return True

    async def book_apart(self, usd: float) -> bool:
        """An event `spent` of no decision."""
        return await msgspec.structs.replace(self, decision_id="").book(usd)
