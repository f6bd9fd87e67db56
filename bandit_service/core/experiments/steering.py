"""What an experiment does by itself: hold what breaks a guardrail, ramp, move weights. Pure.

`steer` says what should change and why; the caller writes it down as events.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from bandit_service.core.experiments.spec import Experiment, Guardrail
from bandit_service.core.experiments.trial import Trial, guard_alpha
from bandit_service.core.experiments.variant_stats import Score
from bandit_service.statistics import bernstein, srm

_MIN_NEW = 50
_NEW_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to change: a variant to hold, a share, or weights; and why, as a sentence."""

    why: str
    hold: str = ""
    share: float | None = None
    weights: tuple[float, ...] | None = None


def steer(spec: Experiment, trial: Trial, now: float) -> list[Change]:
    """What should change now; nothing for an experiment that does not run."""
    if trial.status != "running":
        return []
    held = [Change(why, hold=key) for key, why in breaches(spec, trial)]
    if held:
        return held
    ramped = _ramp(spec, trial, now)
    if ramped is not None:
        return [ramped]
    moved = _champion(spec, trial) if spec.mode == "champion" else None
    return [] if moved is None else [moved]


def guarded(spec: Experiment, trial: Trial, key: str, index: int) -> tuple[float, float] | None:
    """Where a variant's mean of a guardrail's metric is; None before the first value."""
    guard, state = spec.guardrails[index], trial.sides[key].guards[index]
    if not state.n:
        return None
    low, high = spec.bounds(guard.metric, guard.high)
    a, b = bernstein.interval(state, guard_alpha(spec))
    return low + a * (high - low), low + b * (high - low)


def stands(spec: Experiment, trial: Trial, key: str, index: int) -> tuple[str, str]:
    """How a variant stands with a guardrail: "broken" or "kept" for certain, "open" between the
    two, "not enough data" before the first value; and how it is broken, else ""."""
    guard, at = spec.guardrails[index], guarded(spec, trial, key, index)
    control = guarded(spec, trial, spec.control.key, index)
    if at is None or (guard.max_regression is not None and control is None):
        return "not enough data", ""
    why = _broken(spec, guard, at, control)
    if why:
        return "broken", why
    low, high = at
    if guard.max_regression is not None and control is not None:
        less = spec.lower_is_better(guard.metric)
        kept = (high - control[0] if less else control[1] - low) <= guard.max_regression
    else:
        kept = low >= guard.min if guard.min is not None else high <= (guard.max or 0.0)
    return ("kept" if kept else "open"), ""


def breaches(spec: Experiment, trial: Trial) -> list[tuple[str, str]]:
    """The variants, but not the control, that certainly break a guardrail, and how."""
    found = []
    for one in spec.served[1:]:
        if one.key in trial.held:
            continue
        for i, guard in enumerate(spec.guardrails):
            why = stands(spec, trial, one.key, i)[1]
            if why:
                found.append((one.key, f"{one.key}: {guard.metric} {why}"))
                break
    return found


def step_of(spec: Experiment) -> int | None:
    """The index of the ramp's step that the share stands on; None outside of the ramp."""
    return next((i for i, step in enumerate(spec.ramp) if step.share == spec.share), None)


def chances_of_being_best(means: Sequence[float], stderrs: Sequence[float]) -> list[float]:
    """P(variant is the best) for independent normal means, ∫ φᵢ Π_{j≠i} Φⱼ, by the midpoint rule.

    >>> [round(p, 3) for p in chances_of_being_best([0.0, 0.0], [1.0, 1.0])]
    [0.5, 0.5]
    """
    mu, sigma = np.asarray(means, float), np.asarray(stderrs, float)
    least = max(1e-12, 0.01 * float(np.ptp(mu) + sigma.max()))  # so that the grid stays small
    sigma = np.maximum(sigma, least)
    low, high = float((mu - 8.0 * sigma).min()), float((mu + 8.0 * sigma).max())
    x = np.linspace(low, high, max(4_001, int(10.0 * (high - low) / float(sigma.min()))))
    z = (x[None, :] - mu[:, None]) / sigma[:, None]
    density = np.exp(-0.5 * z * z) / sigma[:, None]
    below = 0.5 * (1.0 + np.vectorize(math.erf)(z / math.sqrt(2.0)))
    best = np.array(
        [
            float((density[i] * np.prod(np.delete(below, i, axis=0), axis=0)).sum())
            for i in range(len(mu))
        ]
    )
    return [float(p) for p in best / best.sum()]


