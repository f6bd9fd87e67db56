"""One decision: eligible arms → proposal → floor → draw. Pure; chance is keyed by its id."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeAlias

import msgspec
import numpy as np
from msgspec import structs

from bandit_service.core import chance
from bandit_service.core import events as ev
from bandit_service.core.arm_record import ArmRecord
from bandit_service.core.conversations import Turn
from bandit_service.core.eligibility import NOT_ALLOWED, eligible, expected_usd, left_out
from bandit_service.core.errors import Unavailable, Unknown
from bandit_service.core.experiments.assignment import (
    Assigned,
    assigned,
    running,
)
from bandit_service.core.exploration import Exploration
from bandit_service.core.learner import Learner, beside
from bandit_service.core.lessons import view_of
from bandit_service.core.query import Query, Recalled
from bandit_service.core.switching_cost import Stay, begun_at, stay_of
from bandit_service.core.world import World
from policies import (
    ArmId,
    Arms,
    Context,
    Floats,
    Neighbour,
    Proposal,
    draw,
    lift,
    reads_neighbours,
)

_MAX_EXCLUDED, _LONGEST_REASON = 64, 120
"""What a decision keeps of the arms that constraints took out, so that its record is bounded."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """Everything that a draw is made from, for the eligible arms in the canonical order.

    part: what the query takes part in, by `steps`; `policy`, `key`: what decided. excluded: what
    constraints took out, as the decision's record has it. worth: USD that one unit of quality is
    worth for this query. stay: what a switch costs, where its conversation's arm is eligible.
    planned_usd: (K,) what the score counts as cost. fixed: an experiment names the arm.
    """

    records: list[ArmRecord]
    arms: Arms
    proposal: Proposal
    propensities: Floats
    neighbours: tuple[Neighbour, ...]
    fallback: str
    stay: Stay | None
    planned_usd: Floats
    fixed: bool
    policy: str
    key: str
    part: Assigned | None
    steps: tuple[str, ...]
    excluded: dict[ArmId, str]
    worth: float


Offers: TypeAlias = dict[tuple[Hashable, ...], tuple[list[ArmRecord], Arms]]
"""The eligible arms with their costs, by the parts of a query that they depend on, in one world."""


class Posed(msgspec.Struct, gc=False):
    """A query with all that its proposal is made from. always: the position of a fixed arm."""

    query: Query
    recalled: Recalled
    records: list[ArmRecord]
    arms: Arms
    part: Assigned | None
    always: int | None
    learner: Learner


@dataclass(slots=True)
class Pot:
    """What decisions have in common that one policy made over the same arms.

    prices, count: by arm. untried: positions of those that no outcome came of.
    """

    records: list[ArmRecord]
    ids: tuple[ArmId, ...]
    prices: list[float]
    count: list[float] | None
    untried: tuple[int, ...]
    policy: str
    key: str


class Lot(msgspec.Struct, gc=False):
    """All that one draw is made from and that its record says, in Python's numbers, by arm."""

    query: Query
    recalled: Recalled
    pot: Pot
    embedding: bytes
    propensities: list[float]
    scores: list[float]
    costs: list[float]
    quality: list[float] | None
    deviation: list[float] | None
    fallback: str
    part: Assigned | None
    steps: tuple[str, ...]
    excluded: dict[ArmId, str]
    switch_usd: tuple[float, ...] = ()
    fixed: bool = False

    @property
    def usual(self) -> bool:
        """Whether it has no part of an experiment, conversation, duel or route, and nothing else
        that most decisions have not.
        """
        query = self.query
        return not (
            self.part
            or query.turn
            or self.steps
            or self.excluded
            or self.switch_usd
            or query.duel_of
            or query.prompt
            or query.effort_asked
            or query.efforts
            or query.route
            or query.groups
            or query.request_key
            or query.request_digest
        )


def weigh(world: World, query: Query, recalled: Recalled, explore: Exploration) -> Weighed:
    """Eligible arms → proposal → floor: all of a decision but the draw. Changes nothing."""
    return weigh_posed(world, pose(world, query, recalled, {}), explore, shown=True)


