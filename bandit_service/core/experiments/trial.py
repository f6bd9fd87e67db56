"""What an experiment has seen: a fold of its decisions and their outcomes, O(variants) for each.

What is summed and what follows from the sums is in `sides`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from bandit_service.core import events as ev
from bandit_service.core.exclusions import why_excluded
from bandit_service.core.experiments.spec import Experiment
from bandit_service.core.experiments.variant_stats import (
    Point,
    Score,
    Side,
    Sums,
    gap_of,
    mean_of,
)
from bandit_service.statistics import bernstein, srm

MAX_UNITS = 1_000_000
"""Units beyond are served and not measured; `Trial.uncounted` says how many decisions that were."""

MAX_NOTES = 200
_GROWTH = 1.08
LATENCY_STEP = 1.05
"""Bounds of the latency histogram grow by this factor: quantiles are right within 5 %."""

_REVOKED = (0.0, 0)
"""The (s, n) of a unit whose every value was taken back; what comes then is not its first."""


@dataclass(slots=True)
class Member:
    """One unit: its first variant's key, the epoch it came in, and (s, n) by metric.

    owner: whose it is, for erasure, where the unit itself is not the user. mixed: it met another
    variant too. out: it was never assigned by chance, but by an override or in the place of a
    variant that was held; so it must not count as new later on.
    """

    variant: str
    epoch: int
    owner: str = ""
    mixed: bool = False
    out: bool = False
    sums: dict[str, tuple[float, int]] = field(default_factory=dict)


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
    """While the weights and the share stood still: when it began, and new units by variant.

    before: new units of the earlier epochs with the same weights.
    """

    ts: float
    weights: list[float]
    share: float
    counts: list[int]
    before: list[int]


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

    held: until when a variant that broke a guardrail stays at weight 0. moved: units came under
    more than one set of weights. split_p: the least p-value
    that the split had at any time; split_log: log Bayes factor of the epochs of other weights.
    """

    status: str = "draft"
    begun: float | None = None
    ended: float | None = None
    seeded: int = 0
    winner: str = ""
    mixed: int = 0
    uncounted: int = 0
    moved: bool = False
    split_p: float = 1.0
    split_log: float = 0.0
    epochs: list[Epoch] = field(default_factory=list)
    members: dict[str, Member] = field(default_factory=dict)
    sides: dict[str, Side] = field(default_factory=dict)
    shadows: dict[str, ShadowSide] = field(default_factory=dict)
    held: dict[str, float] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def effective(self, spec: Experiment) -> list[float]:
        """The weights without the variants that are held, summing to 1 again.

        Where nothing else has any weight, all are the control's, as it takes their units.
        """
        kept = [*spec.weights]
        if self.held:
            kept = [0.0 if one.key in self.held else one.weight for one in spec.served]
        total = sum(kept)
        if total <= 0.0:
            return [1.0] + [0.0] * (len(kept) - 1)
        return [weight / total for weight in kept]

    def adaptive(self, spec: Experiment) -> bool:
        """Whether means must be those of scores: units came under more than one set of weights."""
        return self.moved or spec.mode == "champion"

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
        _new_epoch(trial, event.ts, weights, spec.share)
    trial.notes.append(Note(event.ts, event.status, event.by, event.why))
    del trial.notes[:-MAX_NOTES]


def decided(trial: Trial, spec: Experiment, event: ev.Decided) -> None:
    """One decision of a served variant.

    What was not assigned by chance (split 0) counts nowhere, and a unit that begins so is out for
    good: after a hold, the held variant's units would be all that is new.
    """
    side = trial.sides.get(event.variant)
    if side is None:
        return
    member, by_chance = trial.members.get(event.member), event.split > 0.0
    if by_chance:
        side.decisions += 1
        side.calibration.add(event.arms, event.propensities, event.drawn)
    if member is None:
        if len(trial.members) >= MAX_UNITS:
            trial.uncounted += 1
            return
        owner, at = ev.owner_of(event.tenant, event.unit), len(trial.epochs) - 1
        trial.members[event.member] = Member(
            event.variant, at, "" if owner == event.member else owner, out=not by_chance
        )
        if by_chance:
            side.units += 1
            trial.epochs[-1].counts[[one.key for one in spec.served].index(event.variant)] += 1
            _test_split(trial)
    elif by_chance and member.variant != event.variant and not (member.mixed or member.out):
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
    if side is None or why_excluded(event):
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
    found = _counted(trial, event)
    if found is None:
        return
    side, member = found
    old = member.sums.get(metric, (0.0, 0))
    new = old[0] + value - (before or 0.0), old[1] + (before is None)
    again = member.sums.get(metric) == _REVOKED
    member.sums[metric] = new
    first = new[1] == 1 and before is None and not again
    if first:
        scored(trial, spec, member, metric, value)
    if member.mixed:
        return
    sums = side.sums.setdefault(metric, Sums())
    sums.change(old, new)
    if before is not None:
        return
    if metric == "latency_s":
        bucket = latency_bucket(value)
        side.latency[bucket] = side.latency.get(bucket, 0) + 1
    if metric == "reward":
        side.rewards += 1
    _guard(spec, side, metric, value, first=first)
    if metric == spec.primary:
        _plot(trial, spec, event.variant, ts)


def revoked(trial: Trial, event: ev.Decided, metric: str, before: float) -> None:
    """A value that counted is taken back: out of the sums of its unit.

    As with a correction, what a guardrail saw and a unit's first outcome in scores stay.
    """
    found = _counted(trial, event)
    if found is None:
        return
    side, member = found
    old = member.sums.get(metric, (0.0, 0))
    if not old[1]:
        return
    new = (old[0] - before, old[1] - 1) if old[1] > 1 else _REVOKED
    member.sums[metric] = new
    if member.mixed:
        return
    side.sums.setdefault(metric, Sums()).change(old, new)
    if metric == "reward":
        side.rewards -= 1
    if metric == "latency_s":
        bucket = latency_bucket(before)
        side.latency[bucket] = side.latency.get(bucket, 0) - 1


