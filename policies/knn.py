"""kNN: an arm's quality is what it earned on the nearest past queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from policies._arm_sums import ArmSums
from policies._checks import finite, one_of, settled, within
from policies._explore import WIDEST, greedy
from policies._grid import weight_of
from policies._types import (
    ArmId,
    Arms,
    Compared,
    Context,
    Contexts,
    Floats,
    Neighbour,
    Proposal,
    Proposals,
    Rewarded,
)

__all__ = ["KNN"]

_NONE = 1e-6
_MANY = 1e9


@dataclass(frozen=True, slots=True)
class KNN:
    r"""The best mean quality among the nearest past queries, with a bonus for what is unsure.

    g_i = (Σ y + n₀·q₀) / (N_i + n₀)                over all N_i outcomes of arm i
    q̂_i = (Σ_near w·y + m·g_i) / (Σ_near w + m)     over its outcomes on the k nearest queries
    v_i = 1 / max(Σ_near w + m, 1) + (m / (Σ_near w + m))² / max(N_i + n₀, 1)
    score_i = q̂_i + α·√v_i − cost_i / willingness to pay

    y is a quality in [0, 1]. The nearest queries know few arms each, since of a query mostly one
    arm's outcome came back; so the local mean is shrunk to the arm's mean over all queries, as if
    that had been m outcomes nearby. v_i is the variance of what is then believed, in units of one
    outcome's: that of the local part, and that of the mean which it is shrunk to; 1/v_i is the
    effective number of outcomes. Where an arm has no outcome nearby and m is 0, q̂_i = g_i.

    neighbours: k >= 0; RouterBench's 40. The service recalls `history.neighbours`, of which the
        nearest k are used.
    weighting: w, "similarity" (the cosine, 0 where it is negative) or "uniform" (1).
    shrinkage: m >= 0, how many outcomes the mean over all queries counts for.
    prior: q₀ in [0, 1], the quality an arm is believed to have before its first answer. 1 is
        optimistic, so that every arm is tried.
    prior_weight: n₀ >= 0, how many outcomes the prior counts for.
    alpha: α >= 0, width of the bonus. 0.5 is one standard deviation for answers whose own is at
        most 1/2, as that of any quality in [0, 1] is; 0 switches the bonus off.
    comparison_weight: in [0, 1], how much of an outcome a comparison is, the winner's quality
        counting as 1, the loser's as 0, a tie's as 1/2; 0 ignores comparisons. Counted in
        sixteenths.

    Faithful to RouterBench: `KNN(weighting="uniform", shrinkage=0, alpha=0, comparison_weight=0)`
    with 40 neighbours recalled, where every arm's outcome came back for every query.

    State: two numbers per arm, exact sums of qualities in 2⁻¹⁶, which come out the same in any
    order. learn O(1), propose O(k + K), flat in history. Cost is not
    learned, so a new price or another willingness to pay acts on the next decision. A reward
    that came without quality teaches the quality reward + cost / willingness to pay, cut to
    [0, 1]; for a neighbour's, the cost and the willingness to pay are the present query's.

    Source: the kNN router of RouterBench, arXiv 2403.12031 and withmartian/routerbench; the
    shrinking, the prior and the bonus are ours.

    >>> from policies import Outcome
    >>> policy, a, b = KNN(neighbours=1, shrinkage=1.0, alpha=0.0), ArmId("a"), ArmId("b")
    >>> near = Neighbour(1, 1.0, (Outcome(a, 0.4, 0.3),))
    >>> context = Context(np.ones(1, np.float32), 10, 0.1, (near,))
    >>> arms = Arms((a, b), np.full(2, 0.01), np.ones(2))
    >>> policy.propose(policy.init(), context, arms).quality.round(12).tolist()
    [0.7, 1.0]
    """

    neighbours: int = 40
    weighting: str = "similarity"
    shrinkage: float = 5.0
    prior: float = 1.0
    prior_weight: float = 2.0
    alpha: float = 0.5
    comparison_weight: float = 0.5

    order_free: ClassVar[bool] = True

    def __post_init__(self) -> None:
        within("neighbours", self.neighbours, 0)
        one_of("weighting", self.weighting, ("similarity", "uniform"))
        within("shrinkage", self.shrinkage, 0.0, _MANY)
        within("prior", self.prior, 0.0, 1.0)
        within("prior_weight", self.prior_weight, 0.0, _MANY)
        within("alpha", self.alpha, 0.0, _MANY)
        within("comparison_weight", self.comparison_weight, 0.0, 1.0)

    @staticmethod
    def examples() -> list[KNN]:
        """Settings that the laws test, too: RouterBench's own."""
        return [KNN(weighting="uniform", shrinkage=0.0, alpha=0.0, comparison_weight=0.0)]

    def init(self) -> ArmSums:
        """No arm seen."""
        return ArmSums()

    def propose(self, state: ArmSums, context: Context, arms: Arms) -> Proposal:
        """All mass on the highest score; ties share."""
        return self.propose_many(state, Contexts.of((context,)), arms.one_row())[0]

    def propose_many(self, state: ArmSums, contexts: Contexts, arms: Arms) -> Proposals:
        """The same of B queries; what is near each is added up one by one."""
        if not len(arms):
            raise ValueError("arms: no eligible arm to propose from")
        cost = arms.cost_usd / contexts.willingness_to_pay[:, None]
        pairs = zip(contexts.neighbours, cost, strict=True)
        found = [self._near(near, arms.ids, own) for near, own in pairs]
        near, weight = np.array([one for one, _ in found]), np.array([two for _, two in found])
        count = np.array([state.count.get(arm, 0.0) for arm in arms.ids])
        seen = count + self.prior_weight
        total = np.array([state.total.get(arm, 0.0) for arm in arms.ids])
        # an arm without any outcome, where the prior weighs nothing either, is at the prior
        known = np.where(seen > 0.0, seen, 1.0)
        mean = np.where(seen > 0.0, (total + self.prior_weight * self.prior) / known, self.prior)
        m = np.where(weight + self.shrinkage > 0.0, self.shrinkage, 1.0)
        own = weight + m
        quality = (near + m * mean) / own
        variance = 1.0 / np.maximum(own, 1.0) + (m / own) ** 2 / np.maximum(seen, 1.0)
        deviation = np.sqrt(variance)
        bonus = self.alpha * deviation
        scores = quality + bonus - cost
        return Proposals(
            scores,
            greedy(scores),
            np.clip(quality, 0.0, 1.0),
            deviation=WIDEST * deviation,
            count=count,
            bonus=bonus,
        )

    def learn(self, state: ArmSums, event: Rewarded | Compared) -> ArmSums:
        """One outcome of the arm played, or a part of one of each arm compared."""
        if isinstance(event, Rewarded):
            if event.reward is not None:
                state.add(event.arm, self._taught(event, finite("reward", event.reward)))
        elif weight := weight_of(self.comparison_weight):
            state.compare(event, weight)
        return state

    def correct(self, state: ArmSums, before: Rewarded, after: Rewarded) -> ArmSums:
        """The difference into the sum; what is near is corrected in the history."""
        old, new = (self._taught(one, settled(one)) for one in (before, after))
        state.revise(after.arm, old, new)
        return state

    def forget(self, state: ArmSums, arm: ArmId, keep: float) -> ArmSums:
        """The arm's sums times `keep`; what is near is cut in the history."""
        state.fade(arm, keep)
        return state

    def _taught(self, event: Rewarded, reward: float) -> float:
        if event.quality is not None:
            return _cut(finite("quality", event.quality))
        cost = event.expected_cost_usd if event.cost_usd is None else event.cost_usd
        return _cut(reward + finite("cost_usd", cost) / event.context.willingness_to_pay)

    def _near(
        self, neighbours: Sequence[Neighbour], ids: tuple[ArmId, ...], cost: Floats
    ) -> tuple[list[float], list[float]]:
        """Σ w·y and Σ w of each arm over the nearest queries."""
        column = {arm: i for i, arm in enumerate(ids)}
        total, weight = [0.0] * len(ids), [0.0] * len(ids)
        nearest = sorted(neighbours, key=lambda n: (-n.similarity, -n.id))
        for neighbour in nearest[: self.neighbours]:
            w = 1.0 if self.weighting == "uniform" else neighbour.similarity
            if w < _NONE:
                continue
            for arm, quality, share in self._outcomes(neighbour, column, cost):
                part = w * share
                total[column[arm]] += part * quality
                weight[column[arm]] += part
        return total, weight

    def _outcomes(
        self, neighbour: Neighbour, column: dict[ArmId, int], cost: Floats
    ) -> Iterator[tuple[ArmId, float, float]]:
        """Arm, quality and weight of what came back for one past query."""
        for outcome in neighbour.outcomes:
            if outcome.arm in column:
                quality = outcome.quality
                if quality is None:
                    quality = outcome.reward + float(cost[column[outcome.arm]])
                yield outcome.arm, _cut(quality), 1.0
        for past in neighbour.comparisons if self.comparison_weight > 0.0 else ():
            won = 0.5 if past.tie else 1.0
            for arm, quality in ((past.winner, won), (past.loser, 1.0 - won)):
                if arm in column:
                    yield arm, quality, self.comparison_weight


def _cut(quality: float) -> float:
    return min(1.0, max(0.0, quality))
