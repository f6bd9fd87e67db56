"""Which pool answers a request, where a process serves several logs.

Each pool is an application of its own. Which one is asked, say, in this order: the decision that
the path names, the tenant of the key, the header `x-bandit-pool`, and the header `x-tenant`.
Anything else is the default pool's. Handlers whose bodies name a tenant or a decision look for its
pool once they have read it (`Homes`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from aiohttp import web
from aiohttp.web_urldispatcher import AbstractRuleMatching, MatchedSubAppResource

from bandit_service import clock
from bandit_service.core.errors import Forbidden, Misdirected, Refused, ServiceError
from bandit_service.core.feedback import decision_of
from bandit_service.core.pools import Place, PoolMap
from bandit_service.gateway.request import header
from bandit_service.http.frame import (
    GATE,
    MISDIRECTED,
    POOL,
    ROUTER,
    SETTINGS,
    Handler,
    authorization,
)
from bandit_service.parsing.suggestions import did_you_mean

TENANT = "x-tenant"
_DECISION = re.compile(r"/v1/(?:decisions|duels)/([^/]+)")
_TOKEN = re.compile(r"/v1/feedback/([^/]+)")
_OF_PROCESS = re.compile(r"/v1/keys(/|$)|/(metrics|healthz|readyz|openapi\.json|docs|web/.*)?$")
_CHOSEN = web.RequestKey("pool", web.Application)


@dataclass
class Homes:
    """The applications of a process by pool, and which one a tenant or a decision belongs to.

    map: None where there is one log, and every call answers the application that was asked.
    """

    map: PoolMap | None = None
    apps: dict[str, web.Application] = field(default_factory=dict)

    def of_tenant(self, tenant: str, here: web.Application) -> web.Application:
        """The application with a tenant's log; `here` for none. Raises Misdirected."""
        if self.map is None or not tenant:
            return here
        return self._at(self.map.of_tenant(tenant), "tenant")

    def of_decision(self, id: str, here: web.Application) -> web.Application:
        """The application with a decision's log. Raises Misdirected."""
        if self.map is None:
            return here
        default, place = self.apps[self.map.default], self.map.of_id(id)
        if place is None:
            return default
        found = self._at(place, "decision_id")
        if found is not default and _has(default, id) and not _has(found, id):
            return default  # of before there were pools, with that code by chance
        return found

    def of_outcome(self, id: str | None, tenant: str, here: web.Application) -> web.Application:
        """The application that learns an outcome of this decision, or of this tenant."""
        return self.of_tenant(tenant, here) if id is None else self.of_decision(id, here)

    def named(self, name: str) -> web.Application:
        """The application of a pool. Raises Refused for a name that there is not, Misdirected."""
        assert self.map is not None
        if name in self.apps:
            return self.apps[name]
        for each in self.map.pools:
            if each.name == name:
                return self._at(Place(name, each.cell), POOL)
        there_are = [self.map.default, *(each.name for each in self.map.pools)]
        raise Refused(
            f"{POOL}: no pool {name!r}{did_you_mean(name, there_are)}; expected one of "
            f"{', '.join(there_are)}",
            param=POOL,
        )

    def of_head(self, path: str, headers: Mapping[str, str]) -> web.Application:
        """The application that answers, by all but the query and the body."""
        assert self.map is not None
        default = self.apps[self.map.default]
        if _OF_PROCESS.match(path) and path != "/":
            return default
        if (id := _decision_in(path)) is not None:
            return self.of_decision(id, default)
        wanted = header(headers, POOL)
        tenant = default[GATE].tenant_of(authorization(headers), clock.now())
        if tenant:
            home = self.of_tenant(tenant, default)
            if wanted and self.named(wanted) is not home:
                raise Forbidden(
                    f"{POOL}: this key acts for a tenant of another pool",
                    param=POOL,
                    reason="tenant",
                )
            return home
        if wanted:
            return self.named(wanted)
        return self.of_tenant(header(headers, TENANT) or "", default)

    def _at(self, place: Place, param: str) -> web.Application:
        assert self.map is not None
        if place.pool in self.apps and place.cell == self.map.cell:
            return self.apps[place.pool]
        raise Misdirected(param, place.pool, place.cell, self.map.cell)


HOMES = web.AppKey("homes", Homes)


def names_and_pools(app: web.Application) -> dict[str, web.Application]:
    """The applications of this process by the name of their pool, the default one first."""
    return app[HOMES].apps or {app[SETTINGS].log.name: app}


def _has(app: web.Application, id: str) -> bool:
    try:
        return str(UUID(id)) in app[ROUTER].world.pending.decisions
    except ValueError:
        return False


def _decision_in(path: str) -> str | None:
    """The decision that a path names, by its id or a token of it."""
    if (found := _DECISION.match(path)) is not None:
        return found[1]
    token = _TOKEN.match(path)
    return None if token is None else decision_of(token[1])


class _Rule(AbstractRuleMatching):
    """Whether a request is of this application; the first rule that is asked finds it out."""

    def __init__(self, homes: Homes, app: web.Application) -> None:
        self._homes, self._app = homes, app

    async def match(self, request: web.Request) -> bool:
        """Called by aiohttp's dispatcher."""
        if _CHOSEN not in request:
            request[_CHOSEN] = self._chosen(request)
        return request[_CHOSEN] is self._app

    def _chosen(self, request: web.Request) -> web.Application:
        homes = self._homes
        assert homes.map is not None
        try:
            return homes.of_head(request.rel_url.path, request.headers)
        except ServiceError as error:
            request[MISDIRECTED] = error  # told by the default pool's application
            return homes.apps[homes.map.default]

    def get_info(self) -> dict[str, object]:  # type: ignore[override]
        """Called by aiohttp, to describe its routes."""
        return {}

    @property
    def canonical(self) -> str:
        """As of `get_info`."""
        return ""


@web.middleware
async def _through(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Only where an application has middlewares does aiohttp run those of what is beneath it."""
    return await handler(request)


def front_of(homes: Homes, client_max_size: int) -> web.Application:
    """One application before those of all pools."""
    front = web.Application(middlewares=[_through], client_max_size=client_max_size)
    for app in homes.apps.values():
        app.freeze()
        front.router.register_resource(MatchedSubAppResource(_Rule(homes, app), app))
    return front
