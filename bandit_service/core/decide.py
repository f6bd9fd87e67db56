"""One decision: eligible arms → proposal → floor → draw. Pure; chance is keyed by its id."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeAlias

import numpy as np

from bandit_service.core import chance
from bandit_service.core import events as ev
from bandit_service.core.catalogue import ArmRecord
from bandit_service.core.errors import NoEligibleArm, Unavailable, Unknown
from bandit_service.core.experiments.assignment import (
    Assigned,
    assigned,
    invited,
    running,
)
from bandit_service.core.experiments.spec import label_of
from bandit_service.core.learner import Learner, beside
from bandit_service.core.lessons import view_of
from bandit_service.core.world import World
from policies import (
    ArmId,
    Arms,
    Context,
    Floats,
    ManyAtOnce,
    Neighbour,
    Proposal,
    Vector,
    draw,
    floor,
    lift,
    mix,
)

NOT_ALLOWED = "not in arms"
_MOST_EXCLUDED, _LONGEST_REASON = 64, 120
"""What a decision keeps of the arms that constraints took out, so that its record is bounded."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked: features of the query and its hard constraints.

    embedding: (d,) unit norm, or zeros with `fallback` saying why it could not be had.
    surface: what the text's surface tells, as `events.surface_of` reads it.
    sticky: the arm to stay with unless another scores more than `sticky_margin` higher.
    outside: the query takes part in no experiment, since its arm or its policy was named.
    policy: the one that is to decide, the serving one where none is named.
    masked: why arms are not in `arms` though the request allows them.
    """

    embedding: Vector
    tokens: int
    willingness_to_pay: float
    arms: tuple[ArmId, ...] | None = None
    max_cost_usd: float | None = None
    max_latency_s: float | None = None
    requires: tuple[str, ...] = ()
    tenant: str = ""
    unit: str = ""
    fallback: str = ""
    sticky: ArmId | None = None
    sticky_margin: float = 0.0
    caller: str = ""
    duel_of: str = ""
    session: str = ""
    conversation: str = ""
    outside: bool = False
    policy: str = ""
    masked: Mapping[ArmId, str] = field(default_factory=dict)
    surface: bytes = b""


@dataclass(frozen=True, slots=True)
class Exploration:
    """The probability floor that every decision gets, and the seed of all chance.

    share: of the probability, in all, given to the eligible arms evenly. floor: where it is set, so
    much for each arm takes the place of that, and all together no more than floor_share.
    """

    seed: int = 0
    share: float = 0.02
    floor: float | None = None
    floor_share: float = 0.1

    def added(self, propensities: Floats) -> Floats:
        """(K,) with the floor: none below share / K, or below min(floor, floor_share / K)."""
        if self.floor is None:
            return mix(propensities, self.share)
        return floor(propensities, self.floor, self.floor_share)

    @property
    def label(self) -> str:
        """In a few words.

        >>> Exploration().label, Exploration(floor=0.01).label, Exploration(share=0.0).label
        ('2 % in all', '0.01 per arm', 'no floor')
        """
        if not (self.share if self.floor is None else self.floor):
            return "no floor"
        return f"{100 * self.share:g} % in all" if self.floor is None else f"{self.floor:g} per arm"


@dataclass(frozen=True, slots=True)
class Recalled:
    """What the history index gave for a query, nearest first."""

    ids: Sequence[int] = ()
    similarities: Sequence[float] = ()


def eligible(world: World, query: Query) -> list[ArmRecord]:
    """The arms left after the hard constraints, in the canonical order.

    Raises Unknown for an arm of the allow-list that was never there, and NoEligibleArm saying
    which constraint excluded which arm.
    """
    for id in query.arms or ():
        if id not in world.arms:
            raise Unknown(f"arms: no arm {id!r}; GET /v1/arms lists them", param="arms")
    left: list[ArmRecord] = []
    excluded = [f"{id}: retired" for id in query.arms or () if world.arms[id].retired]
    for record in world.offered():
        why = _excluded(record, query)
        if why:
            excluded.append(f"{record.spec.id}: {why}")
        else:
            left.append(record)
    if not left:
        if not excluded:
            raise NoEligibleArm("there is no arm: add one with PUT /v1/arms/{id}", param="arms")
        raise NoEligibleArm("no arm is eligible; " + "; ".join(excluded), param=_relax(query))
    return left


@dataclass(frozen=True, slots=True)
class Weighed:
    """Everything that a draw is made from, for the eligible arms in the canonical order.

    part: what the query takes part in, by `steps`; `policy`, `key`: what decided. excluded: what
    constraints took out, as the decision's record has it. worth: USD that one unit of quality is
    worth for this query.
    """

    records: list[ArmRecord]
    arms: Arms
    proposal: Proposal
    propensities: Floats
    neighbours: tuple[Neighbour, ...]
    fallback: str
    stayed: bool
    policy: str
    key: str
    part: Assigned | None
    steps: tuple[str, ...]
    shadows: tuple[ev.Shadow, ...]
    excluded: dict[ArmId, str]
    worth: float


_Offers: TypeAlias = dict[tuple[Hashable, ...], tuple[list[ArmRecord], Arms]]
"""The eligible arms with what they cost, by all of a query that they hang on, in one world."""


@dataclass(frozen=True, slots=True)
class _Posed:
    """A query with all that its proposal is made from. always: the position of a fixed arm."""

    query: Query
    recalled: Recalled
    records: list[ArmRecord]
    arms: Arms
    alone: bool
    part: Assigned | None
    always: int | None
    learner: Learner
    context: Context


def weigh(world: World, query: Query, recalled: Recalled, explore: Exploration) -> Weighed:
    """Eligible arms → proposal → floor: all of a decision but the draw. Changes nothing."""
    posed = _posed(world, query, recalled, {})
    if posed.always is not None:
        return _weighed(world, posed, *_fixed(posed, posed.always), explore)
    found = proposed(posed.learner, posed.context, posed.arms, query.fallback)
    return _weighed(world, posed, *found, explore)


def weigh_many(
    world: World, asked: Sequence[tuple[Query, Recalled]], explore: Exploration
) -> list[Weighed | Exception]:
    """`weigh` of each, or what it raises; those that one policy can take together, it does."""
    found: list[Weighed | Exception | None] = [None] * len(asked)
    posed: dict[int, _Posed] = {}
    offers: _Offers = {}
    together: dict[tuple[int, tuple[ArmId, ...], int], list[int]] = {}
    for at, (query, recalled) in enumerate(asked):
        try:
            one = posed[at] = _posed(world, query, recalled, offers)
        except Exception as error:  # noqa: BLE001 - one query's trouble is not the others'
            found[at] = error
            continue
        if one.always is None:
            of = id(one.learner), one.arms.ids, len(query.embedding)
            together.setdefault(of, []).append(at)
    proposals: dict[int, tuple[Proposal, str]] = {}
    for alike in together.values():
        some = [posed[at] for at in alike]
        proposals.update(zip(alike, _proposed_many(some), strict=True))
    for at, one in posed.items():
        try:
            proposal = proposals[at] if one.always is None else _fixed(one, one.always)
            found[at] = _weighed(world, one, *proposal, explore)
        except Exception as error:  # noqa: BLE001 - as above
            found[at] = error
    return [each for each in found if each is not None]


def one_by_one(world: World) -> bool:
    """Whether a decision changes what the next one is made from, so that no two can be weighed in
    the same world: each uses up some of a drift alarm's allowance.
    """
    return bool(world.drift.allowances)


def _posed(world: World, query: Query, recalled: Recalled, offers: _Offers) -> _Posed:
    asked = (
        query.arms,
        query.requires,
        query.tokens,
        query.max_cost_usd,
        query.max_latency_s,
    )
    offer = offers.get(asked)
    if offer is None:
        records = eligible(world, query)
        offer = offers[asked] = records, world.catalogue.priced(records, query.tokens)
    records, arms = offer
    alone = query.outside or bool(query.duel_of) or bool(query.policy)
    part = None if alone else assigned(world, query)
    always = None if part is None or part.arm not in arms.ids else arms.ids.index(ArmId(part.arm))
    learner = _learner(world, query, part)
    context = _context(world, query, recalled, learner)
    return _Posed(query, recalled, records, arms, alone, part, always, learner, context)


def _fixed(posed: _Posed, always: int) -> tuple[Proposal, str]:
    """A fixed arm is just that: neither proposal nor floor."""
    eye = np.eye(len(posed.arms))[always]
    return Proposal(scores=eye, propensities=eye), posed.query.fallback


def _weighed(
    world: World, posed: _Posed, proposal: Proposal, fallback: str, explore: Exploration
) -> Weighed:
    query, arms, always, learner = posed.query, posed.arms, posed.always, posed.learner
    if always is not None:
        policy, key = "fixed", ""
    else:
        policy, key = learner.name or world.serving, world.key_of(learner)
    stays = None if always is not None else _stays(proposal, arms, query)
    if stays is not None:
        proposal = replace(proposal, propensities=np.eye(len(arms))[stays])
    propensities = proposal.propensities
    if always is None:
        propensities = explore.added(propensities)
        floors = world.drift.floors(arms.ids)
        if floors is not None:
            propensities = lift(propensities, floors)
    return Weighed(
        posed.records,
        arms,
        proposal,
        propensities,
        posed.context.neighbours,
        fallback,
        stays is not None,
        policy,
        key,
        posed.part,
        _steps(world, query, posed.part, always is not None),
        () if posed.alone else _shadows(world, query, posed.recalled, arms, explore),
        _noted(world, query) if len(posed.records) < len(world.arms) else {},
        query.willingness_to_pay,
    )


def _learner(world: World, query: Query, part: Assigned | None) -> Learner:
    """The policy that decides: the one that is named, the variant's, or the serving one."""
    if not query.policy or query.policy == world.serving:
        return world.learners[part.learner if part and part.learner else world.serving]
    learner = world.learners.get(beside(query.policy))
    if learner is None:
        raise unknown_policy(world, query.policy, "policy")
    return learner


