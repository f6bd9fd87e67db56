"""What of an experiment is refused, each with the field's name and what to do. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import NoReturn

import msgspec

from bandit_service.core.errors import Conflict, Refused
from bandit_service.core.experiments.bucketing import same_slots
from bandit_service.core.experiments.spec import (
    HOLDOUT,
    LEARNING,
    MAX_GUARDRAILS,
    MAX_METRICS,
    MAX_VARIANTS,
    METRICS,
    MIN_WEIGHT,
    MODES,
    SCHEMES,
    UNITS,
    Experiment,
    Guardrail,
    Rules,
)
from bandit_service.core.fields import out_of_range
from bandit_service.core.metric_spec import MAX_VALUE
from bandit_service.core.routes import AUTO


def check(spec: Experiment) -> None:
    """Raise Refused naming the first field that is wrong, and what is allowed."""
    _check_names(spec)
    _check_variants(spec)
    _check_numbers(spec)
    if len(spec.guardrails) > MAX_GUARDRAILS:
        _refuse("guardrails", f"at most {MAX_GUARDRAILS}, got {len(spec.guardrails)}")
    for i, one in enumerate(spec.guardrails):
        _check_guardrail(spec, one, f"guardrails[{i}]")
    shares = [0.0, *(step.share for step in spec.ramp)]
    if any(not 0.0 < b <= 1.0 or b <= a for a, b in itertools.pairwise(shares)):
        _refuse("ramp", "the shares must grow, from above 0 to at most 1")
    if any(not (step.units >= 0 and 0.0 <= step.hours <= 100_000.0) for step in spec.ramp):
        _refuse("ramp", "units must be at least 0, hours from 0 to 100000")
    if any(not (step.units or step.hours or step.approve) for step in spec.ramp[:-1]):
        _refuse(
            "ramp",
            "every step but the last needs units or hours after which it ends, or approve = true",
        )
    _check_resolution(spec)
    keys = {one.key for one in spec.served}
    for unit, key in spec.overrides.items():
        if key not in keys:
            _refuse("overrides", f"{unit!r}: no variant {key!r}; expected one of {', '.join(keys)}")


def _check_names(spec: Experiment) -> None:
    for name, value in (("id", spec.id), *(("variants", one.key) for one in spec.variants)):
        plain = value.replace("-", "").replace("_", "")
        if not (value.isascii() and plain.isalnum() and len(value) <= 64):
            _refuse(name, f"{value!r}: use 1 to 64 letters, digits, - and _")
    if spec.id == HOLDOUT:
        _refuse("id", f"{HOLDOUT!r} is the global hold-out's; use another")
    if spec.route == AUTO:
        _refuse("route", f"leave it out for the default route, {AUTO!r}")
    for name, value, allowed in (
        ("unit", spec.unit, UNITS),
        ("scheme", spec.scheme, SCHEMES),
        ("mode", spec.mode, MODES),
        ("inconclusive", spec.inconclusive, ("control", "best")),
        ("primary", spec.primary, spec.names()),
    ):
        if value not in allowed:
            _refuse(name, f"no {value!r}; expected one of {', '.join(allowed)}")
    names = [one.name for one in spec.metrics]
    if len(names) > MAX_METRICS or len({*names, *METRICS}) != len(names) + len(METRICS):
        _refuse("metrics", f"at most {MAX_METRICS}, each with a name of its own")
    for one in spec.metrics:
        if not (one.name.isidentifier() and len(one.name) <= 64):
            _refuse("metrics", f"{one.name!r}: use a name of letters, digits and _")
        if not -MAX_VALUE <= one.low < one.high <= MAX_VALUE:
            _refuse("metrics", f"{one.name}: low must be below high, both within ±{MAX_VALUE:g}")


def _check_variants(spec: Experiment) -> None:
    served = spec.served
    if not 2 <= len(served) + len(spec.shadows) <= MAX_VARIANTS or not served:
        _refuse("variants", f"from 2 to {MAX_VARIANTS}, the first of which is the control")
    if spec.variants[0].shadow:
        _refuse("variants", "the first one is the control and cannot be a shadow")
    keys = [one.key for one in spec.variants]
    if len(set(keys)) != len(keys):
        _refuse("variants", "every key must be there only once")
    for one in spec.variants:
        at = f"variants.{one.key}"
        if one.arm and (one.policy or one.parameters):
            _refuse(at, "name an arm or a policy, not both")
        if one.parameters and not one.policy:
            _refuse(at, "parameters belong to a policy; name it")
        if one.learning not in LEARNING:
            _refuse(at, f"learning: no {one.learning!r}; expected one of {', '.join(LEARNING)}")
        if one.begin not in ("snapshot", "nothing"):
            _refuse(at, f"begin: no {one.begin!r}; expected snapshot or nothing")
        if one.shadow and one.arm:
            _refuse(at, "a shadow is a policy; what one arm earns, the log already says")
        if one.shadow and one.weight:
            _refuse(at, "a shadow is not served: leave its weight out")
        if not (one.weight == 0.0 or one.weight >= MIN_WEIGHT):
            _refuse(at, f"weight: must be 0 or at least {MIN_WEIGHT:g}, got {one.weight:g}")
    total = math.fsum(spec.weights)
    if abs(total - 1.0) > 1e-6:
        _refuse("variants", f"the weights must sum to 1, they sum to {total:g}")


def _check_numbers(spec: Experiment) -> None:
    _check_range(spec, "share")
    low, high = spec.slots
    if not 0.0 <= low < high <= 1.0:
        _refuse("slots", f"must be [from, to) within [0, 1), got [{low:g}, {high:g})")
    low_tokens, high_tokens = spec.audience.min_tokens, spec.audience.max_tokens
    if low_tokens < 0 or (high_tokens is not None and high_tokens < low_tokens):
        _refuse("audience", "min_tokens must be at least 0, max_tokens not below it")
    _check_range(spec, "alpha")
    if not 2 <= spec.min_units <= 10_000_000:
        _refuse("min_units", f"must be from 2 to 10000000, got {spec.min_units}")
    if not 0.0 <= spec.cool_down_s <= 31_536_000.0:
        _refuse("cool_down_s", "must be from 0 to 31536000")
    if spec.mode == "champion":
        count = len(spec.served)
        if not spec.floor >= MIN_WEIGHT or spec.floor * count >= 1.0:
            _refuse(
                "floor",
                f"{spec.floor:g} for {count} variants: must be at least "
                f"{MIN_WEIGHT:g} and below {1.0 / count:.3g}",
            )
        if spec.scheme != "native":
            _refuse(
                "mode",
                "champion moves weights, which keeps no unit of another scheme; use scheme native",
            )


def _check_resolution(spec: Experiment) -> None:
    """What a scheme cannot tell apart would be another share, or other ranges than are meant."""
    parts = {"unleash": 100, "eppo": 10_000}.get(spec.scheme)
    if parts is not None:
        for share in (spec.share, *(step.share for step in spec.ramp)):
            if not _whole(share * parts):
                _refuse("share", f"{share:g}: scheme {spec.scheme} has parts of {1.0 / parts:g}")
    if spec.scheme == "unleash" and not all(_whole(weight * 1000) for weight in spec.weights):
        _refuse(
            "variants",
            "scheme unleash has weights of whole thousandths; write a third as "
            "0.333, and one of them as 0.334",
        )


def _whole(x: float) -> bool:
    return abs(x - round(x)) < 1e-6


def _check_guardrail(spec: Experiment, one: Guardrail, at: str) -> None:
    if one.metric not in spec.names():
        _refuse(f"{at}.metric", f"no {one.metric!r}; expected one of {', '.join(spec.names())}")
    given = [name for name in ("min", "max", "max_regression") if getattr(one, name) is not None]
    if len(given) != 1:
        _refuse(at, "give exactly one of min, max and max_regression")
    limit = getattr(one, given[0])
    if not math.isfinite(limit) or (one.max_regression is not None and limit < 0.0):
        _refuse(f"{at}.{given[0]}", "must be a number, and max_regression at least 0")
    if one.high is not None and not (one.high > 0.0 and math.isfinite(one.high)):
        _refuse(f"{at}.high", f"must be above 0, got {one.high:g}")
    open_ended = one.metric in ("cost_usd", "latency_s")
    if one.high is None and open_ended:
        _refuse(f"{at}.high", f"{one.metric} has no range: set high")
    if one.high is not None and not open_ended:
        _refuse(f"{at}.high", f"{one.metric} has its own range: leave high out")
    low, high = spec.bounds(one.metric, one.high)
    within = {
        "min": low < limit <= high,
        "max": low <= limit < high,
        "max_regression": limit < high - low,
    }
    if not within[given[0]]:
        _refuse(
            f"{at}.{given[0]}",
            f"{limit:g} can never be broken, or never be kept: values are "
            f"taken from {low:g} to {high:g}",
        )


_FIXED = (
    *("route", "unit", "scheme", "salt", "split_salt", "namespace"),
    *("primary", "metrics", "alpha", "mode"),
)
"""What cannot change once an experiment has begun: on these its units or its numbers rest."""


def check_change(
    before: Experiment, after: Experiment, status: str, traffic: Mapping[str, int]
) -> None:
    """Raise Refused or Conflict for what may not change once units were assigned.

    traffic: decisions by variant. What may change: weights, share, slots, audience, guardrails,
    ramp, overrides; everything while it is a draft.
    """
    if status == "stopped":
        raise Conflict(f"id: {before.id!r} is finished; start a new one under another id")
    if status == "draft":
        return
    for name in _FIXED:
        if getattr(before, name) != getattr(after, name):
            _refuse(name, "cannot change after the start; stop it and start a new one")
    kept = {one.key for one in after.variants}
    for one in before.variants:
        if one.key not in kept:
            had = traffic.get(one.key, 0)
            _refuse(
                "variants",
                f"{one.key!r} had {had} decisions; after the start a variant cannot be deleted: "
                "set its weight to 0",
            )
    for one in after.variants:
        old = before.variant(one.key)
        if old is None:
            _refuse("variants", f"{one.key!r} is new; stop this experiment and begin another")
        elif msgspec.structs.replace(old, weight=0.0) != msgspec.structs.replace(one, weight=0.0):
            _refuse("variants", f"{one.key!r}: only the weight can change after the start")
    if [one.key for one in before.variants] != [one.key for one in after.variants]:
        _refuse("variants", "keep their order, on which the assignment rests")


def check_floor(spec: Experiment, before: Experiment | None) -> None:
    """Raise Refused for a weight, other than it was, that a champion would undo.

    before: None where it has not begun. A held variant's weight is 0 by the champion itself.
    """
    if spec.mode != "champion":
        return
    for one in spec.served:
        old = None if before is None else before.variant(one.key)
        if one.weight < spec.floor - 1e-9 and (old is None or old.weight != one.weight):
            _refuse(
                "variants",
                f"{one.key}: weight {one.weight:g} is below the floor, "
                f"{spec.floor:g}, to which the champion would raise it; stop the experiment, "
                "or begin one without this variant",
            )


def check_beside(spec: Experiment, others: Mapping[str, Experiment]) -> None:
    """Raise Refused where another experiment of the same namespace has some of its slots."""
    if not spec.namespace:
        return
    for id, other in others.items():
        if id == spec.id or other.namespace != spec.namespace:
            continue
        if other.unit != spec.unit or not same_slots(other.scheme, spec.scheme):
            _refuse(
                "namespace",
                f"{spec.namespace!r} has experiment {id!r}, which places "
                f"{other.unit}s by scheme {other.scheme}; {spec.unit}s by {spec.scheme} are "
                "elsewhere, so slots would exclude nothing: use another namespace",
            )
        if spec.slots[0] < other.slots[1] and other.slots[0] < spec.slots[1]:
            _refuse(
                "slots",
                f"[{spec.slots[0]:g}, {spec.slots[1]:g}) overlaps experiment {id!r}, "
                f"which has [{other.slots[0]:g}, {other.slots[1]:g}) of namespace "
                f"{spec.namespace!r}",
            )


def check_rules(rules: Rules) -> None:
    """Raise Refused naming the first field that is wrong."""
    _check_range(rules, "holdout_share")
    if rules.holdout_share and not rules.holdout_arm:
        _refuse("holdout_arm", "name the arm that held-out units get")
    if rules.unit not in ("user", "tenant"):
        _refuse("unit", f"no {rules.unit!r}; expected user or tenant")


def _check_range(record: Experiment | Rules, name: str) -> None:
    if wrong := out_of_range(record, name):
        _refuse(name, wrong)


def _refuse(param: str, why: str) -> NoReturn:
    raise Refused(f"{param}: {why}", param=param)
