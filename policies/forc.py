"""FORC: a predictor of correctness per arm, a cost estimate, and a strategy that weighs the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from policies._checks import LEAST, one_of, two_arms, within
from policies._explore import greedy
from policies._logistic import Heads, Label, Prior, features, quality_of, sigmoids
from policies._types import ArmId, Arms, Compared, Context, Floats, Proposal, Rewarded

__all__ = ["FORC"]

_STRATEGIES = ("utility", "threshold", "best", "mix")
_FALLBACKS = ("biggest", "cheapest", "best")
_MANY = 1e9


@dataclass(frozen=True, slots=True)
class FORC:
    r"""One logistic regression per arm on the query's embedding says how likely it answers well.

    p̂_i(x) = σ(m_i),  m_i = logit(q₀) + θ_iᵀ[x, 1],   p_i = σ(m_i + α·√s_i)
    utility:    argmax p_i − cost_i / willingness to pay
    threshold:  the cheapest arm with p_i > threshold; if there is none, the fallback
    best:       argmax p_i
    mix:        argmax w·p_i − (1 − w)·c_i

    cost_i is the arm's expected cost of this query in USD, c_i its list price relative to the
    dearest arm's. θ_i is learned online from qualities in [0, 1] as soft labels, by sequential
    Laplace steps (`policies/_logistic.py`); s_i is the variance of m_i that is left. The paper
    fine-tunes one DistilBERT for all arms instead; here the sentence embedding is frozen and each
    arm has a head. Quality is learned without cost, so a changed price, another willingness to
    pay or another strategy acts at once. Ties share; of the cheapest arms the likeliest is taken.

    strategy: "utility" (default: a price of money for each request), or the paper's "threshold",
        "best" (its performance-maximising), or "mix" (one query of its weighted program). Those
        under a total budget need all queries at once: `bandit_service/lab/assign.py`.
    threshold: in [0, 1], of `threshold` only. The paper's 0.5.
    fallback: "biggest" (the dearest arm), "cheapest" or "best" (argmax p_i), of `threshold` only.
    quality_weight: w in [0, 1], of `mix` only. The paper's 0.5.
    alpha: α >= 0, how many standard deviations of the logit an arm is believed better than its
        mean. The paper trains on all arms' answers and does not explore: 0.
    prior: q₀ in [0.001, 0.999], the quality an arm is believed to have before its first answer;
        0.5 says nothing, above is optimistic, so that every arm is tried.
    ridge: λ > 0, one over the variance that each coefficient has before the first answer.
    comparison_weight: in [0, 1], how much of an answer a comparison is, the winner's quality
        counting as 1, the loser's as 0, a tie's as 1/2; 0 ignores comparisons.

    Faithful but for the predictor: `FORC(strategy="threshold", alpha=0, prior=0.5,
    comparison_weight=0)`.

    State: 2·d + 3 numbers per arm. propose O(K·d), learn O(d), both flat in history. A reward
    that came without quality teaches the quality reward + cost / willingness to pay, cut to
    [0, 1].

    Source: arXiv 2308.06077 and epfl-dlab/forc; the online head, the prior and the bonus are ours.

    >>> policy, a, b = FORC(alpha=0.0, prior=0.5, ridge=2.0), ArmId("a"), ArmId("b")
    >>> context = Context(np.array([1, 0], np.float32), tokens=10, willingness_to_pay=0.1)
    >>> event = Rewarded(context, a, 0.5, 1.0, 0.01, quality=1.0, reward=0.9)
    >>> state = policy.learn(policy.init(), event)
    >>> arms = Arms((a, b), np.full(2, 0.01), np.ones(2))
    >>> policy.propose(state, context, arms).quality.round(6).tolist()
    [0.598942, 0.5]
    """

    strategy: str = "utility"
    threshold: float = 0.5
    fallback: str = "biggest"
    quality_weight: float = 0.5
    alpha: float = 0.5
    prior: float = 0.8
    ridge: float = 1.0
    comparison_weight: float = 0.5

    reads_neighbours: ClassVar[bool] = False

    def __post_init__(self) -> None:
        one_of("strategy", self.strategy, _STRATEGIES)
        within("threshold", self.threshold, 0.0, 1.0)
        one_of("fallback", self.fallback, _FALLBACKS)
        within("quality_weight", self.quality_weight, 0.0, 1.0)
        within("alpha", self.alpha, 0.0, _MANY)
        within("prior", self.prior, 0.001, 0.999)
        within("ridge", self.ridge, LEAST, _MANY)
        within("comparison_weight", self.comparison_weight, 0.0, 1.0)

    @staticmethod
    def examples() -> list[FORC]:
        """Settings that the laws test, too: the paper's own, and its other strategies."""
        return [
            FORC(strategy="threshold", alpha=0.0, prior=0.5, comparison_weight=0.0),
            FORC(strategy="mix", quality_weight=0.7),
            FORC(strategy="best"),
        ]

    def init(self) -> Heads:
        """No arm seen."""
        return Heads()

    def propose(self, state: Heads, context: Context, arms: Arms) -> Proposal:
        """All mass on the arm that the strategy takes; ties share."""
        if not len(arms):
            raise ValueError("arms: no eligible arm to propose from")
        mean, deviation = state.estimate(arms.ids, features(context.embedding), self._prior())
        quality, hoped = sigmoids(mean), sigmoids(mean + self.alpha * deviation)
        scores = self._scores(hoped, context, arms)
        return Proposal(
            scores,
            greedy(scores),
            quality,
            deviation=quality * (1.0 - quality) * deviation,  # of the logit, by the delta method
            count=state.counts(arms.ids),
            bonus=hoped - quality if self.strategy == "utility" else None,
        )

    def learn(self, state: Heads, event: Rewarded | Compared) -> Heads:
        """One label for the arm played, or one for each arm compared."""
        labels: dict[ArmId, Label] = {}
        if isinstance(event, Rewarded):
            quality = quality_of(event)
            if quality is not None:
                labels[event.arm] = Label(quality)
        elif self.comparison_weight > 0.0:
            two_arms(event)
            won = 0.5 if event.tie else 1.0
            labels[event.winner] = Label(won, self.comparison_weight)
            labels[event.loser] = Label(1.0 - won, self.comparison_weight)
        if labels:
            state.take(state.steps(features(event.context.embedding), labels, self._prior()))
        return state

    def forget(self, state: Heads, arm: ArmId, keep: float) -> Heads:
        """What the arm's head was told, to the power `keep`: I' = keep·I,
        θ' = keep·(λ + I)/(λ + keep·I)·θ.
        """
        state.fade(arm, keep, self._prior())
        return state

    def _prior(self) -> Prior:
        return Prior(self.prior, self.ridge)

    def _scores(self, p: Floats, context: Context, arms: Arms) -> Floats:
        """What the strategy ranks by, (K,)."""
        if self.strategy == "best":
            return p
        if self.strategy == "utility":
            return p - arms.cost_usd / context.willingness_to_pay
        if self.strategy == "mix":
            return self.quality_weight * p - (1.0 - self.quality_weight) * arms.price
        # p never exceeds 1, so that the arms which may be taken rank before all others
        return p + taken(p, arms.cost_usd, self.threshold, self.fallback)


def taken(p: Floats, cost_usd: Floats, threshold: float, fallback: str) -> Floats:
    """Which arms the thresholding strategy takes one of, (K,) of 0 and 1.

    The cheapest of those with p > threshold; if there is none, those that `fallback` names, where
    "best" names all.

    >>> taken(np.array([0.9, 0.6, 0.4]), np.array([3.0, 2.0, 1.0]), 0.5, "biggest").tolist()
    [0.0, 1.0, 0.0]
    >>> taken(np.array([0.3, 0.2, 0.1]), np.array([3.0, 2.0, 1.0]), 0.5, "biggest").tolist()
    [1.0, 0.0, 0.0]
    """
    good = p > threshold
    if good.any():
        found = good & (cost_usd == cost_usd[good].min())
    elif fallback == "best":
        found = np.ones(p.size, dtype=bool)
    else:
        found = cost_usd == (cost_usd.max() if fallback == "biggest" else cost_usd.min())
    marked: Floats = found.astype(np.float64)
    return marked