def unknown_policy(world: World, name: str, param: str) -> Unknown | Unavailable:
    """What a query is told that names a policy which decides nothing here, or not yet."""
    if name in world.learners.awaited:
        return Unavailable(f"{param}: {name!r} is learning what was before; retry in a few seconds")
    there_are = ", ".join(world.deciding())
    return Unknown(f"{param}: no policy {name!r} decides here; there are {there_are}", param=param)


def _steps(world: World, query: Query, part: Assigned | None, fixed: bool) -> tuple[str, ...]:
    """Which steps of the experiments applied, as the decision's record has them."""
    if not world.experiments.specs or query.duel_of:
        return ()
    if query.outside or query.policy:
        return ("outside",)
    if part is None:
        return ("stopped",) if world.experiments.rules.stopped else ()
    return (*part.steps, "no arm") if part.arm and not fixed else part.steps


def _context(world: World, query: Query, recalled: Recalled, learner: Learner) -> Context:
    return Context(
        embedding=query.embedding,
        tokens=query.tokens,
        willingness_to_pay=query.willingness_to_pay,
        neighbours=world.history.neighbours(recalled.ids, recalled.similarities, view_of(learner)),
        surface=ev.surface_of(query.surface),
    )


def _shadows(
    world: World, query: Query, recalled: Recalled, arms: Arms, explore: Exploration
) -> tuple[ev.Shadow, ...]:
    """What each running experiment's shadows would do with the query."""
    found, experiments = [], world.experiments
    for spec, _ in running(world) if experiments.trials and not experiments.rules.stopped else ():
        for variant in spec.shadows:
            learner = world.learners.get(label_of(spec.id, variant.key))
            if learner is None or not invited(spec, query):
                continue
            proposal, _ = proposed(learner, _context(world, query, recalled, learner), arms, "")
            p = explore.added(proposal.propensities)
            usd = float(p @ arms.cost_usd)
            found.append(
                ev.Shadow(
                    experiment=spec.id,
                    variant=variant.key,
                    propensities=tuple(p.tolist()),
                    expected_cost_usd=usd,
                )
            )
    return tuple(found)


