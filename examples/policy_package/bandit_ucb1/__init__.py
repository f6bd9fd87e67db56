"""UCB1: the arm with the best mean reward plus what is not known of it yet.

score_i = mean_i + c · √(2 ln N / n_i), with n_i rewards of arm i and N of all arms (Auer,
Cesa-Bianchi and Fischer, 2002). Rewards are from −1 to 1. It does not read the query.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from policies import ArmId, Arms, Compared, Context, Proposal, Rewarded

__all__ = ["UCB1"]


@dataclass
class Sums:
    """Per arm: the sum of its rewards, and their number. State is plain data."""

    total: dict[ArmId, float] = field(default_factory=dict)
    count: dict[ArmId, int] = field(default_factory=dict)


@dataclass(frozen=True)
class UCB1:
    """Each arm is tried once, then the one with the highest upper bound.

    c: width of the bound, >= 0; 1 is the paper's.
    """

    c: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.c <= 100.0:
            raise ValueError(f"c: must be from 0 to 100, got {self.c!r}")

    def init(self) -> Sums:
        """Nothing is known."""
        return Sums()

    def propose(self, state: Sums, context: Context, arms: Arms) -> Proposal:
        """All mass on the best bound; ties share it. The service adds its own exploration."""
        if not len(arms):
            raise ValueError("arms: no eligible arm to propose from")
        n = np.array([state.count.get(arm, 0) for arm in arms.ids], np.float64)
        total = np.array([state.total.get(arm, 0.0) for arm in arms.ids])
        mean = total / np.maximum(n, 1.0)
        wide = self.c * np.sqrt(2.0 * math.log(max(n.sum(), 1.0)) / np.maximum(n, 1.0))
        untried = n == 0.0
        scores = np.where(untried, 2.0 + 100.0 * self.c, mean + wide)
        best = scores == scores.max()
        return Proposal(scores, best / best.sum(), count=n)

    def learn(self, state: Sums, event: Rewarded | Compared) -> Sums:
        """Add one reward; comparisons say nothing of how good an arm is on its own."""
        if isinstance(event, Rewarded) and event.reward is not None:
            if not -1.0 <= event.reward <= 1.0:
                raise ValueError(f"reward: must be from -1 to 1, got {event.reward!r}")
            state.total[event.arm] = state.total.get(event.arm, 0.0) + event.reward
            state.count[event.arm] = state.count.get(event.arm, 0) + 1
        return state
