"""Which pool answers a request, where a process serves several logs.

Each pool is an application of its own. Which one is asked, say, in this order: the decision that
the path names, the tenant of the key, the header `x-bandit-pool`, and the header `x-tenant`.
Anything else is the default pool's. Handlers whose bodies name a tenant or a decision look for its
pool once they have read it (`Homes`).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from aiohttp import web
from aiohttp.web_urldispatcher import (
    AbstractRuleMatching,
    MatchedSubAppResource,
    UrlMappingMatchInfo,
)

from bandit_service import clock
from bandit_service.core.errors import (
    Forbidden,
    Misdirected,
    Refused,
    ServiceError,
    Unavailable,
)
from bandit_service.core.feedback import decision_of
from bandit_service.core.pools import POOL, Place, PoolMap
from bandit_service.gateway.request import header
from bandit_service.http.entrance import Entrance
from bandit_service.http.middleware import (
    GATE,
    MISDIRECTED,
    ROUTER,
    SETTINGS,
    Handler,
    authorization,
)
from bandit_service.http.shutdown import ENDING
from bandit_service.settings.pool_logs import no_pool

TENANT = "x-tenant"
_DECISION = re.compile(r"/v1/(?:decisions|duels)/([^/]+)")
_TOKEN = re.compile(r"/v1/feedback/([^/]+)")
_OF_PROCESS = re.compile(
    r"/v1/(keys|pools)(/|$)|/(metrics|healthz|readyz|openapi\.json|docs|web/.*)?$"
)


LONGEST_HELD_S = 30.0
"""How long a request waits for a pool that moves."""
_ENTRANCE: ContextVar[Entrance[Any] | None] = ContextVar("entrance", default=None)
"""Where the running request came in; those that wait for a pool are to take no place from others.
"""


_LONG = re.compile(r"/v1/(chat/completions|completions|messages|responses|embeddings)/?")
"""What waits for a provider, and so may take long."""


def is_long(path: str) -> bool:
    """Whether a request of this path may take as long as a provider does."""
    return _LONG.fullmatch(path) is not None


@dataclass
class Hold:
    """Requests of a pool wait, since it moves. ended: once it is there. all: not only the long ones
    wait, for which others would wait.
    """

    ended: asyncio.Event = field(default_factory=asyncio.Event)
    all: bool = False


class _Held(Exception):
    """The pool moves to another log. ended: once it is there."""

    def __init__(self, pool: str, ended: asyncio.Event) -> None:
        super().__init__(pool)
        self.pool, self.ended = pool, ended

    def refusal(self) -> Unavailable:
        """What is told of it."""
        return Unavailable(f"the pool {self.pool!r} moves to another log; send it again")


def _closed(pool: str, param: str) -> Unavailable:
    """The refusal for a pool whose log cannot be opened. The reason is for operators alone: it may
    name hosts.
    """
    # who names a decision may be another's tenant, or have no key
    what = "the pool of this decision" if param == "decision_id" else f"the pool {pool!r}"
    return Unavailable(
        f"{param}: {what} is closed, since its log cannot be opened now; send it again later",
        param=param,
    )


@dataclass
class Homes:
    """The applications of a process by pool, and which one a tenant or a decision belongs to.

    map: None where there is one log, and every call answers the application that was asked. held:
    pools whose requests wait, since they move to another log. closed: pools whose log cannot be
    opened now, and why; they have no application. changing: while the file is read for all pools,
    or one is closed and opened.
    """

    map: PoolMap | None = None
    apps: dict[str, web.Application] = field(default_factory=dict)
    held: dict[str, Hold] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def found(
        self, find: Callable[[], web.Application], *, long: bool = False
    ) -> web.Application:
        """The application that a look-up finds, once it is not held; it is not closed before the
        current task has ended. Raises Unavailable where that takes too long. long: the task is.
        """
        until = time.monotonic() + LONGEST_HELD_S
        while True:
            try:
                app = find()
                break
            except _Held as held:
                entrance = _ENTRANCE.get()
                try:
                    with nullcontext() if entrance is None else entrance.aside():
                        async with asyncio.timeout(until - time.monotonic()):
                            await held.ended.wait()
                except TimeoutError:
                    raise held.refusal() from None
        if self.map is not None:
            app[ENDING].begun(long=long)
        return app

    async def home_of(
        self, tenant: str, here: web.Application, *, long: bool = False
    ) -> web.Application:
        """The application with the log of a tenant, as `found` finds it."""
        if self.map is None:  # as nearly always
            return here
        return await self.found(partial(self.of_tenant, tenant, here, long=long), long=long)

    def of_tenant(
        self, tenant: str, here: web.Application, *, long: bool = False
    ) -> web.Application:
        """The application with a tenant's log; `here` for none. Raises Misdirected, Unavailable."""
        if self.map is None or not tenant:
            return here
        return self._at(self.map.of_tenant(tenant), "tenant", here, long=long)

    def of_decision(self, id: str, here: web.Application) -> web.Application:
        """The application with a decision's log. Raises Misdirected, Unavailable."""
        if self.map is None:
            return here
        default, place = self.apps[self.map.default], self.map.of_id(id)
        if place is None or (place.pool in self.closed and _has(default, id)):
            return default
        found = self._at(place, "decision_id", here)
        if found is not default and _has(default, id) and not _has(found, id):
            return default  # of before there were pools, with that code by chance
        return found

    def of_outcome(self, id: str | None, tenant: str, here: web.Application) -> web.Application:
        """The application that learns an outcome of this decision, or of this tenant."""
        return self.of_tenant(tenant, here) if id is None else self.of_decision(id, here)

    def named(self, name: str, *, long: bool = False) -> web.Application:
        """The application of a pool. Raises Refused for a name that there is not, Misdirected,
        Unavailable.
        """
        assert self.map is not None
        if name in self.apps:
            return self._open(name, long)
        for each in self.map.pools:
            if each.name == name:
                return self._at(Place(name, each.cell), POOL, None)
        there_are = [self.map.default, *(each.name for each in self.map.pools)]
        raise Refused(f"{POOL}: {no_pool(name, there_are)}", param=POOL)

    def of_head(self, path: str, headers: Mapping[str, str]) -> web.Application:
        """The application that answers, by all but the query and the body."""
        assert self.map is not None
        default = self.apps[self.map.default]
        if _OF_PROCESS.match(path) and path != "/":
            return default
        if (id := _decision_in(path)) is not None:
            return self.of_decision(id, default)
        wanted, long = header(headers, POOL), is_long(path)
        tenant = default[GATE].tenant_of(authorization(headers), clock.now())
        if tenant is None:  # who has no key learns nothing of the pools
            return default
        if tenant:
            home = self.of_tenant(tenant, default, long=long)
            if wanted and wanted != self.map.of_tenant(tenant).pool:  # nor what others there are
                raise Forbidden(
                    f"{POOL}: this key acts for a tenant of another pool",
                    param=POOL,
                    reason="tenant",
                )
            return home
        if wanted:
            return self.named(wanted, long=long)
        return self.of_tenant(header(headers, TENANT) or "", default, long=long)

    def _open(self, name: str, long: bool) -> web.Application:
        hold = self.held.get(name)
        if hold is not None and (long or hold.all):
            raise _Held(name, hold.ended)
        return self.apps[name]

    def _at(
        self, place: Place, param: str, here: web.Application | None, *, long: bool = False
    ) -> web.Application:
        """here: the application that has the request already, whose end waits for it."""
        assert self.map is not None
        if place.pool in self.closed:
            raise _closed(place.pool, param)
        if place.pool not in self.apps or place.cell != self.map.cell:
            raise Misdirected(param, place.pool, place.cell, self.map.cell)
        return here if here is self.apps[place.pool] else self._open(place.pool, long)


