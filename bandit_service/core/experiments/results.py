"""The results of an experiment: numbers with confidence sequences, and the conclusion. Pure.

"Not enough data" is a separate state, never a zero. Results are computed on request from sums; the
cost does not grow with units or decisions. docs/experiments-statistics.md explains each number.
"""

from __future__ import annotations

import math
from dataclasses import replace

from bandit_service.core.display import rounded
from bandit_service.core.experiments.answers import (
    Bounds,
    Calibrated,
    Change,
    Cost,
    Difference,
    Estimate,
    ExperimentResults,
    GuardrailResults,
    Latency,
    OverTime,
    Quantile,
    Ramp,
    Saved,
    ShadowResults,
    Split,
    State,
    VariantResults,
)
from bandit_service.core.experiments.conclusions import (
    caveats,
    conclusion,
    difference,
    shown_difference,
    state_of,
    units_of,
)
from bandit_service.core.experiments.spec import HOLDOUT, Experiment, Variant
from bandit_service.core.experiments.steering import guarded, stands, step_of
from bandit_service.core.experiments.trial import (
    LATENCY_STEP,
    ShadowSide,
    Trial,
    point_of,
)
from bandit_service.core.experiments.variant_stats import (
    Point,
    Side,
    Sums,
    gap_of,
    mean_of,
)
from bandit_service.statistics import means, quantiles, srm
from bandit_service.statistics.calibration import Calibration
from bandit_service.statistics.ope import Overlap

_QUANTILES = {"p50": 0.5, "p95": 0.95}
NOT_ENOUGH: State = "not enough data"


def results(
    spec: Experiment, trial: Trial, holdout: Trial | None = None, now: float | None = None
) -> ExperimentResults:
    """Everything that is shown of one experiment. now: when its lines over time end."""
    return ExperimentResults(
        id=spec.id,
        status=trial.status,
        state=state_of(spec, trial),
        conclusion=conclusion(spec, trial),
        caveats=caveats(spec, trial),
        begun=trial.begun,
        ended=trial.ended,
        winner=trial.winner or None,
        route=spec.route,
        primary=spec.primary,
        unit=spec.unit,
        share=spec.share,
        mode=spec.mode,
        alpha=spec.alpha,
        min_units=spec.min_units,
        estimator=_estimator(trial.adaptive(spec)),
        seeded_at_event=trial.seeded,
        mixed_units=trial.mixed,
        uncounted_decisions=trial.uncounted,
        variants=[
            _variant(spec, trial, one, weight, now)
            for one, weight in zip(spec.served, trial.effective(spec), strict=True)
        ],
        shadows=[
            _shadow(spec, one, trial.shadows.get(one.key, ShadowSide())) for one in spec.shadows
        ],
        split=_split(trial),
        guardrails=_guardrails(spec, trial),
        ramp=Ramp(step=step_of(spec), steps=len(spec.ramp)),
        cost=_saved(spec, trial, holdout),
        changes=[
            Change(ts=one.ts, status=one.status, by=one.by, why=one.why) for one in trial.notes
        ],
    )


def calibrated(told: Calibration) -> Calibrated:
    """How well logged propensities agree with what was drawn."""
    if not told.decisions and not told.impossible:
        return Calibrated(state=NOT_ENOUGH, decisions=0)
    return Calibrated(
        state="shown",
        decisions=told.decisions,
        p_value=told.p_value(),
        impossible=told.impossible,
    )


def _estimator(adaptive: bool) -> str:
    if adaptive:
        return "doubly robust (AIPW) means of each unit's first outcome"
    return "ratio means over units (delta method)"


def _split(trial: Trial) -> Split:
    epochs = [(one.weights, one.counts) for one in trial.epochs]
    chi = srm.chi_square_p(epochs)
    if chi is None:
        return Split(state=NOT_ENOUGH, sequential_p=None, chi_square_p=None)
    wrong = trial.split_p < srm.ALPHA
    return Split(
        state="wrong" if wrong else "as configured",
        sequential_p=trial.split_p,
        chi_square_p=chi,
    )


def _usual(spec: Experiment) -> str:
    """What decides outside the experiment, in words."""
    return f"the policy of the route {spec.route}" if spec.route else "the policy that serves"


