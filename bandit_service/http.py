"""HTTP: parse, call the router, render. Thin on purpose."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from aiohttp import web

import bandit_service
import policies
from bandit_service import clock, logs, settings, wire
from bandit_service.admission import Admission, Entrance, retry_after
from bandit_service.connections import Connection
from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.core.decide import unknown_policy
from bandit_service.core.errors import (
    Busy,
    Conflict,
    Denied,
    Expired,
    Forbidden,
    Malformed,
    OutOfTime,
    Refused,
    ServiceError,
    TooLarge,
    TooSlow,
    Unavailable,
    Unknown,
    UpstreamError,
)
from bandit_service.core.world import beside
from bandit_service.experiment_results import calibrated
from bandit_service.folding import FoldFailed
from bandit_service.keeper import Keeper
from bandit_service.live import page
from bandit_service.openapi import document
from bandit_service.router import Router
from bandit_service.security import ANYBODY, Caller, Gate
from bandit_service.telemetry import Telemetry
from policies import ArmId, Outcome
from store import StoreError

ROUTER = web.AppKey("router", Router)
KEEPER = web.AppKey("keeper", Keeper)
TELEMETRY = web.AppKey("telemetry", Telemetry)
GATE = web.AppKey("gate", Gate)
SETTINGS = web.AppKey("settings", settings.Settings)
ADMISSION = web.AppKey("admission", Admission)
DRAINING = web.AppKey("draining", asyncio.Event)

REQUEST_ID = web.RequestKey("request_id", str)
CALLER = web.RequestKey("caller", Caller)

CLIENT_GONE = 499
"""The status that is logged where the client left before its answer."""

_ELSEWHERE = ("cross-site", "same-site")
"""What a browser says of a request by a page that did not come from this very address."""

_access = logging.getLogger("bandit.access")
_encoder = msgspec.json.Encoder()
Reported = TypeVar("Reported", wire.RewardRequest, wire.CompareRequest)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def reply(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.Response(
        body=_encoder.encode(body), status=status, headers=headers, content_type="application/json"
    )


def failed(error: ServiceError) -> web.Response:
    """An error in OpenAI's shape."""
    headers = dict(error.headers)
    if isinstance(error, Busy | Unavailable):
        headers["Retry-After"] = retry_after(error.retry_after_s)
    if isinstance(error, UpstreamError) and error.retry_after_s:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, Denied):
        headers["WWW-Authenticate"] = "Bearer"
    return reply({"error": error.body()}, error.status, headers)


