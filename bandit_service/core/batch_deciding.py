"""Many queries weighed in one world: those of one policy over the same arms, together.

Each gets the result that it would get alone, bit for bit; an error of one affects no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from bandit_service.core import events as ev
from bandit_service.core.decide import (
    Lot,
    Offers,
    Posed,
    Pot,
    conversing,
    lot_of,
    noted,
    one_by_one,
    pose,
    steps_of,
    switch_usd_of,
    untried_of,
    weigh_posed,
    who_decides,
)
from bandit_service.core.exploration import Exploration
from bandit_service.core.lessons import view_of
from bandit_service.core.query import Query, Recalled
from bandit_service.core.switching_cost import Stay
from bandit_service.core.world import World
from policies import (
    ArmId,
    Contexts,
    Floats,
    ManyAtOnce,
    Neighbour,
    Proposals,
    Vector,
    reads_neighbours,
)


def weigh_many(
    world: World, asked: Sequence[tuple[Query, Recalled]], explore: Exploration
) -> list[Lot | Exception]:
    """Everything of each decision except the draw, or the error of its query."""
    found: list[Lot | Exception | None] = [None] * len(asked)
    together: dict[tuple[int, tuple[ArmId, ...], int], list[tuple[int, Posed]]] = {}
    offers: Offers = {}
    apart = len(asked) == 1 or one_by_one(world)
    for at, (query, recalled) in enumerate(asked):
        try:
            posed = pose(world, query, recalled, offers)
            if apart or posed.always is not None:
                found[at] = _alone(world, posed, explore)
                continue
        except Exception as error:  # noqa: BLE001 - one query's trouble is not the others'
            found[at] = error
            continue
        alike = id(posed.learner), posed.arms.ids, len(query.embedding)
        together.setdefault(alike, []).append((at, posed))
    for some in together.values():
        lots = _weighed(world, [posed for _, posed in some], explore)
        for (at, _), lot in zip(some, lots, strict=True):
            found[at] = lot
    return [each for each in found if each is not None]


def _alone(world: World, posed: Posed, explore: Exploration) -> Lot:
    return lot_of(posed.query, posed.recalled, weigh_posed(world, posed, explore))


def _weighed(world: World, some: Sequence[Posed], explore: Exploration) -> list[Lot | Exception]:
    """Of queries with the same learner and the same arms."""
    policy = some[0].learner.policy
    if hasattr(policy, "propose_many"):  # isinstance of a protocol takes 10 us to say the same
        try:
            return [*_in_one(world, some, cast(ManyAtOnce[object], policy), explore)]
        except Exception:  # noqa: BLE001, S110 - who fails alone is to get a fallback alone
            pass
    found: list[Lot | Exception] = []
    for posed in some:
        try:
            found.append(_alone(world, posed, explore))
        except Exception as error:  # noqa: BLE001 - one query's trouble is not the others'
            found.append(error)
    return found


def _in_one(
    world: World, some: Sequence[Posed], policy: ManyAtOnce[object], explore: Exploration
) -> list[Lot]:
    """One proposal for all. Raises an error if it is not one."""
    first = some[0]
    learner, k = first.learner, len(first.arms)
    vectors = np.array([one.query.embedding for one in some], "<f4")
    stays, shown = _stays(some)
    arms = first.arms.rows(np.array(shown))
    proposals = policy.propose_many(learner.state, _contexts(world, some, vectors), arms)
    proper(proposals, len(some), k)
    count = None if proposals.count is None else proposals.count.tolist()
    name, key = who_decides(world, learner)
    prices = first.arms.price.tolist()
    pot = Pot(first.records, first.arms.ids, prices, count, untried_of(count), name, key)
    packed, width = vectors.tobytes(), 4 * vectors.shape[1]
    quality, deviation = _rows(proposals.quality), _rows(proposals.deviation)
    propensities = explore.added(proposals.propensities).tolist()
    scores = proposals.scores.tolist()
    for i, stay in enumerate(stays):
        if stay is not None:
            worth = some[i].query.willingness_to_pay
            kept, settled = explore.settled(proposals[i], stay, worth)
            scores[i], propensities[i] = kept.scores.tolist(), settled.tolist()
    costs = {id(one.arms): one.arms.cost_usd.tolist() for one in some}
    steps = bool(world.experiments.specs)
    whole = len(first.records) == len(world.catalogue.table().records)
    return [
        Lot(
            one.query,
            one.recalled,
            pot,
            packed[i * width : (i + 1) * width],
            propensities[i],
            scores[i],
            costs[id(one.arms)],
            None if quality is None else quality[i],
            None if deviation is None else deviation[i],
            one.query.fallback,
            one.part,
            steps_of(world, one.query, one.part, False) if steps else (),
            {} if whole else noted(world, one),
            switch_usd_of(stays[i]),
        )
        for i, one in enumerate(some)
    ]


def _stays(some: Sequence[Posed]) -> tuple[list[Stay | None], list[Floats]]:
    """What a switch costs in each query's conversation, and (K,) what the policy sees of costs."""
    stays: list[Stay | None] = []
    shown: list[Floats] = []
    for one in some:
        stay, costs = None, one.arms.cost_usd
        if one.query.turn is not None:
            stay, costs = conversing(one.query.turn, one)
        stays.append(stay)
        shown.append(costs)
    return stays, shown


def _contexts(world: World, some: Sequence[Posed], vectors: Vector) -> Contexts:
    learner = some[0].learner
    neighbours: list[tuple[Neighbour, ...]] = [()] * len(some)
    if reads_neighbours(learner.policy):
        view, history = view_of(world, learner), world.history
        neighbours = [
            history.neighbours(one.recalled.ids, one.recalled.similarities, view) for one in some
        ]
    return Contexts(
        vectors,
        [one.query.tokens for one in some],
        np.array([one.query.willingness_to_pay for one in some]),
        neighbours,
        np.array([ev.surface_of(one.query.surface) for one in some]),
    )


def _rows(values: Floats | None) -> list[list[float]] | None:
    return None if values is None else values.tolist()


def proper(proposals: Proposals, n: int, k: int) -> None:
    """ValueError unless each is a distribution over the arms."""
    p, scores = proposals.propensities, proposals.scores
    if p.shape != (n, k) or scores.shape != (n, k):
        raise ValueError(f"propose_many: {(n, k)} expected, got {p.shape} and {scores.shape}")
    off = np.abs(np.add.reduce(p, axis=1) - 1.0)
    if not (off < 1e-6).all() or float(p.min()) < 0.0 or not np.isfinite(scores).all():
        raise ValueError("propose_many: not a distribution")
