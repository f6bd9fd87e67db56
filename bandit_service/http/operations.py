"""The paths for operators and their tools."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

from aiohttp import web
from msgspec import UNSET

import bandit_service
from bandit_service import clock
from bandit_service.core.errors import Unavailable
from bandit_service.core.pools import POOL
from bandit_service.http import page
from bandit_service.http.middleware import (
    DRAINING,
    GATE,
    KEEPER,
    ROUTER,
    TELEMETRY,
    authorization,
    reply,
)
from bandit_service.http.pool_states import state_of
from bandit_service.http.pools import HOMES, names_and_pools
from bandit_service.http.responses.operations import Erased, Index, Snapshot
from bandit_service.http.responses.outcomes import Status
from bandit_service.runtime.folding import FoldFailed
from bandit_service.telemetry import pool_metrics
from store import StoreError, first_of

Describe: TypeAlias = Callable[[str], dict[str, Any]]
DOCUMENT: web.AppKey[Describe] = web.AppKey("document")
"""The OpenAPI document of a version, made from the table with these handlers."""


_SEE = "send a key of no tenant to see which and why"
_FOR_SOME = f"something does not work in some pools; {_SEE}"
_NONE_READY = f"no pool is ready; {_SEE}"
_ENDS = "the service ends: the log of the default pool is broken"


async def index(request: web.Request) -> web.StreamResponse:
    """GET /: the index; a browser gets the page."""
    if page.wanted(request):
        return page.document(request)
    return reply(
        Index(
            service="bandit-service",
            version=bandit_service.__version__,
            see=["/openapi.json", "/v1/arms", "/v1/policies", "/metrics", "/readyz"],
        ),
        headers={"Vary": "Accept"},
    )


async def healthz(_: web.Request) -> web.Response:
    """GET /healthz: alive."""
    return reply(Status(status="ok"))


async def readyz(request: web.Request) -> web.Response:
    """GET /readyz: recovered and taking traffic; 503 while stopping, before a forced end, and while
    a replica is barred. degraded: something does not work now, `why`; `failing` names the tasks
    that are retried.
    """
    if request.app[DRAINING].is_set():
        raise Unavailable("the service is stopping")
    router = request.app[ROUTER]
    log, world = router.writer.log, router.world
    told, failing = _ready(request)
    return reply(
        Status(
            status="degraded" if told else "ready",
            events=world.events,
            arms=len(world.offered()),
            first=int(first_of(log)),
            last=int(log.last),
            why="; ".join(told) if told else UNSET,
            failing=failing if told else UNSET,
        )
    )


def _ready(request: web.Request) -> tuple[list[str], dict[str, str]]:
    """What does not work now, and the tasks that are retried. Raises Unavailable where the default
    pool's log is broken, or no pool is ready: one that is not keeps no other from its tenants.

    What it tells of other pools than the only one is for those who may see all tenants.
    """
    app = request.app
    states = {name: state_of(each) for name, each in names_and_pools(app).items()}
    closed = app[HOMES].closed
    only, default = not closed and len(states) == 1, next(iter(states))
    shown = only or app[GATE].tenant_of(authorization(request.headers), clock.now()) == ""
    told, failing, barred = [], dict[str, str](), []
    for name, state in states.items():
        of = "" if only else f"pool {name}: "
        if state.broken and name == default:
            raise Unavailable(f"the service ends: {of}{state.broken}" if shown else _ENDS)
        if why := state.broken or state.barred:
            barred.append(f"{of}{why}")
        told += [f"{of}{each}" for each in state.told]
        failing |= {f"{of}{task}": why for task, why in state.failing.items()}
    barred += [f"pool {name}: closed: {why}" for name, why in closed.items()]
    if len(barred) == len(states) + len(closed):
        raise Unavailable(f"not ready: {'; '.join(barred)}" if shown else _NONE_READY)
    if not shown:
        return [_FOR_SOME] if barred or told else [], {}
    return [*barred, *told], failing


async def metrics(request: web.Request) -> web.Response:
    """GET /metrics: Prometheus' text format or OpenMetrics, rendered off the event loop. The series
    of several pools have their names as a label.
    """
    pools = {name: each[TELEMETRY] for name, each in names_and_pools(request.app).items()}
    for telemetry in pools.values():
        telemetry.look()
    registries = {name: each.metrics.registry for name, each in pools.items()}
    accept = request.headers.get("Accept", "")
    body, kind = await asyncio.to_thread(pool_metrics.render, registries, accept)
    return web.Response(body=body, headers={"Content-Type": kind})


async def openapi(request: web.Request) -> web.Response:
    """GET /openapi.json."""
    return reply(request.app[DOCUMENT](bandit_service.__version__))


async def snapshot(request: web.Request) -> web.Response:
    """POST /v1/snapshots: make one now, of everything up to now."""
    try:
        made = await request.app[KEEPER].snapshot()
    except (StoreError, FoldFailed) as error:
        raise Unavailable(f"no snapshot could be made: {error}") from None
    return reply(Snapshot(offset=made.at, bytes=made.size))


async def forget_unit(request: web.Request) -> web.Response:
    """DELETE /v1/units/{unit}: erase all stored data of a unit, in the pool of the tenant, or in
    the one that the header names: the tenant may have had that one before.
    """
    tenant, home = request.query.get("tenant", ""), request.app
    if POOL not in request.headers:
        home = await home[HOMES].home_of(tenant, home)
    owner = await home[ROUTER].forget(tenant, request.match_info["unit"])
    try:
        return reply(Erased(erased=await home[KEEPER].erase(owner)))
    except (StoreError, FoldFailed, Unavailable) as error:
        raise Unavailable(
            f"the unit is forgotten, its records are erased as soon as that can be: {error}"
        ) from None
