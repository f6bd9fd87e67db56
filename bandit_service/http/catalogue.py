"""The arms that are offered and the policies that learn."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

import policies
from bandit_service import settings, wire
from bandit_service.core import codec
from bandit_service.core.decide import unknown_policy
from bandit_service.core.errors import Refused
from bandit_service.core.experiments.results import calibrated
from bandit_service.core.learner import beside
from bandit_service.core.lessons import own_alarms
from bandit_service.http.frame import CALLER, KEEPER, ROUTER, SETTINGS, body_of, reply
from policies import ArmId


async def list_arms(request: web.Request) -> web.Response:
    """GET /v1/arms; to a tenant's key nothing that was observed, since it was of all tenants."""
    world = request.app[ROUTER].world
    arms, alarms = world.arms, own_alarms(world)
    bodies = [arm_body(arms[id], alarms.get(id)) for id in sorted(arms)]
    if request[CALLER].tenant is not None:
        bodies = [body | {"observed": {}} for body in bodies]
    return reply({"arms": bodies})


async def put_arm(request: web.Request) -> web.Response:
    """PUT /v1/arms/{id}: add or replace."""
    id = request.match_info["id"]
    body = wire.decode_request(await body_of(request))
    if not isinstance(body, dict):
        raise Refused(f"an arm is an object, got {type(body).__name__}")
    if body.get("id", id) != id:
        raise Refused(f"id: the path says {id!r}, the body {body['id']!r}", param="id")
    try:
        spec = settings.arm_spec(body | {"id": id})
        settings.check_upstream_of(
            spec.upstream, [each.spec.id for each in request.app[SETTINGS].upstreams]
        )
    except ValueError as error:
        raise Refused(str(error), param=str(error).split(":")[0]) from None
    router = request.app[ROUTER]
    created = await router.put_arm(spec)
    body = arm_body(router.world.arms[spec.id], own_alarms(router.world).get(spec.id))
    return reply(body, 201 if created else 200)


async def delete_arm(request: web.Request) -> web.Response:
    """DELETE /v1/arms/{id}: offered no more; what was learned stays."""
    router, id = request.app[ROUTER], ArmId(request.match_info["id"])
    await router.retire_arm(id)
    return reply(arm_body(router.world.arms[id], own_alarms(router.world).get(id)))


def arm_body(record: Any, alarms: policies.OwnAlarms | None = None) -> dict[str, Any]:
    """One arm of the catalogue, with what was observed of it.

    alarms: how often the serving policy found by itself that the arm had changed.
    """
    body: dict[str, Any] = msgspec.to_builtins(record.spec)
    observed: dict[str, float] = {"costs": record.costs, "latencies": record.latencies}
    if record.costs:
        observed["mean_cost_usd"] = record.observed_usd / record.costs
    if record.latencies:
        observed["mean_latency_s"] = record.latency_s / record.latencies
    if alarms is not None:
        observed |= {"alarms": alarms.count, "outcomes_since_alarm": alarms.since}
    return body | {"retired": record.retired, "source": record.source, "observed": observed}


async def list_policies(request: web.Request) -> web.Response:
    """GET /v1/policies: all there are, and the one that decides."""
    return reply(policies_body(request))


async def put_policy(request: web.Request) -> web.Response:
    """PUT /v1/policy: fold the past for another policy; it serves when that is done."""
    asked = wire.convert(wire.decode_request(await body_of(request)), wire.PolicyRequest)
    request.app[KEEPER].change_policy(settings.PolicySettings(asked.name, asked.parameters))
    return reply(policies_body(request), 202)


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
            "key": world.key_of(learner),
            "bytes": len(dumped),
            "sha256": codec.sha256(dumped),
            "events": world.events,
            "rewards": world.rewards,
            "comparisons": world.comparisons,
            "failures": learner.failures,
        }
    )


def policies_body(request: web.Request) -> dict[str, Any]:
    """All policies, the one that serves, and how far the one is that is to take its place.

    What is counted over all tenants' decisions is not for a tenant's key.
    """
    world, keeper = request.app[ROUTER].world, request.app[KEEPER]
    of_all = request[CALLER].tenant is None
    told = world.calibration if of_all else {}
    body: dict[str, Any] = {
        "calibration": {name: calibrated(one) for name, one in told.items()},
        "policies": [*policies.names(), *policies.river_names()],
        "serving": {
            "name": world.serving,
            "key": world.key_of(world.learners[world.serving]),
            "parameters": msgspec.to_builtins(world.learners[world.serving].policy),
        },
        "beside": [
            {"name": name, "key": learner.key, "learning": learner.queue is None}
            for name in world.deciding()[1:]
            for learner in (world.learners[beside(name)],)
        ],
    }
    if of_all and keeper.wanted is not None and keeper.progress is not None:
        done, total = keeper.progress
        body["folding"] = {"name": keeper.wanted.name, "events": done, "of": total}
    return body