def _broken(
    spec: Experiment,
    guard: Guardrail,
    at: tuple[float, float],
    control: tuple[float, float] | None,
) -> str:
    low, high = at
    if guard.min is not None and high < guard.min:
        return f"is at most {high:.4g}, and must be at least {guard.min:g}"
    if guard.max is not None and low > guard.max:
        return f"is at least {low:.4g}, and must be at most {guard.max:g}"
    if guard.max_regression is not None and control is not None:
        less = spec.lower_is_better(guard.metric)
        gap = low - control[1] if less else control[0] - high
        if gap > guard.max_regression:
            most = guard.max_regression
            return f"is worse than the control's by more than {gap:.4g}, and may be by {most:g}"
    return ""


def _ramp(spec: Experiment, trial: Trial, now: float) -> Change | None:
    """The next share when the present step has had its units and hours.

    Not where a person is to approve it, while a variant is held, nor where the split is not the
    configured one.
    """
    at = step_of(spec)
    if at is None or at + 1 >= len(spec.ramp) or spec.ramp[at].approve or trial.held:
        return None
    epochs = list(takewhile(lambda one: one.share == spec.share, reversed(trial.epochs)))
    if not epochs:
        return None
    step, units = spec.ramp[at], sum(sum(one.counts) for one in epochs)
    hours = (now - epochs[-1].ts) / 3600.0
    if units < step.units or hours < step.hours:
        return None
    if trial.split_p < srm.ALPHA:
        return None
    share = spec.ramp[at + 1].share
    return Change(f"step {at + 1} had {units} units in {hours:.1f} h; on to {share:g}", share=share)


def _champion(spec: Experiment, trial: Trial) -> Change | None:
    """p = f + (1 − K f) P(best), as soon as enough new units have come.

    The chance of being the best is of the doubly robust means, so moving the weights does not bias
    what moves them; additive, so that no weight is below f.
    """
    sides = [trial.sides[one.key] for one in spec.served]
    kept = [i for i, one in enumerate(spec.served) if one.key not in trial.held]
    told = [side.scores.get(spec.primary, Score()) for side in sides]
    total = sum(each.first.n for each in told)
    since = sum(trial.epochs[-1].counts)
    if since < max(_MIN_NEW, _NEW_SHARE * total) or len(kept) < 2:
        return None
    if any(told[i].first.n < max(10, spec.min_units // 10) for i in kept):
        return None
    sign = -1.0 if spec.lower_is_better(spec.primary) else 1.0
    scores = [told[i].score for i in kept]
    chances = chances_of_being_best(
        [sign * one.mean for one in scores],
        [math.sqrt(one.m2 / max(1, one.n - 1) / max(1, one.n)) for one in scores],
    )
    weights = [0.0] * len(sides)
    for i, chance in zip(kept, chances, strict=True):
        weights[i] = spec.floor + (1.0 - spec.floor * len(kept)) * chance
    rounded = [round(weight, 6) for weight in weights]
    rounded[rounded.index(max(rounded))] += 1.0 - math.fsum(rounded)  # where no floor is near
    if max(abs(a - b) for a, b in zip(rounded, spec.weights, strict=True)) < 0.01:
        return None
    said = ", ".join(f"{spec.served[i].key} {p:.0%}" for i, p in zip(kept, chances, strict=True))
    return Change(f"chance of being the best: {said}", weights=tuple(rounded))
