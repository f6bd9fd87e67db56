"""What came of a call: health, counts, the money settled, and the outcome that is learned."""

from __future__ import annotations

import asyncio
import logging
import time

from bandit_service.core.errors import ServiceError
from bandit_service.core.outcomes import Signals
from bandit_service.gateway.affinity import Affinity
from bandit_service.gateway.budgets import Budgets
from bandit_service.gateway.calls import Call, GatewayRules
from bandit_service.gateway.health import Health
from bandit_service.gateway.upstreams import Failed
from bandit_service.gateway.usage import cached_tokens, completion_tokens, cost_usd, saved_usd
from bandit_service.monitoring.telemetry import Telemetry
from bandit_service.router import Router

_log = logging.getLogger("bandit.gateway")


class Teaching:
    """Every call ends here, in one of four ways. Outcomes are learned in the background."""

    def __init__(
        self,
        router: Router,
        rules: GatewayRules,
        health: Health,
        affinity: Affinity,
        budgets: Budgets,
        telemetry: Telemetry,
    ) -> None:
        self._router = router
        self._rules = rules
        self._health = health
        self._affinity = affinity
        self._budgets = budgets
        self._telemetry = telemetry
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait for the outcomes under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def answered(self, call: Call, usage: object) -> float | None:
        """The arm answered; the cost where it is known."""
        self._health.succeeded(call.spec.id)
        return self._ended(call, usage)

    def left(self, call: Call, usage: object) -> None:
        """The client went away in the middle: nothing is learned of the arm's health."""
        self._health.left(call.spec.id)
        self._telemetry.client_left()
        self._ended(call, usage)

    def rejected(self, call: Call) -> None:
        """The provider says that the request is wrong: nothing is learned, and nothing paid."""
        self._health.left(call.spec.id)
        self._budgets.settle(call.decided.id)

    def failed(self, call: Call, failed: Failed, usage: object = None) -> None:
        """The arm gave no answer, or broke off: the policy learns how reliable it is."""
        self._health.failed(call.spec.id, time.monotonic(), failed.retry_after_s)
        self._telemetry.upstream_failed(call.spec.id, "timeout" if failed.timeout else "failed")
        _log.warning("upstream failed", extra={"decision_id": call.decided.id, "why": str(failed)})
        now = time.perf_counter()
        self._teach(call, cost_usd(usage, call.spec), now, self._rules.failure_quality)

    def _ended(self, call: Call, usage: object) -> float | None:
        now = time.perf_counter()
        cost = cost_usd(usage, call.spec)
        tokens = completion_tokens(usage)
        self._affinity.used(call.conversation, call.spec.id, time.monotonic())
        self._telemetry.cached_prompt(cached_tokens(usage), saved_usd(usage, call.spec))
        self._telemetry.answered(
            call.spec.id, now - call.begun, (call.first or now) - call.begun, tokens
        )
        self._teach(call, cost, now, tokens=tokens)
        return cost

    def _teach(
        self,
        call: Call,
        cost: float | None,
        now: float,
        quality: float | None = None,
        tokens: int | None = None,
    ) -> None:
        signal = self._rules.latency_signal
        latency_s = (call.first or now if signal == "first_token" else now) - call.begun
        if signal == "per_token":
            latency_s /= max(1, tokens or call.spec.expected_output_tokens)
        seen = Signals(quality=quality, cost_usd=cost, latency_s=latency_s)
        task = asyncio.get_running_loop().create_task(self._observe(call.decided.id, seen))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _observe(self, decision_id: str, seen: Signals) -> None:
        try:
            status = await self._router.observe(decision_id, seen)
        except ServiceError as error:
            _log.error(
                "outcome not learned", extra={"decision_id": decision_id, "why": error.message}
            )
            return
        finally:
            self._budgets.settle(decision_id)
        self._router.count_reward(decision_id, status)