def _counted(trial: Trial, event: ev.Decided) -> tuple[Side, Member] | None:
    """The side and the unit for which what comes of a decision counts; None where it does not."""
    side, member = trial.sides.get(event.variant), trial.members.get(event.member)
    if side is None or member is None or member.out or event.split <= 0.0:
        return None
    if member.variant != event.variant:
        return None
    if trial.begun is None or event.ts < trial.begun:
        return None  # of an experiment of the same name that was before
    return side, member


def scored(trial: Trial, spec: Experiment, member: Member, metric: str, y: float) -> None:
    """AIPW: every variant gets m_j + 1{j = v}/p_j · (y − m_j) from a unit's first outcome y.

    m_j is the mean of the variant's own first outcomes before this one, p_j the probability with
    which new units got it when this one came; so the scores' means are unbiased for any rule that
    moved the weights by what was seen (arXiv 1911.02768, eq. 5). Only one outcome of each unit
    counts: later ones come with a variant that is no longer drawn, and are not independent.
    A correction does not change a score, as m_j has gone into others since.
    """
    served, scores = spec.served, list[tuple[Score, float]]()
    control: float | None = None
    for one, p in zip(served, trial.epochs[member.epoch].weights, strict=False):
        if p > 0.0:
            each = _score_of(trial.sides[one.key], metric)
            score = each.first.mean
            if one.key == member.variant:
                score += (y - score) / p
            if one is served[0]:
                control = score
            scores.append((each, score))
    for each, score in scores:
        each.score.add(score)
        if control is not None:
            each.gap.add(score - control)
    _score_of(trial.sides[member.variant], metric).first.add(y)


def _score_of(side: Side, metric: str) -> Score:
    found = side.scores.get(metric)
    if found is None:
        found = side.scores[metric] = Score()
    return found


def forget(trial: Trial, owner: str) -> None:
    """Drop the units of one owner; the sums keep what they gave."""
    for name in [name for name, one in trial.members.items() if owner in (name, one.owner)]:
        del trial.members[name]


def latency_bucket(seconds: float) -> int:
    """The histogram's bucket: floor of the logarithm to the base of LATENCY_STEP."""
    return math.floor(math.log(max(seconds, 1e-6)) / math.log(LATENCY_STEP))


def _new_epoch(trial: Trial, ts: float, weights: list[float], share: float) -> None:
    """Units under the same weights are one sample, also where others came between."""
    told: dict[tuple[float, ...], list[int]] = {}
    for one in trial.epochs:
        so_far = told.setdefault(tuple(one.weights), [0] * len(one.counts))
        for i, count in enumerate(one.counts):
            so_far[i] += count
    before = told.pop(tuple(weights), [0] * len(weights))
    factors = (srm.log_factor(each, counts) for each, counts in told.items())
    trial.split_log = sum(factors, 0.0)  # a float, too, where there is none
    trial.epochs.append(Epoch(ts, weights, share, [0] * len(weights), before))


def _test_split(trial: Trial) -> None:
    last = trial.epochs[-1]
    trial.moved = trial.moved or last.weights != trial.epochs[0].weights
    counts = [a + b for a, b in zip(last.before, last.counts, strict=True)]
    p = srm.p_of(trial.split_log + srm.log_factor(last.weights, counts))
    trial.split_p = min(trial.split_p, p)


def _guard(spec: Experiment, side: Side, metric: str, value: float, *, first: bool) -> None:
    """Limits are about what is served, so every answer counts; a comparison is of two groups of
    units, so only each unit's first does: many answers of one say nothing of the others."""
    for i, guard in enumerate(spec.guardrails):
        if (
            guard.metric == metric
            and i < len(side.guards)
            and (first or guard.max_regression is None)
        ):
            low, high = spec.bounds(metric, guard.high)
            part = min(1.0, max(0.0, (value - low) / (high - low)))
            bernstein.add(side.guards[i], part, guard_alpha(spec))


def _plot(trial: Trial, spec: Experiment, key: str, ts: float) -> None:
    """A point each time that the units grew by some percent: O(log units) of them."""
    side = trial.sides[key]
    n = side.scores[spec.primary].score.n if trial.adaptive(spec) else side.sums[spec.primary].units
    if side.points and n < side.points[-1].n * _GROWTH + 1.0:
        return
    point = point_of(trial, spec, key, ts)
    if point is not None:
        side.points.append(point)


def point_of(trial: Trial, spec: Experiment, key: str, ts: float) -> Point | None:
    """What a variant's primary metric is by now, beside the control's; None while it has none."""
    side, moved = trial.sides[key], trial.adaptive(spec)
    at = mean_of(spec, side, spec.primary, moved)
    if at is None:
        return None
    point = Point(ts, at.n, at.mean, math.sqrt(at.variance / at.n))
    if key != spec.control.key:
        gap = gap_of(spec, trial.sides[spec.control.key], side, spec.primary, moved)
        if gap is not None:
            point.gap_n, point.gap = gap.n, gap.mean
            point.gap_stderr = math.sqrt(gap.variance / gap.n)
    return point


def _exclude(trial: Trial, member: Member) -> None:
    """A unit that met two variants measures neither; its first outcome stays a fair score."""
    side = trial.sides[member.variant]
    for metric, told in member.sums.items():
        side.sums[metric].change(told, (0.0, 0))
    member.mixed = True
    trial.mixed += 1
    side.mixed += 1
