"""GET /v1/drift: what is watched, and the newest alarms."""

from __future__ import annotations

from aiohttp import web

import policies
from bandit_service.core import drift as drift_fold
from bandit_service.core import events as ev
from bandit_service.core.drift import QUERIES
from bandit_service.core.world import World
from bandit_service.http.middleware import ROUTER, TELEMETRY, reply
from bandit_service.http.responses.operations import (
    Alarm,
    Allowance,
    Drift,
    Queries,
    Track,
)


async def drift(request: web.Request) -> web.Response:
    """GET /v1/drift."""
    watched = request.app[TELEMETRY].learning.drift.watched
    return reply(described(request.app[ROUTER].world, watched))


def described(world: World, watched: bool) -> Drift:
    """The tracks as they stand, and the alarms, newest first; null is the arm of the queries."""
    folded = world.drift
    policy = world.learners[world.serving].policy
    watches = policies.watches_arms(policy)
    queries = folded.tracks.get(QUERIES, drift_fold.Track())
    return Drift(
        watched=watched,
        forgets=isinstance(policy, policies.Forgetful) and not watches,
        watches_arms=watches,
        arms={
            arm: Track(outcomes=track.passed, residual=track.shown)
            for arm, track in sorted(folded.tracks.items())
            if arm != QUERIES
        },
        queries=Queries(seen=queries.passed, distance=queries.shown),
        allowances=[
            Allowance(arm=arm or None, floor=one.floor, decisions_left=one.left)
            for arm, one in folded.allowances.items()
        ],
        alarms=[_alarm(event) for event in reversed(folded.alarms)],
    )


def _alarm(event: ev.DriftDetected) -> Alarm:
    told = {name: getattr(event, name) for name in Alarm.__struct_fields__}
    return Alarm(**told | {"arm": event.arm or None})