def one_by_one(world: World) -> bool:
    """Whether a decision changes what the next one is made from, so that no two can be weighed in
    the same world: each uses up some of a drift alarm's allowance.
    """
    return bool(world.drift.allowances)


def pose(world: World, query: Query, recalled: Recalled, offers: Offers) -> Posed:
    """Who decides, over which arms. Raises what `eligible` does, and for a policy that is named."""
    asked = (
        query.arms,
        query.all_of_route,
        query.requires,
        query.tokens,
        query.max_cost_usd,
        query.max_latency_s,
        query.prompt,
        () if query.turn is None else query.turn.cached,
    )
    offer = offers.get(asked)
    if offer is None:
        offer = offers[asked] = _offer(world, query)
    records, arms = offer
    alone = query.outside or bool(query.duel_of) or bool(query.policy)
    part = None if alone else assigned(world, query)
    always = None if part is None or part.arm not in arms.ids else arms.ids.index(ArmId(part.arm))
    return Posed(query, recalled, records, arms, part, always, _learner(world, query, part))


def _offer(world: World, query: Query) -> tuple[list[ArmRecord], Arms]:
    table = world.catalogue.table()
    bound = (query.arms, query.max_cost_usd, query.max_latency_s) != (None, None, None)
    if not (bound or query.requires or query.prompt) and query.tokens <= table.room:
        return table.records, table.arms(query.tokens)
    records = eligible(world, query)
    costs = [expected_usd(record, query) for record in records]
    return records, world.catalogue.costing(records, costs)


def weigh_posed(world: World, posed: Posed, explore: Exploration, shown: bool = False) -> Weighed:
    """`weigh` of one that is posed in the world as it is now. shown: also the neighbours that the
    policy does not look at are wanted.
    """
    query, arms, always, learner = posed.query, posed.arms, posed.always, posed.learner
    context = _context(world, query, posed.recalled, learner, shown)
    stay, planned = None, arms.cost_usd
    if always is not None:  # a fixed arm is just that: neither proposal nor floor
        eye = np.eye(len(arms))[always]
        proposal, fallback = Proposal(scores=eye, propensities=eye), query.fallback
    else:
        offered = arms
        if query.turn is not None:
            stay, costs = conversing(query.turn, posed)
            planned = costs if stay is None else stay.cost_usd
            offered = replace(arms, cost_usd=costs)
        proposal, fallback = proposed(learner, context, offered, query.fallback)
    propensities = proposal.propensities
    if always is None:
        proposal, propensities = explore.settled(proposal, stay, query.willingness_to_pay)
        floors = world.drift.floors(arms.ids)
        if floors is not None:
            propensities = lift(propensities, floors)
    policy, key = who_decides(world, learner) if always is None else ("fixed", "")
    return Weighed(
        posed.records,
        arms,
        proposal,
        propensities,
        context.neighbours,
        fallback,
        stay,
        planned,
        always is not None,
        policy,
        key,
        posed.part,
        steps_of(world, query, posed.part, always is not None),
        noted(world, posed),
        query.willingness_to_pay,
    )


def conversing(turn: Turn, posed: Posed) -> tuple[Stay | None, Floats]:
    """The cost of a switch, None if there is no arm to stay with, and (K,) USD of the turn for the
    policy.
    """
    records, arms, prompt = posed.records, posed.arms, posed.query.prompt
    stay = stay_of(turn, prompt, records, arms)
    return stay, begun_at(turn, prompt, records, arms) if stay is None else stay.warm


def lot_of(query: Query, recalled: Recalled, weighed: Weighed) -> Lot:
    """What was weighed, ready to be drawn from."""
    proposal, arms = weighed.proposal, weighed.arms
    count = _listed(proposal.count)
    return Lot(
        query,
        recalled,
        Pot(
            weighed.records,
            arms.ids,
            arms.price.tolist(),
            count,
            untried_of(count),
            weighed.policy,
            weighed.key,
        ),
        ev.pack(query.embedding),
        weighed.propensities.tolist(),
        proposal.scores.tolist(),
        arms.cost_usd.tolist(),
        _listed(proposal.quality),
        _listed(proposal.deviation),
        weighed.fallback,
        weighed.part,
        weighed.steps,
        weighed.excluded,
        switch_usd_of(weighed.stay),
        weighed.fixed,
    )


