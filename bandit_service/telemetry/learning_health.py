"""Whether the service learns: numbers over the newest decisions and outcomes. Pure.

They are for people who watch, start empty with the process, and decide nothing. Means forget: an
outcome that is `span` outcomes old weighs 1/e of the newest.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from policies import ArmId, elo_match

_WINDOW, SPAN, _SHORT = 1000, 2000.0, 200.0
_ELO_K, _ELO_BEGIN = 16.0, 1000.0
_RESCALE = 1e100
_MIN_POWER = -30
_KNOWN = 30.0


@dataclass(slots=True)
class Mean:
    """A mean that forgets by number of outcomes; None before the first."""

    sum: float = 0.0
    weight: float = 0.0
    squares: float = 0.0
    """Sum of the squared weights."""

    def add(self, value: float, weight: float) -> None:
        """One more value."""
        self.sum += weight * value
        self.weight += weight
        self.squares += weight * weight

    def merge(self, other: Mean) -> None:
        """All that another mean of the same weights has."""
        self.sum += other.sum
        self.weight += other.weight
        self.squares += other.squares

    def shrink(self, by: float) -> None:
        """Divide all weights."""
        self.sum /= by
        self.weight /= by
        self.squares /= by * by

    @property
    def value(self) -> float | None:
        """The mean."""
        return self.sum / self.weight if self.weight > 0.0 else None

    @property
    def effective(self) -> float:
        """Kish's effective sample size, (Σ w)² / Σ w²."""
        return self.weight * self.weight / self.squares if self.squares > 0.0 else 0.0


def means_by_key() -> defaultdict[Any, Mean]:
    """Means, each of which begins with its first value."""
    return defaultdict(Mean)


@dataclass(slots=True)
class Memory:
    """Weights that grow by 1 + 1/span with every outcome, so that older ones count less."""

    span: float
    now: float = 1.0

    def tick(self, means: Callable[[], Iterable[Mean]]) -> float:
        """The weight of the next outcome; the means that it goes to are scaled down in time."""
        self.now *= 1.0 + 1.0 / self.span
        if self.now > _RESCALE:
            for mean in means():
                mean.shrink(self.now)
            self.now = 1.0
        return self.now


@dataclass(slots=True)
class Calibration:
    """Expected calibration error: Σ_b |Σ_{i in b} w_i (expected − reported)|, by bins of what was
    expected (Naeini et al., AAAI 2015). A bin's sum is its weight times the distance of the means.
    """

    gaps: dict[int, Mean] = field(default_factory=means_by_key)
    reported: Mean = field(default_factory=Mean)

    def add(self, bin: int, expected: float, reported: float, weight: float) -> None:  # noqa: A002
        """One outcome."""
        self.gaps[bin].add(expected - reported, weight)
        self.reported.add(reported, weight)

    def means(self) -> Iterator[Mean]:
        """All of them, to be scaled down."""
        yield self.reported
        yield from self.gaps.values()

    def error(self) -> float | None:
        """In the unit of the expected value; None before the first outcome."""
        if self.reported.weight <= 0.0:
            return None
        return sum(abs(gap.sum) for gap in self.gaps.values()) / self.reported.weight

    def ratio(self) -> float | None:
        """The error as a share of the reported sum; None if that is 0."""
        error, mean = self.error(), self.reported.value
        return None if error is None or not mean else error / mean

    def bias(self) -> float | None:
        """Expected minus reported as a share of the reported sum; None if that is 0."""
        gap = sum(each.sum for each in self.gaps.values())
        return gap / self.reported.sum if self.reported.sum > 0.0 else None


