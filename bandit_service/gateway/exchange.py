"""What came of a call: health, counts, the money settled, and the outcome that is learned.

All of it is in the log, with the kernel, before this returns, and an answer is given only then: a
cost that a client was told of survives a kill. It goes on where the client leaves meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time

from bandit_service.core.errors import ServiceError
from bandit_service.core.outcomes import Signals
from bandit_service.embedding import estimate_tokens
from bandit_service.gateway.accounts import book
from bandit_service.gateway.affinity import Affinity
from bandit_service.gateway.budgets import Budgets
from bandit_service.gateway.health import Health
from bandit_service.gateway.money import cached_tokens, completion_tokens, cost_usd, saved_usd
from bandit_service.gateway.request_size import likely_usd
from bandit_service.gateway.resources import Call, GatewayRules
from bandit_service.gateway.upstreams import Failed
from bandit_service.gateway.usage import counts_of, merged
from bandit_service.runtime.router import Router
from bandit_service.telemetry.telemetry import Telemetry

_log = logging.getLogger("bandit.gateway")


class Teaching:
    """Every call ends here, in one of four ways, and once."""

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
        self._tasks: set[asyncio.Task[bool]] = set()

    async def close(self) -> None:
        """Wait for the outcomes under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def answered(self, call: Call, usage: object, said: int) -> float | None:
        """The arm answered, so many bytes; the cost where it is known and in the log."""
        self._health.succeeded(call.spec.id)
        for refused in call.before:
            await self.outdone(refused)
        return await self._ended(call, usage, said)

    async def left(
        self, call: Call, usage: object = None, said: int | None = None, by_client: bool = True
    ) -> None:
        """The client went away, or was cut off: nothing is learned of the arm's health.

        said: how many bytes had come by then; None where nothing was seen of the answer.
        """
        if call.ended:
            return
        self._health.left(call.spec.id)
        if by_client:
            self._telemetry.client_left()
        if said is None:
            waited = self._latency(call, time.perf_counter(), None, cut=True)
            await self._teach(call, Signals(latency_s=waited), likely_usd(call.spec, call.size))
        else:
            await self._ended(call, _so_far(usage, said), said, cut=True)

    def rejected(self, call: Call) -> None:
        """The provider refuses the request: nothing is paid, nor learned unless another answers."""
        call.ended, call.refused = True, time.perf_counter()
        self._health.refused(call.spec.id)
        self._budgets.settle(call.decided.id)

    async def outdone(self, call: Call) -> None:
        """The arm refused what another answered: it was about the arm, and the policy learns it."""
        self._telemetry.upstream_failed(call.spec.id, "refused")
        latency_s = self._latency(call, call.refused or time.perf_counter(), None)
        seen = Signals(quality=self._rules.failure_quality, latency_s=latency_s)
        await self._teach(call, seen, 0.0)

    async def failed(self, call: Call, failed: Failed, usage: object = None, said: int = 0) -> None:
        """The arm gave no answer, or broke off: the policy learns how reliable it is."""
        self._health.failed(call.spec.id, time.monotonic(), failed.retry_after_s)
        self._telemetry.upstream_failed(call.spec.id, "timeout" if failed.timeout else "failed")
        _log.warning("upstream failed", extra={"decision_id": call.decided.id, "why": str(failed)})
        latency_s = self._latency(call, time.perf_counter(), None)
        cost = cost_usd(_so_far(failed.usage if usage is None else usage, said), call.spec)
        seen = Signals(quality=self._rules.failure_quality, cost_usd=cost, latency_s=latency_s)
        await self._teach(call, seen, likely_usd(call.spec, call.size, said) if said else 0.0)

    async def _ended(self, call: Call, usage: object, said: int, cut: bool = False) -> float | None:
        now = time.perf_counter()
        cost = cost_usd(usage, call.spec)
        tokens = completion_tokens(usage)
        self._affinity.used(call.conversation, call.spec.id, time.monotonic())
        self._telemetry.cached_prompt(cached_tokens(usage), saved_usd(usage, call.spec))
        self._telemetry.answered(
            call.spec.id, now - call.begun, (call.first or now) - call.begun, tokens
        )
        seen = Signals(cost_usd=cost, latency_s=self._latency(call, now, tokens, cut))
        written = await self._teach(call, seen, likely_usd(call.spec, call.size, said))
        return cost if written else None

    def _latency(
        self, call: Call, now: float, tokens: int | None, cut: bool = False
    ) -> float | None:
        """The latency that is taught.

        cut: the client did not wait for the end, so that the time it did wait is a lower bound. It
        says something of the arm where it is more than that usually takes, and nothing else does.
        """
        signal = self._rules.latency_signal
        latency_s = (call.first or now if signal == "first_token" else now) - call.begun
        if signal == "per_token":
            latency_s /= max(1, tokens or call.spec.expected_output_tokens)
        if cut and (call.first is None or signal != "first_token"):
            usual = self._router.world.arms[call.decided.arm].expected_latency_s()
            return latency_s if usual is None or latency_s > usual else None
        return latency_s

    async def _teach(self, call: Call, seen: Signals, guess_usd: float) -> bool:
        """Whether the cost is in the log. guess_usd: what is booked where none was seen."""
        call.ended = True
        task = asyncio.get_running_loop().create_task(self._settled(call, seen, guess_usd))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _settled(self, call: Call, seen: Signals, guess_usd: float) -> bool:
        decided, usd = call.decided, seen.cost_usd
        try:
            written = seen == Signals() or await self._observe(decided.id, seen)
            if usd is None and guess_usd > 0.0:
                usd = guess_usd
                self._telemetry.estimated(decided.arm, usd)
            elif written or usd is None:
                return written
            return await book(self._router, usd, decided.tenant, decided.caller, decided.id)
        finally:
            self._budgets.settle(decided.id)

    async def _observe(self, decision_id: str, seen: Signals) -> bool:
        try:
            status = await self._router.observe(decision_id, seen)
        except ServiceError as error:
            _log.error(
                "outcome not learned", extra={"decision_id": decision_id, "why": error.message}
            )
            return False
        self._router.count_reward(decision_id, status)
        return True


def _so_far(usage: object, said: int) -> object:
    """A usage that was told before the end, with at least as many tokens as were said by then."""
    if counts_of(usage) is None:
        return usage
    return merged(usage, {"completion_tokens": estimate_tokens(said)})
