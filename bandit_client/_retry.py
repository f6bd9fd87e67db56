"""When a request is sent again, and after how long."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from secrets import SystemRandom

from bandit_client.errors import BanditError, Busy, NoAnswer, NotReached, ServiceError, Unavailable

_chance = SystemRandom()
_MAX_DOUBLINGS = 60
_AGAIN = frozenset(
    (
        "busy",
        "rate_limited",
        "reward_share",
        "budget_exhausted",
        "no_credit",
        "unavailable",
        "behind",
    )
)
"""The codes of the service after which the same request may succeed: docs/errors.md."""
_OF_PROXIES = frozenset((502, 503, 504))
"""What something in front of the service answers; the service may have done it all the same."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and after how long a request is sent again.

    Before attempt n it waits a random time from 0 to the smaller of `max_s` and `first_s`·2ⁿ
    ("full jitter"), after what `Retry-After` says, if the answer says it. It never waits beyond the
    timeout of the call. attempts: in all; 1 never sends anything again.
    """

    attempts: int = 6
    first_s: float = 0.1
    max_s: float = 10.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts: must be 1 or more, got {self.attempts}")
        for name in ("first_s", "max_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name}: must be a number of seconds above 0, got {value}")

    def wait_s(self, failures: int, error: BanditError) -> float:
        """The wait after so many failures, of which this was the last."""
        said = error.retry_after_s if isinstance(error, ServiceError) else None
        widest = min(self.max_s, self.first_s * 2.0 ** min(failures - 1, _MAX_DOUBLINGS))
        return (said or 0.0) + _chance.uniform(0.0, widest)


RETRIES = Retries()
"""The defaults."""


def may_again(error: BanditError, harmless: bool) -> bool:
    """Whether the request may be sent again.

    harmless: whether a second time has no effect. Otherwise only a request that was certainly not
        executed is sent again: there was no connection, or the service itself refused it.
    """
    if isinstance(error, Busy | Unavailable) and error.code in _AGAIN:
        return True
    if isinstance(error, ServiceError):
        return harmless and not error.code and error.status in _OF_PROXIES
    return isinstance(error, NotReached) or (harmless and isinstance(error, NoAnswer))


class Patience:
    """The time that one call has, over all of its attempts."""

    def __init__(self, timeout_s: float, retries: Retries) -> None:
        self._until = time.monotonic() + timeout_s
        self._retries = retries
        self._failures = 0

    @property
    def left_s(self) -> float:
        """What is left of it."""
        return self._until - time.monotonic()

    async def failed(self, error: BanditError, harmless: bool) -> None:
        """Wait for the next attempt; raise the error if there is none."""
        self._failures += 1
        if self._failures >= self._retries.attempts or not may_again(error, harmless):
            raise error
        wait_s = self._retries.wait_s(self._failures, error)
        if wait_s >= self.left_s:
            raise error
        await asyncio.sleep(wait_s)
