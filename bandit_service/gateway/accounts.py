"""Costs that no outcome tells of, booked on the accounts all the same."""

from __future__ import annotations

import logging

from bandit_service.core import events as ev
from bandit_service.core.errors import ServiceError
from bandit_service.runtime.router import Router

_log = logging.getLogger("bandit.gateway")


async def book(router: Router, usd: float, tenant: str, caller: str, decision_id: str = "") -> bool:
    """An event `spent`; whether it is in the log. Where it cannot be written there is a line in the
    service's own log, and no error: the answer is paid for and there, and is not withheld.

    decision_id: whose cost is not known; one that is reported later takes the place of this one.
    """
    writer = router.writer
    try:
        await writer.submit(
            lambda: ev.Spent(
                ts=writer.now(), decision_id=decision_id, usd=usd, tenant=tenant, caller=caller
            ),
            key=decision_id,
            durable=False,
        )
    except ServiceError as error:
        _log.warning("not booked", extra={"decision_id": decision_id, "why": error.message})
        return False
    return True
