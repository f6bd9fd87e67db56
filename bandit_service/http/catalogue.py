"""The arms that are offered and the policies that learn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

import policies
from bandit_service import settings, wire
from bandit_service.core import codec
from bandit_service.core.arm_record import ArmRecord
from bandit_service.core.decide import unknown_policy
from bandit_service.core.deployments import upstreams_of
from bandit_service.core.errors import Refused, type_in_words
from bandit_service.core.events import ArmSpec, is_of_route
from bandit_service.core.experiments.results import calibrated
from bandit_service.core.learner import beside
from bandit_service.core.lessons import own_alarms
from bandit_service.gateway import deployments
from bandit_service.gateway.health import Health
from bandit_service.http.gateway import GATEWAY
from bandit_service.http.middleware import CALLER, CONFIGURATION, KEEPER, ROUTER, body_of, reply
from bandit_service.http.responses.catalogue import (
    Arm,
    ArmHealth,
    Arms,
    DeploymentHealth,
    Folding,
    Observed,
    Policies,
    PolicyState,
    Serving,
    Standby,
)
from bandit_service.runtime.policy_imports import imported
from policies import ArmId


async def list_arms(request: web.Request) -> web.Response:
    """GET /v1/arms; a tenant's key gets no observations, since they are of all tenants."""
    world = request.app[ROUTER].world
    arms, alarms = world.arms, own_alarms(world)
    of_all, health = request[CALLER].tenant is None, request.app[GATEWAY].health
    listed = [arm_of(arms[id], alarms.get(id), health, of_all) for id in sorted(arms)]
    return reply(Arms(arms=listed))


async def put_arm(request: web.Request) -> web.Response:
    """PUT /v1/arms/{id}: add or replace."""
    id = request.match_info["id"]
    body = wire.decode_request(await body_of(request))
    if not isinstance(body, dict):
        raise Refused(f"an arm is an object, got {type_in_words(body)}")
    if body.get("id") not in (None, id):
        raise Refused(f"id: the path says {id!r}, the body {body['id']!r}", param="id")
    configuration = request.app[CONFIGURATION]
    with _refusing():
        spec = settings.arm_spec(body | {"id": id})
        settings.check_callable(spec)
    router = request.app[ROUTER]

    def check(arms: list[ArmSpec]) -> None:
        chosen = configuration.settings
        kinds = {each.spec.id: each.spec.kind for each in chosen.upstreams}
        with _refusing():
            settings.check_served(spec, kinds)
            settings.check_arm_among(arms, chosen.judges)

    created = await router.catalogue.put_arm(spec, check=check)
    health = request.app[GATEWAY].health
    arm = arm_of(router.world.arms[spec.id], own_alarms(router.world).get(spec.id), health)
    return reply(arm, 201 if created else 200)


@contextmanager
def _refusing() -> Iterator[None]:
    """Raise Refused for a ValueError that names its field."""
    try:
        yield
    except ValueError as error:
        raise Refused(str(error), param=str(error).split(":")[0]) from None


async def delete_arm(request: web.Request) -> web.Response:
    """DELETE /v1/arms/{id}: stop offering it; its learned state stays."""
    router, id = request.app[ROUTER], ArmId(request.match_info["id"])
    await router.catalogue.retire_arm(id)
    health = request.app[GATEWAY].health
    return reply(arm_of(router.world.arms[id], own_alarms(router.world).get(id), health))


def arm_of(
    record: ArmRecord, alarms: policies.OwnAlarms | None, health: Health, of_all: bool = True
) -> Arm:
    """One arm of the catalogue, with the observations of all tenants.

    alarms: how often the serving policy itself detected that the arm had changed. of_all: whether
    observations and health are included.
    """
    observed = Observed()
    if of_all:
        observed = Observed(
            costs=record.costs,
            latencies=record.latencies,
            mean_cost_usd=record.observed_usd / record.costs if record.costs else UNSET,
            mean_latency_s=record.latency_s / record.latencies if record.latencies else UNSET,
            alarms=UNSET if alarms is None else alarms.count,
            outcomes_since_alarm=UNSET if alarms is None else alarms.since,
        )
    spec = {name: getattr(record.spec, name) for name in ArmSpec.__struct_fields__}
    return Arm(
        **spec,
        retired=record.retired,
        source=record.source,
        observed=observed,
        health=_health_of(record.spec, health) if of_all else UNSET,
    )


def _health_of(spec: ArmSpec, health: Health) -> ArmHealth | UnsetType:
    if not upstreams_of(spec):
        return UNSET
    now, each = time.monotonic(), []
    for target in deployments.targets_of(spec) if spec.deployments else ():
        running, failures = health.counts(target.key)
        each.append(
            DeploymentHealth(
                id=target.deployment,
                upstream=target.spec.upstream,
                state=deployments.state_at(target, health, now),
                running=running,
                failures=failures,
            )
        )
    running, _ = health.counts(spec.id)
    return ArmHealth(state=deployments.state(spec, health, now), running=running, deployments=each)


async def list_policies(request: web.Request) -> web.Response:
    """GET /v1/policies: all policies, and the one that decides."""
    await imported(())
    return reply(policies_of(request))


async def put_policy(request: web.Request) -> web.Response:
    """PUT /v1/policy: train another policy on the past; it serves when that is done."""
    asked = wire.convert(wire.decode_request(await body_of(request)), wire.PolicyRequest)
    wanted = settings.PolicySettings(asked.name, asked.parameters)
    await imported([wanted])
    request.app[KEEPER].training.change_policy(wanted)
    return reply(policies_of(request), 202)


async def policy_state(request: web.Request) -> web.Response:
    """GET /v1/policies/{name}/state: its size, its age, and a hash to compare replicas by."""
    name, world = request.match_info["name"], request.app[ROUTER].world
    own = name == world.serving or is_of_route(name)
    learner = world.learners.get(name if own else beside(name))
    if learner is None:
        raise unknown_policy(world, name, "name")
    dumped = codec.dump(learner.state)
    return reply(
        PolicyState(
            name=name,
            key=world.key_of(learner),
            bytes=len(dumped),
            sha256=codec.sha256(dumped),
            events=world.events,
            rewards=world.rewards,
            comparisons=world.comparisons,
            failures=learner.failures,
        )
    )


def policies_of(request: web.Request) -> Policies:
    """All policies, the one that serves, and the progress of the one in training.

    A tenant's key does not get counts over all tenants' decisions.
    """
    world, keeper = request.app[ROUTER].world, request.app[KEEPER]
    of_all = request[CALLER].tenant is None
    told = world.calibrations.known() if of_all else {}
    serving = world.learners[world.serving]
    folding: Folding | UnsetType = UNSET
    if of_all and keeper.training.wanted is not None and keeper.training.progress is not None:
        done, total = keeper.training.progress
        folding = Folding(name=keeper.training.wanted.name, events=done, of=total)
    return Policies(
        calibration={name: calibrated(one) for name, one in told.items()},
        policies=[*policies.names(), *policies.river_names()],
        serving=Serving(
            name=world.serving,
            key=world.key_of(serving),
            parameters=msgspec.to_builtins(serving.policy),
        ),
        beside=[
            Standby(name=name, key="" if one is None else one.key, learning=one is not None)
            for name in world.deciding()[1:]
            for one in (world.learners.get(beside(name)),)
        ],
        folding=folding,
    )
