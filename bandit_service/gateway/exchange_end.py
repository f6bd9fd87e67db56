"""The end of an exchange, as the writer reports it: its outcome is in the log, or cannot be."""

from __future__ import annotations

import asyncio
import logging
from contextvars import copy_context
from typing import Any

from bandit_service.core.errors import ServiceError
from bandit_service.gateway.accounts import Account
from bandit_service.gateway.resources import Resources

_log = logging.getLogger("bandit.gateway")


class Written:
    """A `group_commit.Done` of an outcome that the gateway saw. usd: what the answer cost.

    The money is released once the cost is in the log, or cannot be, even if the waiting task has
    left.
    """

    __slots__ = ("_account", "_context", "_decision_id", "_end", "_resources", "_told", "_usd")

    def __init__(
        self, resources: Resources, account: Account, decision_id: str, usd: float
    ) -> None:
        self._resources, self._account = resources, account
        self._decision_id, self._usd = decision_id, usd
        self._told = False
        self._context = copy_context()  # the log line belongs to the request
        self._end: asyncio.Future[bool] = resources.router.writer.loop.create_future()

    async def waited(self) -> bool:
        """Whether the cost is in the log, once that is known."""
        try:
            return await self._end
        except asyncio.CancelledError:
            if not self._told:
                again: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
                self._end = self._resources.expected(again)
            raise

    def cancelled(self) -> bool:
        """No: it is written even if the client leaves."""
        return False

    def done(self) -> bool:
        """Whether the result was reported."""
        return self._told

    def set_result(self, event: Any, /) -> None:
        """The outcome is with the kernel."""
        self._told = True
        self._resources.router.observed(self._decision_id, event)
        self._account.release()
        self._ended(written=True)

    def set_exception(self, error: Exception, /) -> None:
        """The outcome is not learned, but the cost is booked nevertheless."""
        self._told = True
        self._resources.router.observed(self._decision_id, error)
        self._context.run(self._fail, error)

    def _fail(self, error: Exception) -> None:
        if isinstance(error, ServiceError):
            not_learned(self._decision_id, error)
            self._resources.started(self._booked())
            return
        self._account.release()
        if not self._end.done():
            self._end.set_exception(error)

    async def _booked(self) -> bool:
        written = False
        try:
            written = await self._account.book(self._usd)
        finally:
            self._account.release()
            self._ended(written)
        return written

    def _ended(self, written: bool) -> None:
        if not self._end.done():
            self._end.set_result(written)


def not_learned(decision_id: str, error: ServiceError) -> None:
    """A line about an outcome that could not be written, or was refused."""
    _log.error("outcome not learned", extra={"decision_id": decision_id, "why": error.message})
