"""Short ways to write down arms, queries and outcomes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policies import ArmId, Arms, Context, Neighbour, Outcome, Rewarded

A, B, C = ArmId("a"), ArmId("b"), ArmId("c")


def arms(*ids: ArmId, cost_usd: float = 0.0, price: float = 0.5) -> Arms:
    """These arms, none dearer than another."""
    return Arms(ids, np.full(len(ids), cost_usd), np.full(len(ids), price))


def query(*x: float, near: Sequence[Neighbour] = (), willingness_to_pay: float = 0.1) -> Context:
    """The query with this embedding, (1,) unless said otherwise."""
    return Context(np.array(x or (1.0,), np.float32), 10, willingness_to_pay, tuple(near))


def neighbour(id: int, similarity: float, *outcomes: tuple[ArmId, float]) -> Neighbour:
    """A past query on which these arms earned these rewards; quality is 0.1 above reward."""
    earned = tuple(Outcome(arm, reward + 0.1, reward) for arm, reward in outcomes)
    return Neighbour(id, similarity, earned)


def rewarded(
    arm: ArmId,
    reward: float | None,
    *,
    context: Context | None = None,
    quality: float | None = None,
    cost_usd: float | None = None,
    latency_s: float | None = None,
    price: float = 0.5,
    expected_cost_usd: float = 0.0,
) -> Rewarded:
    """A pointwise outcome."""
    return Rewarded(
        context=context or query(),
        arm=arm,
        propensity=0.5,
        price=price,
        expected_cost_usd=expected_cost_usd,
        quality=quality,
        cost_usd=cost_usd,
        latency_s=latency_s,
        reward=reward,
    )