@dataclass
class LearningHealth:
    """Fed with every decision, settled outcome and comparison, in O(eligible arms)."""

    span: float = SPAN
    short: float = _SHORT
    window: int = _WINDOW
    rewards: Mean = field(default_factory=Mean)
    by_arm: dict[str, Mean] = field(default_factory=means_by_key)
    """The observed mean reward of the decisions for an arm."""
    lately: dict[str, Mean] = field(default_factory=means_by_key)
    """The same with the span `short`."""
    corrected: dict[str, Mean] = field(default_factory=means_by_key)
    """`by_arm` weighted by 1 / propensity: the mean if every query had gone there."""
    quality_error: Mean = field(default_factory=Mean)
    quality_bias: Mean = field(default_factory=Mean)
    quality: Calibration = field(default_factory=Calibration)
    cost: Calibration = field(default_factory=Calibration)
    elo: dict[ArmId, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._drawn: deque[str] = deque(maxlen=self.window)
        self._free: deque[tuple[float, ...]] = deque(maxlen=self.window)
        self._slow, self._costs = Memory(self.span), Memory(self.span)
        self._fast = Memory(self.short)

    def decided(self, arms: Iterable[str], free: Iterable[tuple[float, ...]]) -> None:
        """Decisions: the arm of each. free: the propensities of those in which chance had a say."""
        self._drawn.extend(arms)
        self._free.extend(free)

    def settled(
        self,
        arm: str,
        propensity: float,
        reward: float,
        quality: float | None = None,
        expected_quality: float | None = None,
    ) -> None:
        """The scalar reward of one decision, and its quality next to the expected one."""
        now = self._slow.tick(self._means)
        self.rewards.add(reward, now)
        self.by_arm[arm].add(reward, now)
        soon = self._fast.tick(self.lately.values)
        self.lately[arm].add(reward, soon)
        self.corrected[arm].add(reward, now / propensity)
        if quality is not None and expected_quality is not None:
            self.quality_error.add(abs(quality - expected_quality), now)
            self.quality_bias.add(expected_quality - quality, now)
            tenth = min(9, max(0, int(10.0 * expected_quality)))
            self.quality.add(tenth, expected_quality, quality, now)

    def paid(self, expected_usd: float, usd: float) -> None:
        """What one decision was expected to cost, and did."""
        power = math.frexp(expected_usd)[1] if expected_usd > 0.0 else _MIN_POWER
        weight = self._costs.tick(self.cost.means)
        self.cost.add(min(10, max(_MIN_POWER, power)), expected_usd, usd, weight)

    def _means(self) -> Iterator[Mean]:
        yield from (self.rewards, self.quality_error, self.quality_bias)
        yield from (*self.by_arm.values(), *self.corrected.values(), *self.quality.means())

    def compared(self, winner: ArmId, loser: ArmId, tie: bool) -> None:
        """One comparison moves the ratings of both."""
        elo_match(self.elo, winner, loser, 0.5 if tie else 1.0, _ELO_K, _ELO_BEGIN)

    def least_propensity(self) -> float | None:
        """The least chance of any eligible arm among the newest decisions."""
        return min(map(min, self._free), default=None)

    def entropy(self, offered: int) -> float | None:
        """Entropy of the newest decisions' arms, of that of an even split; 1 with one arm only."""
        total = len(self._drawn)
        if not total:
            return None
        if offered < 2:
            return 1.0
        shares = (count / total for count in Counter(self._drawn).values())
        return max(0.0, -sum(p * math.log(p) for p in shares)) / math.log(offered)

    def best(self) -> Mean | None:
        """The corrected mean that is highest, of those with an effective sample size of 30.

        One of fewer may be anywhere, and the best of several such is far too good.
        """
        known = (one for one in self.corrected.values() if one.effective >= _KNOWN)
        return max(known, key=lambda one: one.sum / one.weight, default=None)

    def regret(self) -> float | None:
        """Best corrected mean of any arm − mean reward: what always that arm would have won.

        Below zero where routing by query does better than every single arm.
        """
        best, mean = self.best(), self.rewards.value
        if best is None or best.value is None or mean is None:
            return None
        return best.value - mean


def changes(slow: Mapping[str, Mean], lately: Mapping[str, Mean]) -> dict[str, float]:
    """By arm, the mean reward of its newest decisions less the one that forgets slowly."""
    found = {}
    for arm, mean in slow.items():
        newest = lately[arm].value
        if mean.value is not None and newest is not None:
            found[arm] = newest - mean.value
    return found
