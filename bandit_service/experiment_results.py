"""What an experiment says now: numbers with their sequences, and one sentence. Pure.

"Not enough data" is a state of its own, never a zero. Everything here may be looked at as often as
one likes: the intervals hold at all looks at once.
"""

from __future__ import annotations

import math
from typing import Any

from bandit_service.core.experiments import HOLDOUT, Experiment, Variant
from bandit_service.core.steering import guarded, step_of
from bandit_service.core.trial import LATENCY_STEP, Running, ShadowSide, Side, Sums, Trial
from bandit_service.statistics import means, quantiles, srm

_LEAST_ESS, _MOST_SHARE = 100.0, 0.1
_MEAN_WEIGHT = (0.9, 1.1)


def results(spec: Experiment, trial: Trial, holdout: Trial | None = None) -> dict[str, Any]:
    """Everything that is shown of one experiment."""
    epochs = [(one.weights, one.counts) for one in trial.epochs]
    p = srm.sequential_p(epochs)
    body: dict[str, Any] = {
        "id": spec.id,
        "status": trial.status,
        "begun": trial.begun,
        "ended": trial.ended,
        "winner": trial.winner or None,
        "primary": spec.primary,
        "unit": spec.unit,
        "share": spec.share,
        "mode": spec.mode,
        "alpha": spec.alpha,
        "seeded_at_event": trial.seeded,
        "mixed_units": trial.mixed,
        "uncounted_decisions": trial.uncounted,
        "variants": [
            _variant(spec, trial, one, weight)
            for one, weight in zip(spec.served, trial.effective(spec), strict=True)
        ],
        "shadows": [_shadow(one, trial.shadows[one.key]) for one in spec.shadows],
        "split": {
            "state": "wrong" if p < srm.ALPHA else "as configured",
            "sequential_p": p,
            "chi_square_p": srm.chi_square_p(epochs),
        },
        "guardrails": _guardrails(spec, trial),
        "ramp": {"step": step_of(spec), "steps": len(spec.ramp)},
        "cost": _saved(spec, trial, holdout),
        "changes": [
            {"ts": one.ts, "status": one.status, "by": one.by, "why": one.why}
            for one in trial.notes
        ],
    }
    body["conclusion"] = conclusion(spec, trial)
    return body


def conclusion(spec: Experiment, trial: Trial) -> str:
    """A plain sentence that says what may be concluded now."""
    if trial.status in ("draft", "starting"):
        return f"It is {trial.status}: no unit was assigned yet."
    if srm.sequential_p((one.weights, one.counts) for one in trial.epochs) < srm.ALPHA:
        return ("The units do not come as the weights say, so nothing may be concluded: look for "
                "what drops or repeats requests of one variant.")  # fmt: skip
    if trial.held:
        return f"{', '.join(sorted(trial.held))} broke a guardrail and gets no unit any more."
    few = [(one.key, _enough(spec, trial, one)) for one in spec.served]
    short = [f"{key} has {units} of {spec.min_units} units with an outcome"
             for key, units in few if units < spec.min_units]  # fmt: skip
    if short:
        return f"Not enough data: {'; '.join(short)}."
    said = []
    for one in spec.served[1:]:
        gap = _gap(spec, trial, one)
        if gap is None:
            continue
        low, high = f"{gap.low:+.4g}", f"{gap.high:+.4g}"
        better = (gap.estimate > 0.0) != spec.lower_is_better(spec.primary)
        if gap.excludes():
            word = "better" if better else "worse"
            said.append(f"{one.key} is {word} than {spec.control.key} in {spec.primary}: by "
                        f"{gap.estimate:+.4g}, surely from {low} to {high}")  # fmt: skip
        else:
            said.append(f"no difference in {spec.primary} between {one.key} and "
                        f"{spec.control.key} is shown: it lies from {low} to {high}")  # fmt: skip
    text = "; ".join(said) or "there is only the control"
    return text[0].upper() + text[1:] + "."


