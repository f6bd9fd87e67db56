"""MetaLLM: a linear bandit over the query's embedding, chosen by upper confidence bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from policies._checks import LEAST, finite, one_of, settled, two_arms, within
from policies._directions import along
from policies._explore import WIDEST, greedy
from policies._grid import weight_of
from policies._linear import RidgeStack
from policies._products import Observed
from policies._types import (
    ArmId,
    Arms,
    Compared,
    Context,
    Contexts,
    Floats,
    Proposal,
    Proposals,
    Rewarded,
    Vector,
)

__all__ = ["MetaLLM"]


@dataclass(frozen=True, slots=True)
class MetaLLM:
    r"""Optimism in one ridge regression per arm on the query's embedding (LinUCB).

    θ_i = (A_i + λI)⁻¹ b_i,   A_i = Σ x xᵀ,   b_i = Σ y·x
    paper:  y = a − p·c_i         score_i = xᵀθ_i + α·√(xᵀ(A_i + λI)⁻¹x)
    apart:  y = a − q₀            score_i = q₀ + xᵀθ_i + α·√(…) − cost_i / willingness to pay

    a is the quality in [0, 1], c_i the arm's list price relative to the dearest arm's, cost_i
    its expected cost of this query in USD. `paper` bakes a price of money into what is learned;
    `apart`, the default, learns quality only, so that a changed price or another willingness
    to pay acts at once and one learner serves every trade-off.

    alpha: width of the bonus, >= 0. The paper never reports its own and the released code's main
        script uses 0, which cannot explore. 0.5 is one posterior standard deviation for answers
        whose own deviation is at most 1/2, as that of any quality in [0, 1] is.
    ridge: λ > 0. 12.94 is the released code's; the larger, the slower an arm leaves its prior.
    reward: "apart" or "paper", what y and the score are, as above.
    cost_weight: p >= 0, in `paper` mode only; 0.001 is the value of the paper's best table row.
    bias: append a constant 1 to x, so that an arm's overall level need not be learned again in
        every direction of the embedding. The paper has none.
    prior: q₀ in [0, 1], the quality an arm is believed to have before its first answer, in
        `apart` mode only. 1 is optimistic, so that every arm is tried; about λ/2 answers
        outweigh it.
    comparison_weight: in [0, 1], how much of an observation a comparison is, the winner's
        quality counting as 1, the loser's as 0, a tie's as 1/2; 0 ignores comparisons. Counted in
        sixteenths.
    directions: m >= 0, how many numbers of the embedding are kept, along fixed directions at right
        angles (`_directions`); 0 keeps all d. At 64 of 384 a decision reads a thirty-sixth.
    refresh: when an inverse takes in what was learned: "each" outcome as it comes, or "batch", all
        that came since the last proposal when the next one asks. Both propose the same but for
        rounding; with "batch" learning is cheap, and the next decision pays.

    State: sums (K, d, d), (K, d), (K,) of features in 2⁻¹⁴, targets in 2⁻¹⁶ and weights in 2⁻⁴,
    which are exact: the same bits in whatever order and in what batches outcomes came. propose
    O(K·d²), learn O(d²), both flat in history.
    A reward that came without quality teaches `apart` the quality reward + cost / willingness
    to pay, cut to [0, 1]. Ties share. The guarantee of LinUCB is for linear rewards and for
    exploration that its α covers; qualities are not linear in an embedding, so treat the bonus
    as a heuristic, and keep the service's floor. Where quality jumps between near queries, or
    feedback is mostly votes, prefer `eagle`.

    Source: arXiv 2407.10834v3, sections 3 and 4; Li et al. 2010 for LinUCB.

    >>> from policies import ArmId
    >>> policy, arms = MetaLLM(ridge=1.0), Arms(("a", "b"), np.full(2, 0.01), np.ones(2))
    >>> context = Context(np.array([1, 0], np.float32), tokens=10, willingness_to_pay=0.1)
    >>> event = Rewarded(context, ArmId("a"), 0.5, 1.0, 0.01, quality=0.5, reward=0.4)
    >>> state = policy.learn(policy.init(), event)
    >>> policy.propose(state, context, arms).quality.round(12).tolist()
    [0.666666666667, 1.0]
    """

    alpha: float = 0.5
    ridge: float = 12.94
    reward: str = "apart"
    cost_weight: float = 0.001
    bias: bool = True
    prior: float = 1.0
    comparison_weight: float = 0.5
    directions: int = 0
    refresh: str = "each"

    reads_neighbours: ClassVar[bool] = False
    order_free: ClassVar[bool] = True

    def __post_init__(self) -> None:
        within("alpha", self.alpha, 0.0)
        within("ridge", self.ridge, LEAST)
        one_of("reward", self.reward, ("apart", "paper"))
        within("cost_weight", self.cost_weight, 0.0)
        within("prior", self.prior, 0.0, 1.0)
        within("comparison_weight", self.comparison_weight, 0.0, 1.0)
        within("directions", self.directions, 0, 65_536)
        one_of("refresh", self.refresh, ("each", "batch"))

    @staticmethod
    def examples() -> list[MetaLLM]:
        """Settings that the laws test, too: the paper's own, and others of ours."""
        return [
            MetaLLM(reward="paper", bias=False),
            MetaLLM(directions=8),
            MetaLLM(refresh="batch"),
        ]

    def init(self) -> RidgeStack:
        """No arm seen."""
        return RidgeStack()

    def propose(self, state: RidgeStack, context: Context, arms: Arms) -> Proposal:
        """All mass on the highest index; ties share."""
        return self.propose_many(state, Contexts.of((context,)), arms.one_row())[0]

    def propose_many(self, state: RidgeStack, contexts: Contexts, arms: Arms) -> Proposals:
        """The same of B queries: what is kept of an arm is read once for all of them."""
        if not len(arms):
            raise ValueError("arms: no eligible arm to propose from")
        x = np.array([self._features(one) for one in contexts.embedding])
        mean, deviation = state.estimate(arms.ids, x, self.ridge)
        if self.reward == "paper":
            scores = mean + self.alpha * deviation
            quality = mean + self.cost_weight * arms.price
        else:
            quality = self.prior + mean
            cost = arms.cost_usd / contexts.willingness_to_pay[:, None]
            scores = quality + self.alpha * deviation - cost
        return Proposals(
            scores,
            greedy(scores),
            np.clip(quality, 0.0, 1.0),
            deviation=WIDEST * deviation,
            count=state.counts(arms.ids),
            # in `paper` the cost is in what is learned, so that the score has no such parts
            bonus=self.alpha * deviation if self.reward == "apart" else None,
        )

    def learn(self, state: RidgeStack, event: Rewarded | Compared) -> RidgeStack:
        """One observation of the arm played, or one of each arm compared."""
        at_once = self.refresh == "each"
        for arm, one in self._observations(state, event):
            state.observe(arm, one, at_once=at_once)
        return state

    def learn_many(self, state: RidgeStack, events: Sequence[Rewarded | Compared]) -> RidgeStack:
        """The same of all of them; the inverses take them in when the next proposal asks."""
        found = [pair for event in events for pair in self._observations(state, event)]
        sizes = sorted({one.x.size for _, one in found})
        if len(sizes) > 1:
            raise ValueError(f"embedding: must have {sizes[0]} features, got {sizes[1]}")
        for arm, one in found:
            state.observe(arm, one, at_once=False)
        return state

    def correct(self, state: RidgeStack, before: Rewarded, after: Rewarded) -> RidgeStack:
        """The other target in b; A does not depend on it. Exact."""
        old = self._target(before, settled(before))
        new = self._target(after, settled(after))
        state.revise(after.arm, self._features(after.context.embedding), old, new)
        return state

    def forget(self, state: RidgeStack, arm: ArmId, keep: float) -> RidgeStack:
        """The arm's sums times `keep`, beside which the ridge and so the prior weigh more.

        Each number is rounded once to its grid.
        """
        state.fade(arm, keep)
        return state

    def _observations(
        self, state: RidgeStack, event: Rewarded | Compared
    ) -> list[tuple[ArmId, Observed]]:
        """What an event says of which arms, checked; nothing is written."""
        x = self._features(event.context.embedding)
        if isinstance(event, Rewarded):
            if event.reward is None:
                return []
            y = self._target(event, finite("reward", event.reward))
            return [(event.arm, state.observed(x, y))]
        weight = weight_of(self.comparison_weight)
        if weight == 0.0:
            return []
        two_arms(event)
        won = 0.5 if event.tie else 1.0
        level = self.prior if self.reward == "apart" else 0.0
        return [
            (event.winner, state.observed(x, won - level, weight)),
            (event.loser, state.observed(x, 1.0 - won - level, weight)),
        ]

    def _target(self, event: Rewarded, reward: float) -> float:
        quality = event.quality
        if self.reward == "paper":
            return (reward if quality is None else quality) - self.cost_weight * event.price
        if quality is None:
            cost = event.expected_cost_usd if event.cost_usd is None else event.cost_usd
            quality = min(1.0, max(0.0, reward + cost / event.context.willingness_to_pay))
        return quality - self.prior

    def _features(self, embedding: Vector) -> Floats:
        x = along(embedding, self.directions or embedding.size)
        return np.append(x, 1.0) if self.bias else x
