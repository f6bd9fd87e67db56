"""Embeddings: passed on to the named arm, or for `auto` to the cheapest arm that answers.

The policy decides and learns nothing: vectors have no quality that could be reported. But they cost
money. So they reserve and settle it like any other request, and their cost is an event.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from bandit_service.core import events as ev
from bandit_service.core.arm_kinds import JUDGE, embedders, not_for_chat
from bandit_service.core.deployments import calls_of
from bandit_service.core.errors import Busy, Refused, ServiceError, Unknown
from bandit_service.core.routes import AUTO
from bandit_service.core.spend import Payer
from bandit_service.gateway import deployments
from bandit_service.gateway.accounts import CallerAccount
from bandit_service.gateway.allowance import Allowance
from bandit_service.gateway.client import Client, Reply
from bandit_service.gateway.exchange import Exchange
from bandit_service.gateway.failures import Failed, Rejected, rejection, upstream_error
from bandit_service.gateway.large_requests import apart
from bandit_service.gateway.money import cost_usd, likely_usd, max_usd
from bandit_service.gateway.request import EMBEDDINGS, forwarded, is_auto
from bandit_service.gateway.request_size import Size, size_of
from bandit_service.gateway.resources import Resources
from bandit_service.gateway.usage import counts_of
from bandit_service.gateway.vectors import missing, wrong_length


class Embedding:
    """Sends a request to an arm, and returns the arm's answer."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    async def answer(
        self, client: Client, body: dict[str, Any], model: str, tenant: str, key: str, parts: int
    ) -> Reply:
        """The answer of the arm that is named; of the first that answers with `auto`. parts: of the
        body, as `wire.parts_of`.

        Raises Unknown if there is no such arm, Refused if it embeds nothing, Busy, BudgetExhausted,
        and UpstreamError.
        """
        size = await apart(parts, lambda: size_of(body, parts=parts))
        refused: tuple[Rejected, ev.ArmSpec] | None = None
        failed: ServiceError | None = None
        settings, payer = self._resources.settings, Payer(tenant, key)
        allowance = Allowance(settings)
        for spec in self._candidates(model, size)[: settings.attempts]:
            if why := allowance.spent():
                if refused is not None:
                    refused[0].why = why
                elif failed is not None:
                    failed.ended(why)
                break
            try:
                return await self._asked(client, body, spec, size, payer, allowance)
            except Rejected as rejected:  # it may be about this arm
                refused = refused or (rejected, spec)
            except ServiceError as error:
                failed = failed or error
        if refused is not None:
            return _refusal(*refused)
        assert failed is not None
        raise failed

    def _candidates(self, model: str, size: Size) -> Sequence[ev.ArmSpec]:
        if not is_auto(model):
            return [self._named(model)]
        if model != AUTO:
            raise Refused(
                "model: embeddings go to the cheapest arm that answers, without a policy or "
                "preferences; send auto, or name an arm",
                param="model",
            )
        return self._offered(size)

    def _named(self, id: str) -> ev.ArmSpec:
        spec = self._resources.callable_arm(id)
        if spec is None:
            raise Unknown(f"model: no arm {id!r} with an upstream", param="model")
        if spec.kind == JUDGE:
            raise Refused(f"model: {not_for_chat(spec)}", param="model")
        return spec

    def _offered(self, size: Size) -> Sequence[ev.ArmSpec]:
        """The arms that embed, the cheapest first; those that answer, if any does."""
        arms = embedders(self._resources.models())
        if not arms:
            raise Refused(
                "model: embeddings of two models cannot be mixed; name an arm, or configure arms "
                'with kind = "embedding" and the same dimensions',
                param="model",
            )
        health, now = self._resources.health, time.monotonic()
        well = [
            spec
            for spec in arms
            if deployments.available(spec, health, now) and not deployments.full(spec, health)
        ]
        return sorted(well or arms, key=lambda spec: (likely_usd(spec, size), spec.id))

    async def _asked(
        self,
        client: Client,
        body: dict[str, Any],
        spec: ev.ArmSpec,
        size: Size,
        payer: Payer,
        allowance: Allowance,
    ) -> Reply:
        """One arm's answer. Raises also Rejected."""
        resources, arm = self._resources, spec.id
        router, usd = resources.router, max(max_usd(each, size) for each in calls_of(spec))
        while True:
            now = router.writer.now()
            resources.budgets.fitting(router.world.spend, {arm: usd}, payer, now)
            if not usd or await resources.budgets.secured(usd, payer, now):
                break
        if deployments.full(spec, resources.health):
            raise Busy(f"{arm}: concurrency limit reached (max_running)")
        account = CallerAccount(resources, router.writer.new_id(now), usd, payer)
        headers = {"x-arm": str(arm)}
        exchange = Exchange(resources, spec, size, account, key=account.id, allowance=allowance)

        async def ask() -> dict[str, Any]:
            answer = await exchange.whole(EMBEDDINGS, body, forwarded(client.headers))
            exchange.usage = _of_the_prompt(exchange.usage)
            dimensions = None if body.get("dimensions") else spec.dimensions
            wrong = missing(answer, body.get("input")) or wrong_length(answer, dimensions)
            if wrong:
                raise Failed(wrong, usage=exchange.usage)
            return answer

        try:
            async with exchange:
                with client.waiting():
                    answer = await exchange.over(ask)
                at = exchange.spec
                cost = cost_usd(exchange.usage, at)
                resources.telemetry.passed(arm, likely_usd(at, size) if cost is None else cost)
        except Failed as failed:
            raise upstream_error(arm, failed) from None
        if exchange.deployment:
            headers["x-deployment"] = exchange.deployment
        if exchange.cost_usd is not None:
            headers["x-cost-usd"] = f"{exchange.cost_usd:.8f}"
        return Reply(msgspec.json.encode(answer), headers)


def _refusal(rejected: Rejected, spec: ev.ArmSpec) -> Reply:
    error = {"error": rejection(rejected, spec.id)}
    return Reply(msgspec.json.encode(error), {"x-arm": spec.id}, rejected.status)


def _of_the_prompt(usage: Any) -> Any:
    """A usage that is all the prompt's: some providers report nothing but the total."""
    if isinstance(usage, dict) and counts_of(usage) is None:
        return {"prompt_tokens": usage.get("total_tokens")}
    return usage
