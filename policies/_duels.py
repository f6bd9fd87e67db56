"""What RouteLLM's routers share: comparisons made of rewards, and the choice by a threshold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from policies._checks import finite, one_of, two_arms, within
from policies._types import (
    ArmId,
    Arms,
    Compared,
    Context,
    Floats,
    Neighbour,
    Outcome,
    Proposal,
    Rewarded,
)

_SAME = 1.0 - 1e-6
_EQUAL = 1e-9


class Duel(NamedTuple):
    """One comparison: whether `first` won (1), lost (0) or neither (½), and its weight."""

    first: ArmId
    second: ArmId
    score: float
    weight: float


@dataclass(frozen=True, slots=True)
class Conversion:
    """How rewards are made into comparisons; the fields are the policies' parameters."""

    compare_on: str
    similarity: float
    tie_margin: float
    weight: float
    neighbours: int

    def __post_init__(self) -> None:
        one_of("compare_on", self.compare_on, ("reward", "quality", "off"))
        within("similarity", self.similarity, -1.0, 1.0)
        within("tie_margin", self.tie_margin, 0.0)
        within("conversion_weight", self.weight, 0.0, 1.0)
        within("neighbours", self.neighbours, 0)

    def nearest(self, context: Context) -> list[Neighbour]:
        """The nearest neighbours, nearest first, whatever order they came in."""
        ordered = sorted(context.neighbours, key=lambda n: (-n.similarity, -n.id))
        return ordered[: self.neighbours]

    def value(self, outcome: Outcome) -> float | None:
        """What a past outcome is compared by, where it has that."""
        return outcome.quality if self.compare_on == "quality" else outcome.reward

    def score(self, mine: float, other: float) -> float:
        """1 won, 0 lost, ½ where the two are as good as equal."""
        if abs(mine - other) <= self.tie_margin:
            return 0.5
        return 1.0 if mine > other else 0.0

    def learned(self, event: Rewarded | Compared) -> tuple[list[Duel], tuple[ArmId, ...]]:
        """The comparisons that an event makes, and the arms on trial that it counts for."""
        if isinstance(event, Compared):
            two_arms(event)
            duel = Duel(event.winner, event.loser, 0.5 if event.tie else 1.0, 1.0)
            return [duel], (event.winner, event.loser)
        counts = self.compare_on != "off" and event.reward is not None
        return self.duels(event), (event.arm,) if counts else ()

    def duels(self, event: Rewarded) -> list[Duel]:
        """A reward against those of other arms on the same query and on near ones.

        Together they weigh at most 1, those on near queries `weight` of their share.
        """
        mine = event.quality if self.compare_on == "quality" else event.reward
        if self.compare_on == "off" or event.reward is None or mine is None:
            return []
        finite("reward", event.reward)
        finite("quality" if self.compare_on == "quality" else "reward", mine)
        met = list(self._met(event))
        return [
            Duel(event.arm, other, self.score(mine, value), share / len(met))
            for other, value, share in met
            if share > 0.0
        ]

    def _met(self, event: Rewarded) -> Iterator[tuple[ArmId, float, float]]:
        for neighbour in self.nearest(event.context):
            if neighbour.similarity >= self.similarity:
                share = 1.0 if neighbour.similarity >= _SAME else self.weight
                for outcome in neighbour.outcomes:
                    value = self.value(outcome)
                    if outcome.arm != event.arm and value is not None:
                        yield outcome.arm, value, share


def chosen(strengths: Floats, cost_usd: Floats, threshold: float) -> Floats:
    """The cheapest arms that no dearer arm beats with probability >= threshold. (K,) of 0 and 1.

    P(i beats j) = σ(ξ_i − ξ_j); of arms that cost the same the strongest stands. With two arms
    this is RouteLLM's "weak if P(strong wins) < α, else strong"; at 1/2 it is the highest
    strength, and on a tie the dearer arm, as there.

    >>> chosen(np.array([0.0, 1.0]), np.array([1.0, 2.0]), 0.7).tolist()
    [0.0, 1.0]
    >>> chosen(np.array([0.0, 1.0]), np.array([1.0, 2.0]), 0.8).tolist()
    [1.0, 0.0]
    """
    # rounding must not decide between arms whose records are the same
    wins = _beats(strengths[None, :] - strengths[:, None])
    dearer = cost_usd[None, :] > cost_usd[:, None]
    alike = cost_usd[None, :] == cost_usd[:, None]
    beaten = (dearer & (wins >= threshold - _EQUAL)) | (alike & (wins > 0.5 + _EQUAL))
    stands = ~beaten.any(axis=1)
    if not stands.any():  # only where a strength overflowed
        stands = cost_usd == cost_usd.max()
    cheapest: Floats = (stands & (cost_usd == cost_usd[stands].min())).astype(np.float64)
    return cheapest


def proposed(
    strengths: Floats, arms: Arms, threshold: float, count: Floats, trial: int
) -> Proposal:
    """All mass shared by the arms chosen and those on trial, of fewer than `trial` outcomes.

    Their score is 1; another arm's is half the probability that it would beat the chosen one.
    """
    best = chosen(strengths, arms.cost_usd, threshold)
    against = float(strengths[best > 0.0].max())
    taken = np.maximum(best, count < trial)
    scores = np.where(taken > 0.0, 1.0, 0.5 * _beats(strengths - against))
    return Proposal(scores, taken / taken.sum(), count=count)


def _beats(ahead: Floats) -> Floats:
    found: Floats = 1.0 / (1.0 + np.exp(-np.clip(ahead, -700.0, 700.0)))
    return found
