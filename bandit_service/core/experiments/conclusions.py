"""What may be concluded of an experiment now, as plain sentences. Pure.

Everything here may be looked at as often as one likes: the intervals hold at all looks at once, and
`alpha` is the chance that any comparison with the control is ever called without being there.
"""

from __future__ import annotations

from bandit_service.core.experiments.spec import Experiment, Variant
from bandit_service.core.experiments.steering import step_of
from bandit_service.core.experiments.trial import Trial
from bandit_service.core.experiments.variant_stats import Score, Side, Sums, gap_of
from bandit_service.statistics import binomial, calibration, means, srm

_MAX_MIXED = 0.01


def state_of(spec: Experiment, trial: Trial) -> str:
    """ "not begun", "wrong split", "not enough data", "shown" or "not shown"."""
    if trial.status in ("draft", "starting"):
        return "not begun"
    if trial.split_p < srm.ALPHA:
        return "wrong split"
    gaps = [shown_difference(spec, trial, one) for one in _compared(spec, trial)]
    if any(gap is None for gap in gaps):
        return "not enough data"
    return "shown" if any(gap is not None and gap.excludes() for gap in gaps) else "not shown"


def conclusion(spec: Experiment, trial: Trial) -> str:
    """A plain sentence, or a few, that say what may be concluded now."""
    if trial.status in ("draft", "starting"):
        return f"It is {trial.status}: no unit was assigned yet."
    said = []
    if trial.status == "stopped":
        said.append(f"Stopped; {trial.winner or spec.control.key} was kept.")
    if trial.split_p < srm.ALPHA:
        said.append(
            "Sample-ratio mismatch: the observed split does not match the weights. "
            "Draw no conclusion: look for what drops or repeats requests of one variant."
        )
        return " ".join(said)
    said += [
        f"{key} broke a guardrail and no longer receives traffic." for key in sorted(trial.held)
    ]
    compared = _compared(spec, trial)
    few = [(one.key, units_of(spec, trial, one)) for one in (spec.control, *compared)]
    short = [
        f"{key} has {units} of {spec.min_units} units with an outcome"
        for key, units in few
        if units < spec.min_units
    ]
    if short and compared:
        said.append(f"Not enough data: {'; '.join(short)}.")
    for one in compared:
        gap = shown_difference(spec, trial, one)
        if gap is not None:
            said.append(_said(spec, one, gap))
    return " ".join(said) or "There is no variant to compare with the control."


def caveats(spec: Experiment, trial: Trial) -> list[str]:
    """What a reader must know before the numbers are believed."""
    found = []
    shared = [one.key for one in spec.served if not one.arm and one.learning == "shared"]
    if shared and len(spec.served) > 1:
        found.append(
            f"{_and(shared)} learns from all traffic, also of other variants, so the "
            "difference is not that of policies that learn alone."
        )
    if trial.moved and spec.mode != "champion":
        found.append(
            "The weights changed during the experiment: the means are doubly robust estimates "
            "from each unit's first outcome."
        )
    units = sum(side.units for side in trial.sides.values())
    if trial.mixed > _MAX_MIXED * units:
        found.append(
            f"{trial.mixed} of {units} units got two variants and are left out: if "
            "weights change, set sticky."
        )
    at = step_of(spec) if trial.status == "running" else None
    if at is not None and at + 1 < len(spec.ramp) and spec.ramp[at].approve:
        found.append(
            f"Step {at + 1} of the ramp waits for approval: set the share to "
            f"{spec.ramp[at + 1].share:g} to continue."
        )
    if trial.uncounted:
        found.append(
            f"{trial.uncounted} decisions came from units beyond the limit and are not counted."
        )
    if _unequal(spec, trial):
        found.append(
            "Outcomes are not equally often reported for all variants: the missing ones "
            "may bias the result."
        )
    wrong = [
        key
        for key, side in trial.sides.items()
        if side.calibration.known().p_value() < calibration.ALPHA
    ]
    if wrong:
        found.append(
            f"The logged propensities of {_and(wrong)} do not match the draws: "
            "estimates from them are wrong."
        )
    return found


