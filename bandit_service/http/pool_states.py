"""What state each pool is in: for `GET /v1/pools`, and for readiness."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from aiohttp import web

from bandit_service.http.frame import ROUTER, SETTINGS, reply
from bandit_service.http.pools import HOMES, names_and_pools
from bandit_service.http.responses.operations import PoolRow, Pools
from bandit_service.runtime.writer import Writer
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


def state_of(writer: Writer) -> State:
    """The state of one log."""
    if writer.broken.done():
        return State(broken=writer.broken.result())
    failing = dict(writer.tasks.failing)
    told = [writer.degraded] if writer.degraded else []
    if writer.owed_usd:
        told.append(f"{writer.owed_usd:.6g} USD of costs wait to be written down")
    told += [f"{name}: {why}" for name, why in failing.items()]
    return State(barred=writer.membership.barred, told=told, failing=failing)


async def pools(request: web.Request) -> web.Response:
    """GET /v1/pools."""
    homes, chosen = request.app[HOMES], request.app[SETTINGS]
    here = names_and_pools(request.app)
    rows = [_row(name, app) for name, app in here.items()]
    rows += [
        PoolRow(
            name=each.name,
            default=False,
            cell=each.cell,
            tenants=_tenants(each.exact, each.prefixes),
            share=each.share,
            state="elsewhere",
        )
        for each in (() if homes.map is None else homes.map.pools)
        if each.name not in here
    ]
    return reply(Pools(cell=chosen.cell, pools=rows))


def _row(name: str, app: web.Application) -> PoolRow:
    router, chosen, homes = app[ROUTER], app[SETTINGS], app[HOMES]
    state = state_of(router.writer)
    own = next((each for each in (homes.map.pools if homes.map else ()) if each.name == name), None)
    return PoolRow(
        name=name,
        default=own is None,
        cell=chosen.cell,
        tenants=[] if own is None else _tenants(own.exact, own.prefixes),
        share=0 if own is None else own.share,
        state=state.word,
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