def _variant(
    spec: Experiment, trial: Trial, one: Variant, weight: float, now: float | None
) -> VariantResults:
    side, adaptive = trial.sides.get(one.key, Side()), trial.adaptive(spec)
    metrics: dict[str, Estimate] = {}
    for name in spec.names():
        sample = mean_of(spec, side, name, adaptive)
        units = units_of(spec, trial, one, name)
        if sample is None:
            metrics[name] = Estimate(state=NOT_ENOUGH, units=units)
            continue
        at = _possible(means.mean(sample, spec.alpha), *spec.bounds(name, math.inf))
        enough = units >= spec.min_units
        metrics[name] = Estimate(
            state="shown" if enough else NOT_ENOUGH,
            units=units,
            mean=at.estimate,
            low=at.low if enough else None,
            high=at.high if enough else None,
        )
        if one.key != spec.control.key:
            metrics[name].difference = _difference(spec, trial, one, name)
    shown = VariantResults(
        key=one.key,
        control=one.key == spec.control.key,
        decides=one.arm or one.policy or _usual(spec),
        learning="nothing (one arm)" if one.arm else one.learning,
        weight=weight,
        held=one.key in trial.held,
        units=side.units,
        mixed_units=side.mixed,
        decisions=side.decisions,
        rewards=side.rewards,
        enough=units_of(spec, trial, one) >= spec.min_units,
        metrics=metrics,
        latency=_latency(spec, trial, one),
        calibration=calibrated(side.calibration.known()),
        over_time=[_point(spec, point) for point in _points(spec, trial, one.key, now)],
    )
    if one.key != spec.control.key:
        shown.difference = _difference(spec, trial, one, spec.primary)
    return shown


def _difference(spec: Experiment, trial: Trial, one: Variant, metric: str) -> Difference:
    gap = (
        shown_difference(spec, trial, one)
        if metric == spec.primary
        else difference(spec, trial, one, metric)
    )
    units = units_of(spec, trial, one, metric)
    if gap is None:
        return Difference(state=NOT_ENOUGH, units=units)
    shown = Difference(
        state="shown", units=units, mean=gap.estimate, low=gap.low, high=gap.high, p=gap.p
    )
    a = mean_of(spec, trial.sides[spec.control.key], metric, moved=False)
    b = mean_of(spec, trial.sides[one.key], metric, moved=False)
    if not trial.adaptive(spec) and a is not None and b is not None and a.mean != 0.0:
        alpha = spec.alpha / max(1, len(spec.served) - 1)
        at = means.relative(a, b, alpha)
        if math.isfinite(at.low) and math.isfinite(at.high):  # a control near 0 has no part of it
            shown.relative = Bounds(mean=at.estimate, low=at.low, high=at.high)
    return shown


def _possible(at: means.Interval, low: float, high: float) -> means.Interval:
    """The part of an interval that a mean of values in this range can lie in."""
    return replace(at, low=min(max(at.low, low), high), high=max(min(at.high, high), low))


def _points(spec: Experiment, trial: Trial, key: str, now: float | None) -> list[Point]:
    """The points that were kept, and one for `now`, so that the line ends where the table does."""
    kept = trial.sides[key].points if key in trial.sides else []
    if not kept or now is None or now <= kept[-1].ts or trial.status == "stopped":
        return kept
    newest = point_of(trial, spec, key, now)
    return kept if newest is None else [*kept, newest]


def _point(spec: Experiment, point: Point) -> OverTime:
    at = means.halfwidth(point.stderr, point.n, spec.alpha)
    shown = OverTime(
        ts=point.ts,
        units=point.n,
        mean=point.mean,
        low=point.mean - at,
        high=point.mean + at,
        difference=None,
    )
    if point.gap_n:
        alpha = spec.alpha / max(1, len(spec.served) - 1)
        at = means.halfwidth(point.gap_stderr, point.gap_n, alpha)
        shown.difference = Bounds(mean=point.gap, low=point.gap - at, high=point.gap + at)
    return shown


def _latency(spec: Experiment, trial: Trial, one: Variant) -> Latency:
    """Quantiles over answers, in seconds, and whether they differ from the control's."""
    side = trial.sides.get(one.key, Side())
    answers = sum(side.latency.values())
    if answers < spec.min_units:
        return Latency(state=NOT_ENOUGH, answers=answers)
    shown = Latency(state="shown", answers=answers)
    control = trial.sides[spec.control.key].latency
    for name, p in _QUANTILES.items():
        told = quantiles.interval(side.latency, LATENCY_STEP, p, spec.alpha)
        if told is None:
            continue
        at, low, high = told
        quantile = Quantile(value=at, low=low, high=None if math.isinf(high) else high)
        if one.key != spec.control.key and sum(control.values()) >= spec.min_units:
            quantile.p = quantiles.compare(control, side.latency, p)
        setattr(shown, name, quantile)
    return shown


