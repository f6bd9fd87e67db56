"""The data for drift detection, as a fold: arms' residuals, and the queries' distance to history.

residual_t = clip(r_t − r̂_t, −1, 1), r̂_t what was expected of the arm when it was drawn: expected
quality − expected cost / willingness to pay, or the mean of the arm's own rewards where the policy
expects no quality. A change of traffic moves rewards; it leaves residuals where they were.
distance_t = clip((d_t − mean) / 2 sd, −1, 1), d_t = 1 − mean similarity of the recalled queries,
with mean and sd of the d before it: the spread of a 0/1 outcome, for which the detectors are set.

Decisions of routes are in neither: each route has other queries and a policy with other
expectations, so a change of its share of the traffic would move the means.

The detectors are outside the fold (`bandit_service.runtime.detectors`) and read this data. Their
alarms are events, whose consequences are folded here too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from bandit_service.core import events as ev
from bandit_service.core.feature import takes, takes_many
from bandit_service.core.resolved import Resolved
from policies import ArmId, Floats

QUERIES = ArmId("")
"""Under which the queries are watched: no arm is called so."""

WINDOW = 1000
"""Values that are kept of each watched number, the newest."""

QUERIES_WARM_UP, ARM_WARM_UP = 200, 50
"""The first queries, and the first outcomes of an arm, are ignored: learning is not drift."""

SPAN = 100
"""In the shown mean a value that is this many old weighs 1/e."""

MAX_ALARMS = 100


@dataclass
class Track:
    """One watched number since its last alarm.

    passed: how many came, the warm-up too. mean, squares: of all of them (rewards, or d), and the
    sum of squared differences from it. level: the mean of the newest residuals, or d, forgetting.
    count: how many values there have been since the warm-up; values: the newest of them, oldest
    first; at: with which event each came.
    """

    passed: int = 0
    mean: float = 0.0
    squares: float = 0.0
    level: float = 0.0
    count: int = 0
    values: list[float] = field(default_factory=list)
    at: list[int] = field(default_factory=list)

    def measure(self, raw: float, level: float) -> None:
        """Add one reward, or distance; returns the shown values. Welford's mean and squares."""
        self.passed += 1
        apart = raw - self.mean
        self.mean += apart / self.passed
        self.squares += apart * (raw - self.mean)
        self.level += (level - self.level) / min(self.passed, SPAN)

    def look(self, distances: Iterable[tuple[float, int]]) -> None:
        """`measure` and `add` of how far queries are from the past, in spreads of what was known
        before each, with the number of its event. In local variables, since there are many.
        """
        passed, mean, squares, level = self.passed, self.mean, self.squares, self.level
        values, at = self.values, self.at
        before = len(values)
        for distance, number in distances:
            deviation = math.sqrt(squares / (passed - 1)) if passed > 1 else 0.0
            apart, scale = distance - mean, 2.0 * deviation
            passed += 1
            mean += apart / passed
            squares += apart * (distance - mean)
            level += (distance - level) / (passed if passed < SPAN else SPAN)
            if passed > QUERIES_WARM_UP:
                values.append(_cut(apart / scale) if scale > 0.0 else 0.0)
                at.append(number)
        self.passed, self.mean, self.squares, self.level = passed, mean, squares, level
        self.count += len(values) - before
        del values[:-WINDOW], at[:-WINDOW]

    def add(self, value: float, at: int) -> None:
        """What the detectors see of it. O(1) but for a shift of at most WINDOW numbers."""
        self.count += 1
        self.values.append(value)
        self.at.append(at)
        if len(self.values) > WINDOW:
            del self.values[0], self.at[0]

    @property
    def shown(self) -> float | None:
        """`level`; None before the first value."""
        return self.level if self.passed else None

    @property
    def deviation(self) -> float:
        """Standard deviation of all; 0 before the second."""
        return math.sqrt(self.squares / (self.passed - 1)) if self.passed > 1 else 0.0


@dataclass
class Allowance:
    """An arm keeps at least the probability `floor` in its next `left` decisions."""

    floor: float
    left: int


