"""Which arm is called: a decision among those that can be asked, answer, and fit the budget."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from bandit_service.core import events as ev
from bandit_service.core.errors import Busy, Refused, Unavailable, Unknown
from bandit_service.core.world import ArmRecord
from bandit_service.gateway.affinity import Affinity
from bandit_service.gateway.budgets import Budgets
from bandit_service.gateway.duels import Duels
from bandit_service.gateway.health import Health
from bandit_service.gateway.request import Wanted
from bandit_service.gateway.request_size import Size, most_usd, usual_usd
from bandit_service.gateway.resources import Asked, Call
from bandit_service.gateway.upstreams import Upstreams
from bandit_service.runtime.router import Router
from bandit_service.telemetry.telemetry import Telemetry
from policies import ArmId

_SELDOM = 4.0
"""An answer seldom costs so many times what its arm's usually do."""


class Choosing:
    """Decides, and holds the money for what was decided."""

    def __init__(
        self,
        router: Router,
        upstreams: Upstreams,
        health: Health,
        affinity: Affinity,
        budgets: Budgets,
        duels: Duels,
        telemetry: Telemetry,
    ) -> None:
        self._router = router
        self._upstreams = upstreams
        self._health = health
        self._affinity = affinity
        self._budgets = budgets
        self._duels = duels
        self._telemetry = telemetry
        self._numbers = itertools.count()

    def models(self) -> list[ev.ArmSpec]:
        """The arms that can be called."""
        offered = (record.spec for record in self._router.world.offered())
        return [spec for spec in offered if spec.upstream in self._upstreams]

    async def decided(
        self, asked: Asked, tried: list[str], duel_of: str = "", refused: bool = False
    ) -> Call:
        """The decision, and that its call begins. `tried`: arms that are not to be drawn again.

        refused: one of them refused the request, so that others may too.

        Raises what the router does, Unavailable where no arm has an upstream, BudgetExhausted, and
        Busy where every arm has as many calls under way as it may.
        """
        while True:
            try:
                decided = await self._drawn(asked, tried, duel_of, refused)
            except (Refused, Busy):
                if not refused:
                    raise
                refused = False  # none of those may be drawn, and others may
                continue
            spec = self._router.world.arms[decided.arm].spec
            if not self._health.full(decided.arm, spec.max_running):
                break
            self._budgets.settle(decided.id)  # others were drawn meanwhile; nothing is called
        self._health.begun(decided.arm)
        duel = not duel_of and asked.may_duel and self._duels.drawn(decided.id)
        conversation = b"" if duel_of else asked.conversation
        return Call(decided, spec, asked.size, time.perf_counter(), conversation, duel)

    async def _drawn(
        self, asked: Asked, tried: list[str], duel_of: str, refused: bool
    ) -> ev.Decided:
        wanted, caller = asked.wanted, asked.caller
        conversation = b"" if duel_of else asked.conversation
        world, tenant, now = self._router.world, wanted.request.tenant, self._router.writer.now()
        offered = self._offered(wanted, tried, asked.path, asked.body)
        if refused:  # then those first that answered last, and those last that refused
            least = min(map(self._health.refusals, offered))
            offered = [id for id in offered if self._health.refusals(id) == least]
        left = self._budgets.left(world.spend, tenant, caller, now)
        most = {id: self._most_usd(world.arms[ArmId(id)], asked.size, left) for id in offered}
        arms = self._budgets.fitting(world.spend, most, tenant, caller, now)
        worth = wanted.request.willingness_to_pay
        if worth is None:
            worth = self._router.rules.reward.willingness_to_pay
        question = msgspec.structs.replace(
            wanted.request,
            arms=arms,
            willingness_to_pay=self._budgets.worth(world.spend, worth, tenant, caller, now),
        )
        before = self._affinity.arm(conversation, time.monotonic())
        margin = self._affinity.rules.margin or 0.0
        waiting = f"waiting {next(self._numbers)}"
        self._budgets.reserve(waiting, max(most[id] for id in arms), tenant, caller)
        try:
            decided = await self._router.decide(
                question, before, margin, caller, duel_of, wanted.direct,
                self._masked(wanted, tried, most, arms), bounded=False,
            )  # fmt: skip
            self._budgets.reserve(decided.id, most[decided.arm], tenant, caller)
        finally:
            self._budgets.settle(waiting)
        if before is not None:
            self._telemetry.conversation_went_on(decided.arm == before)
        return decided

    def _most_usd(self, arm: ArmRecord, size: Size, left: float) -> float:
        """What a call is to hold. Where nothing bounds its answer, it holds all that is left, if
        that is several times what it usually costs.
        """
        spec = arm.spec
        own_limit = self._upstreams.own_limit(spec.upstream)
        most = most_usd(spec, size, own_limit)
        if most <= left or size.limit or spec.max_output_tokens or own_limit:
            return most
        mean = arm.observed_usd / arm.costs if arm.costs else 0.0
        seldom = max(usual_usd(spec, size), _SELDOM * mean)
        return max(left, seldom)

    def _offered(
        self, wanted: Wanted, tried: list[str], path: str, body: Mapping[str, Any]
    ) -> list[str]:
        """The arms that may be drawn: with an upstream that can be asked this, not tried yet, with
        room for one more call, and answering.

        Where none of them answers, all are offered: a masked arm is better than none. One that has
        as many calls as it may is not.
        """
        callable_now: dict[str, ev.ArmSpec] = {spec.id: spec for spec in self.models()}
        unsuited = self._upstreams.unsuited(path, body)
        named = wanted.request.arms
        if wanted.direct:
            assert named is not None
            if named[0] not in callable_now:
                there_are = ", ".join(["auto", *callable_now])
                raise Unknown(f"model: no {named[0]!r}; there are {there_are}", param="model")
            if refused := unsuited.get(callable_now[named[0]].upstream):
                raise refused
            self._room(named, callable_now)
            return named
        ids = [id for id in callable_now if id not in tried and (named is None or id in named)]
        if ids and all(callable_now[id].upstream in unsuited for id in ids):
            raise unsuited[callable_now[ids[0]].upstream]
        ids = [id for id in ids if callable_now[id].upstream not in unsuited]
        if named is not None and not set(named) <= set(callable_now):
            unknown, there_are = min(set(named) - set(callable_now)), ", ".join(callable_now)
            raise Unknown(f"arms: no {unknown!r}; there are {there_are}", param="arms")
        if not ids:
            raise Unavailable("no arm that may be called has an upstream: configure [[upstreams]]")
        ids, now = self._room(ids, callable_now), time.monotonic()
        return [id for id in ids if self._health.available(id, now)] or ids

    def _room(self, ids: list[str], specs: Mapping[str, ev.ArmSpec]) -> list[str]:
        """Those that may be called once more; Busy where there are none."""
        free = [id for id in ids if not self._health.full(id, specs[id].max_running)]
        if not free:
            raise Busy(f"{', '.join(ids)}: concurrency limit reached (max_running)")
        return free

    def _masked(
        self, wanted: Wanted, tried: list[str], offered: Mapping[str, float], arms: list[str]
    ) -> dict[ArmId, str]:
        """Why arms with an upstream are not among `arms` though the request allows them."""
        named = wanted.request.arms
        return {
            ArmId(spec.id): "already failed in this request" if spec.id in tried
            else "no budget has money for it" if spec.id in offered
            else "masked: its calls fail or are refused, it is busy, or it has no such call"
            for spec in self.models()
            if spec.id not in arms and (named is None or spec.id in named)
        }  # fmt: skip
