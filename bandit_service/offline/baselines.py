"""Baselines for any policy, under full information."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandit_service.core.outcomes import RewardRule
from bandit_service.data.recordings import Recorded
from policies import Floats


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
    """The baselines, query by query in the recording's order.

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


def rewards(recorded: Recorded, rule: RewardRule) -> Floats:
    """(n, K) the scalar reward of every arm on every query, NaN where there is no answer."""
    value = recorded.quality - recorded.cost / rule.willingness_to_pay
    if recorded.latency is not None:
        value = value - rule.latency_weight * np.nan_to_num(recorded.latency)
    table: Floats = np.clip(value, -1.0, 1.0)  # as RewardRule.scalar
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


def joined(parts: Sequence[Track]) -> Track:
    """One track after the other."""
    return Track(
        np.concatenate([part.reward for part in parts]),
        np.concatenate([part.quality for part in parts]),
        np.concatenate([part.cost for part in parts]),
    )