@dataclass
class Drift:
    """tracks: by arm, `QUERIES` for the queries. allowances: likewise, that for all arms.

    alarms: the newest, oldest first.
    """

    tracks: dict[ArmId, Track] = field(default_factory=dict)
    allowances: dict[ArmId, Allowance] = field(default_factory=dict)
    alarms: list[ev.DriftDetected] = field(default_factory=list)

    @takes(ev.Decided)
    def _decided(self, event: ev.Decided, what: Resolved) -> None:
        if self.allowances or event.similarities:
            self.decided(event, what.number)

    @takes(ev.Rewarded)
    def _rewarded(self, event: ev.Rewarded, what: Resolved) -> None:
        pending, reward = what.pending, event.reward
        if pending is None or not what.known or reward is None or event.correction:
            return
        decided, redirected = pending.decided, pending.redirected
        if redirected is None or redirected == decided.arm:  # the expectation was for this arm
            self.settled(decided, reward, what.number)

    def decided(self, decided: ev.Decided, at: int) -> None:
        """One decision: how far its query is from the past, and one less of every allowance."""
        self._look([(decided, at)])
        if not self.allowances:
            return
        for arm, allowance in list(self.allowances.items()):
            if arm == QUERIES or arm in decided.arms:
                allowance.left -= 1
                if allowance.left <= 0:
                    del self.allowances[arm]

    @takes_many
    def _decided_many(self, decisions: Sequence[ev.Decided], some: Sequence[Resolved]) -> None:
        numbered = [(event, what.number) for event, what in zip(decisions, some, strict=True)]
        if not self.allowances:
            self._look(numbered)
            return
        for event, at in numbered:
            self.decided(event, at)

    def _look(self, some: Iterable[tuple[ev.Decided, int]]) -> None:
        """How far the queries of decisions are from the past, each with the event's number."""
        distances = [
            (1.0 - sum(event.similarities) / len(event.similarities), at)
            for event, at in some
            if event.similarities and not event.fallback and not event.route
        ]
        if not distances:
            return
        track = self.tracks.get(QUERIES)
        if track is None:
            track = self.tracks[QUERIES] = Track()
        track.look(distances)

    def settled(self, decided: ev.Decided, reward: float, at: int) -> None:
        """The scalar reward of one decision. Where the query was not embedded, nothing was known
        of it, so that the residual says nothing of the arm."""
        if decided.fallback or decided.route:
            return
        arm = decided.arm
        track = self.tracks.get(arm)
        if track is None:
            track = self.tracks[arm] = Track()
        if decided.expected_quality is not None:
            worth = decided.expected_cost_usd / decided.willingness_to_pay
            expected = decided.expected_quality - worth
        else:
            expected = track.mean if track.passed else reward
        residual = _cut(reward - expected)
        track.measure(reward, residual)
        if track.passed > ARM_WARM_UP:
            track.add(residual, at)

    @takes(ev.DriftDetected)
    def _detected(self, event: ev.DriftDetected, _: Resolved) -> None:
        """Watching begins again, and the arm gets its allowance."""
        self.tracks[event.arm] = Track()
        self.alarms.append(event)
        del self.alarms[:-MAX_ALARMS]
        if event.explore > 0.0 and event.decisions > 0:
            self.allowances[event.arm] = Allowance(event.explore, event.decisions)

    def floors(self, arms: Sequence[ArmId]) -> Floats | None:
        """(K,) the minimum probability of each arm; None if no arm has an allowance."""
        if not self.allowances:
            return None
        everyone = self.allowances.get(QUERIES)
        least = 0.0 if everyone is None else everyone.floor
        own = (self.allowances.get(arm) for arm in arms)
        return np.array([least if one is None else max(least, one.floor) for one in own])


def _cut(value: float) -> float:
    return value if -1.0 <= value <= 1.0 else min(1.0, max(-1.0, value))


class Split(NamedTuple):
    """Where the mean most likely changed: the means before and after, and the first after."""

    before: float
    after: float
    first: int


def split(values: Sequence[float]) -> Split:
    """The least-squares change point: k that maximizes k(n−k)/n · (mean after − mean before)².

    Source: Hinkley 1970, for normal noise of constant variance. At least 2 values.

    >>> split([0.0, 0.0, 1.0, 1.0, 1.0])
    Split(before=0.0, after=1.0, first=2)
    """
    x = np.asarray(values, np.float64)
    n, sums = len(x), np.cumsum(x)[:-1]
    k = np.arange(1, n)
    before, after = sums / k, (x.sum() - sums) / (n - k)
    at = int(np.argmax(k * (n - k) * (after - before) ** 2))
    return Split(float(before[at]), float(after[at]), at + 1)