def _guardrails(spec: Experiment, trial: Trial) -> list[GuardrailResults]:
    found = []
    for i, guard in enumerate(spec.guardrails):
        for one in spec.served:
            if one.key not in trial.sides or i >= len(trial.sides[one.key].guards):
                continue
            if guard.max_regression is not None and one.key == spec.control.key:
                continue
            at, (state, why) = guarded(spec, trial, one.key, i), stands(spec, trial, one.key, i)
            shown = GuardrailResults(
                metric=guard.metric,
                variant=one.key,
                state=state,
                why=why,
                held=one.key in trial.held,
                low=None if at is None else at[0],
                high=None if at is None else at[1],
            )
            limit = next(
                name
                for name in ("min", "max", "max_regression")
                if getattr(guard, name) is not None
            )
            setattr(shown, limit, getattr(guard, limit))
            found.append(shown)
    return found


def _saved(spec: Experiment, trial: Trial, holdout: Trial | None) -> Cost:
    """USD by decision less than the hold-out's, or than the control's where there is none."""
    base = None
    if holdout is not None and holdout is not trial and HOLDOUT in holdout.sides:
        base = mean_of(spec, holdout.sides[HOLDOUT], "cost_usd", moved=False)
        if base is not None and base.n < spec.min_units:
            base = None
    saved: dict[str, Saved] = {}
    for one in spec.served:
        if base is None and one.key == spec.control.key:
            continue
        at = _less(spec, trial, one, base)
        if at is None:
            saved[one.key] = Saved(state=NOT_ENOUGH)
            continue
        answers = trial.sides[one.key].sums.get("cost_usd", Sums()).n
        saved[one.key] = Saved(
            state="shown",
            usd_per_decision=rounded(at.estimate),
            low=rounded(at.low),
            high=rounded(at.high),
            usd_so_far=rounded(at.estimate * answers),
        )
    if base is not None:
        return Cost(kind="measured", against="the hold-out", saved=saved)
    why = "the control (an estimate: there is no hold-out with enough data)"
    return Cost(kind="estimate", against=why, saved=saved)


def _less(
    spec: Experiment, trial: Trial, one: Variant, base: means.Sample | None
) -> means.Interval | None:
    adaptive, side = trial.adaptive(spec), trial.sides.get(one.key)
    if side is None or units_of(spec, trial, one, "cost_usd") < spec.min_units:
        return None
    if base is not None:
        mine = mean_of(spec, side, "cost_usd", adaptive)
        return None if mine is None else means.difference(mine, base, spec.alpha)
    if units_of(spec, trial, spec.control, "cost_usd") < spec.min_units:
        return None
    gap = gap_of(spec, trial.sides[spec.control.key], side, "cost_usd", adaptive)
    if gap is None:
        return None
    return means.mean(means.Sample(gap.n, -gap.mean, gap.variance), spec.alpha)


def _shadow(spec: Experiment, one: Variant, side: ShadowSide) -> ShadowResults:
    """Agreement, cost and the off-policy estimate, or the reason why there is none."""
    shown = ShadowResults(
        key=one.key,
        decides=one.policy or _usual(spec),
        learning="shared",
        decisions=side.decisions,
        rewards=side.rewards,
        state=NOT_ENOUGH,
    )
    if not side.decisions:
        return shown
    shown.agreement = side.agreed / side.decisions
    shown.cost_difference_usd = rounded((side.cost_usd - side.served_usd) / side.decisions)
    over = Overlap(side.rewards, side.w, side.ww, side.most_w)
    shown.effective_units, shown.mean_weight = over.ess, over.mean
    why = over.refusal()
    if why:
        shown.state, shown.why = "refused", why
        return shown
    snips = side.wr / side.w
    spread = side.wwrr - 2.0 * snips * side.wwr + snips * snips * side.ww
    stderr = math.sqrt(max(0.0, spread)) / side.w
    at = means.interval(snips, stderr, over.n, 0.05)
    shown.state, shown.reward, shown.low, shown.high = "shown", at.estimate, at.low, at.high
    return shown
