"""PickLLM's experiment: whether and when a session converges, and on which arm.

A session is one pass over the shuffled recording with the policy alone: its own draws, no floor
and no history, only the drawn arm's outcome revealed. It has converged at the first query after
which the policy's `converged` names an arm; the policy then goes on drawing by its own rule.
Source: arXiv 2412.12170, which says that a session converges to a single arm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import policies
from bandit_service.core import chance
from bandit_service.core.outcomes import RewardRule
from bandit_service.data.recordings import Recorded
from bandit_service.offline.baselines import rewards
from bandit_service.offline.simulate import order_of
from policies import ArmId, Arms, Context, Rewarded, draw


class _Converging(Protocol):
    def converged(self, state: Any) -> ArmId | None: ...


@dataclass(frozen=True, slots=True)
class ConvergedRow:
    """Sessions of one setting.

    share: of the sessions that converged within the recording. queries: median number of queries
    until then, NaN if none did. regret: mean over converged sessions of the best single arm's
    mean reward less that of the arm converged to. best: share of converged ones whose arm is the
    best single one. quality, cost_usd, latency_s: means over all queries of all sessions.
    """

    label: str
    sessions: int
    share: float
    queries: float
    regret: float
    best: float
    quality: float
    cost_usd: float
    latency_s: float


def converge(
    recorded: Recorded,
    label: str,
    policy_name: str,
    parameters: Mapping[str, Any],
    *,
    seeds: int,
    rule: RewardRule,
) -> ConvergedRow:
    """Sessions of a policy that has `converged`; every arm must have answered every query."""
    if np.isnan(recorded.quality).any():
        raise ValueError("recorded: a session needs every arm's answer to every query")
    policy: Any = policies.load(policy_name, **parameters)
    found = [_session(recorded, policy, seed, rule) for seed in range(seeds)]
    single = np.mean(rewards(recorded, rule), axis=0)
    done = [(steps, arm) for steps, arm, _ in found if steps is not None]
    drawn = np.array([arms for _, _, arms in found])
    rows = np.array([order_of(recorded, seed) for seed in range(seeds)])
    return ConvergedRow(
        label=label,
        sessions=seeds,
        share=len(done) / seeds,
        queries=float(np.median([steps for steps, _ in done])) if done else math.nan,
        regret=float(np.mean([single.max() - single[arm] for _, arm in done]))
        if done
        else math.nan,
        best=float(np.mean([single[arm] == single.max() for _, arm in done])) if done else math.nan,
        quality=float(recorded.quality[rows, drawn].mean()),
        cost_usd=float(recorded.cost[rows, drawn].mean()),
        latency_s=math.nan
        if recorded.latency is None
        else float(np.nanmean(recorded.latency[rows, drawn])),
    )


def _session(
    recorded: Recorded, policy: Any, seed: int, rule: RewardRule
) -> tuple[int | None, int, NDArray[np.int64]]:
    """The number of queries until it converged and the arm, and the arm drawn at every query."""
    learner: _Converging = policy
    column = {arm.id: k for k, arm in enumerate(recorded.arms)}
    prices = np.array([arm.usd_per_mtok_in + arm.usd_per_mtok_out for arm in recorded.arms])
    price = prices / max(float(prices.max()), 1e-12)
    mean_cost = recorded.cost.mean(axis=0)
    arms = Arms(tuple(column), mean_cost, price)
    nothing = np.zeros(1, np.float32)
    state, steps, winner = policy.init(), None, 0
    drawn = np.zeros(len(recorded), np.int64)
    for step, row in enumerate(order_of(recorded, seed).tolist()):
        context = Context(nothing, int(recorded.tokens[row]), rule.willingness_to_pay)
        p = policy.propose(state, context, arms).propensities
        k = drawn[step] = draw(p, chance.uniform(seed, f"session:{step}"))
        waited = None if recorded.latency is None else float(recorded.latency[row, k])
        quality, cost = float(recorded.quality[row, k]), float(recorded.cost[row, k])
        reward = rule.scalar(quality, cost, waited or 0.0, rule.willingness_to_pay)
        event = Rewarded(
            context,
            arms.ids[k],
            float(p[k]),
            float(price[k]),
            float(mean_cost[k]),
            quality,
            cost,
            waited,
            reward,
        )
        state = policy.learn(state, event)
        named = learner.converged(state) if steps is None else None
        if named is not None:
            steps, winner = step + 1, column[named]
    return steps, winner, drawn
