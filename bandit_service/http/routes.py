"""Every path and its handler, but for the files of the page."""

from __future__ import annotations

from aiohttp import web

from bandit_service.http import catalogue, decisions, operations, outcomes, stream
from bandit_service.http import drift as drift_http
from bandit_service.http import events as events_http
from bandit_service.http import experiments as experiments_http
from bandit_service.http import gateway as gateway_http
from bandit_service.http import live as live_http


def routes() -> list[web.RouteDef]:
    """Every path of the API and its handler."""
    return [
        web.get("/", operations.index),
        web.get("/healthz", operations.healthz),
        web.get("/readyz", operations.readyz),
        web.get("/metrics", operations.metrics),
        web.get("/openapi.json", operations.openapi),
        web.post("/v1/decide", decisions.decide),
        web.post("/v1/explain", decisions.explain),
        web.post("/v1/rewards", outcomes.rewards),
        web.post("/v1/comparisons", outcomes.comparisons),
        web.get("/v1/decisions/{id}", decisions.decision),
        web.get("/v1/arms", catalogue.list_arms),
        web.put("/v1/arms/{id}", catalogue.put_arm),
        web.delete("/v1/arms/{id}", catalogue.delete_arm),
        web.get("/v1/policies", catalogue.list_policies),
        web.put("/v1/policy", catalogue.put_policy),
        web.delete("/v1/units/{unit}", operations.forget_unit),
        web.post("/v1/snapshots", operations.snapshot),
        web.get("/v1/policies/{name}/state", catalogue.policy_state),
        web.get("/v1/drift", drift_http.drift),
        web.get("/v1/events", events_http.events),
        web.get("/v1/stream", stream.stream),
        *gateway_http.routes(),
        *experiments_http.routes(),
        *live_http.routes(),
    ]


def unlisted() -> list[web.RouteDef]:
    """Paths that are answered and are no part of the API."""
    return gateway_http.unlisted()
