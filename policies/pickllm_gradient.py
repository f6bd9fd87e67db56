"""PickLLM's learning automaton: gradient ascent on a probability vector."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from policies._checks import above, two_arms, within
from policies._pickllm import RewardForm
from policies._types import ArmId, Arms, Compared, Context, Proposal, Rewarded

__all__ = ["PickLLMGradient"]


@dataclass
class _Automaton:
    """base: probability mass that no reward has claimed yet; weights: mass claimed by each arm."""

    base: float = 1.0
    weights: dict[ArmId, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PickLLMGradient:
    r"""Linear reward-inaction over the arms; the query is not looked at.

    p_m ← p_m + b·R·(1 − p_m),   p_j ← p_j − b·R·p_j  for j ≠ m,   R ∈ [0, 1)

    The vector is kept as p_i = base/K + w_i, whose update is base ← (1 − bR)·base,
    w ← (1 − bR)·w, w_m ← w_m + bR: the same numbers for a fixed set of arms, and defined when
    arms come and go. K counts the arms offered to the query, since the pool itself is not in
    the state: what no reward has claimed belongs to whoever is offered, and then all is
    renormalised over them. An arm that appears late shares what is left of the base only.

    learning_rate: b in (0, 1]. A secondary source quotes 0.5 for the paper, with which the
        vector locks onto an arm, often a wrong one, after a handful of rewards; 0.05 is ours.
    reward: what R is. With W = w_l·log₁₀(latency in ms)/t, "ratio" (the paper's, as far as it
        is known) is (w_a·quality − w_c·USD)/W, "additive" is w_a·quality − w_c·USD + 1 − W, and
        "service" the service's own scalar reward; each is cut to [0, 1).
    accuracy_weight: w_a >= 0.
    cost_weight: w_c >= 0 per USD; None takes 1 / the query's willingness to pay.
    latency_weight: w_l > 0.
    latency_scale: t > 0; with 3 one second is neutral, W = 1, as is a latency not known.
    converged_at: in [0.5, 1], the largest probability at which the automaton has converged.
    comparison_weight: in [0, 1], the R that a comparison's winner is given, half of it to each
        arm of a tie; 0 ignores comparisons.

    State: one number per arm. propose O(K), learn O(K). It absorbs: once p is near 1 only the
    service's floor still tries the others, until an alarm of drift has an arm forgotten. For
    drifting arms take `pickllm_q`.

    Source: arXiv 2412.12170 (abstract and secondary sources only; see docs/policies).

    >>> policy = PickLLMGradient(learning_rate=0.5, reward="service")
    >>> context = Context(np.ones(1, np.float32), 0, 0.1)
    >>> event = Rewarded(context, ArmId("a"), 0.5, 1.0, 0.0, quality=0.8, reward=0.8)
    >>> state = policy.learn(policy.init(), event)
    >>> arms = Arms((ArmId("a"), ArmId("b")), np.zeros(2), np.zeros(2))
    >>> policy.propose(state, context, arms).propensities.round(12).tolist()
    [0.7, 0.3]
    """

    learning_rate: float = 0.05
    reward: str = "ratio"
    accuracy_weight: float = 1.0
    cost_weight: float | None = None
    latency_weight: float = 1.0
    latency_scale: float = 3.0
    converged_at: float = 0.99
    comparison_weight: float = 0.5

    reads_neighbours: ClassVar[bool] = False

    def __post_init__(self) -> None:
        above("learning_rate", self.learning_rate, 0.0, 1.0)
        within("converged_at", self.converged_at, 0.5, 1.0)
        within("comparison_weight", self.comparison_weight, 0.0, 1.0)
        self._form()

    @staticmethod
    def examples() -> list[PickLLMGradient]:
        """Settings that the laws test, too."""
        return [PickLLMGradient(reward="service"), PickLLMGradient(reward="additive")]

    def init(self) -> _Automaton:
        """All mass unclaimed: uniform over whatever is offered."""
        return _Automaton()

    def propose(self, state: _Automaton, context: Context, arms: Arms) -> Proposal:
        """The probability vector itself, renormalised over the arms offered."""
        k = len(arms)
        if not k:
            raise ValueError("arms: no eligible arm to propose from")
        p = np.array([state.base / k + state.weights.get(arm, 0.0) for arm in arms.ids])
        total = float(p.sum())
        p = p / total if total > 0.0 else np.full(k, 1.0 / k)
        return Proposal(p, p)

    def learn(self, state: _Automaton, event: Rewarded | Compared) -> _Automaton:
        """A step towards the arm that was rewarded; none for a reward of 0."""
        if isinstance(event, Rewarded):
            reward = self._form().of(event)
            if reward:
                self._step(state, event.arm, reward)
        elif self.comparison_weight > 0.0:
            two_arms(event)
            if event.tie:
                for arm in sorted((event.winner, event.loser)):
                    self._step(state, arm, self.comparison_weight / 2.0)
            else:
                self._step(state, event.winner, self.comparison_weight)
        return state

    def forget(self, state: _Automaton, arm: ArmId, keep: float) -> _Automaton:
        """w_m ← keep·w_m; what it gives up goes to the base and the other arms in proportion.

        So the others stay to each other as they were, and the whole stays 1. An automaton that an
        arm has absorbed is free again: with a tenth kept, the others get nine tenths.
        """
        within("keep", keep, 0.0, 1.0)
        if keep == 1.0 or arm not in state.weights:
            return state
        others = {each: weight for each, weight in state.weights.items() if each != arm}
        # the sum must not depend on the order in which arms came
        rest = math.fsum((state.base, *others.values()))
        kept = keep * state.weights[arm]
        if rest > 0.0:
            # a share is at most 1, where 1 / rest may be beyond all numbers
            shares = {each: (1.0 - kept) * (weight / rest) for each, weight in others.items()}
            state.weights.update(shares)
            state.base = (1.0 - kept) * (state.base / rest)
        else:
            state.base = 1.0 - kept
        state.weights[arm] = kept
        return state

    def converged(self, state: _Automaton) -> ArmId | None:
        """The arm whose probability reached `converged_at`, if one did."""
        for arm, weight in state.weights.items():
            if weight >= self.converged_at:
                return arm
        return None

    def _step(self, state: _Automaton, arm: ArmId, reward: float) -> None:
        step = self.learning_rate * reward
        state.base *= 1.0 - step
        for each in state.weights:
            state.weights[each] *= 1.0 - step
        state.weights[arm] = state.weights.get(arm, 0.0) + step

    def _form(self) -> RewardForm:
        return RewardForm(
            self.reward,
            self.accuracy_weight,
            self.cost_weight,
            self.latency_weight,
            self.latency_scale,
        )
