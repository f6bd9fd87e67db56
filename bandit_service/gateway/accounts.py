"""Who pays for a call: money is held before the call, and booked when its cost is known."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import msgspec

from bandit_service.core import events as ev
from bandit_service.core.errors import ServiceError, Unavailable
from bandit_service.core.spend import Payer
from bandit_service.gateway.resources import Resources
from bandit_service.runtime.writer import Writer

_log = logging.getLogger("bandit.gateway")


async def booked(
    writer: Writer,
    spent: Callable[[], ev.Spent],
    *,
    key: str,
    hold: Callable[[], None],
    let_go: Callable[[], None],
) -> bool:
    """Whether a cost is in the log; one for which there is no space waits, and is held until then.

    hold, let_go: of the money, in whatever limits it counts for.
    """
    try:
        await writer.submit(spent, key=key, durable=False)
    except ServiceError as error:
        event = spent()
        told = {"decision_id": event.decision_id, "usd": event.usd, "why": error.message}
        _log.warning("not booked", extra=told)
        if isinstance(error, Unavailable):  # and so it is not in the log
            hold()
            writer.owe(event, let_go)
        return False
    return True


class Account(Protocol):
    """What one call is charged to."""

    def reserve(self) -> None:
        """Hold the most that the call may cost."""
        ...

    def release(self) -> None:
        """Let go of what was held. A second time it does nothing."""
        ...

    async def book(self, usd: float) -> bool:
        """Write a cost down that no outcome reports; whether it is in the log."""
        ...

    async def book_apart(self, usd: float) -> bool:
        """The same of a cost that stays, whatever the answer turns out to cost."""
        ...


class CallerAccount(msgspec.Struct, frozen=True):
    """The budgets of the service and of who pays.

    id: of what is held. decision_id: the decision whose cost is unknown; one that is reported later
    replaces the booked one.
    """

    resources: Resources
    id: str
    max_usd: float
    payer: Payer
    decision_id: str = ""

    def reserve(self) -> None:
        """Hold the most that the call may cost, in every budget that it counts for."""
        self.resources.budgets.reserve(self.id, self.max_usd, self.payer)

    def release(self) -> None:
        """Let go of it."""
        self.resources.budgets.settle(self.id)

    async def book(self, usd: float) -> bool:
        """An event `spent`; whether it is in the log, or will be before the money is let go of.

        If it cannot be written now, no error is raised: the answer is there and paid for, and is
        not withheld. The cost waits, and is held meanwhile.
        """
        writer, budgets = self.resources.router.writer, self.resources.budgets

        def spent() -> ev.Spent:
            return ev.Spent(
                ts=writer.now(),
                decision_id=self.decision_id,
                usd=usd,
                tenant=self.payer.tenant,
                caller=self.payer.key,
                route=self.payer.route,
            )

        owed = f"owed {writer.new_id(writer.now())}"
        written = await booked(
            writer,
            spent,
            key=self.decision_id or self.id,
            hold=lambda: budgets.reserve(owed, usd, self.payer),
            let_go=lambda: budgets.settle(owed),
        )
        if written and not self.decision_id:
            budgets.booked(self.id, usd)
        return written

    async def book_apart(self, usd: float) -> bool:
        """An event `spent` of no decision."""
        return await msgspec.structs.replace(self, decision_id="").book(usd)
