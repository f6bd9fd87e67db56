"""GET /v1/drift: what is watched, and the newest alarms."""

from __future__ import annotations

from typing import Any

from aiohttp import web

import policies
from bandit_service.core import events as ev
from bandit_service.core.drift import QUERIES, Track
from bandit_service.core.world import World
from bandit_service.http.frame import ROUTER, TELEMETRY, reply


async def drift(request: web.Request) -> web.Response:
    """GET /v1/drift."""
    watched = request.app[TELEMETRY].learning.drift.watched
    return reply(described(request.app[ROUTER].world, watched))


def described(world: World, watched: bool) -> dict[str, Any]:
    """The tracks as they stand, and the alarms, newest first; null is the arm of the queries.

    forgets: whether an alarm lets the arm fade in the serving policy, as `drift.keep` says.
    watches_arms: whether that policy watches its arms itself, so that an alarm does not.
    """
    folded = world.drift
    policy = world.learners[world.serving].policy
    watches = policies.watches_arms(policy)
    queries = folded.tracks.get(QUERIES, Track())
    return {
        "watched": watched,
        "forgets": isinstance(policy, policies.Forgetful) and not watches,
        "watches_arms": watches,
        "arms": {
            arm: {"outcomes": track.passed, "residual": track.shown}
            for arm, track in sorted(folded.tracks.items())
            if arm != QUERIES
        },
        "queries": {"seen": queries.passed, "distance": queries.shown},
        "allowances": [
            {"arm": arm or None, "floor": one.floor, "decisions_left": one.left}
            for arm, one in folded.allowances.items()
        ],
        "alarms": [_alarm(event) for event in reversed(folded.alarms)],
    }


def _alarm(event: ev.DriftDetected) -> dict[str, Any]:
    names = (name for name in event.__struct_fields__ if name != "v")
    return {name: getattr(event, name) for name in names} | {"arm": event.arm or None}