def switch_usd_of(stay: Stay | None) -> tuple[float, ...]:
    """What a switch to each arm costs, as the decision's record has it."""
    return () if stay is None else tuple(stay.extra.tolist())


def _listed(values: Floats | None) -> list[float] | None:
    return None if values is None else [float(value) for value in values]


def untried_of(count: list[float] | None) -> tuple[int, ...]:
    """Positions of the arms that no outcome came of, as far as the policy counts them."""
    return () if count is None else tuple(i for i, n in enumerate(count) if n == 0.0)


def who_decides(world: World, learner: Learner) -> tuple[str, str]:
    """The policy and its key, as a decision's record has them."""
    return learner.name or world.serving, world.key_of(learner)


def _learner(world: World, query: Query, part: Assigned | None) -> Learner:
    """The policy that decides: the variant's, the route's, the one that is named, or the serving
    one.
    """
    if query.route:
        world.routes.find(query.route)
        variant = part.learner if part is not None else ""
        learner = world.learners.get(variant or ev.label_of_route(query.route))
        if learner is None:
            raise Unavailable(f"route: the policy of {query.route!r} cannot be loaded here")
        return learner
    if not query.policy or query.policy == world.serving:
        return world.learners[part.learner if part and part.learner else world.serving]
    learner = world.learners.get(beside(query.policy))
    if learner is None:
        raise unknown_policy(world, query.policy, "policy")
    return learner


def unknown_policy(world: World, name: str, param: str) -> Unknown | Unavailable:
    """The error for a query that names a policy which does not decide here, or not yet."""
    if name in world.learners.awaited:
        return Unavailable(
            f"{param}: {name!r} is still learning from the log; retry in a few seconds"
        )
    there_are = ", ".join(world.deciding())
    return Unknown(
        f"{param}: no policy {name!r} decides here; expected one of {there_are}", param=param
    )


def steps_of(world: World, query: Query, part: Assigned | None, fixed: bool) -> tuple[str, ...]:
    """Which steps of the experiments applied, as the decision's record has them."""
    if not world.experiments.specs or query.duel_of:
        return ()
    if query.outside or query.policy or _untried(world, query.route):
        return ("outside",)
    if part is None:
        return ("stopped",) if world.experiments.rules.stopped else ()
    return (*part.steps, "no arm") if part.arm and not fixed else part.steps


def _untried(world: World, route: str) -> bool:
    """Whether a route other than the default one has no hold-out, and no experiment runs on it."""
    if not route or route in world.experiments.held:
        return False
    return not any(spec.route == route for spec, _ in running(world))


def _context(
    world: World, query: Query, recalled: Recalled, learner: Learner, shown: bool
) -> Context:
    """The policy's context. shown: include neighbours even if the policy reads none."""
    near: tuple[Neighbour, ...] = ()
    if shown or reads_neighbours(learner.policy):
        near = world.history.neighbours(
            recalled.ids, recalled.similarities, view_of(world, learner)
        )
    return Context(
        embedding=query.embedding,
        tokens=query.tokens,
        willingness_to_pay=query.willingness_to_pay,
        neighbours=near,
        surface=ev.surface_of(query.surface),
    )


def decide(
    world: World, query: Query, recalled: Recalled, id: str, ts: float, explore: Exploration
) -> ev.Decided:
    """The decision on `query`, which the caller appends and applies.

    Where the policy fails, the answer is a smaller truth: uniform over the eligible arms, with
    the true propensities and `fallback` naming the failure.
    """
    return drawn(lot_of(query, recalled, weigh(world, query, recalled, explore)), id, ts, explore)


