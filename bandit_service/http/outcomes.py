"""Rewards and comparisons, one or many, over HTTP or the stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import web

from bandit_service import clock, logs, wire
from bandit_service.core.errors import (
    Conflict,
    Expired,
    Refused,
    ServiceError,
    TooLarge,
    Unknown,
)
from bandit_service.http.auth import Caller, Gate
from bandit_service.http.middleware import CALLER, GATE, ROUTER, SETTINGS, TELEMETRY, body_of, reply
from bandit_service.http.pools import HOMES
from bandit_service.http.responses.outcomes import ErrorDetail, Result, Results
from bandit_service.runtime.router import Router

_TOGETHER = 16
"""The number of a list's items that run at once: other requests wait behind these, not behind all.
"""

Reported = TypeVar("Reported", wire.RewardRequest, wire.CompareRequest)


async def rewards(request: web.Request) -> web.Response:
    """POST /v1/rewards: one, or a list with a result for each item."""
    learning = learning_of(request)
    return await _one_or_list(request, learning, learning.reward)


async def comparisons(request: web.Request) -> web.Response:
    """POST /v1/comparisons: one, or a list with a result for each item."""
    learning = learning_of(request)
    return await _one_or_list(request, learning, learning.compare)


@dataclass(frozen=True, slots=True)
class Learning:
    """Outcomes of one caller, over HTTP or the stream. router: of the pool that was asked."""

    router: Router
    gate: Gate
    caller: Caller
    app: web.Application

    async def router_of(self, decision_id: str | None, tenant: str) -> Router:
        """Of the pool that learns an outcome of this decision, or of this tenant."""
        homes = self.app[HOMES]
        if homes.map is None:
            return self.router
        home = await homes.found(lambda: homes.of_outcome(decision_id, tenant, self.app))
        return home[ROUTER]

    async def reward(self, item: Any) -> Result:
        """Learn from one reward; returns the result. Raises an error if it is wrong."""
        try:
            asked = wire.convert(item, wire.RewardRequest)
        except ServiceError as error:
            self.router.count_reward(_named(item), outcome_of(error))
            raise
        return await self.take(asked)

    async def take(self, asked: wire.RewardRequest) -> Result:
        """The same for a decoded one."""
        router = self.router
        try:
            if asked.session or asked.conversation:
                return await self._session(asked)
            router = await self._router_for(asked)
            status = await self._taught(asked, router.reward)
        except ServiceError as error:
            router.count_reward(asked.decision_id, outcome_of(error))
            raise
        router.count_reward(asked.decision_id, status)
        logs.decision_id.set(asked.decision_id or "")
        return Result(decision_id=asked.decision_id, status=status)

    async def _session(self, asked: wire.RewardRequest) -> Result:
        """Learn a session's reward;

        it counts for a key's share as many times as it teaches decisions.
        """
        asked.tenant = self.caller.tenant_for(asked.tenant)
        router = await self.router_of(None, asked.tenant)
        with self.gate.teaching(self.caller):
            status, credited = await router.reward_session(asked)
        if status == "accepted":
            for _ in range(credited):
                self.gate.taught(self.caller)
        router.count_reward(None, status)
        return Result(decision_id=None, status=status, credited=credited)

    async def compare(self, item: Any) -> Result:
        """Learn from one comparison; returns the result. Raises an error if it is wrong."""
        router = self.router
        try:
            asked = wire.convert(item, wire.CompareRequest)
            router = await self._router_for(asked)
            status = await self._taught(asked, router.compare)
        except ServiceError:
            router.count_comparison("refused")
            raise
        router.count_comparison(status)
        logs.decision_id.set(asked.decision_id or "")
        return Result(decision_id=asked.decision_id, status=status)

    async def _router_for(self, asked: wire.RewardRequest | wire.CompareRequest) -> Router:
        """Of the pool that learns it. Raises Forbidden before it tells anything of that pool."""
        if asked.decision_id is None:
            self.caller.require_self_contained()
            asked.tenant = self.caller.tenant_for(asked.tenant)
        return await self.router_of(asked.decision_id, asked.tenant)

    async def _taught(
        self, asked: Reported, learn: Callable[[Reported, str | None], Awaitable[str]]
    ) -> str:
        with self.gate.teaching(self.caller):
            status = await learn(asked, self.caller.tenant)
        if status == "accepted":
            self.gate.taught(self.caller)
        return status

    def again(self) -> None:
        """Count one more request, for an item of a list or stream; raises as `Gate.admit` does."""
        if self.gate.keys:
            self.gate.again(self.caller, clock.now(), time.monotonic())


def learning_of(request: web.Request) -> Learning:
    """The object that learns this request's outcomes."""
    app = request.app
    return Learning(app[ROUTER], app[GATE], request[CALLER], app)


async def _one_or_list(
    request: web.Request, learning: Learning, learn: Callable[[Any], Awaitable[Result]]
) -> web.Response:
    body = wire.decode_request(await body_of(request))
    if not isinstance(body, list):
        return reply(Results(results=[await learn(body)]))
    most = request.app[SETTINGS].server.max_items
    if not body:
        raise Refused(f"a list must have 1 to {most} items, got none")
    if len(body) > most:
        raise TooLarge(f"a list must have 1 to {most} items, got {len(body)}")

    window = asyncio.Semaphore(_TOGETHER)

    async def result(item: Any, first: bool) -> Result:
        async with window:  # admits them in order
            try:
                if not first:  # the request itself counted as one
                    learning.again()
                return await learn(item)
            except ServiceError as error:
                request.app[TELEMETRY].rejected(error)
                await asyncio.sleep(0)  # it waited for nothing, and others are to have a turn, too
                return Result(decision_id=_named(item), status="error", error=ErrorDetail.of(error))

    results = (result(item, i == 0) for i, item in enumerate(body))
    return reply(Results(results=await asyncio.gather(*results)))


def _named(item: Any) -> str | None:
    """The decision that an item of a list names, if it names one by text."""
    found = item.get("decision_id") if isinstance(item, dict) else None
    return found if isinstance(found, str) else None


def outcome_of(error: ServiceError) -> str:
    """The metric's label for an outcome with this error."""
    match error:
        case Unknown():
            return "unknown"
        case Expired():
            return "expired"
        case Conflict():
            return "conflict"
        case _:
            return "refused"
