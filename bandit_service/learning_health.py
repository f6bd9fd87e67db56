"""Whether the service learns: numbers over the newest decisions and outcomes. Pure.

They are for people who watch, start empty with the process, and decide nothing. Means forget: an
outcome that is `span` outcomes old weighs 1/e of the newest.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field

from policies import ArmId
from policies._elo import match

_WINDOW, _SPAN = 1000, 2000.0
_ELO_K, _ELO_BEGIN = 16.0, 1000.0
_RESCALE = 1e100


@dataclass(slots=True)
class Mean:
    """A mean that forgets by number of outcomes; None before the first."""

    sum: float = 0.0
    weight: float = 0.0

    def add(self, value: float, weight: float) -> None:
        """One more value."""
        self.sum += weight * value
        self.weight += weight

    def shrink(self, by: float) -> None:
        """Divide all weights."""
        self.sum /= by
        self.weight /= by

    @property
    def value(self) -> float | None:
        """The mean."""
        return self.sum / self.weight if self.weight > 0.0 else None


@dataclass
class LearningHealth:
    """Fed with every decision, settled outcome and comparison, in O(eligible arms)."""

    span: float = _SPAN
    window: int = _WINDOW
    rewards: Mean = field(default_factory=Mean)
    by_arm: dict[str, Mean] = field(default_factory=dict)
    """Mean reward of the decisions that went to an arm: what was seen of it."""
    corrected: dict[str, Mean] = field(default_factory=dict)
    """The same weighed by 1 / propensity: what it would have been had every query gone there."""
    quality_error: Mean = field(default_factory=Mean)
    quality_bias: Mean = field(default_factory=Mean)
    elo: dict[ArmId, float] = field(default_factory=dict)
    _now: float = 1.0
    _drawn: deque[str] = field(default_factory=deque)
    _least: deque[float] = field(default_factory=deque)
    _counts: Counter[str] = field(default_factory=Counter)

    def decided(self, arm: str, propensity: float, propensities: tuple[float, ...]) -> bool:
        """One decision; whether it explored, which is to draw what was not the likeliest."""
        self._drawn.append(arm)
        self._counts[arm] += 1
        self._least.append(min(propensities))
        if len(self._drawn) > self.window:
            oldest = self._drawn.popleft()
            self._least.popleft()
            self._counts[oldest] -= 1
            if not self._counts[oldest]:
                del self._counts[oldest]
        return propensity < max(propensities)

    def settled(
        self,
        arm: str,
        propensity: float,
        reward: float,
        quality: float | None = None,
        expected_quality: float | None = None,
    ) -> None:
        """The scalar reward of one decision, and its quality beside the expected one."""
        self._now *= 1.0 + 1.0 / self.span
        self.rewards.add(reward, self._now)
        self.by_arm.setdefault(arm, Mean()).add(reward, self._now)
        self.corrected.setdefault(arm, Mean()).add(reward, self._now / propensity)
        if quality is not None and expected_quality is not None:
            self.quality_error.add(abs(quality - expected_quality), self._now)
            self.quality_bias.add(expected_quality - quality, self._now)
        if self._now > _RESCALE:
            means = (self.rewards, self.quality_error, self.quality_bias)
            for mean in (*means, *self.by_arm.values(), *self.corrected.values()):
                mean.shrink(self._now)
            self._now = 1.0

    def compared(self, winner: ArmId, loser: ArmId, tie: bool) -> None:
        """One comparison moves the ratings of both."""
        match(self.elo, winner, loser, 0.5 if tie else 1.0, _ELO_K, _ELO_BEGIN)

    def least_propensity(self) -> float | None:
        """The least chance of any eligible arm among the newest decisions."""
        return min(self._least, default=None)

    def entropy(self, offered: int) -> float | None:
        """Entropy of the newest decisions' arms, of that of an even split; 1 with one arm only."""
        total = len(self._drawn)
        if not total:
            return None
        if offered < 2:
            return 1.0
        shares = (count / total for count in self._counts.values())
        return max(0.0, -sum(p * math.log(p) for p in shares)) / math.log(offered)

    def regret(self) -> float | None:
        """Best corrected mean of any arm − mean reward: what always that arm would have won.

        Below zero where routing by query does better than every single arm.
        """
        best = max((one.value for one in self.corrected.values() if one.value is not None),
                   default=None)  # fmt: skip
        mean = self.rewards.value
        return best - mean if best is not None and mean is not None else None
