"""Recorded traffic through a policy, by the very fold that the service runs.

The online protocol with bandit feedback: of each query only the drawn arm's quality and cost
are shown to the policy. No HTTP, no disk, no clock; equal arguments give equal runs.

An arm without a recorded answer to a query is not eligible for that query.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandit_service.core import chance
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.decide import Exploration, Query, Recalled, decide
from bandit_service.core.outcomes import Reported, RewardRule, Signals, decision_rewarded
from bandit_service.core.world import World, new_world
from bandit_service.recorded import Recorded
from policies import Floats, Policy, Vector
from store.history import ExactIndex

Watch = Callable[[int, float], None]
_EXPIRE_EVERY = 1000
_LABEL = "replayed"


@dataclass(frozen=True, slots=True)
class Track:
    """What was earned, step by step: (n,) each, cost in USD."""

    reward: Floats
    quality: Floats
    cost: Floats

    def take(self, order: NDArray[np.int64]) -> Track:
        """The same in another order."""
        return Track(self.reward[order], self.quality[order], self.cost[order])


@dataclass(frozen=True, slots=True)
class Baselines:
    """What any policy is to be compared with, query by query in the recording's order.

    uniform: the expectation of drawing evenly among the arms that have an answer.
    best:    always `best_arm`, the arm of the highest mean reward in hindsight; for a query
             that it has no answer to, `uniform` stands in.
    oracle:  the arm of the highest reward on each query, on ties the cheaper one.
    """

    best_arm: str
    uniform: Track
    best: Track
    oracle: Track

    def take(self, order: NDArray[np.int64]) -> Baselines:
        """The same in another order."""
        return Baselines(
            self.best_arm, self.uniform.take(order), self.best.take(order), self.oracle.take(order)
        )


@dataclass(frozen=True, slots=True)
class Run:
    """One pass of a policy over a recording.

    order:     (n,) rows of the recording as they came.
    arm:       (n,) index of the drawn arm in `Recorded.arms`.
    baselines: in the same order as `track`.
    fallbacks: decisions in which the policy failed and uniform stood in.
    failures:  rewards that the policy refused to learn from.
    """

    seed: int
    order: NDArray[np.int64]
    arm: NDArray[np.int64]
    track: Track
    baselines: Baselines
    fallbacks: int
    failures: int

    def regret(self, against: Track) -> Floats:
        """(n,) the reward of `against` less the reward got, cumulated."""
        regret: Floats = np.cumsum(against.reward - self.track.reward)
        return regret


def order_of(recorded: Recorded, seed: int) -> NDArray[np.int64]:
    """The rows shuffled by id; where they stand in the file does not matter."""
    keys = [chance.uniform(seed, f"order:{id}") for id in recorded.ids]
    return np.argsort(np.array(keys), kind="stable").astype(np.int64)


def rewards(recorded: Recorded, rule: RewardRule) -> Floats:
    """(n, K) the scalar reward of every arm on every query, NaN where there is no answer."""
    worth = rule.willingness_to_pay
    table = np.full(recorded.quality.shape, np.nan)
    for i, k in np.argwhere(~np.isnan(recorded.quality)):
        table[i, k] = rule.scalar(
            float(recorded.quality[i, k]), float(recorded.cost[i, k]), 0.0, worth
        )
    return table


def baselines(recorded: Recorded, rule: RewardRule) -> Baselines:
    """Uniform, best single arm and oracle under full information."""
    reward = rewards(recorded, rule)
    tables = (reward, recorded.quality, recorded.cost)
    uniform = Track(*(np.nanmean(table, axis=1) for table in tables))
    answered = ~np.isnan(reward)
    single = [
        np.where(answered[:, k], reward[:, k], uniform.reward).mean()
        if answered[:, k].any()
        else -np.inf
        for k in range(len(recorded.arms))
    ]
    k = int(np.argmax(single))
    best = Track(
        *(
            np.where(answered[:, k], table[:, k], mean)
            for table, mean in zip(
                tables, (uniform.reward, uniform.quality, uniform.cost), strict=True
            )
        )
    )
    highest = reward == np.nanmax(reward, axis=1, keepdims=True)
    chosen = np.where(highest, recorded.cost, np.inf).argmin(axis=1)
    rows = np.arange(len(recorded))
    oracle = Track(*(table[rows, chosen] for table in tables))
    return Baselines(recorded.arms[k].id, uniform, best, oracle)


def simulate(
    recorded: Recorded,
    embeddings: Vector,
    policy: Policy[Any],
    *,
    seed: int,
    explore: Exploration,
    rule: RewardRule,
    neighbours: int = 20,
    capacity: int = 20_000,
    watch: Watch | None = None,
) -> Run:
    """Stream the queries, shuffled by `seed`, through a fresh world in which `policy` decides.

    embeddings: (n, d) float32 of unit norm. watch: called after every step with the number of
    steps made and the sum of their rewards.
    """
    explore = replace(explore, seed=seed)
    world = new_world({_LABEL: policy}, _LABEL, capacity)
    for arm in recorded.arms:
        world = apply(world, ev.ArmAdded(ts=0.0, arm=arm, source="config"))
    index = ExactIndex(embeddings.shape[1])
    order = order_of(recorded, seed)
    column = {arm.id: k for k, arm in enumerate(recorded.arms)}
    answered = ~np.isnan(recorded.quality)
    drawn = np.zeros(len(order), np.int64)
    reward = np.zeros(len(order))
    fallbacks, total = 0, 0.0
    for step, row in enumerate(order):
        query = Query(
            embedding=embeddings[row],
            tokens=int(recorded.tokens[row]),
            willingness_to_pay=rule.willingness_to_pay,
            arms=None
            if answered[row].all()
            else tuple(arm.id for arm in recorded.arms if answered[row, column[arm.id]]),
        )
        found = index.recall(query.embedding, neighbours)
        recalled = Recalled(tuple(found.ids.tolist()), tuple(found.similarities.tolist()))
        decided = decide(world, query, recalled, f"{seed}-{step}", float(step), explore)
        world = apply(world, decided)
        k = column[decided.arm]
        world, earned = _reward(
            world, decided, float(recorded.quality[row, k]), float(recorded.cost[row, k]), rule
        )
        _catch_up(index, world)
        drawn[step], reward[step] = k, earned
        fallbacks += bool(decided.fallback)
        total += earned
        if watch is not None:
            watch(step + 1, total)
        if (step + 1) % _EXPIRE_EVERY == 0:
            # All of them are rewarded by now, and the service would not keep them for ever either.
            world = apply(world, ev.DecisionsExpired(ts=float(step), ids=tuple(world.pending)))
    return Run(
        seed=seed,
        order=order,
        arm=drawn,
        track=Track(reward, recorded.quality[order, drawn], recorded.cost[order, drawn]),
        baselines=baselines(recorded, rule).take(order),
        fallbacks=fallbacks,
        failures=world.learners[_LABEL].failures,
    )


def _reward(
    world: World, decided: ev.Decided, quality: float, cost_usd: float, rule: RewardRule
) -> tuple[World, float]:
    report = Reported(Signals(quality=quality, cost_usd=cost_usd))
    pending = world.pending[decided.id]
    rewarded = decision_rewarded(pending, decided.id, report, rule, decided.ts)
    assert rewarded is not None
    assert rewarded.reward is not None
    return apply(world, rewarded), rewarded.reward


def _catch_up(index: ExactIndex, world: World) -> None:
    added, removed = world.history.take_changes()
    for id in removed:
        index.remove(id)
    for id in added:
        index.add(id, world.history.vector(id))
