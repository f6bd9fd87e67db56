"""What an experiment has seen: a fold of its decisions and their outcomes, O(1) for each.

The unit is what is counted, not the answer: answers of one user are not independent of each other.
For a metric with sums s_u over the n_u answers of unit u, the mean is Σs/Σn, and its variance comes
from Σs², Σsn and Σn² over the units (the delta method), all of which are kept as sums, so that one
more answer of a unit is one subtraction and one addition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from bandit_service.core import events as ev
from bandit_service.core.experiments import Experiment
from bandit_service.statistics import bernstein

MOST_UNITS = 1_000_000
"""Units beyond are served and not measured; `Trial.uncounted` says how many decisions that were."""

MOST_NOTES = 200
_GROWTH = 1.08
LATENCY_STEP = 1.05
"""Bounds of the latency histogram grow by this factor: quantiles are right within 5 %."""


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


@dataclass
class Member:
    """One unit: its variant's key, the epoch it came in, and (s, n) by metric.

    owner: whose it is, for erasure, where the unit itself is not the user."""

    variant: str
    epoch: int
    owner: str = ""
    mixed: bool = False
    sums: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class Point:
    """The primary metric's sums as they were at a moment, for the sequence over time."""

    ts: float
    sums: Sums


@dataclass
class Side:
    """One served variant. first: of each unit's first primary outcome. score: the same for all
    units, doubly robust (see `scored`); gap: its difference to the control's. guards: one state for
    each guardrail."""

    decisions: int = 0
    units: int = 0
    rewards: int = 0
    sums: dict[str, Sums] = field(default_factory=dict)
    first: Running = field(default_factory=Running)
    score: Running = field(default_factory=Running)
    gap: Running = field(default_factory=Running)
    latency: dict[int, int] = field(default_factory=dict)
    guards: list[bernstein.State] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)


@dataclass
class ShadowSide:
    """One variant that only decides: w is its probability of the arm that was served divided by
    the logged one."""

    decisions: int = 0
    agreed: float = 0.0
    cost_usd: float = 0.0
    served_usd: float = 0.0
    rewards: int = 0
    w: float = 0.0
    ww: float = 0.0
    wr: float = 0.0
    wwr: float = 0.0
    wwrr: float = 0.0
    most_w: float = 0.0


@dataclass
class Epoch:
    """While the weights and the share stood still: when it began, and new units by variant."""

    ts: float
    weights: list[float]
    share: float
    counts: list[int]


@dataclass
class Note:
    """One change, by whom and why."""

    ts: float
    status: str
    by: str
    why: str


@dataclass
class Trial:
    """One experiment's state. begun: when it first ran; seeded: the number of events at its start.

    held: until when a variant that broke a guardrail stays at weight 0.
    """

    status: str = "draft"
    begun: float | None = None
    ended: float | None = None
    seeded: int = 0
    winner: str = ""
    mixed: int = 0
    uncounted: int = 0
    epochs: list[Epoch] = field(default_factory=list)
    members: dict[str, Member] = field(default_factory=dict)
    sides: dict[str, Side] = field(default_factory=dict)
    shadows: dict[str, ShadowSide] = field(default_factory=dict)
    held: dict[str, float] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def effective(self, spec: Experiment) -> list[float]:
        """The weights without the variants that are held, summing to 1 again."""
        kept = [0.0 if one.key in self.held else one.weight for one in spec.served]
        total = sum(kept)
        return [weight / total for weight in kept] if total > 0.0 else list(spec.weights)

    def traffic(self) -> dict[str, int]:
        """Decisions by variant."""
        return {key: side.decisions for key, side in self.sides.items()} | {
            key: side.decisions for key, side in self.shadows.items()
        }


def guard_alpha(spec: Experiment) -> float:
    """alpha, divided over the guardrails and the variants that may break them."""
    return spec.alpha / max(1, len(spec.guardrails) * len(spec.served))


def changed(trial: Trial, before: Experiment | None, event: ev.ExperimentChanged) -> None:
    """Take over a new description or status."""
    spec = event.experiment
    trial.status = event.status
    if event.status == "running" and trial.begun is None:
        trial.begun = event.ts
    if event.status == "stopped" and trial.ended is None:
        trial.ended, trial.winner = event.ts, event.winner
    if event.held and event.held_until > event.ts:
        trial.held[event.held] = event.held_until
    elif event.held:
        trial.held.pop(event.held, None)
        if event.held in trial.sides:  # judged by what comes from now on
            trial.sides[event.held].guards = [bernstein.State() for _ in spec.guardrails]
    for one in spec.served:
        side = trial.sides.setdefault(one.key, Side())
        while len(side.guards) < len(spec.guardrails):
            side.guards.append(bernstein.State())
        if before is not None and before.guardrails != spec.guardrails:
            side.guards = [bernstein.State() for _ in spec.guardrails]
    for one in spec.shadows:
        trial.shadows.setdefault(one.key, ShadowSide())
    last = trial.epochs[-1] if trial.epochs else None
    weights = trial.effective(spec)
    empty = last is not None and not any(last.counts)
    if last is None or empty or last.weights != weights or last.share != spec.share:
        if empty:  # as if it had not been: what begins now begins now
            trial.epochs.pop()
        trial.epochs.append(Epoch(event.ts, weights, spec.share, [0] * len(spec.served)))
    trial.notes.append(Note(event.ts, event.status, event.by, event.why))
    del trial.notes[:-MOST_NOTES]