def drawn(lot: Lot, id: str, ts: float, explore: Exploration) -> ev.Decided:
    """The draw, and its record."""
    query, pot = lot.query, lot.pot
    at = draw(lot.propensities, chance.uniform(explore.seed, id))
    record, quality, deviation, count = pot.records[at], lot.quality, lot.deviation, pot.count
    event = ev.Decided(
        ts=ts,
        id=id,
        embedding=lot.embedding,
        tokens=query.tokens,
        willingness_to_pay=query.willingness_to_pay,
        arms=pot.ids,
        propensities=tuple(lot.propensities),
        scores=tuple(lot.scores) if query.coding == ev.FLOAT32 else (),
        drawn=at,
        policy=pot.policy,
        key=pot.key,
        list_cost_usd=record.list_cost_usd(query.tokens),
        expected_cost_usd=lot.costs[at],
        price=pot.prices[at],
        expected_quality=None if quality is None else quality[at],
        expected_deviation=None if deviation is None else deviation[at],
        expected_count=None if count is None else count[at],
        untried=pot.untried,
        expected_latency_s=record.expected_latency_s(),
        neighbours=tuple(lot.recalled.ids),
        similarities=tuple(lot.recalled.similarities),
        tenant=query.tenant,
        unit=query.unit,
        fallback=lot.fallback,
        caller=query.caller,
        split=1.0,
        surface=query.surface,
        reason=_reason(lot, record.spec.id),
        later_turns=0.0,
        tags=query.tags,
    )
    if lot.usual:
        return event
    part, turn = lot.part, query.turn
    return structs.replace(  # most decisions have none of these, and are made in half the time
        event,
        stayed=bool(turn and turn.before == record.spec.id),
        duel_of=query.duel_of,
        experiment="" if part is None else part.experiment,
        variant="" if part is None else part.variant,
        split=1.0 if part is None else part.split,
        member="" if part is None else part.member,
        steps=lot.steps,
        excluded=lot.excluded,
        prompt_tokens=query.prompt,
        conversation="" if turn is None else turn.conversation,
        before=ArmId("") if turn is None else turn.before,
        cached_tokens=() if turn is None else turn.listed(turn.cached, pot.ids),
        warm_tokens=() if turn is None else turn.listed(turn.warm, pot.ids),
        switch_usd=lot.switch_usd,
        later_turns=0.0 if turn is None else turn.later,
        effort_asked=query.effort_asked,
        effort=query.efforts.get(record.spec.id, ""),
        route=query.route,
        groups=query.groups,
        request_key=query.request_key,
        request_digest=query.request_digest,
    )


def _reason(lot: Lot, arm: ArmId) -> str:
    """Why this arm answers, of `staying.REASONS`; empty if it was only drawn."""
    query, turn = lot.query, lot.query.turn
    if query.reason:
        return query.reason
    if lot.fixed:
        return "fixed"
    if len(lot.pot.ids) == 1:
        return "only_one"
    if turn is None or not turn.before:
        return ""
    return "stayed" if turn.before == arm else "switched"


def noted(world: World, posed: Posed) -> dict[ArmId, str]:
    """What the event keeps of `left_out`."""
    if len(posed.records) == len(world.catalogue.table().records):
        return {}
    found = left_out(world, posed.query).items()
    reasons = ((id, why) for id, why in found if why != NOT_ALLOWED)
    return {id: why[:_LONGEST_REASON] for id, why in islice(reasons, _MAX_EXCLUDED)}


def proposed(learner: Learner, context: Context, arms: Arms, fallback: str) -> tuple[Proposal, str]:
    """The policy's proposal, with `fallback`; uniform, with the failure, if it fails."""
    try:
        proposal = learner.policy.propose(learner.state, context, arms)
        if _proper(proposal, len(arms)):
            return proposal, fallback
        failure = "propose: not a distribution"
    except Exception as error:  # noqa: BLE001 - whatever a policy raises, the query gets an answer
        failure = f"propose: {type(error).__name__}"
    k = len(arms)
    return Proposal(scores=np.zeros(k), propensities=np.full(k, 1.0 / k)), failure


def _proper(proposal: Proposal, k: int) -> bool:
    """Whether it is a distribution over k arms."""
    if proposal.propensities.shape != (k,):
        return False
    p = proposal.propensities.tolist()
    proper = abs(sum(p) - 1.0) < 1e-6 and min(p) >= 0.0
    return proper and all(map(math.isfinite, proposal.scores.ravel().tolist()))
