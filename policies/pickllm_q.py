"""PickLLM's stateless Q-learning with epsilon-greedy exploration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from policies._checks import above, two_arms, within
from policies._explore import greedy, mix
from policies._pickllm import RewardForm
from policies._types import ArmId, Arms, Compared, Context, Proposal, Rewarded

__all__ = ["PickLLMQ"]


@dataclass
class _Values:
    """q: value per arm; settled: rewards so far; best: the greedy arm, so `since` that reward."""

    q: dict[ArmId, float] = field(default_factory=dict)
    settled: int = 0
    best: ArmId | None = None
    since: int = 0


@dataclass(frozen=True, slots=True)
class PickLLMQ:
    r"""A value per arm, moved towards each reward; the query is not looked at.

    Q_m ← Q_m + α·(R − Q_m),   ε_t = ε·δ^t,   p = (1 − ε_t)·greedy(Q) + ε_t/K

    learning_rate: α in (0, 1]. Unverified in the paper; 0.1 forgets with a memory of ten.
    epsilon: ε in [0, 1]. Unverified in the paper; 0.1.
    epsilon_decay: δ in (0, 1] per settled reward; 1 never decays, so that drift is noticed.
    initial: Q of an arm never rewarded, in [0, 1]. 1 is optimistic, so that every arm is tried;
        0 is the textbook's.
    reward, accuracy_weight, cost_weight, latency_weight, latency_scale: the reward R, as in
        `pickllm_gradient`.
    patience: >= 1, settled rewards during which the greedy arm did not change, after which the
        learner counts as converged. The paper is silent on its rule.
    comparison_weight: in [0, 1], the share of α with which a comparison counts (winner 1,
        loser 0, tie 1/2); 0 ignores comparisons.

    State: one number per arm. propose O(K), learn O(K). It follows drift, unlike the automaton.

    Source: arXiv 2412.12170 (abstract and secondary sources only; see docs/policies).

    >>> policy = PickLLMQ(reward="service", initial=0.0)
    >>> context = Context(np.ones(1, np.float32), 0, 0.1)
    >>> event = Rewarded(context, ArmId("a"), 0.5, 1.0, 0.0, quality=0.8, reward=0.8)
    >>> round(policy.learn(policy.init(), event).q[ArmId("a")], 12)
    0.08
    """

    learning_rate: float = 0.1
    epsilon: float = 0.1
    epsilon_decay: float = 1.0
    initial: float = 1.0
    reward: str = "ratio"
    accuracy_weight: float = 1.0
    cost_weight: float | None = None
    latency_weight: float = 1.0
    latency_scale: float = 3.0
    patience: int = 100
    comparison_weight: float = 0.5

    reads_neighbours: ClassVar[bool] = False

    def __post_init__(self) -> None:
        above("learning_rate", self.learning_rate, 0.0, 1.0)
        within("epsilon", self.epsilon, 0.0, 1.0)
        above("epsilon_decay", self.epsilon_decay, 0.0, 1.0)
        within("initial", self.initial, 0.0, 1.0)
        within("patience", self.patience, 1)
        within("comparison_weight", self.comparison_weight, 0.0, 1.0)
        self._form()

    @staticmethod
    def examples() -> list[PickLLMQ]:
        """Settings that the laws test, too."""
        return [PickLLMQ(reward="service", initial=0.0, epsilon_decay=0.999)]

    def init(self) -> _Values:
        """Every arm at the initial value."""
        return _Values()

    def propose(self, state: _Values, context: Context, arms: Arms) -> Proposal:
        """Greedy on Q, mixed with uniform by ε_t."""
        if not len(arms):
            raise ValueError("arms: no eligible arm to propose from")
        q = np.array([state.q.get(arm, self.initial) for arm in arms.ids])
        epsilon = self.epsilon * self.epsilon_decay**state.settled
        return Proposal(q, mix(greedy(q), epsilon))

    def learn(self, state: _Values, event: Rewarded | Compared) -> _Values:
        """Q of the arm played, or of both that were compared, a step nearer."""
        if isinstance(event, Rewarded):
            reward = self._form().of(event)
            if reward is not None:
                self._move(state, event.arm, reward, self.learning_rate)
                self._settle(state)
        elif self.comparison_weight > 0.0:
            two_arms(event)
            won = 0.5 if event.tie else 1.0
            rate = self.learning_rate * self.comparison_weight
            self._move(state, event.winner, won, rate)
            self._move(state, event.loser, 1.0 - won, rate)
        return state

    def forget(self, state: _Values, arm: ArmId, keep: float) -> _Values:
        """Q ← keep·Q + (1 − keep)·initial of the arm."""
        within("keep", keep, 0.0, 1.0)
        if arm in state.q:
            state.q[arm] = keep * state.q[arm] + (1.0 - keep) * self.initial
        return state

    def converged(self, state: _Values) -> ArmId | None:
        """The greedy arm, if it has been so for `patience` settled rewards."""
        stayed = state.settled - state.since >= self.patience
        return state.best if stayed else None

    def _move(self, state: _Values, arm: ArmId, target: float, rate: float) -> None:
        before = state.q.get(arm, self.initial)
        state.q[arm] = before + rate * (target - before)

    def _settle(self, state: _Values) -> None:
        state.settled += 1
        best = min(state.q, key=lambda arm: (-state.q[arm], arm))
        if best != state.best:
            state.best, state.since = best, state.settled

    def _form(self) -> RewardForm:
        return RewardForm(
            self.reward,
            self.accuracy_weight,
            self.cost_weight,
            self.latency_weight,
            self.latency_scale,
        )
