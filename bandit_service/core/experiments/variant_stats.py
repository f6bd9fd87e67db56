"""One variant's sums, and the mean and the difference to the control that they give.

The unit is what is counted, not the answer: answers of one user are not independent of each other.
For a metric with sums s_u over the n_u answers of unit u, the mean is Σs/Σn, and its variance comes
from Σs², Σsn and Σn² over the units (the delta method), all of which are kept as sums, so that one
more answer of a unit is one subtraction and one addition.

Where weights moved, that mean is biased: what moved them was seen in the same numbers, and times
when a variant had many units weigh more. Then the means of doubly robust scores stand in (`Score`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bandit_service.core.experiments.spec import Experiment
from bandit_service.statistics import bernstein, means
from bandit_service.statistics.calibration import Calibrating


@dataclass
class Sums:
    """Over the units with at least one answer: how many, Σs, Σn, Σs², Σsn, Σn²."""

    units: int = 0
    s: float = 0.0
    n: float = 0.0
    ss: float = 0.0
    sn: float = 0.0
    nn: float = 0.0

    def change(self, before: tuple[float, float], after: tuple[float, float]) -> None:
        """One unit's (s, n) became another; (0, 0) is a unit without an answer."""
        for (s, n), sign in ((before, -1), (after, 1)):
            if n:
                self.units += sign
                self.s += sign * s
                self.n += sign * n
                self.ss += sign * s * s
                self.sn += sign * s * n
                self.nn += sign * n * n

    @property
    def mean(self) -> float | None:
        """Σs / Σn."""
        return self.s / self.n if self.n else None

    @property
    def variance(self) -> float | None:
        """Of one unit's part in the mean: Σ(s − mean·n)² / (units − 1) / (Σn / units)²."""
        if self.units < 2:
            return None
        mean, each = self.s / self.n, self.n / self.units
        spread = self.ss - 2.0 * mean * self.sn + mean * mean * self.nn
        return max(0.0, spread) / (self.units - 1) / (each * each)


@dataclass
class Running:
    """A mean and the sum of squared deviations of what came so far (Welford)."""

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0

    def add(self, x: float) -> None:
        """One more number."""
        self.n += 1
        gap = x - self.mean
        self.mean += gap / self.n
        self.m2 += gap * (x - self.mean)

    @property
    def variance(self) -> float | None:
        """Of one number."""
        return self.m2 / (self.n - 1) if self.n > 1 else None


@dataclass
class Score:
    """One metric of one variant by first outcomes. first: of the variant's own units. score: of
    all units, doubly robust (`trial.scored`). gap: its difference to the control's."""

    first: Running = field(default_factory=Running)
    score: Running = field(default_factory=Running)
    gap: Running = field(default_factory=Running)


@dataclass
class Point:
    """The primary metric at a moment: units, mean and its standard error, and the same of the
    difference to the control, 0 units where there was none."""

    ts: float
    n: int
    mean: float
    stderr: float
    gap_n: int = 0
    gap: float = 0.0
    gap_stderr: float = 0.0


@dataclass
class Side:
    """One served variant. mixed: its units that met another one too. rewards: of its decisions.
    latency: a histogram of all answers. guards: one state for each guardrail."""

    decisions: int = 0
    units: int = 0
    mixed: int = 0
    rewards: int = 0
    sums: dict[str, Sums] = field(default_factory=dict)
    scores: dict[str, Score] = field(default_factory=dict)
    latency: dict[int, int] = field(default_factory=dict)
    guards: list[bernstein.State] = field(default_factory=list)
    calibration: Calibrating = field(default_factory=Calibrating)
    points: list[Point] = field(default_factory=list)


def mean_of(spec: Experiment, side: Side, metric: str, moved: bool) -> means.Sample | None:
    """What is known of a variant's mean; None before two units. moved: the weights did.

    The variance has one made-up unit at half of the metric's range in it (at the mean, where there
    is no range), so that a few equal values do not look like certainty.
    """
    if moved:
        score = side.scores.get(metric, Score()).score
        n, mean, variance = score.n, score.mean, score.variance
    else:
        sums = side.sums.get(metric, Sums())
        n, mean, variance = sums.units, sums.mean or 0.0, sums.variance
    if variance is None:
        return None
    return means.Sample(n, mean, variance + _made_up(spec, metric, mean) / n)


def gap_of(
    spec: Experiment, control: Side, side: Side, metric: str, moved: bool
) -> means.Sample | None:
    """The difference to the control as a sample of its own; None before two units of each."""
    if moved:
        gap = side.scores.get(metric, Score()).gap
        if gap.variance is None:
            return None
        made_up = 2.0 * _made_up(spec, metric, gap.mean)
        return means.Sample(gap.n, gap.mean, gap.variance + made_up / gap.n)
    a = mean_of(spec, control, metric, moved=False)
    b = mean_of(spec, side, metric, moved=False)
    if a is None or b is None:
        return None
    n = a.n + b.n
    return means.Sample(n, b.mean - a.mean, n * (a.variance / a.n + b.variance / b.n))


def _made_up(spec: Experiment, metric: str, mean: float) -> float:
    low, high = spec.bounds(metric)
    half = 0.5 * (high - low) if high > low else mean
    return half * half