def best_of(spec: Experiment, trial: Trial) -> str:
    """The variant that an end keeps: the best that is shown to beat the control, else as set."""
    sign = -1.0 if spec.lower_is_better(spec.primary) else 1.0
    shown: list[tuple[float, str]] = []
    guess: list[tuple[float, str]] = []
    for one in _compared(spec, trial):
        gap = _gap(spec, trial, one)
        if gap is None:
            continue
        guess.append((sign * gap.estimate, one.key))
        if state_of(spec, trial) == "wrong split":
            continue
        certain = shown_difference(spec, trial, one)
        if certain is not None and certain.excludes() and sign * certain.estimate > 0.0:
            shown.append((sign * gap.estimate, one.key))
    if shown:
        return max(shown)[1]
    if spec.inconclusive == "best" and guess and max(guess)[0] > 0.0:
        return max(guess)[1]
    return spec.control.key


def shown_difference(spec: Experiment, trial: Trial, variant: Variant) -> means.Interval | None:
    """The primary metric's difference to the control; None while there is not enough data."""
    if min(units_of(spec, trial, one) for one in (spec.control, variant)) < spec.min_units:
        return None
    return _gap(spec, trial, variant)


def difference(
    spec: Experiment, trial: Trial, variant: Variant, metric: str
) -> means.Interval | None:
    """Any metric's difference to the control; alpha is divided over the variants only."""
    if min(units_of(spec, trial, one, metric) for one in (spec.control, variant)) < spec.min_units:
        return None
    return _gap(spec, trial, variant, metric)


def units_of(spec: Experiment, trial: Trial, variant: Variant, metric: str = "") -> int:
    """Units of a variant that a mean rests on."""
    side, metric = trial.sides.get(variant.key, Side()), metric or spec.primary
    if trial.adaptive(spec):
        return side.scores.get(metric, Score()).first.n
    return side.sums.get(metric, Sums()).units


def _compared(spec: Experiment, trial: Trial) -> list[Variant]:
    return [one for one in spec.served[1:] if one.key not in trial.held]


def _gap(
    spec: Experiment, trial: Trial, variant: Variant, metric: str = ""
) -> means.Interval | None:
    sides = trial.sides
    if variant.key not in sides or spec.control.key not in sides:
        return None
    sample = gap_of(
        spec,
        sides[spec.control.key],
        sides[variant.key],
        metric or spec.primary,
        trial.adaptive(spec),
    )
    alpha = spec.alpha / max(1, len(spec.served) - 1)
    return None if sample is None else means.mean(sample, alpha)


def _said(spec: Experiment, one: Variant, gap: means.Interval) -> str:
    bounds = f"{gap.low:+.4g} to {gap.high:+.4g}"
    if not gap.excludes():
        return (
            f"No significant difference in {spec.primary} between {one.key} and "
            f"{spec.control.key} (interval {bounds})."
        )
    better = (gap.estimate > 0.0) != spec.lower_is_better(spec.primary)
    return (
        f"{one.key} is {'better' if better else 'worse'} than {spec.control.key} in "
        f"{spec.primary}: by {gap.estimate:+.4g} (interval {bounds})."
    )


def _unequal(spec: Experiment, trial: Trial) -> bool:
    """Whether the share of units with an outcome surely differs between two variants.

    Not where weights moved: a variant with more new units waits for more outcomes.
    """
    if trial.adaptive(spec):
        return False
    alpha = srm.ALPHA / max(1, len(spec.served))
    shares = []
    for side in trial.sides.values():
        known = side.scores.get(spec.primary, Score()).first.n
        shares.append(binomial.interval(min(known, side.units), side.units, alpha))
    return any(one[1] < other[0] for one in shares for other in shares)


def _and(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