def best_of(spec: Experiment, trial: Trial) -> str:
    """The variant that an end keeps: the best that is shown to beat the control, else as set."""
    sign = -1.0 if spec.lower_is_better(spec.primary) else 1.0
    shown: list[tuple[float, str]] = []
    guess: list[tuple[float, str]] = []
    for one in spec.served[1:]:
        if one.key in trial.held or one.key not in trial.sides:
            continue
        gap = _gap(spec, trial, one)
        if gap is None:
            continue
        guess.append((sign * gap.estimate, one.key))
        enough = min(_enough(spec, trial, each) for each in (spec.control, one))
        if enough >= spec.min_units and gap.excludes() and sign * gap.estimate > 0.0:
            shown.append((sign * gap.estimate, one.key))
    if shown:
        return max(shown)[1]
    if spec.inconclusive == "best" and guess and max(guess)[0] > 0.0:
        return max(guess)[1]
    return spec.control.key


def shown_difference(spec: Experiment, trial: Trial, variant: Variant) -> means.Interval | None:
    """The primary metric's difference to the control; None while there is not enough data."""
    if min(_enough(spec, trial, one) for one in (spec.control, variant)) < spec.min_units:
        return None
    return _gap(spec, trial, variant)


def _enough(spec: Experiment, trial: Trial, variant: Variant) -> int:
    side = trial.sides.get(variant.key, Side())
    return side.sums.get(spec.primary, Sums()).units


def _alpha(spec: Experiment) -> float:
    """alpha, divided over the comparisons with the control."""
    return spec.alpha / max(1, len(spec.served) - 1)


def _gap(spec: Experiment, trial: Trial, variant: Variant) -> means.Interval | None:
    alpha = _alpha(spec)
    if spec.mode == "champion":
        gap = trial.sides[variant.key].gap
        return None if gap.n < 2 else means.mean(_of_running(gap), alpha)
    a = _sample(spec, spec.primary, trial.sides[spec.control.key].sums.get(spec.primary))
    b = _sample(spec, spec.primary, trial.sides[variant.key].sums.get(spec.primary))
    return None if a is None or b is None else means.difference(a, b, alpha)


def _sample(spec: Experiment, metric: str, sums: Sums | None) -> means.Sample | None:
    """Of a metric with a range, the variance has one unit at half of the range in it, so that a
    few equal values do not look like certainty."""
    if sums is None or sums.mean is None or sums.variance is None:
        return None
    low, high = spec.bounds(metric)
    made_up = (0.5 * (high - low)) ** 2 / sums.units
    return means.Sample(sums.units, sums.mean, sums.variance + made_up)


def _of_running(running: Running) -> means.Sample:
    return means.Sample(running.n, running.mean, running.m2 / max(1, running.n - 1))


def _variant(spec: Experiment, trial: Trial, one: Variant, weight: float) -> dict[str, Any]:
    side = trial.sides.get(one.key, Side())
    units = _enough(spec, trial, one)
    body: dict[str, Any] = {
        "key": one.key,
        "control": one.key == spec.control.key,
        "decides": one.arm or one.policy or "the policy that serves",
        "learning": "nothing (one arm)" if one.arm else one.learning,
        "weight": weight,
        "held": one.key in trial.held,
        "units": side.units,
        "decisions": side.decisions,
        "rewards": side.rewards,
        "enough": units >= spec.min_units,
        "metrics": {},
        "over_time": [],
    }
    for name in spec.names():
        sample = _sample(spec, name, side.sums.get(name))
        if sample is None:
            body["metrics"][name] = {"state": "not enough data", "units": 0}
            continue
        adaptive = spec.mode == "champion" and name == spec.primary and side.score.n > 1
        at = means.mean(_of_running(side.score) if adaptive else sample, spec.alpha)
        body["metrics"][name] = _said(at, sample.n, sample.n >= spec.min_units)
    tail = quantiles.interval(side.latency, LATENCY_STEP, 0.95, spec.alpha)
    if tail is not None:
        high = None if math.isinf(tail[2]) else tail[2]
        body["latency_p95_s"] = {"value": tail[0], "low": tail[1], "high": high}
    if one.key != spec.control.key:
        gap = shown_difference(spec, trial, one)
        enough = gap is not None
        body["difference"] = (
            _said(gap, units, enough) | {"p": gap.p} if gap is not None
            else {"state": "not enough data", "units": units}
        )  # fmt: skip
    for point in side.points:
        sample = _sample(spec, spec.primary, point.sums)
        if sample is not None:
            at = means.mean(sample, spec.alpha)
            body["over_time"].append(
                {"ts": point.ts, "units": sample.n, "mean": at.estimate, "low": at.low,
                 "high": at.high}
            )  # fmt: skip
    return body