def decided(trial: Trial, spec: Experiment, event: ev.Decided) -> None:
    """One decision of a served variant; what came by an override (split 0) counts nowhere."""
    side = trial.sides.get(event.variant)
    if side is None or event.split <= 0.0:
        return
    side.decisions += 1
    member = trial.members.get(event.member)
    if member is None:
        if len(trial.members) >= MOST_UNITS:
            trial.uncounted += 1
            return
        owner = ev.owner_of(event.tenant, event.unit)
        trial.members[event.member] = Member(
            event.variant, len(trial.epochs) - 1, "" if owner == event.member else owner
        )
        side.units += 1
        trial.epochs[-1].counts[[one.key for one in spec.served].index(event.variant)] += 1
    elif member.variant != event.variant and not member.mixed:
        _exclude(trial, member)


def shadowed(trial: Trial, event: ev.Decided, shadow: ev.Shadow) -> None:
    """What a shadow would have done."""
    side = trial.shadows.get(shadow.variant)
    if side is None:
        return
    side.decisions += 1
    side.agreed += shadow.propensities[event.drawn]
    side.cost_usd += shadow.expected_cost_usd
    side.served_usd += event.expected_cost_usd


def shadow_rewarded(trial: Trial, event: ev.Decided, shadow: ev.Shadow, reward: float) -> None:
    """The importance-weighted outcome of a shadow; sums of w, w², wr, w²r and w²r²."""
    side = trial.shadows.get(shadow.variant)
    if side is None:
        return
    if any(p > 0.0 >= q for p, q in zip(shadow.propensities, event.propensities, strict=False)):
        return  # a fixed arm served: of what the shadow would have done, it says nothing
    w = shadow.propensities[event.drawn] / event.propensity
    side.rewards += 1
    side.w += w
    side.ww += w * w
    side.wr += w * reward
    side.wwr += w * w * reward
    side.wwrr += w * w * reward * reward
    side.most_w = max(side.most_w, w)


def valued(
    trial: Trial,
    spec: Experiment,
    event: ev.Decided,
    metric: str,
    value: float,
    before: float | None,
    ts: float,
) -> None:
    """A metric's value came back for a decision, or took the place of `before`."""
    side, member = trial.sides.get(event.variant), trial.members.get(event.member)
    if side is None or member is None or member.mixed or event.split <= 0.0:
        return
    if trial.begun is None or event.ts < trial.begun:
        return  # of an experiment of the same name that was before
    old = member.sums.get(metric, [0.0, 0.0])
    s = old[0] + value - (before or 0.0)
    n = old[1] + (before is None)
    sums = side.sums.setdefault(metric, Sums())
    sums.change((old[0], old[1]), (s, n))
    member.sums[metric] = [s, n]
    if before is not None:
        return
    if metric == "latency_s":
        bucket = latency_bucket(value)
        side.latency[bucket] = side.latency.get(bucket, 0) + 1
    if metric == "reward":
        side.rewards += 1
    for i, guard in enumerate(spec.guardrails):
        if guard.metric == metric and i < len(side.guards):
            low, high = spec.bounds(metric, guard.high)
            part = min(1.0, max(0.0, (value - low) / (high - low)))
            bernstein.add(side.guards[i], part, guard_alpha(spec))
    if metric == spec.primary:
        if n == 1.0:
            scored(trial, spec, member, value)
        if not side.points or sums.units >= side.points[-1].sums.units * _GROWTH + 1.0:
            side.points.append(
                Point(ts, Sums(sums.units, sums.s, sums.n, sums.ss, sums.sn, sums.nn))
            )


def scored(trial: Trial, spec: Experiment, member: Member, y: float) -> None:
    """AIPW: every variant gets m_j + 1{j = v}/p_j · (y − m_j) from a unit's first outcome y.

    m_j is the mean of the variant's own first outcomes before this one, p_j the probability with
    which new units got it then; so the scores' means are unbiased for any rule that moved the
    weights by what was seen (arXiv 1911.02768, eq. 5).
    """
    weights = trial.epochs[member.epoch].weights
    scores: dict[str, float] = {}
    for one, p in zip(spec.served, weights, strict=False):
        if p > 0.0:
            m = trial.sides[one.key].first.mean
            scores[one.key] = m + (y - m) / p if one.key == member.variant else m
    control = scores.get(spec.control.key)
    for key, score in scores.items():
        trial.sides[key].score.add(score)
        if control is not None:
            trial.sides[key].gap.add(score - control)
    trial.sides[member.variant].first.add(y)


def forget(trial: Trial, owner: str) -> None:
    """Drop the units of one owner; the sums keep what they gave."""
    for name in [name for name, one in trial.members.items() if owner in (name, one.owner)]:
        del trial.members[name]


def latency_bucket(seconds: float) -> int:
    """The histogram's bucket: floor of the logarithm to the base of LATENCY_STEP."""
    return math.floor(math.log(max(seconds, 1e-6)) / math.log(LATENCY_STEP))


def _exclude(trial: Trial, member: Member) -> None:
    """A unit that met two variants measures neither."""
    side = trial.sides[member.variant]
    for metric, (s, n) in member.sums.items():
        side.sums[metric].change((s, n), (0.0, 0.0))
    member.mixed = True
    member.sums = {}
    trial.mixed += 1
