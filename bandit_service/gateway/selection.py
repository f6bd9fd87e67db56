"""Which arm is called: a decision among those that can answer and that fit the budget."""

from __future__ import annotations

import itertools
import time
from collections.abc import Container, Mapping, Sequence

import msgspec

from bandit_service.core import events as ev
from bandit_service.core.arm_kinds import is_named_only
from bandit_service.core.arm_record import ArmRecord
from bandit_service.core.arm_table import ArmTable
from bandit_service.core.conversations import KEPT_S, Sent, Turn
from bandit_service.core.deployments import calls_in, calls_of
from bandit_service.core.errors import (
    BudgetExhausted,
    Busy,
    NoEligibleArm,
    Refused,
    Unavailable,
    Unknown,
)
from bandit_service.core.routes import AUTO
from bandit_service.core.spend import Payer
from bandit_service.gateway import deployments
from bandit_service.gateway.affinity import vendor_of
from bandit_service.gateway.money import max_usd, usual_usd
from bandit_service.gateway.request import ChatRequest, RoutingRequest
from bandit_service.gateway.request_size import Size
from bandit_service.gateway.resources import Resources
from bandit_service.gateway.upstreams import Upstreams
from policies import ArmId

_TOLD = 200
"""Characters of a reason that are kept in the log."""
_IN_LOOP = (
    "the conversation waits for a tool's result, which only the arm that called the tool gets"
)
_SIGNED = "the thinking in the conversation is signed by another provider"
_SELDOM = 4.0
"""An answer rarely costs more than this multiple of its arm's usual cost."""


class Selection(msgspec.Struct, frozen=True):
    """A decision, and the most that its call may cost.

    vendor, upstreams: as of `RoutedExchange`.
    """

    decided: ev.Decided
    max_usd: float
    vendor: tuple[str, str] | None = None
    upstreams: Upstreams | None = None


class _Offer(msgspec.Struct, frozen=True):
    """The arms that may be drawn. reason: of `staying.REASONS`, where it is known before the draw.
    barred: why the conversation keeps others out. vendor: who signed its thinking.
    """

    ids: list[str]
    reason: str = ""
    barred: Mapping[str, str] = {}
    vendor: tuple[str, str] | None = None