def left_out(world: World, query: Query) -> dict[ArmId, str]:
    """Why each arm that is not eligible is not."""
    reasons = ((record.spec.id, _excluded(record, query)) for record in world.offered())
    return {id: why for id, why in reasons if why}


def decide(
    world: World, query: Query, recalled: Recalled, id: str, ts: float, explore: Exploration
) -> ev.Decided:
    """The decision on `query`, which the caller appends and applies.

    Where the policy fails, the answer is a smaller truth: uniform over the eligible arms, with
    the true propensities and `fallback` naming the failure.
    """
    return drawn(query, recalled, weigh(world, query, recalled, explore), id, ts, explore)


def drawn(
    query: Query, recalled: Recalled, weighed: Weighed, id: str, ts: float, explore: Exploration
) -> ev.Decided:
    """The draw from what was weighed, and its record."""
    records, arms, proposal = weighed.records, weighed.arms, weighed.proposal
    propensities = weighed.propensities
    at = draw(propensities, chance.uniform(explore.seed, id))
    record, part = records[at], weighed.part
    return ev.Decided(
        ts=ts,
        id=id,
        embedding=ev.pack(query.embedding),
        tokens=query.tokens,
        willingness_to_pay=query.willingness_to_pay,
        arms=arms.ids,
        propensities=tuple(propensities.tolist()),
        scores=tuple(proposal.scores.tolist()),
        drawn=at,
        policy=weighed.policy,
        key=weighed.key,
        list_cost_usd=record.list_cost_usd(query.tokens),
        expected_cost_usd=float(arms.cost_usd[at]),
        price=float(arms.price[at]),
        expected_quality=_of(proposal.quality, at),
        expected_deviation=_of(proposal.deviation, at),
        expected_count=_of(proposal.count, at),
        untried=_untried(proposal.count),
        expected_latency_s=record.expected_latency_s(),
        neighbours=tuple(recalled.ids),
        similarities=tuple(recalled.similarities),
        tenant=query.tenant,
        unit=query.unit,
        fallback=weighed.fallback,
        stayed=weighed.stayed,
        caller=query.caller,
        duel_of=query.duel_of,
        experiment="" if part is None else part.experiment,
        variant="" if part is None else part.variant,
        split=1.0 if part is None else part.split,
        member="" if part is None else part.member,
        steps=weighed.steps,
        shadows=weighed.shadows,
        surface=query.surface,
        excluded=weighed.excluded,
    )