@web.middleware
async def frame(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A request id on every answer and log line, errors rendered, one count and one log line."""
    given = request.headers.get("x-request-id", "")
    id = given if given.isascii() and given.isprintable() and 0 < len(given) <= 128 else ""
    id = id or clock.Ids().new(clock.now())
    logs.request_id.set(id)
    request[REQUEST_ID] = id
    begun = time.perf_counter()
    try:
        if request.app[DRAINING].is_set() and request.path.startswith("/v1/"):
            request.app[TELEMETRY].shed("draining")
            raise Unavailable("the service is stopping; retry elsewhere or in a few seconds")
        request[CALLER] = _caller(request)
        response = await handler(request)
    except ServiceError as error:
        request.app[TELEMETRY].rejected(error)
        response = failed(error)
    except web.HTTPRequestEntityTooLarge:
        request.app[TELEMETRY].shed("body")
        limit = request.app[SETTINGS].server.max_body_bytes
        large = TooLarge(f"the body is larger than the {limit} bytes that are allowed")
        request.app[TELEMETRY].rejected(large)
        response = failed(large)
    except web.HTTPNotFound:
        response = failed(Unknown(f"no such path; GET /openapi.json lists them: {request.path}"))
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        response = reply(
            {"error": Refused(f"{request.method} is not allowed here, {allowed} is").body()},
            405,
            {"Allow": allowed},
        )
    except asyncio.CancelledError:
        _told(request, CLIENT_GONE, begun)
        raise
    except Exception:  # noqa: BLE001 - a bug: say so, show no inside
        _access.exception("internal error")
        response = failed(ServiceError("an error of ours; the request id finds it in the log"))
    entrance = None if request.transport is None else request.transport.get_protocol()
    if isinstance(entrance, Entrance):
        entrance.answered()
    _told(request, response.status, begun)
    return response


def _told(request: web.Request, status: int, begun: float) -> None:
    """One count and one log line."""
    resource = request.match_info.route.resource
    endpoint = "unmatched" if resource is None else resource.canonical
    seconds = time.perf_counter() - begun
    request.app[TELEMETRY].request(endpoint, status, seconds)
    _access.info(
        "request",
        extra={
            "endpoint": f"{request.method} {endpoint}",
            "code": status,
            "seconds": round(seconds, 6),
        },
    )


def _caller(request: web.Request) -> Caller:
    """Who asks; a path that is not there asks for nothing."""
    resource = request.match_info.route.resource
    if resource is None:
        return ANYBODY
    if request.path.startswith("/v1/") and request.headers.get("Sec-Fetch-Site") in _ELSEWHERE:
        raise Forbidden("a page of another origin may not ask for this", reason="origin")
    return request.app[GATE].admit(
        request.method,
        resource.canonical,
        request.headers.get("Authorization", ""),
        clock.now(),
        time.monotonic(),
    )


async def name_response(request: web.Request, response: web.StreamResponse) -> None:
    """Every answer carries its request id, the switch to a WebSocket too."""
    # what aiohttp itself refuses, such as a malformed header, never came to `frame`
    response.headers["x-request-id"] = request.get(REQUEST_ID) or clock.Ids().new(clock.now())


async def body_of(request: web.Request) -> bytes:
    """The body; TooSlow when it takes too long, Malformed when it breaks off."""
    server = request.app[SETTINGS].server
    seconds, size = server.body_s, request.content_length or 0
    if size > server.max_body_bytes:  # and nothing of it is read
        raise web.HTTPRequestEntityTooLarge(server.max_body_bytes, size)
    if request.content.is_eof():  # as nearly always
        return await request.read()
    try:
        async with asyncio.timeout(seconds):
            return await request.read()
    except TimeoutError:
        raise TooSlow(f"the body did not come in {seconds:g} s") from None
    except (web.RequestPayloadError, ConnectionError):
        raise Malformed("the body breaks off, or is not encoded as it says") from None


def patience_of(request: web.Request) -> float | None:
    """The seconds that the client waits at most, by `X-Request-Timeout`; None for ever."""
    given = request.headers.get("X-Request-Timeout")
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0.001 <= seconds <= 3600.0:
        raise Refused(
            "X-Request-Timeout: must be seconds from 0.001 to 3600",
            param="X-Request-Timeout",
        )
    return seconds


async def decide(request: web.Request) -> web.Response:
    """POST /v1/decide."""
    seconds, connection = patience_of(request), request.protocol
    assert isinstance(connection, Connection)
    connection.pointless = asyncio.current_task()
    try:
        if seconds is None:
            return await _decide(request)
        async with asyncio.timeout(seconds):
            return await _decide(request)
    except TimeoutError:
        raise OutOfTime(f"no decision within {seconds:g} s, which X-Request-Timeout says") from None
    finally:
        connection.pointless = None


async def _decide(request: web.Request) -> web.Response:
    asked = wire.convert(wire.decode_json(await body_of(request)), wire.DecideRequest)
    asked.tenant = request[CALLER].tenant_for(asked.tenant)
    event = await request.app[ROUTER].decide(asked, caller=request[CALLER].key)
    body = decide_body(event, request[CALLER], asked.explain)
    return reply(body, headers={"x-decision-id": event.id})


async def explain(request: web.Request) -> web.Response:
    """POST /v1/explain: what would be decided and why; nothing is decided."""
    asked = wire.convert(wire.decode_json(await body_of(request)), wire.DecideRequest)
    caller, router = request[CALLER], request.app[ROUTER]
    asked.tenant = caller.tenant_for(asked.tenant)
    weighed, left_out = await router.explain(asked)
    quality = weighed.proposal.quality
    arms = [
        {
            "id": record.spec.id,
            "propensity": float(weighed.propensities[k]),
            "score": float(weighed.proposal.scores[k]),
            "quality": None if quality is None else float(quality[k]),
            "cost_usd": float(weighed.arms.cost_usd[k]),
            "latency_s": record.expected_latency_s(),
        }
        for k, record in enumerate(weighed.records)
    ]
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
            "arms": arms,
            "left_out": left_out,
            "neighbours": neighbours,
            "fallback": weighed.fallback,
        }
    )


def outcomes_body(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """What came back for one remembered query."""
    return [{"arm": one.arm, "reward": one.reward} for one in outcomes]


def decide_body(event: ev.Decided, caller: Caller, explain: bool) -> dict[str, Any]:
    """The answer to a decide, explained if that was asked for."""
    body = wire.decided_body(event)
    if not explain:
        return body
    body |= wire.explained_body(event)
    if caller.tenant is not None:  # how near the queries of others were is not for one tenant
        body["neighbours"] = []
    return body


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

    async def reward(self, item: Any) -> dict[str, Any]:
        """Learn from one reward; its result. Raises what was wrong with it."""
        router = self.router
        try:
            asked = wire.convert(item, wire.RewardRequest)
            status = await self._taught(asked, router.reward)
        except ServiceError as error:
            router.count_reward(_named(item), _outcome(error))
            raise
        router.count_reward(asked.decision_id, status)
        logs.decision_id.set(asked.decision_id or "")
        return {"decision_id": asked.decision_id, "status": status}

    async def compare(self, item: Any) -> dict[str, Any]:
        """Learn from one comparison; its result. Raises what was wrong with it."""
        try:
            asked = wire.convert(item, wire.CompareRequest)
            status = await self._taught(asked, self.router.compare)
        except ServiceError:
            self.router.count_comparison("refused")
            raise
        self.router.count_comparison(status)
        logs.decision_id.set(asked.decision_id or "")
        return {"decision_id": asked.decision_id, "status": status}

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


def _named(item: Any) -> str | None:
    """The decision that an item of a list names, if it is one and its name is text."""
    found = item.get("decision_id") if isinstance(item, dict) else None
    return found if isinstance(found, str) else None


def _outcome(error: ServiceError) -> str:
    match error:
        case Unknown():
            return "unknown"
        case Expired():
            return "expired"
        case Conflict():
            return "conflict"
        case _:
            return "refused"


async def _one_or_list(
    request: web.Request, learning: Learning, learn: Callable[[Any], Awaitable[dict[str, Any]]]
) -> web.Response:
    body = wire.decode_json(await body_of(request))
    if not isinstance(body, list):
        return reply({"results": [await learn(body)]})
    most = request.app[SETTINGS].server.max_items
    if not body:
        raise Refused(f"a list must have 1 to {most} items, got none")
    if len(body) > most:
        raise TooLarge(f"a list must have 1 to {most} items, got {len(body)}")

    async def result(item: Any, first: bool) -> dict[str, Any]:
        try:
            if not first:  # the request itself stood for one
                learning.again()
            return await learn(item)
        except ServiceError as error:
            request.app[TELEMETRY].rejected(error)
            return {"decision_id": _named(item), "status": "error", "error": error.body()}

    results = (result(item, i == 0) for i, item in enumerate(body))
    return reply({"results": await asyncio.gather(*results)})


async def decision(request: web.Request) -> web.Response:
    """GET /v1/decisions/{id}: why this arm, and what came back for it."""
    caller, router = request[CALLER], request.app[ROUTER]
    pending = router.find(request.match_info["id"], caller.tenant)
    logs.decision_id.set(pending.decided.id)
    decided, remembered = pending.decided, router.world.history.items
    body = decide_body(decided, caller, explain=True)
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


def arm_body(record: Any) -> dict[str, Any]:
    """One arm of the catalogue, with what was observed of it."""
    body: dict[str, Any] = msgspec.to_builtins(record.spec)
    observed: dict[str, float] = {"costs": record.costs, "latencies": record.latencies}
    if record.costs:
        observed["mean_cost_usd"] = record.observed_usd / record.costs
    if record.latencies:
        observed["mean_latency_s"] = record.latency_s / record.latencies
    return body | {"retired": record.retired, "source": record.source, "observed": observed}


async def list_arms(request: web.Request) -> web.Response:
    """GET /v1/arms."""
    arms = request.app[ROUTER].world.arms
    return reply({"arms": [arm_body(arms[id]) for id in sorted(arms)]})


async def put_arm(request: web.Request) -> web.Response:
    """PUT /v1/arms/{id}: add or replace."""
    id = request.match_info["id"]
    body = wire.decode_json(await body_of(request))
    if not isinstance(body, dict):
        raise Refused(f"an arm is an object, got {type(body).__name__}")
    if body.get("id", id) != id:
        raise Refused(f"id: the path says {id!r}, the body {body['id']!r}", param="id")
    try:
        spec = settings.arm_spec(body | {"id": id})
    except ValueError as error:
        raise Refused(str(error), param=str(error).split(":")[0]) from None
    router = request.app[ROUTER]
    created = await router.put_arm(spec)
    return reply(arm_body(router.world.arms[spec.id]), 201 if created else 200)


async def delete_arm(request: web.Request) -> web.Response:
    """DELETE /v1/arms/{id}: offered no more; what was learned stays."""
    router, id = request.app[ROUTER], ArmId(request.match_info["id"])
    await router.retire_arm(id)
    return reply(arm_body(router.world.arms[id]))


async def list_policies(request: web.Request) -> web.Response:
    """GET /v1/policies: all there are, and the one that decides."""
    return reply(policies_body(request))


def policies_body(request: web.Request) -> dict[str, Any]:
    """All policies, the one that serves, and how far the one is that is to take its place."""
    world, keeper = request.app[ROUTER].world, request.app[KEEPER]
    body: dict[str, Any] = {
        "calibration": {name: calibrated(told) for name, told in world.calibration.items()},
        "policies": list(policies.names()),
        "serving": {
            "name": world.serving,
            "key": world.policy_key,
            "parameters": msgspec.to_builtins(world.learners[world.serving].policy),
        },
        "beside": [
            {"name": name, "key": learner.key, "learning": learner.queue is None}
            for name in world.deciding()[1:]
            for learner in (world.learners[beside(name)],)
        ],
    }
    if keeper.wanted is not None and keeper.progress is not None:
        done, total = keeper.progress
        body["folding"] = {"name": keeper.wanted.name, "events": done, "of": total}
    return body


async def put_policy(request: web.Request) -> web.Response:
    """PUT /v1/policy: fold the past for another policy; it serves when that is done."""
    asked = wire.convert(wire.decode_json(await body_of(request)), wire.PolicyRequest)
    asked.check()
    request.app[KEEPER].change_policy(settings.PolicySettings(asked.name, asked.parameters))
    return reply(policies_body(request), 202)


async def forget_unit(request: web.Request) -> web.Response:
    """DELETE /v1/units/{unit}: erase all that is kept of a unit."""
    owner = await request.app[ROUTER].forget(
        request.query.get("tenant", ""), request.match_info["unit"]
    )
    try:
        return reply({"erased": await request.app[KEEPER].erase(owner)})
    except (StoreError, FoldFailed) as error:
        raise Unavailable(
            f"the unit is forgotten, its records are erased as soon as that can be: {error}"
        ) from None


async def snapshot(request: web.Request) -> web.Response:
    """POST /v1/snapshots: make one now, of everything up to now."""
    try:
        made = await request.app[KEEPER].snapshot()
    except (StoreError, FoldFailed) as error:
        raise Unavailable(f"no snapshot could be made: {error}") from None
    return reply({"offset": made.at, "bytes": made.size})


async def policy_state(request: web.Request) -> web.Response:
    """GET /v1/policies/{name}/state: how big, how old, and a hash to compare replicas by."""
    name, world = request.match_info["name"], request.app[ROUTER].world
    learner = world.learners.get(name if name == world.serving else beside(name))
    if learner is None:
        raise unknown_policy(world, name, "name")
    dumped = codec.dump(learner.state)
    return reply(
        {
            "name": name,
            "key": learner.key or world.policy_key,
            "bytes": len(dumped),
            "sha256": codec.sha256(dumped),
            "events": world.events,
            "rewards": world.rewards,
            "comparisons": world.comparisons,
            "failures": learner.failures,
        }
    )


async def healthz(_: web.Request) -> web.Response:
    """GET /healthz: alive."""
    return reply({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """GET /readyz: recovered and taking traffic; 503 while stopping."""
    if request.app[DRAINING].is_set():
        raise Unavailable("the service is stopping")
    router = request.app[ROUTER]
    world, why = router.world, router.writer.degraded
    log = router.writer.log
    body = {
        "status": "ready",
        "events": world.events,
        "arms": len(world.offered()),
        "first": int(log.first),
        "last": int(log.last),
    }
    return reply(body | {"status": "degraded", "why": why} if why else body)


async def metrics(request: web.Request) -> web.Response:
    """GET /metrics: Prometheus' text format or OpenMetrics, rendered off the event loop."""
    telemetry = request.app[TELEMETRY]
    telemetry.look()
    body, kind = await asyncio.to_thread(telemetry.render, request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": kind})


async def openapi(_: web.Request) -> web.Response:
    """GET /openapi.json."""
    return reply(document(bandit_service.__version__))


async def index(request: web.Request) -> web.StreamResponse:
    """GET /: where to look; to a browser the page."""
    if page.wanted(request):
        return page.document(request)
    return reply(
        {
            "service": "bandit-service",
            "version": bandit_service.__version__,
            "see": ["/openapi.json", "/v1/arms", "/v1/policies", "/metrics", "/readyz"],
        },
        headers={"Vary": "Accept"},
    )


def routes() -> list[web.RouteDef]:
    """Every path and its handler."""
    return [
        web.get("/", index),
        web.get("/healthz", healthz),
        web.get("/readyz", readyz),
        web.get("/metrics", metrics),
        web.get("/openapi.json", openapi),
        web.post("/v1/decide", decide),
        web.post("/v1/explain", explain),
        web.post("/v1/rewards", rewards),
        web.post("/v1/comparisons", comparisons),
        web.get("/v1/decisions/{id}", decision),
        web.get("/v1/arms", list_arms),
        web.put("/v1/arms/{id}", put_arm),
        web.delete("/v1/arms/{id}", delete_arm),
        web.get("/v1/policies", list_policies),
        web.put("/v1/policy", put_policy),
        web.delete("/v1/units/{unit}", forget_unit),
        web.post("/v1/snapshots", snapshot),
        web.get("/v1/policies/{name}/state", policy_state),
    ]
