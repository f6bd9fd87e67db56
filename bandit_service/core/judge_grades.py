"""What judges said of answers beside what people said of the same, and the curve between the two.

A pair is a decision that a judge scored and a person graded. Pairs are kept as sums of whole
numbers, so that a grade that is corrected or withdrawn leaves them exactly, and their order does
not matter. A judge that goes by another rubric, arm or pattern begins without pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

from bandit_service.core import events as ev
from bandit_service.core.feature import takes
from bandit_service.core.metric_spec import IMPLICIT
from bandit_service.core.pending import SIGNALS
from bandit_service.core.resolved import Pending, Resolved
from bandit_service.statistics.isotonic import interpolated, isotonic

UNITS = 10_000
"""Scores and grades are kept in whole ten-thousandths."""
BINS = 100
"""The curve has a point at each hundredth of the score, at most."""
MAX_JUDGES, MAX_ROUTES = 64, 256
"""Judges with their rubrics, and routes of each, of which pairs are kept; the newest stay."""


@dataclass
class Scored:
    """A decision that may still be graded. score: the judge's; grade: a person's. In units."""

    judge: str
    basis: str
    route: str
    owner: str
    score: int
    grade: int | None = None


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """score: of the judge; pairs: how many had it; grade: the people's mean; calibrated: the value
    of the non-decreasing curve.
    """

    score: float
    pairs: int
    grade: float
    calibrated: float


@dataclass
class Agreement:
    """Sums over pairs, in units and their squares. bins: pairs, scores and grades by score.

    apart: of the absolute differences.
    """

    pairs: int = 0
    scores: int = 0
    grades: int = 0
    score_squares: int = 0
    grade_squares: int = 0
    products: int = 0
    apart: int = 0
    bins: dict[int, list[int]] = field(default_factory=dict)

    def add(self, score: int, grade: int, sign: int = 1) -> None:
        """One pair; with the sign -1 it leaves."""
        self.pairs += sign
        self.scores += sign * score
        self.grades += sign * grade
        self.score_squares += sign * score * score
        self.grade_squares += sign * grade * grade
        self.products += sign * score * grade
        self.apart += sign * abs(score - grade)
        at = round(score * BINS / UNITS)
        sums = self.bins.setdefault(at, [0, 0, 0])
        for i, more in enumerate((1, score, grade)):
            sums[i] += sign * more
        if not sums[0]:
            del self.bins[at]

    def joined(self, other: Agreement) -> Agreement:
        """The pairs of both."""
        mine = {each.name for each in fields(self)} - {"bins"}
        made = Agreement(**{name: getattr(self, name) + getattr(other, name) for name in mine})
        for at in self.bins.keys() | other.bins.keys():
            both = self.bins.get(at, (0, 0, 0)), other.bins.get(at, (0, 0, 0))
            made.bins[at] = [a + b for a, b in zip(*both, strict=True)]
        return made

    @property
    def mean_difference(self) -> float | None:
        """The judge's score less the grade, in the mean; None without a pair."""
        return (self.scores - self.grades) / (UNITS * self.pairs) if self.pairs else None

    @property
    def mean_absolute_difference(self) -> float | None:
        """Of score and grade; None without a pair."""
        return self.apart / (UNITS * self.pairs) if self.pairs else None

    @property
    def correlation(self) -> float | None:
        """Pearson's; None where all scores or all grades are the same."""
        n = self.pairs
        of_scores = n * self.score_squares - self.scores**2
        of_grades = n * self.grade_squares - self.grades**2
        if not of_scores or not of_grades:
            return None
        both = n * self.products - self.scores * self.grades
        return max(-1.0, min(1.0, both / math.sqrt(of_scores * of_grades)))

    def curve(self) -> list[CurvePoint]:
        """The isotonic regression of the grades on the scores, by rising score."""
        rows = [self.bins[at] for at in sorted(self.bins)]
        means = [grades / (UNITS * n) for n, _, grades in rows]
        values = isotonic([n for n, _, _ in rows], means)
        return [
            CurvePoint(scores / (UNITS * n), n, mean, value)
            for (n, scores, _), mean, value in zip(rows, means, values, strict=True)
        ]

    def calibrated(self, score: float) -> float:
        """The grade that people gave where the judge gave this score."""
        curve = self.curve()
        return interpolated([at.score for at in curve], [at.calibrated for at in curve], score)


