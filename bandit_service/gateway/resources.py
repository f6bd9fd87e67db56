"""What every part of the gateway works with, held in one place."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from bandit_service.core import events as ev
from bandit_service.gateway.affinity import Affinity
from bandit_service.gateway.budgets import Budgets
from bandit_service.gateway.failures import Rejected
from bandit_service.gateway.health import Health
from bandit_service.gateway.upstreams import Upstreams
from bandit_service.runtime.router import Router
from bandit_service.telemetry.telemetry import Telemetry
from policies import ArmId

_MAX_TRIED = 20


@dataclass(frozen=True, slots=True)
class GatewayRules:
    """attempts: arms tried for one request. failure_quality: the quality of a failed answer.

    latency_signal: what is reported as latency_s: "total" for the whole answer, "first_token", or
    "per_token" for the whole divided by the tokens of the answer. max_answer_bytes: of an answer,
    and of one event of a stream. keep_alive_s: silence after which a stream's client gets a
    comment. verdict_s: CPU seconds that a pattern or a schema may take.
    """

    attempts: int = 3
    failure_quality: float = 0.0
    latency_signal: str = "total"
    max_answer_bytes: int = 33_554_432
    keep_alive_s: float = 15.0
    verdict_s: float = 1.0

    def exhausted(self, tried: int, refused: Sequence[tuple[object, Rejected]]) -> bool:
        """Whether no further arm is tried for a request.

        An arm that says it cannot do the request tells nothing about the others, so it does not
        count as an attempt.
        """
        unsuited = sum(rejected.unsuited for _, rejected in refused)
        return self.attempts == 1 or tried - unsuited >= self.attempts or tried >= _MAX_TRIED


@dataclass(frozen=True, slots=True)
class Resources:
    """The parts of the service that a call needs. `close` them at the end."""

    router: Router
    upstreams: Upstreams
    rules: GatewayRules
    health: Health
    affinity: Affinity
    budgets: Budgets
    telemetry: Telemetry
    _finishing: set[asyncio.Task[bool]] = field(default_factory=set)

    def callable_arm(self, id: str) -> ev.ArmSpec | None:
        """The arm, unless it is retired or has no upstream."""
        record = self.router.world.arms.get(ArmId(id))
        if record is None or record.retired or record.spec.upstream not in self.upstreams:
            return None
        return record.spec

    async def finish(self, work: Coroutine[Any, Any, bool]) -> bool:
        """Do this to its end, even if the caller is cancelled meanwhile."""
        task = asyncio.get_running_loop().create_task(work)
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)
        return await asyncio.shield(task)

    async def finished(self) -> None:
        """Wait until all of it is done."""
        await asyncio.gather(*self._finishing, return_exceptions=True)

    async def close(self) -> None:
        """Finish what is being written down, and close the connections."""
        await self.finished()
        await self.upstreams.close()
