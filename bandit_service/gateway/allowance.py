"""How many calls of providers one request may cause, and how long all of them may take."""

from __future__ import annotations

import time

from bandit_service.gateway.failures import Failed
from bandit_service.settings import GatewaySettings


class Allowance:
    """Of one request, over all arms and deployments."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._most, self._within_s = settings.max_calls, settings.request_s
        self._client_s = 0.0
        self._made, self._ends = 0, time.monotonic() + settings.request_s

    def call(self) -> None:
        """A call begins."""
        self._made += 1

    def client_took(self, seconds: float) -> None:
        """So long the client did not take what was there for it."""
        self._client_s += seconds

    @property
    def left_s(self) -> float:
        """For how long a call may still take; not negative."""
        return max(0.0, self._ends - time.monotonic())

    def spent(self) -> str:
        """Why no other call may begin, for the client; "" while one may."""
        if self._made >= self._most:
            return f"no other is called after {self._most} calls (gateway.max_calls)"
        return self._over()

    def timed_out(self, why: str) -> Failed:
        """The failure of a call that took too long: for the request, or for this reason.

        The first call had all of the request's time, so it is the arm that is too slow. A later one
        had what others left, and one whose client took most of the time had the rest, which says
        nothing about its arm.
        """
        over = self._over()
        had_less = self._made > 1 or self._client_s > self._within_s / 2
        return Failed(over or why, timeout=True, cut_short=bool(over) and had_less)

    def _over(self) -> str:
        """Why nothing may go on; "" while it may."""
        if self.left_s > _EARLY_S:
            return ""
        return f"the request has taken {self._within_s:g} s (gateway.request_s)"


_EARLY_S = 1e-3
"""A loop's timer may fire that much before its time."""