@dataclass
class JudgeGrades:
    """scored: decisions that may still be graded, by id. by_judge: pairs by `_name`, then route.

    newest: by judge what it went by lately.
    """

    scored: dict[str, Scored] = field(default_factory=dict)
    by_judge: dict[str, dict[str, Agreement]] = field(default_factory=dict)
    newest: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether a judge has scored anything."""
        return bool(self.scored or self.by_judge or self.newest)

    def routes(self, judge: str, basis: str) -> Mapping[str, Agreement]:
        """The pairs of a judge by route; "" is the default route."""
        return self.by_judge.get(_name(judge, basis), {})

    def calibrated(
        self, judge: str, basis: str, route: str, score: float, min_pairs: int
    ) -> float | None:
        """The score on the curve of this route, or of all routes where it has too few pairs.

        None where all together have fewer than `min_pairs`.
        """
        routes = self.routes(judge, basis)
        own = routes.get(route, Agreement())
        for pairs in (own, altogether(routes.values())):
            if pairs.pairs >= min_pairs:
                return pairs.calibrated(score)
        return None

    @takes(ev.Judged)
    def _judged(self, event: ev.Judged, what: Resolved) -> None:
        if what.pending is None:
            return  # nobody can grade it any more
        before = self.scored.get(event.decision_id)
        if before is not None:
            self._grade(before, None)
        self.newest[event.judge] = event.basis
        if len(self.newest) > MAX_JUDGES:
            del self.newest[next(iter(self.newest))]
        score, route = round(event.score * UNITS), what.pending.decided.route
        made = Scored(event.judge, event.basis, route, what.owner, score)
        self.scored[event.decision_id] = made
        grade = _personal(what.pending)
        if grade is not None:
            self._grade(made, round(grade * UNITS))

    @takes(ev.Rewarded)
    def _rewarded(self, event: ev.Rewarded, what: Resolved) -> None:
        scored = self.scored.get(event.decision_id)
        if scored is None:
            return
        if "quality" in event.revoked:
            self._grade(scored, None)
        elif event.quality is None or event.provisional or event.session:
            return
        elif not event.weighed or _names_metrics(what.after):
            self._grade(scored, round(event.quality * UNITS))

    @takes(ev.DecisionsExpired)
    def _expired(self, event: ev.DecisionsExpired, what: Resolved) -> None:
        self.scored.pop(event.ids[what.part], None)

    @takes(ev.Forgotten)
    def _forgotten(self, event: ev.Forgotten, _: Resolved) -> None:
        """A pair stays in the sums, as what policies learned does."""
        for id in [id for id, one in self.scored.items() if one.owner == event.owner]:
            del self.scored[id]

    def _grade(self, scored: Scored, grade: int | None) -> None:
        """What people say of it is this from here on; None: nothing."""
        name = _name(scored.judge, scored.basis)
        routes = self.by_judge.get(name, {})
        if scored.grade is not None and scored.route in routes:
            routes[scored.route].add(scored.score, scored.grade, -1)
        scored.grade = grade
        if grade is None:
            return
        routes = self.by_judge.setdefault(name, {})
        routes.setdefault(scored.route, Agreement()).add(scored.score, grade)
        if len(self.by_judge) > MAX_JUDGES:
            self._drop(next(iter(self.by_judge)))
        if len(routes) > MAX_ROUTES:
            self._drop(name, next(iter(routes)))

    def _drop(self, name: str, route: str | None = None) -> None:
        """Forget the pairs of a judge, or of one route of it; no grade can leave them any more."""
        if route is None:
            del self.by_judge[name]
        else:
            del self.by_judge[name][route]
        for one in self.scored.values():
            if _name(one.judge, one.basis) == name and route in (None, one.route):
                one.grade = None


def altogether(pairs: Iterable[Agreement]) -> Agreement:
    """All of these pairs as one."""
    made = Agreement()
    for one in pairs:
        made = made.joined(one)
    return made


def _name(judge: str, basis: str) -> str:
    return f"{basis} {judge}"


def _personal(pending: Pending) -> float | None:
    """The quality by which a person graded this decision itself; None if nobody did."""
    if pending.provisional or pending.credited or pending.revoked:
        return None
    if pending.weighed and not _names_metrics(pending.signals):
        return None
    return pending.signals.get("quality")


def _names_metrics(signals: Mapping[str, float]) -> bool:
    """Whether somebody reported a metric, beside what the service saw by itself."""
    return any(name not in SIGNALS and not name.startswith(IMPLICIT) for name in signals)
