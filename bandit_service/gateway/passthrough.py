"""Requests that name their arm and are passed on as they are: embeddings.

Nothing is decided and nothing learned, since embeddings of two models cannot be mixed; but they
cost money, so they reserve and settle like any other request, and what they cost is an event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from bandit_service.core import events as ev
from bandit_service.core.errors import Busy, Unknown
from bandit_service.gateway import spans
from bandit_service.gateway.accounts import book
from bandit_service.gateway.budgets import Budgets
from bandit_service.gateway.client import Client, Reply
from bandit_service.gateway.health import Health
from bandit_service.gateway.money import cost_usd
from bandit_service.gateway.request_size import likely_usd, most_usd, size_of
from bandit_service.gateway.resources import GatewayRules, counted, gave_none
from bandit_service.gateway.upstreams import Failed, Rejected, Upstreams, error_body, whole
from bandit_service.gateway.usage import counts_of, usage_in
from bandit_service.runtime.router import Router
from bandit_service.telemetry.telemetry import Telemetry
from policies import ArmId


class Passing:
    """Sends a request to the arm that it names and gives back what that says."""

    def __init__(
        self,
        router: Router,
        upstreams: Upstreams,
        rules: GatewayRules,
        health: Health,
        budgets: Budgets,
        telemetry: Telemetry,
    ) -> None:
        self._router = router
        self._upstreams = upstreams
        self._rules = rules
        self._health = health
        self._budgets = budgets
        self._telemetry = telemetry

    async def answer(
        self, client: Client, path: str, body: dict[str, Any], arm: str, tenant: str, key: str
    ) -> Reply:
        """The arm's answer, or its error; Unknown without such an arm, Busy, BudgetExhausted."""
        record = self._router.world.arms.get(ArmId(arm))
        if record is None or record.retired or record.spec.upstream not in self._upstreams:
            raise Unknown(f"model: no arm {arm!r} with an upstream", param="model")
        spec, writer, size = record.spec, self._router.writer, size_of(body)
        if self._health.full(arm, spec.max_running):
            raise Busy(f"{arm}: concurrency limit reached (max_running)")
        most, now = most_usd(spec, size), writer.now()
        self._budgets.fitting(self._router.world.spend, {arm: most}, tenant, key, now)
        held = writer.new_id(now)
        self._budgets.reserve(held, most, tenant, key)
        answer: dict[str, Any] | None = None
        try:
            with client.waiting():
                answer = await self._called(client, path, body, spec)
            cost = cost_usd(_of_the_prompt(usage_in(answer)), spec)
            usd = likely_usd(spec, size) if cost is None else cost
            self._telemetry.passed(arm, usd)
            told = await asyncio.shield(book(self._router, usd, tenant, key)) and cost is not None
        except asyncio.CancelledError:  # the client left, and the provider has probably worked
            if answer is None:
                await book(self._router, likely_usd(spec, size), tenant, key)
            raise
        except Rejected as rejected:
            return Reply(error_body(rejected, arm), {"x-arm": arm}, rejected.status)
        except Failed as failed:
            raise gave_none(arm, failed) from None
        finally:
            self._budgets.settle(held)
        headers = {"x-arm": arm}
        if told:
            headers["x-cost-usd"] = f"{cost:.8f}"
        return Reply(msgspec.json.encode(answer), headers)

    async def _called(
        self, client: Client, path: str, body: dict[str, Any], spec: ev.ArmSpec
    ) -> dict[str, Any]:
        sent, upstream = body | {"model": spec.model or spec.id}, spec.upstream
        with (
            counted(self._health, spec.id),
            spans.calling(path, spec, self._upstreams.spec(upstream), sent) as span,
        ):
            onward = span.onward(onward_of(client.headers))
            async with self._upstreams.send(upstream, path, sent, onward) as given:
                answer = await whole(given, self._rules.max_answer_bytes)
            span.answered(answer)
        return answer


def _of_the_prompt(usage: Any) -> Any:
    """A usage of which all is the prompt's: some tell nothing but the total."""
    if isinstance(usage, dict) and counts_of(usage) is None:
        return {"prompt_tokens": usage.get("total_tokens")}
    return usage


def onward_of(headers: Mapping[str, str]) -> dict[str, str]:
    """What of the client's headers goes on to the upstream."""
    return {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
