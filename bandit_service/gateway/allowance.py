"""How many calls of providers one request may cause, and for how long it may cause them."""

from __future__ import annotations

import time

from bandit_service.settings.sections import GatewaySettings


class Allowance:
    """Of one request, over all arms and deployments. A call that is under way is not ended."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._most, self._within_s = settings.max_calls, settings.request_s
        self._made, self._began = 0, time.monotonic()

    def call(self) -> None:
        """A call begins."""
        self._made += 1

    def spent(self) -> str:
        """Why no other call may begin, for the client; "" while one may."""
        if self._made >= self._most:
            return f"no other is called after {self._most} calls (gateway.max_calls)"
        if time.monotonic() - self._began > self._within_s:
            return f"no other is called after {self._within_s:g} s (gateway.request_s)"
        return ""