def _said(at: means.Interval, units: int, enough: bool) -> dict[str, Any]:
    return {
        "state": "shown" if enough else "not enough data",
        "units": units,
        "mean": at.estimate,
        "low": at.low if enough else None,
        "high": at.high if enough else None,
    }


def _guardrails(spec: Experiment, trial: Trial) -> list[dict[str, Any]]:
    found = []
    for i, guard in enumerate(spec.guardrails):
        limit = next(
            name for name in ("least", "most", "worse") if getattr(guard, name) is not None
        )
        for one in spec.served:
            if one.key not in trial.sides or i >= len(trial.sides[one.key].guards):
                continue
            at = guarded(spec, trial, one.key, i)
            found.append({
                "metric": guard.metric, limit: getattr(guard, limit), "variant": one.key,
                "state": "broken" if one.key in trial.held else "not enough data" if at is None
                         else "kept",
                "low": None if at is None else at[0], "high": None if at is None else at[1],
            })  # fmt: skip
    return found


def _saved(spec: Experiment, trial: Trial, holdout: Trial | None) -> dict[str, Any]:
    """USD by decision beside the hold-out's, or the control's where there is none."""
    base, against = None, "the control (an estimate: there is no hold-out with enough data)"
    if holdout is not None and HOLDOUT in holdout.sides:
        base = _sample(spec, "cost_usd", holdout.sides[HOLDOUT].sums.get("cost_usd"))
        if base is not None and base.n >= spec.min_units:
            against = "the hold-out"
        else:
            base = None
    if base is None and spec.control.key in trial.sides:
        base = _sample(spec, "cost_usd", trial.sides[spec.control.key].sums.get("cost_usd"))
    saved: dict[str, Any] = {}
    for one in spec.served:
        mine = _sample(spec, "cost_usd", trial.sides.get(one.key, Side()).sums.get("cost_usd"))
        if base is None or mine is None or min(base.n, mine.n) < spec.min_units:
            saved[one.key] = {"state": "not enough data"}
            continue
        at = means.difference(mine, base, spec.alpha)
        answers = trial.sides[one.key].sums["cost_usd"].n
        saved[one.key] = {
            "state": "shown", "usd_per_decision": at.estimate, "low": at.low, "high": at.high,
            "usd_so_far": at.estimate * answers,
        }  # fmt: skip
    return {"against": against, "saved": saved}


def _shadow(one: Variant, side: ShadowSide) -> dict[str, Any]:
    """Agreement, cost and the off-policy estimate, or the reason why there is none."""
    body: dict[str, Any] = {
        "key": one.key,
        "decides": one.policy or "the policy that serves",
        "learning": "shared",
        "decisions": side.decisions,
        "rewards": side.rewards,
    }
    if not side.decisions:
        return body | {"state": "not enough data"}
    body["agreement"] = side.agreed / side.decisions
    body["cost_difference_usd"] = (side.cost_usd - side.served_usd) / side.decisions
    n = side.rewards
    ess = side.w * side.w / side.ww if side.ww else 0.0
    mean_weight = side.w / n if n else 0.0
    body |= {"effective_units": ess, "mean_weight": mean_weight}
    low, high = _MEAN_WEIGHT
    if ess < _LEAST_ESS:
        why = f"the effective sample size is {ess:.0f}, below {_LEAST_ESS:.0f}"
    elif side.most_w > _MOST_SHARE * side.w:
        why = f"one outcome carries {side.most_w / side.w:.0%} of the weight"
    elif not low <= mean_weight <= high:
        why = f"the mean weight is {mean_weight:.3f}, outside of {low:g} to {high:g}"
    else:
        snips = side.wr / side.w
        spread = side.wwrr - 2.0 * snips * side.wwr + snips * snips * side.ww
        stderr = math.sqrt(max(0.0, spread)) / side.w
        at = means.interval(snips, stderr, n, 0.05)
        return body | {"state": "shown", "reward": at.estimate, "low": at.low, "high": at.high}
    return body | {"state": "refused", "why": why}
