"""Epsilon-greedy on each arm's mean reward: the simplest policy that learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from policies._arm_sums import ArmSums
from policies._checks import finite, settled, within
from policies._explore import greedy, mix
from policies._grid import weight_of
from policies._types import (
    ArmId,
    Arms,
    Compared,
    Context,
    Contexts,
    Proposal,
    Proposals,
    Rewarded,
)

__all__ = ["EpsilonGreedy"]


@dataclass(frozen=True, slots=True)
class EpsilonGreedy:
    r"""The arm with the best mean reward, and with probability ε any arm.

    μ_i = (n₀·μ₀ + Σ r) / (n₀ + n_i),   p = (1 − ε)·greedy(μ) + ε/K

    epsilon: ε in [0, 1].
    prior_mean: μ₀ in [−1, 1], the mean of an arm never tried; 1 is optimistic, so all are tried.
    prior_count: n₀ >= 0, how many rewards the prior is worth.
    comparison_weight: in [0, 1], how much of a reward a comparison is (winner 1, loser 0, tie
        1/2), in sixteenths; 0 ignores comparisons.

    State: two numbers per arm, exact sums of rewards in 2⁻¹⁶, which come out the same in any order.
    propose O(K), learn O(1). The query is not looked at, and the mean never forgets: `pickllm_q`
    follows drift. Source: Sutton & Barto, 2nd ed., section 2.2.

    >>> policy = EpsilonGreedy(epsilon=0.2)
    >>> arms = Arms(("a", "b"), np.zeros(2), np.zeros(2))
    >>> context = Context(np.ones(1, np.float32), 0, 0.1)
    >>> event = Rewarded(context, ArmId("a"), 0.5, 1.0, 0.0, quality=0.5, reward=0.5)
    >>> policy.propose(policy.learn(policy.init(), event), context, arms).propensities
    array([0.1, 0.9])
    """

    epsilon: float = 0.1
    prior_mean: float = 1.0
    prior_count: float = 1.0
    comparison_weight: float = 0.5

    reads_neighbours: ClassVar[bool] = False
    order_free: ClassVar[bool] = True

    def __post_init__(self) -> None:
        within("epsilon", self.epsilon, 0.0, 1.0)
        within("prior_mean", self.prior_mean, -1.0, 1.0)
        within("prior_count", self.prior_count, 0.0)
        within("comparison_weight", self.comparison_weight, 0.0, 1.0)

    def init(self) -> ArmSums:
        """No reward yet."""
        return ArmSums()

    def propose(self, state: ArmSums, context: Context, arms: Arms) -> Proposal:
        """Greedy on the means, mixed with uniform by ε."""
        return self.propose_many(state, Contexts.of((context,)), arms)[0]

    def propose_many(self, state: ArmSums, contexts: Contexts, arms: Arms) -> Proposals:
        """The same for each of B queries."""
        if not len(arms):
            raise ValueError("arms: no eligible arm to propose from")
        means = np.array([self._mean(state, arm) for arm in arms.ids])
        count = np.array([state.count.get(arm, 0.0) for arm in arms.ids])
        shares = mix(greedy(means), self.epsilon)
        n = len(contexts)
        return Proposals(np.tile(means, (n, 1)), np.tile(shares, (n, 1)), count=count)

    def learn(self, state: ArmSums, event: Rewarded | Compared) -> ArmSums:
        """One reward into its arm's mean, or one comparison into two."""
        if isinstance(event, Rewarded):
            if event.reward is not None:
                state.add(event.arm, finite("reward", event.reward))
        elif weight := weight_of(self.comparison_weight):
            state.compare(event, weight)
        return state

    def correct(self, state: ArmSums, before: Rewarded, after: Rewarded) -> ArmSums:
        """The difference into the sum."""
        state.revise(after.arm, settled(before), settled(after))
        return state

    def forget(self, state: ArmSums, arm: ArmId, keep: float) -> ArmSums:
        """The arm's sum and count times `keep`."""
        state.fade(arm, keep)
        return state

    def _mean(self, state: ArmSums, arm: ArmId) -> float:
        n = self.prior_count + state.count.get(arm, 0.0)
        if n == 0.0:
            return self.prior_mean
        return (self.prior_count * self.prior_mean + state.total.get(arm, 0.0)) / n
