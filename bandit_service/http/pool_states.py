"""What state each pool is in: for `GET /v1/pools`, and for readiness."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from aiohttp import web

from bandit_service.core.errors import Refused
from bandit_service.core.pools import PoolTenants
from bandit_service.http.middleware import CONFIGURATION, ROUTER, SETTINGS, reply
from bandit_service.http.pools import HOMES, names_and_pools
from bandit_service.http.responses.operations import PoolRow, Pools
from store import first_of


@dataclass(frozen=True, slots=True)
class State:
    """broken: why the process ends. barred: why it is not ready. told: what does not work now.
    failing: tasks that are retried, with their errors.
    """

    broken: str = ""
    barred: str = ""
    told: list[str] = field(default_factory=list)
    failing: dict[str, str] = field(default_factory=dict)

    @property
    def word(self) -> Literal["ready", "degraded", "not ready"]:
        """In one word."""
        if self.broken or self.barred:
            return "not ready"
        return "degraded" if self.told else "ready"


def state_of(app: web.Application) -> State:
    """The state of one log."""
    writer = app[ROUTER].writer
    if writer.broken.done():
        return State(broken=writer.broken.result())
    failing = dict(writer.tasks.failing)
    told = [each for each in (writer.degraded, app[CONFIGURATION].behind) if each]
    if writer.owed_usd:
        told.append(f"{writer.owed_usd:.6g} USD of costs wait to be written down")
    told += [f"{name}: {why}" for name, why in failing.items()]
    return State(barred=writer.membership.barred, told=told, failing=failing)


class Mover(Protocol):
    """What moves pools. moves: by pool, how far the newest move of it is, or why it ended."""

    moves: dict[str, str]

    async def move(self, name: str) -> None:
        """Begin to move a pool's log to where the file says now. Raises Refused, Conflict."""
        ...


MOVER: web.AppKey[Mover] = web.AppKey("mover")


async def move(request: web.Request) -> web.Response:
    """POST /v1/pools/{name}/move."""
    mover = request.app.get(MOVER)
    if mover is None:
        raise Refused("name: there is one log here; [[pools]] configures others", param="name")
    await mover.move(request.match_info["name"])
    return _listed(request.app, 202)


async def pools(request: web.Request) -> web.Response:
    """GET /v1/pools."""
    return _listed(request.app)


def _listed(app: web.Application, status: int = 200) -> web.Response:
    homes, chosen = app[HOMES], app[SETTINGS]
    here, mover = names_and_pools(app), app.get(MOVER)
    moves = {} if mover is None else mover.moves
    default = next(iter(here))
    rows, elsewhere = [_row(default, here[default], "")], list[PoolRow]()
    for each in () if homes.map is None else homes.map.pools:
        if each.name in here:
            rows.append(_row(each.name, here[each.name], moves.get(each.name, "")))
        elif each.cell == chosen.cell:
            rows.append(_row_of_none(each, "not ready", homes.closed.get(each.name, "")))
        else:
            elsewhere.append(_row_of_none(each, "elsewhere"))
    return reply(Pools(cell=chosen.cell, pools=[*rows, *elsewhere]), status)


def _row_of_none(
    pool: PoolTenants, state: Literal["not ready", "elsewhere"], why: str = ""
) -> PoolRow:
    """The row of a pool without an application in this process."""
    return PoolRow(
        name=pool.name,
        default=False,
        cell=pool.cell,
        tenants=_tenants(pool.exact, pool.prefixes),
        share=pool.share,
        state=state,
        why=why,
    )


def _row(name: str, app: web.Application, moving: str) -> PoolRow:
    router, chosen, homes = app[ROUTER], app[SETTINGS], app[HOMES]
    state = state_of(app)
    own = next((each for each in (homes.map.pools if homes.map else ()) if each.name == name), None)
    return PoolRow(
        name=name,
        default=own is None,
        cell=chosen.cell,
        tenants=[] if own is None else _tenants(own.exact, own.prefixes),
        share=0 if own is None else own.share,
        state=state.word,
        moving=moving,
        why="; ".join(filter(None, (state.broken, state.barred, *state.told))),
        engine=chosen.log.engine,
        log=chosen.log.name,
        events=router.world.events,
        pending=len(router.world.pending.decisions),
        first=int(first_of(router.writer.log)),
        last=int(router.writer.log.last),
    )


def _tenants(exact: frozenset[str], prefixes: tuple[str, ...]) -> list[str]:
    return [*sorted(exact), *(f"{each}*" for each in prefixes)]
