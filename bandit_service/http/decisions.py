"""Decisions: made, explained, looked up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from bandit_service import logs, wire
from bandit_service.core import events as ev
from bandit_service.core.decide import Weighed
from bandit_service.core.errors import OutOfTime
from bandit_service.core.explanation import weighed_arms
from bandit_service.http.auth import Caller
from bandit_service.http.connections import while_there
from bandit_service.http.frame import CALLER, ROUTER, body_of, patience_of, reply
from bandit_service.runtime.router import Router
from policies import Outcome


async def decide(request: web.Request) -> web.Response:
    """POST /v1/decide."""
    seconds = patience_of(request)
    try:
        with while_there(request):
            async with asyncio.timeout(seconds):
                return await _decide(request)
    except TimeoutError:
        raise OutOfTime(f"no decision within {seconds:g} s, which X-Request-Timeout says") from None


async def _decide(request: web.Request) -> web.Response:
    asked = wire.convert(wire.decode_request(await body_of(request)), wire.DecideRequest)
    asked.tenant = request[CALLER].tenant_for(asked.tenant)
    body = await decided(request.app[ROUTER], asked, request[CALLER])
    return reply(body, headers={"x-decision-id": body["decision_id"]})


async def explain(request: web.Request) -> web.Response:
    """POST /v1/explain: what would be decided and why; nothing is decided."""
    asked = wire.convert(wire.decode_request(await body_of(request)), wire.ExplainRequest)
    caller, router = request[CALLER], request.app[ROUTER]
    if asked.decision_id is None:
        asked.tenant = caller.tenant_for(asked.tenant)
    weighed, left_out = await router.explain(asked, caller.tenant)
    shown = weighed.neighbours if caller.tenant is None else ()  # others' queries are not theirs
    neighbours = [
        {
            "id": each.id,
            "similarity": each.similarity,
            "outcomes": outcomes_body(each.outcomes),
        }
        for each in shown
    ]
    return reply(
        {
            "policy": weighed.policy,
            "arms": weighed_arms(weighed),
            "left_out": left_out,
            "neighbours": neighbours,
            "fallback": weighed.fallback,
        }
    )


async def decision(request: web.Request) -> web.Response:
    """GET /v1/decisions/{id}: why this arm, and what came back for it."""
    caller, router = request[CALLER], request.app[ROUTER]
    pending = router.find(request.match_info["id"], caller.tenant)
    logs.decision_id.set(pending.decided.id)
    decided, remembered = pending.decided, router.world.history.items
    body = wire.decided_body(decided) | _why(decided, caller)
    for each in body["neighbours"]:  # as they are known now; what has left is without
        item = remembered.get(each["id"])
        each["outcomes"] = outcomes_body(item.outcomes if item is not None else ())
    body |= {
        "ts": decided.ts,
        "tokens": decided.tokens,
        "willingness_to_pay": decided.willingness_to_pay,
        "signals": pending.signals,
        "settled": pending.settled,
        "unit": decided.unit,
        "tenant": decided.tenant,
    }
    return reply(body)


async def decided(router: Router, asked: wire.DecideRequest, caller: Caller) -> dict[str, Any]:
    """Decide; the answer, explained if that was asked for."""
    seen: list[Weighed] = []
    event = await router.decide(
        asked, caller=caller.key, look=seen.append if asked.explain else None
    )
    body = wire.decided_body(event)
    return body | _why(event, caller) | {"arms": weighed_arms(seen[0])} if seen else body


def _why(event: ev.Decided, caller: Caller) -> dict[str, Any]:
    """What the record says of why, as far as it is for this caller."""
    body = wire.explained_body(event)
    if caller.tenant is not None:  # how near the queries of others were is not for one tenant
        body["neighbours"] = []
    return body


def outcomes_body(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """What came back for one remembered query."""
    return [{"arm": one.arm, "reward": one.reward} for one in outcomes]
