"""Requests that wait until this replica has learned up to an offset."""

from __future__ import annotations

import asyncio

from bandit_service.core.errors import Behind

_MOST = 10_000
"""Each waiter is a running request, so this only bounds a step of applying."""


class Reached:
    """wait_s: how long each waits at most. most: how many may wait at a time."""

    def __init__(self, wait_s: float, most: int = _MOST) -> None:
        self._wait_s = wait_s
        self._most = most
        self._waiting: dict[asyncio.Future[None], int] = {}

    async def wait(self, offset: int, applied: int, patience_s: float | None = None) -> None:
        """Return once `to` got this offset or a later one.

        Raises Behind if it did not in time. applied: the present offset. patience_s: how long this
        one waits at most.
        """
        if len(self._waiting) < self._most:
            reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[reached] = offset
            try:
                patience_s = self._wait_s if patience_s is None else patience_s
                async with asyncio.timeout(min(self._wait_s, patience_s)):
                    await reached
                    return
            except TimeoutError:
                pass
            finally:
                del self._waiting[reached]
        raise Behind(offset, applied)

    def to(self, offset: int) -> None:
        """The log is applied up to this offset."""
        for future, wanted in self._waiting.items():
            if wanted <= offset and not future.done():
                future.set_result(None)
