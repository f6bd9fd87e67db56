"""Slopes: for each arm a line through the query's embedding, moved a step towards each outcome.

A whole policy in one file. `policies_dir = "mine"` and `[policy] name = "slopes"` serve it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from policies import ArmId, Arms, Compared, Context, Floats, Proposal, Rewarded, mix

__all__ = ["Slopes"]

UNTRIED = 0.7
"""Quality that is expected of an arm before its first outcome."""


@dataclass
class Lines:
    """Per arm a line, quality = level + slope · embedding, and its outcomes: plain data."""

    slope: dict[ArmId, Floats] = field(default_factory=dict)
    level: dict[ArmId, float] = field(default_factory=dict)
    outcomes: dict[ArmId, int] = field(default_factory=dict)
    length: int = 0


@dataclass(frozen=True)
class Slopes:
    """Per arm a line through the embedding, moved a step towards each outcome.

    step: how far, in (0, 1].
    epsilon: share of decisions, in [0, 1], that try any arm.
    """

    step: float = 0.5
    epsilon: float = 0.02

    def __post_init__(self) -> None:
        if not 0.0 < self.step <= 1.0:
            raise ValueError(f"step: must be above 0 and at most 1, got {self.step!r}")
        if not 0.0 <= self.epsilon <= 1.0:
            raise ValueError(f"epsilon: must be from 0 to 1, got {self.epsilon!r}")

    def init(self) -> Lines:
        """Nothing is known."""
        return Lines()

    def propose(self, state: Lines, context: Context, arms: Arms) -> Proposal:
        """All mass on the best of expected quality less cost; a little on every arm."""
        if not len(arms):
            raise ValueError("arms: no eligible arm to propose from")
        x = np.asarray(context.embedding, np.float64)
        quality = np.array([self._expected(state, arm, x) for arm in arms.ids])
        scores = quality - arms.cost_usd / context.willingness_to_pay
        best = scores == scores.max()
        return Proposal(scores, mix(best / best.sum(), self.epsilon), np.clip(quality, 0.0, 1.0))

    def learn(self, state: Lines, event: Rewarded | Compared) -> Lines:
        """Move the arm's line towards the outcome; all is computed before the first write."""
        if not isinstance(event, Rewarded) or event.quality is None:
            return state
        if not 0.0 <= event.quality <= 1.0:
            raise ValueError(f"quality: must be from 0 to 1, got {event.quality!r}")
        x = np.asarray(event.context.embedding, np.float64)
        if not np.isfinite(x).all() or len(x) != (state.length or len(x)):
            raise ValueError(f"embedding: must be {state.length} finite numbers")
        off = event.quality - self._expected(state, event.arm, x)
        n = state.outcomes.get(event.arm, 0) + 1
        slope = state.slope.get(event.arm, np.zeros(len(x))) + self.step * off * x
        level = state.level.get(event.arm, UNTRIED) + off / (n + 4)
        state.slope[event.arm], state.level[event.arm] = slope, level
        state.outcomes[event.arm], state.length = n, len(x)
        return state

    def _expected(self, state: Lines, arm: ArmId, embedding: Floats) -> float:
        """Of one arm; UNTRIED before its first outcome."""
        if arm not in state.slope:
            return UNTRIED
        return state.level[arm] + float(state.slope[arm] @ embedding)