HOMES = web.AppKey("homes", Homes)


def names_and_pools(app: web.Application) -> dict[str, web.Application]:
    """The applications of this process by the name of their pool, the default one first; without
    those of pools that are closed.
    """
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


class _Any(AbstractRuleMatching):
    """Every request is of some pool."""

    async def match(self, request: web.Request) -> bool:
        """As of aiohttp."""
        del request
        return True

    def get_info(self) -> dict[str, object]:  # type: ignore[override]
        """As of aiohttp, to describe its routes."""
        return {}

    @property
    def canonical(self) -> str:
        """As of `get_info`."""
        return ""


class _OfPools(MatchedSubAppResource):
    """Passes each request to the application of its pool."""

    def __init__(self, homes: Homes) -> None:
        assert homes.map is not None
        self._homes, self._default = homes, homes.apps[homes.map.default]
        super().__init__(_Any(), self._default)

    async def resolve(self, request: web.Request) -> tuple[UrlMappingMatchInfo, set[str]]:
        """Called by aiohttp's dispatcher."""
        homes, transport = self._homes, request.transport
        entrance = None if transport is None else transport.get_protocol()
        _ENTRANCE.set(entrance if isinstance(entrance, Entrance) else None)
        try:
            path = request.rel_url.path
            find = partial(homes.of_head, path, request.headers)
            app = await homes.found(find, long=is_long(path))
        except ServiceError as error:
            app, request[MISDIRECTED] = self._default, error  # which says it
        match_info = await app.router.resolve(request)
        match_info.add_app(app)
        return match_info, set()


@web.middleware
async def _through(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Only where an application has middlewares does aiohttp run those of what is beneath it."""
    return await handler(request)


def front_of(homes: Homes, client_max_size: int) -> web.Application:
    """One application before those of all pools."""
    front = web.Application(middlewares=[_through], client_max_size=client_max_size)
    front.router.register_resource(_OfPools(homes))
    return front
