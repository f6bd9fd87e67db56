"""Where an arm is called: at its deployments in their order, each with a health of its own. Pure.

An arm without deployments is one target, whose health is the arm's. One with deployments answers as
long as one of them does. Among those that answer and have room, the lowest priority goes first.
Within a priority the draw is by weight. The draw depends only on the decision, so it can be
repeated.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Container, Iterable, Iterator, Sequence

import msgspec

from bandit_service.core import chance
from bandit_service.core.deployments import called_at, name_of
from bandit_service.core.events import ArmSpec
from bandit_service.gateway.health import STATES, Health


class Target(msgspec.Struct, frozen=True):
    """One way to call an arm. spec: the arm as it is called there. key: whose health it has.

    deployment: its name, "" for an arm without any.
    """

    spec: ArmSpec
    key: str
    deployment: str = ""
    priority: int = 0
    weight: float = 1.0
    max_running: int = 0


def targets_of(spec: ArmSpec) -> list[Target]:
    """All of them, as they are configured."""
    if not spec.deployments:
        return [Target(spec, spec.id)]
    return [
        Target(
            called_at(spec, each),
            key_of(spec.id, name_of(each)),
            name_of(each),
            each.priority,
            each.weight,
            each.max_running,
        )
        for each in spec.deployments
    ]


def key_of(arm: str, deployment: str) -> str:
    """The key of a deployment's health; no arm has such an id."""
    return f"{arm}\n{deployment}"


def served(spec: ArmSpec, health: Health, among: Container[str] | None = None) -> list[Target]:
    """Those whose upstream is configured, and is among these if any of the arm's is.

    An arm without deployments is called at its own upstream. So is an arm that a client names
    although none of its deployments is among them.
    """
    targets = targets_of(spec)
    if not spec.deployments:
        return targets
    there = [each for each in targets if health.serves(each.spec.upstream)]
    near = there if among is None else [each for each in there if each.spec.upstream in among]
    return near or there


def next_of(
    targets: Sequence[Target],
    health: Health,
    now: float,
    seed: int,
    id: str,
    last: str = "",
    tried: Collection[str] = (),
) -> Target | None:
    """The target to be tried now; None if there is none.

    id: of the decision, which seeds the draw. last: the deployment that has the conversation; it
    goes first while it answers. tried: keys of those that failed. After a failure another one is
    tried only if it answers and has room. The first one is tried in any case.
    """
    left = [each for each in targets if each.key not in tried]
    free = [each for each in left if not health.full(each.key, each.max_running)]
    ready = [each for each in free if health.available(each.key, now)]

    def rank(target: Target) -> tuple[bool, int, float]:
        # the minimum of exponential times: each target wins with a probability proportional to its
        # weight
        u = chance.uniform(seed, f"{id} at {target.deployment}")
        return target.deployment != last, target.priority, -math.log1p(-u) / target.weight

    able = ready if tried else ready or free or left
    return min(able, key=rank, default=None)


def available(
    spec: ArmSpec, health: Health, now: float, among: Container[str] | None = None
) -> bool:
    """Whether the arm is not masked; at these upstreams, if it may be called only there."""
    if not spec.deployments:
        return health.available(spec.id, now)
    return any(health.available(each.key, now) for each in served(spec, health, among))


def full(spec: ArmSpec, health: Health, among: Container[str] | None = None) -> bool:
    """Whether the arm, or each of its deployments, has as many calls under way as it may."""
    if health.full(spec.id, spec.max_running):
        return True
    return bool(spec.deployments) and all(
        health.full(each.key, each.max_running) for each in served(spec, health, among)
    )


def state(spec: ArmSpec, health: Health, now: float) -> str:
    """That of the best deployment, of STATES."""
    states = {state_at(each, health, now) for each in targets_of(spec)}
    return next(each for each in STATES if each in states)


def state_at(target: Target, health: Health, now: float) -> str:
    """The same of one target. If its upstream is not configured, it is always open."""
    if target.deployment and not health.serves(target.spec.upstream):
        return "open"
    return health.state(target.key, now)


def unserved(specs: Iterable[ArmSpec], health: Health) -> Iterator[Target]:
    """The deployments whose upstream is not configured, though their arm may answer elsewhere."""
    for spec in specs:
        for each in targets_of(spec) if spec.deployments else ():
            if not health.serves(each.spec.upstream):
                yield each