class ArmSelector:
    """Asks the router for a decision among the arms that may be called."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._numbers = itertools.count()
        self._of: tuple[ArmTable, Upstreams] | None = None
        self._specs: dict[str, ev.ArmSpec] = {}
        self._ways: dict[str, tuple[ev.ArmSpec, list[ev.ArmSpec]]] = {}

    def _callable(self, routing: RoutingRequest) -> dict[str, ev.ArmSpec]:
        """The arms that can be called for this request, by id: those that a policy may choose, and
        the one that the request names.
        """
        resources = self._resources
        table, upstreams = resources.router.world.catalogue.table(), resources.upstreams
        if self._of is None or table is not self._of[0] or upstreams is not self._of[1]:
            specs = (record.spec for record in table.records)
            self._specs = {spec.id: spec for spec in specs if resources.serves(spec)}
            self._ways.clear()
            self._of = table, upstreams
        named = routing.decide.arms
        if route := routing.decide.route:
            allowed = resources.router.world.routes.find(route, "model").arms
            return {id: spec for id, spec in self._specs.items() if not allowed or id in allowed}
        if not routing.direct or named is None or named[0] in self._specs:
            return self._specs
        spec = resources.chat_arm(named[0])
        return self._specs if spec is None else {**self._specs, spec.id: spec}

    async def select(
        self, request: ChatRequest, tried: list[str], *, duel_of: str = "", refused: bool = False
    ) -> Selection:
        """A decision. Nothing is held for it yet: begin its exchange before the next `await`.

        tried: arms that are not to be drawn again. refused: one of them refused the request, so
        others may too.

        Raises what the router does, Unavailable if no arm has an upstream, BudgetExhausted, and
        Busy if every arm has as many calls under way as it may.
        """
        resources = self._resources
        while True:
            try:
                selection = await self._drawn(request, tried, duel_of, refused)
            except (NoEligibleArm, BudgetExhausted):
                if not request.in_loop:
                    raise
                request = msgspec.structs.replace(
                    request, in_loop=False
                )  # the arm of the tool loop cannot, others may
                continue
            except (Refused, Busy):
                if not refused:
                    raise
                refused = False  # none of those that answer may be drawn, but others may
                continue
            if selection is None:
                continue
            spec = resources.router.world.arms[selection.decided.arm].spec
            if not deployments.full(spec, resources.health, self._among(selection.vendor)):
                return selection
            # other requests took its last place meanwhile

    async def _drawn(
        self, request: ChatRequest, tried: list[str], duel_of: str, refused: bool
    ) -> Selection | None:
        """None if this waited for the money; then start again."""
        resources, routing, caller = self._resources, request.routing, request.caller
        router, budgets, health = resources.router, resources.budgets, resources.health
        upstreams, specs = resources.upstreams, self._callable(routing)
        fit = await upstreams.fit(request.asked, specs, request.pins)
        world, now = router.world, router.writer.now()
        payer = Payer(routing.decide.tenant, caller, routing.decide.route)
        turn = self._turn(request, specs, now)
        offer = self._offer(request, specs, tried, fit.unsuited, turn, duel_of)
        offered = offer.ids
        if refused:  # first the arms that answered last; those that refused last come last
            fewest = min(map(health.refusals, offered))
            offered = [id for id in offered if health.refusals(id) == fewest]
        arms, worth, most = offered, router.queries.worth_of(routing.decide), 0.0
        costs = dict.fromkeys(offered, 0.0)
        if budgets.specs:  # nothing is held where nothing is bounded
            left = budgets.left(world.spend, payer, now)
            costs = {id: self._max_usd(world.arms[ArmId(id)], request.size, left) for id in offered}
            arms = budgets.fitting(world.spend, costs, payer, now)
            most = max(costs[id] for id in arms)
            if most and not await budgets.secured(most, payer, now):
                return None
            worth = budgets.worth(world.spend, worth, payer, now)
        query = msgspec.structs.replace(routing.decide, arms=arms, willingness_to_pay=worth)
        sent = Sent(
            request.size.prompt,
            None if duel_of else turn,
            offer.reason,
            fit.effort_asked,
            fit.efforts,
            routing.named,
        )
        waiting = f"waiting {next(self._numbers)}"
        budgets.reserve(waiting, most, payer)
        try:
            decided = await router.decide(
                query,
                caller,
                duel_of,
                routing.direct,
                self._masked(routing, specs, tried, offer, arms, fit.unsuited),
                bounded=False,
                sent=sent,
            )
            while most and not await budgets.secured(0.0, payer, decided.ts):
                """Its window is newer than that of `now`."""
        finally:
            budgets.settle(waiting)
        if decided.before:
            resources.telemetry.conversation_went_on(decided.stayed, decided.why)
        return Selection(decided, costs[decided.arm], offer.vendor, upstreams)

    def _max_usd(self, arm: ArmRecord, size: Size, left: float) -> float:
        """The amount held for a call.

        If nothing bounds its answer, that is all that the budget has left, provided it is several
        times the usual cost of the call.
        """
        return max(self._max_usd_at(arm, each, size, left) for each in self._calls(arm.spec))

    def _max_usd_at(self, arm: ArmRecord, spec: ev.ArmSpec, size: Size, left: float) -> float:
        output_limit = self._resources.upstreams.output_limit(spec.upstream)
        usd = max_usd(spec, size, output_limit)
        size = size.configured(spec.request)
        if usd <= max(left, 0.0) or size.limit or spec.max_output_tokens or output_limit:
            return usd
        mean = arm.observed_usd / arm.costs if arm.costs else 0.0
        return max(left, usual_usd(spec, size), _SELDOM * mean)

    def _calls(self, spec: ev.ArmSpec) -> list[ev.ArmSpec]:
        """The arm as it may be called, at each upstream that is configured."""
        of, ways = self._ways.get(spec.id, (None, []))
        if of is not spec:  # it is new, or was changed
            ways = [each for each in calls_of(spec) if each.upstream in self._resources.upstreams]
            self._ways[spec.id] = spec, ways
        return ways

    def _turn(
        self, request: ChatRequest, specs: Mapping[str, ev.ArmSpec], now: float
    ) -> Turn | None:
        """The record of the request's conversation;

        None if the conversation does not keep its model.
        """
        if not request.conversation:
            return None
        known = self._resources.router.world.conversations
        turn = known.turn(
            request.conversation,
            request.size.prompt,
            map(ArmId, specs),
            now,
            self._resources.settings.sticky_s,
            begins=request.begins,
        )
        if request.in_loop and (arm := known.called(request.conversation, request.calls)):
            return msgspec.structs.replace(turn, before=arm)  # others may have opened alike
        return turn

    def _offer(
        self,
        request: ChatRequest,
        specs: Mapping[str, ev.ArmSpec],
        tried: list[str],
        unsuited: Mapping[str, Refused],
        turn: Turn | None,
        duel_of: str,
    ) -> _Offer:
        """The arms that may be drawn.

        Each has an upstream that takes this request, was not tried yet, has room for one more call,
        and answers. If none of them answers, all are offered: a masked arm is better than none. In
        a tool loop only the arm that called the tool is offered, whether it answers or not, unless
        a constraint or the budget excludes it. If thinking is signed, only the arms of the provider
        that signed it are offered.
        """
        routing = request.routing
        named = routing.decide.arms
        if routing.direct:
            assert named is not None
            if named[0] not in specs:
                routes = self._resources.router.world.routes.specs
                there_are = ", ".join([AUTO, *routes, *specs])
                raise Unknown(f"model: no {named[0]!r}; expected one of {there_are}", param="model")
            if refused := unsuited.get(named[0]):
                raise refused
            _, vendor = self._signer(request, turn, specs)
            return _Offer(self._with_room(named, specs, vendor), "direct", vendor=vendor)
        ids = [id for id in specs if id not in tried and (named is None or id in named)]
        if unsuited:
            if ids and all(id in unsuited for id in ids):
                raise unsuited[ids[0]]
            ids = [id for id in ids if id not in unsuited]
        if named is not None and not set(named) <= set(specs):
            unknown, there_are = min(set(named) - set(specs)), ", ".join(specs)
            spec = self._resources.chat_arm(unknown)
            if spec is not None and is_named_only(spec):
                raise Refused(
                    f"arms: {unknown!r} is chosen by no policy (routed = false); name it as model",
                    param="arms",
                )
            raise Unknown(f"arms: no {unknown!r}; expected one of {there_are}", param="arms")
        if not ids:
            raise Unavailable("no callable arm has an upstream: configure [[upstreams]]")
        reason, barred = "fallback" if tried and not duel_of else "", dict[str, str]()
        signer, vendor = self._signer(request, turn, specs)
        if turn is not None:
            if vendor is not None:
                barred = self._other_vendors(vendor, ids, specs)
                ids = [id for id in ids if id not in barred]
                if not ids:
                    raise Unavailable(
                        f"the thinking in this conversation is signed by the provider of "
                        f"{signer!r}, none of whose arms may be called now"
                    )
                reason = reason or ("signed_thinking" if barred else "")
            if request.in_loop and turn.before in ids and not duel_of:
                barred |= {id: _IN_LOOP for id in ids if id != turn.before}
                free = self._with_room([turn.before], specs, vendor)
                return _Offer(free, "tool_loop", barred, vendor)
        ids, among = self._with_room(ids, specs, vendor), self._among(vendor)
        health, now = self._resources.health, time.monotonic()
        answering = [id for id in ids if deployments.available(specs[id], health, now, among)]
        return _Offer(answering or ids, reason, barred, vendor)

    def _signer(
        self, request: ChatRequest, turn: Turn | None, specs: Mapping[str, ev.ArmSpec]
    ) -> tuple[str, tuple[str, str] | None]:
        """The arm whose provider signed the conversation's thinking, and who that is.

        The newest that answered by the client's own API: no other signs what is sent there, and
        another conversation that began alike may have been answered since.
        """
        if turn is None or not request.signed:
            return "", None
        router, upstreams = self._resources.router, self._resources.upstreams
        known, now = router.world.conversations, router.writer.now()
        visits = (each.arm for each in reversed(known.answered_by(turn.conversation)))
        for signer in dict.fromkeys((turn.before, *visits)):
            if signer not in specs:
                continue
            # a signature is valid for longer than the cache
            last = known.deployment_of(turn.conversation, signer, now, KEPT_S)
            for each in calls_in(specs[signer], last):
                if each.upstream in upstreams:
                    upstream = upstreams.spec(each.upstream)
                    if upstream.kind == request.asked.kind:
                        return signer, vendor_of(upstream)
        return "", None

    def _other_vendors(
        self, signed: tuple[str, str], ids: Sequence[str], specs: Mapping[str, ev.ArmSpec]
    ) -> dict[str, str]:
        """The arms of which no provider can read the thinking that this one signed."""
        spec = self._resources.upstreams.spec
        return {
            id: _SIGNED
            for id in ids
            if all(vendor_of(spec(each.upstream)) != signed for each in self._calls(specs[id]))
        }

    def _among(self, vendor: tuple[str, str] | None) -> Container[str] | None:
        """The upstreams that may be called, None for any: only the vendor that signed thinking can
        read it.
        """
        return self._resources.upstreams.of_vendor(vendor)

    def _with_room(
        self,
        ids: Sequence[str],
        specs: Mapping[str, ev.ArmSpec],
        vendor: tuple[str, str] | None,
    ) -> list[str]:
        """The arms that may be called once more. Raises Busy if there are none."""
        health, among = self._resources.health, self._among(vendor)
        free = [id for id in ids if not deployments.full(specs[id], health, among)]
        if not free:
            raise Busy(f"{', '.join(ids)}: concurrency limit reached (max_running)")
        return free

    def _masked(
        self,
        routing: RoutingRequest,
        specs: Mapping[str, ev.ArmSpec],
        tried: Sequence[str],
        offer: _Offer,
        arms: Sequence[str],
        unsuited: Mapping[str, Refused],
    ) -> dict[ArmId, str]:
        """Why arms that the request allows and that have an upstream are not among `arms`."""
        if len(arms) == len(specs):
            return {}
        named = routing.decide.arms
        reasons: dict[ArmId, str] = {}
        for spec in specs.values():
            if spec.id in arms or (named is not None and spec.id not in named):
                continue
            if spec.id in tried:
                reason = "already failed in this request"
            elif spec.id in offer.barred:
                reason = offer.barred[spec.id]
            elif spec.id in offer.ids:
                reason = "no budget has money for it"
            elif refused := unsuited.get(spec.id):
                reason = f"its provider cannot take this request: {refused.message[:_TOLD]}"
            else:
                reason = "masked: its calls fail or are refused, or it is busy"
            reasons[ArmId(spec.id)] = reason
        return reasons