def _of(values: Floats | None, at: int) -> float | None:
    return None if values is None else float(values[at])


def _untried(count: Floats | None) -> tuple[int, ...]:
    """Positions of the arms that no outcome came of, as far as the policy counts them."""
    if count is None or count.all():
        return ()
    return tuple(np.flatnonzero(count == 0.0).tolist())


def _noted(world: World, query: Query) -> dict[ArmId, str]:
    """What the event keeps of `left_out`."""
    reasons = ((id, why) for id, why in left_out(world, query).items() if why != NOT_ALLOWED)
    return {id: why[:_LONGEST_REASON] for id, why in islice(reasons, _MOST_EXCLUDED)}


def _stays(proposal: Proposal, arms: Arms, query: Query) -> int | None:
    """The position of the sticky arm, where no other is better by more than the margin."""
    if query.sticky is None or query.sticky not in arms.ids:
        return None
    at = arms.ids.index(query.sticky)
    best = float(proposal.scores.max())
    return at if float(proposal.scores[at]) >= best - query.sticky_margin else None


def proposed(learner: Learner, context: Context, arms: Arms, fallback: str) -> tuple[Proposal, str]:
    """What the policy proposes, with `fallback`; uniform, with the failure, where it fails."""
    try:
        proposal = learner.policy.propose(learner.state, context, arms)
        if _proper(proposal, len(arms)):
            return proposal, fallback
        failure = "propose: not a distribution"
    except Exception as error:  # noqa: BLE001 - whatever a policy raises, the query gets an answer
        failure = f"propose: {type(error).__name__}"
    k = len(arms)
    return Proposal(scores=np.zeros(k), propensities=np.full(k, 1.0 / k)), failure


def _proposed_many(some: Sequence[_Posed]) -> list[tuple[Proposal, str]]:
    """`proposed` of queries with the same learner and the same arms."""
    learner = some[0].learner
    if len(some) > 1 and isinstance(learner.policy, ManyAtOnce):
        try:
            proposals = learner.policy.propose_many(
                learner.state, [one.context for one in some], [one.arms for one in some]
            )
            if len(proposals) == len(some) and all(
                _proper(each, len(one.arms)) for each, one in zip(proposals, some, strict=True)
            ):
                fallbacks = (one.query.fallback for one in some)
                return list(zip(proposals, fallbacks, strict=True))
        except Exception:  # noqa: BLE001, S110 - who fails alone is to get a fallback alone
            pass
    return [proposed(learner, one.context, one.arms, one.query.fallback) for one in some]


def _proper(proposal: Proposal, k: int) -> bool:
    """Whether it is a distribution over k arms."""
    return (
        proposal.propensities.shape == (k,)
        and abs(float(proposal.propensities.sum()) - 1.0) < 1e-6
        and float(proposal.propensities.min()) >= 0.0
        and bool(np.isfinite(proposal.scores).all())
    )


def _excluded(record: ArmRecord, query: Query) -> str:
    """Why the arm cannot serve this query, or nothing."""
    spec = record.spec
    if query.arms is not None and spec.id not in query.arms:
        return query.masked.get(spec.id, NOT_ALLOWED)
    missing = [name for name in query.requires if name not in spec.capabilities]
    if missing:
        return f"requires {', '.join(missing)}"
    needed = query.tokens + spec.expected_output_tokens
    if needed > spec.context_window:
        return f"context window {spec.context_window} < {needed} tokens"
    if query.max_cost_usd is not None:
        cost = record.expected_cost_usd(query.tokens)
        if cost > query.max_cost_usd:
            return f"max_cost_usd {query.max_cost_usd:g} < expected {cost:.3g}"
    if query.max_latency_s is not None:
        latency = record.expected_latency_s()
        if latency is not None and latency > query.max_latency_s:
            return f"max_latency_s {query.max_latency_s:g} < expected {latency:.3g}"
    return ""


def _relax(query: Query) -> str | None:
    """The first constraint that the caller set, which is the field to look at."""
    for name in ("max_cost_usd", "max_latency_s", "requires", "arms"):
        if getattr(query, name) not in (None, ()):
            return name
    return None
