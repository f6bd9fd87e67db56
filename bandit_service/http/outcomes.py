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
from bandit_service.http.frame import CALLER, GATE, ROUTER, SETTINGS, TELEMETRY, body_of, reply
from bandit_service.http.responses.outcomes import ErrorDetail, Result, Results
from bandit_service.runtime.router import Router

_TOGETHER = 16
"""So many of one list are under way at once: others' requests wait behind these, not behind all."""

Reported = TypeVar("Reported", wire.RewardRequest, wire.CompareRequest)


async def rewards(request: web.Request) -> web.Response:
    """POST /v1/rewards: one, or a list of which each gets a result of its own."""
    learning = learning_of(request)
    return await _one_or_list(request, learning, learning.reward)


async def comparisons(request: web.Request) -> web.Response:
    """POST /v1/comparisons: one, or a list of which each gets a result of its own."""
    learning = learning_of(request)
    return await _one_or_list(request, learning, learning.compare)


@dataclass(frozen=True, slots=True)
class Learning:
    """Outcomes as one caller sends them, over HTTP or the stream."""

    router: Router
    gate: Gate
    caller: Caller

    async def reward(self, item: Any) -> Result:
        """Learn from one reward; its result. Raises what was wrong with it."""
        try:
            asked = wire.convert(item, wire.RewardRequest)
        except ServiceError as error:
            self.router.count_reward(_named(item), outcome_of(error))
            raise
        return await self.take(asked)

    async def take(self, asked: wire.RewardRequest) -> Result:
        """The same of one that was read."""
        router = self.router
        try:
            if asked.session or asked.conversation:
                return await self._session(asked)
            status = await self._taught(asked, router.reward)
        except ServiceError as error:
            router.count_reward(asked.decision_id, outcome_of(error))
            raise
        router.count_reward(asked.decision_id, status)
        logs.decision_id.set(asked.decision_id or "")
        return Result(decision_id=asked.decision_id, status=status)

    async def _session(self, asked: wire.RewardRequest) -> Result:
        """Learn what is said of a session: for a key's share as much as all that it teaches."""
        asked.tenant = self.caller.tenant_for(asked.tenant)
        with self.gate.teaching(self.caller):
            status, credited = await self.router.reward_session(asked)
        if status == "accepted":
            for _ in range(credited):
                self.gate.taught(self.caller)
        self.router.count_reward(None, status)
        return Result(decision_id=None, status=status, credited=credited)

    async def compare(self, item: Any) -> Result:
        """Learn from one comparison; its result. Raises what was wrong with it."""
        try:
            asked = wire.convert(item, wire.CompareRequest)
            status = await self._taught(asked, self.router.compare)
        except ServiceError:
            self.router.count_comparison("refused")
            raise
        self.router.count_comparison(status)
        logs.decision_id.set(asked.decision_id or "")
        return Result(decision_id=asked.decision_id, status=status)

    async def _taught(
        self, asked: Reported, learn: Callable[[Reported, str | None], Awaitable[str]]
    ) -> str:
        if asked.decision_id is None:
            self.caller.may_stand_alone()
            asked.tenant = self.caller.tenant_for(asked.tenant)
        with self.gate.teaching(self.caller):
            status = await learn(asked, self.caller.tenant)
        if status == "accepted":
            self.gate.taught(self.caller)
        return status

    def again(self) -> None:
        """One more request, for what came in one list or stream; raises as `Gate.admit` does."""
        self.gate.again(self.caller, clock.now(), time.monotonic())


def learning_of(request: web.Request) -> Learning:
    """The way by which this request's outcomes are learned."""
    return Learning(request.app[ROUTER], request.app[GATE], request[CALLER])


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
        async with window:  # lets them in in their order
            try:
                if not first:  # the request itself stood for one
                    learning.again()
                return await learn(item)
            except ServiceError as error:
                request.app[TELEMETRY].rejected(error)
                await asyncio.sleep(0)  # it waited for nothing, and others are to have a turn, too
                return Result(decision_id=_named(item), status="error", error=ErrorDetail.of(error))

    results = (result(item, i == 0) for i, item in enumerate(body))
    return reply(Results(results=await asyncio.gather(*results)))


def _named(item: Any) -> str | None:
    """The decision that an item of a list names, if it is one and its name is text."""
    found = item.get("decision_id") if isinstance(item, dict) else None
    return found if isinstance(found, str) else None


def outcome_of(error: ServiceError) -> str:
    """As what an outcome that got this error is counted."""
    match error:
        case Unknown():
            return "unknown"
        case Expired():
            return "expired"
        case Conflict():
            return "conflict"
        case _:
            return "refused"
