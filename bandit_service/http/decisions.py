"""Decisions: make, explain, look up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID

from aiohttp import web
from msgspec import UNSET

from bandit_service import logs, wire
from bandit_service.core import events as ev
from bandit_service.core.decide import Weighed
from bandit_service.core.display import rounded
from bandit_service.core.errors import OutOfTime, Refused
from bandit_service.core.explanation import belief, weighed_arms
from bandit_service.core.fields import MAX_NAME
from bandit_service.core.metric_spec import NamedMetric
from bandit_service.core.resolved import Pending
from bandit_service.core.routes import AUTO
from bandit_service.core.tags import tags_of
from bandit_service.gateway.request import header
from bandit_service.http.auth import Caller
from bandit_service.http.connections import WhileThere, connection_of
from bandit_service.http.middleware import (
    CALLER,
    ROUTER,
    TELEMETRY,
    WAITED,
    body_of,
    reply,
    timeout_of,
)
from bandit_service.http.pools import HOMES
from bandit_service.http.responses.decisions import (
    Decision,
    DecisionList,
    DecisionRow,
    Expected,
    Explanation,
    Measured,
    Neighbour,
    OutcomeOf,
)
from bandit_service.runtime.router import Router
from policies import ArmId, Outcome

IDEMPOTENCY_KEY = "Idempotency-Key"
_USUAL, _MOST = 50, 500
_LOOKED_AT = 2_000
"""The number of decisions that one answer searches, so that no request blocks the loop for long."""


async def decide(request: web.Request) -> web.Response:
    """POST /v1/decide."""
    seconds = timeout_of(request)
    with WhileThere(connection_of(request)):
        if seconds is None:
            return await _decide(request)
        try:
            async with asyncio.timeout(seconds - request.get(WAITED, 0.0)):
                return await _decide(request)
        except TimeoutError:
            late = f"no decision within the {seconds:g} s of X-Request-Timeout"
            raise OutOfTime(late) from None


async def _decide(request: web.Request) -> web.Response:
    asked = wire.read(await body_of(request), wire.DecideRequest)
    asked.tenant = request[CALLER].tenant_for(asked.tenant)
    asked.idempotency_key = asked.idempotency_key or _key_of(request)
    home = await request.app[HOMES].home_of(asked.tenant, request.app)
    body = await decided(home[ROUTER], asked, request[CALLER])
    return reply(body, headers={"x-decision-id": body.decision_id})


def _key_of(request: web.Request) -> str:
    """The idempotency key of the header, "" without one."""
    key = header(request.headers, IDEMPOTENCY_KEY) or ""
    if len(key) > MAX_NAME:
        raise Refused(
            f"{IDEMPOTENCY_KEY}: at most {MAX_NAME} characters, got {len(key)}",
            param=IDEMPOTENCY_KEY,
        )
    return key


async def explain(request: web.Request) -> web.Response:
    """POST /v1/explain: the decision that would be made and why; nothing is decided."""
    asked = wire.read(await body_of(request), wire.ExplainRequest)
    caller = request[CALLER]
    if asked.decision_id is None:
        asked.tenant = caller.tenant_for(asked.tenant)
    homes, here, id = request.app[HOMES], request.app, asked.decision_id
    home = await homes.found(lambda: homes.of_outcome(id, asked.tenant, here))
    router = home[ROUTER]
    weighed, left_out = await router.explain(asked, caller.tenant)
    seen = (
        weighed.neighbours if caller.tenant is None else ()
    )  # a tenant does not see others' queries
    return reply(
        Explanation(
            policy=weighed.policy,
            arms=weighed_arms(weighed),
            left_out=left_out,
            neighbours=[
                Neighbour(
                    id=each.id, similarity=each.similarity, outcomes=outcomes_of(each.outcomes)
                )
                for each in seen
            ],
            fallback=weighed.fallback,
        )
    )


async def decision(request: web.Request) -> web.Response:
    """GET /v1/decisions/{id}: why this arm, and its outcomes."""
    caller, router = request[CALLER], request.app[ROUTER]
    await router.writer.arrived(request.match_info["id"])
    pending = router.pending.find(request.match_info["id"], caller.tenant)
    logs.decision_id.set(pending.decided.id)
    decided, remembered = pending.decided, router.world.history.items
    body = decision_of(decided)
    neighbours = _explain(body, decided, caller)
    for (
        each
    ) in neighbours:  # with their present outcomes; neighbours that left the history have none
        item = remembered.get(each.id)
        each.outcomes = outcomes_of(item.outcomes if item is not None else ())
    body.tags = decided.tags
    body.ts = decided.ts
    body.tokens = decided.tokens
    body.willingness_to_pay = decided.willingness_to_pay
    body.signals = _signals(pending)
    cost_usd = pending.signals.get("cost_usd", pending.guessed_usd)
    if cost_usd or "cost_usd" in pending.signals:
        body.cost_usd = rounded(cost_usd)
    body.settled = pending.reward is not None
    if measured := _measured(pending.signals, router.world.named.of(decided.route).specs):
        body.metrics, body.weighed = measured, pending.weighed
    if pending.deployment:
        body.deployment = pending.deployment
    if pending.redirected is not None:
        body.answered_by = pending.redirected
    body.unit = decided.unit
    body.tenant = decided.tenant
    reads = "texts" in caller.scopes
    if reads and router.texts is not None and await router.texts.has(decided.id):
        body.text = True
    return reply(body)


def _signals(pending: Pending) -> Mapping[str, float]:
    signals = pending.signals
    if "cost_usd" not in signals:
        return signals
    return {**signals, "cost_usd": rounded(signals["cost_usd"])}


def _measured(signals: Mapping[str, float], specs: Mapping[str, NamedMetric]) -> list[Measured]:
    return [
        Measured(
            name=name,
            value=signals[name],
            goodness=spec.goodness(signals[name]),
            weight=spec.weight,
        )
        for name, spec in specs.items()
        if name in signals
    ]


async def list_decisions(request: web.Request) -> web.Response:
    """GET /v1/decisions: the newest ones with these tags, of one arm or route."""
    caller, world = request[CALLER], request.app[ROUTER].world
    pending, baseline = world.pending.decisions, request.app[TELEMETRY].learning.fold.baseline
    query = request.rel_url.query
    wanted = frozenset(tags_of(query.getall("tag", []), "tag"))
    limit = _limit_of(query.get("limit", str(_USUAL)))
    if "arm" in query and ArmId(query["arm"]) not in world.arms:
        there_are = ", ".join(world.arms)
        raise Refused(f"arm: no {query['arm']!r}; expected one of {there_are}", param="arm")
    route = query.get("route")
    if route not in (None, AUTO, *world.routes.specs, *world.routes.ended):
        there_are = ", ".join((AUTO, *world.routes.specs))
        raise Refused(f"route: no {route!r}; expected one of {there_are}", param="route")
    rows: list[DecisionRow] = []
    older, last = pending.older_than(_before(query.get("before"))), ""
    for seen, id in enumerate(older):
        if len(rows) == limit or seen == _LOOKED_AT:
            return reply(DecisionList(decisions=rows, next=last, baseline=baseline.arm(world)))
        one, last = pending[id], id
        if (
            caller.tenant in (None, one.decided.tenant)
            and wanted <= set(one.decided.tags)
            and query.get("arm", one.decided.arm) == one.decided.arm
            and route in (None, one.decided.route or AUTO)
        ):
            would_cost = baseline.would_cost(one.decided, world)
            rows.append(_row(one, None if would_cost is None else would_cost[1]))
    return reply(DecisionList(decisions=rows, next=None, baseline=baseline.arm(world)))


def _before(text: str | None) -> str | None:
    """The id of a decision, which may be forgotten, in the form in which ids are compared."""
    if text is None:
        return None
    try:
        return str(UUID(text))
    except ValueError:
        raise Refused(
            f"before: must be the id of a decision, a UUID, got {text!r}", param="before"
        ) from None


def _limit_of(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= _MOST):
        raise Refused(f"limit: must be a number from 1 to {_MOST}, got {text!r}", param="limit")
    return int(text)


def _row(pending: Pending, baseline_usd: float | None) -> DecisionRow:
    decided = pending.decided
    return DecisionRow(
        decision_id=decided.id,
        ts=decided.ts,
        arm=decided.arm,
        propensity=decided.propensity,
        policy=decided.policy,
        tags=decided.tags,
        unit=decided.unit,
        tenant=decided.tenant,
        experiment=decided.experiment,
        variant=decided.variant,
        route=decided.route,
        signals=_signals(pending),
        reward=None if pending.reward is None else rounded(pending.reward),
        baseline_usd=None if baseline_usd is None else rounded(baseline_usd),
    )


async def decided(router: Router, asked: wire.DecideRequest, caller: Caller) -> Decision:
    """Decide; the answer, explained on request."""
    seen: list[Weighed] = []
    event = await router.decide(
        asked, caller=caller.key, look=seen.append if asked.explain else None
    )
    body = answer_of(router, event)
    if seen:
        _explain(body, event, caller)
        body.arms = weighed_arms(seen[0])
    elif asked.explain:  # the decision already existed, and what was weighed is not stored
        _explain(body, event, caller)
    return body


def answer_of(router: Router, decided: ev.Decided) -> Decision:
    """The answer to a decide, with the token by which its user may vote."""
    body = decision_of(decided)
    if token := router.feedback.token(decided):
        body.feedback_token = token
    return body


def decision_of(decided: ev.Decided) -> Decision:
    """The fields about a decision that every answer has."""
    n, quality, latency_s = (
        decided.expected_count,
        decided.expected_quality,
        decided.expected_latency_s,
    )
    untried = n == 0.0  # the policy's belief was its prior, without any evidence
    expected = Expected(
        cost_usd=rounded(decided.expected_cost_usd),
        n=UNSET if n is None else n,
        untried=True if untried else UNSET,
        quality=UNSET if untried or quality is None else quality,
        latency_s=UNSET if latency_s is None else latency_s,
    )
    body = Decision(
        decision_id=decided.id,
        arm=decided.arm,
        propensity=decided.propensity,
        policy=decided.policy,
        expected=expected,
    )
    if decided.experiment:
        body.experiment, body.variant = decided.experiment, decided.variant
    if decided.route:
        body.route = decided.route
    if decided.fallback:
        body.fallback = decided.fallback
    return body


def _explain(body: Decision, decided: ev.Decided, caller: Caller) -> list[Neighbour]:
    """Add the reasons in the record, as far as this caller may see them;

    returns the shown neighbours.
    """
    told = belief(decided.expected_quality, decided.expected_deviation, decided.expected_count)
    body.expected.prior, body.expected.low, body.expected.high = told.prior, told.low, told.high
    body.steps = list(decided.steps)
    if decided.scores:  # a log of rounded embeddings has none
        body.scores = dict(zip(decided.arms, decided.scores, strict=True))
    body.propensities = dict(zip(decided.arms, decided.propensities, strict=True))
    body.neighbours = neighbours = []
    if caller.tenant is None:  # one tenant does not see how similar others' queries were
        neighbours += [
            Neighbour(id=id, similarity=similarity)
            for id, similarity in zip(decided.neighbours, decided.similarities, strict=True)
        ]
    body.excluded = decided.excluded
    body.reason = decided.why
    if decided.conversation:
        body.conversation = decided.conversation
    if decided.before:
        body.stayed, body.before = decided.stayed, decided.before
    if decided.switch_usd:
        body.switch_usd = dict(zip(decided.arms, map(rounded, decided.switch_usd), strict=True))
    if decided.effort_asked:
        body.effort_asked = decided.effort_asked
    if decided.effort:
        body.effort = decided.effort
    body.untried = [decided.arms[k] for k in decided.untried]
    return neighbours


def outcomes_of(outcomes: Sequence[Outcome]) -> list[OutcomeOf]:
    """The outcomes of one remembered query."""
    return [OutcomeOf(arm=one.arm, reward=rounded(one.reward)) for one in outcomes]
