"""Embeddings: the request names its arm, and is passed on as it is.

Nothing is decided and nothing learned, since embeddings of two models cannot be mixed; but they
cost money, so they reserve and settle like any other request, and their cost is an event.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bandit_service.core.errors import Busy, Unknown
from bandit_service.gateway.accounts import CallerAccount
from bandit_service.gateway.client import Client, Reply
from bandit_service.gateway.exchange import Exchange
from bandit_service.gateway.failures import Failed, Rejected, rejection, upstream_error
from bandit_service.gateway.money import cost_usd, likely_usd, max_usd
from bandit_service.gateway.request import forwarded
from bandit_service.gateway.request_size import size_of
from bandit_service.gateway.resources import Resources
from bandit_service.gateway.usage import counts_of


class Passthrough:
    """Sends a request to the arm that it names, and returns the arm's answer."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    async def answer(
        self, client: Client, path: str, body: dict[str, Any], arm: str, tenant: str, key: str
    ) -> Reply:
        """The arm's answer or its refusal.

        Raises Unknown if there is no such arm, Busy, BudgetExhausted, and UpstreamError.
        """
        resources = self._resources
        spec, size = resources.callable_arm(arm), size_of(body)
        if spec is None:
            raise Unknown(f"model: no arm {arm!r} with an upstream", param="model")
        if resources.health.full(arm, spec.max_running):
            raise Busy(f"{arm}: concurrency limit reached (max_running)")
        router, usd = resources.router, max_usd(spec, size)
        now = router.writer.now()
        resources.budgets.fitting(router.world.spend, {arm: usd}, tenant, key, now)
        account = CallerAccount(resources, router.writer.new_id(now), usd, tenant, key)
        headers = {"x-arm": arm}
        try:
            async with Exchange(resources, spec, size, account) as exchange:
                with client.waiting():
                    answer = await exchange.whole(path, body, forwarded(client.headers))
                exchange.usage = _of_the_prompt(exchange.usage)
                cost = cost_usd(exchange.usage, spec)
                resources.telemetry.passed(arm, likely_usd(spec, size) if cost is None else cost)
        except Rejected as rejected:
            return Reply(
                msgspec.json.encode({"error": rejection(rejected, arm)}), headers, rejected.status
            )
        except Failed as failed:
            raise upstream_error(arm, failed) from None
        if exchange.cost_usd is not None:
            headers["x-cost-usd"] = f"{exchange.cost_usd:.8f}"
        return Reply(msgspec.json.encode(answer), headers)


def _of_the_prompt(usage: Any) -> Any:
    """A usage that is all the prompt's: some providers report nothing but the total."""
    if isinstance(usage, dict) and counts_of(usage) is None:
        return {"prompt_tokens": usage.get("total_tokens")}
    return usage
