"""What an experiment is: variants, who takes part, what is measured, what stops it.

Plain records, as they come from the API and the configuration and as they stand in the log. What
the numbers are and who gets which variant is in `trial.py` and `assignment.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from bandit_service.core.errors import Refused

UNITS = ("user", "session", "conversation", "tenant")
SCHEMES = ("native", "growthbook_v2", "unleash", "optimizely", "eppo")
LEARNING = ("isolated", "shared")
METRICS = ("reward", "quality", "cost_usd", "latency_s")
STATUSES = ("draft", "starting", "running", "paused", "stopped")
MODES = ("fixed", "champion")
MOST_VARIANTS = 20
MOST_METRICS = 8
HOLDOUT, ROUTED = "holdout", "routed"
"""The id that no experiment may have: decisions of held-out units carry it; and all others'."""


class Variant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True,
              forbid_unknown_fields=True):  # fmt: skip
    """One side of an experiment; the first of an experiment is its control.

    policy, parameters: what decides; "" is the policy that serves outside the experiment. arm: one
    arm always, instead of a policy. weight: share of the experiment's units. learning: "isolated"
    learns from its own units only, "shared" from all traffic. begin: "snapshot" starts with what
    the policy would have learned of the whole log, "nothing" with nothing. shadow: decides on every
    query of the audience without being served; it has no weight and learns from all traffic.
    """

    key: str
    weight: float = 0.0
    policy: str = ""
    parameters: dict[str, Any] = {}
    arm: str = ""
    learning: str = "isolated"
    begin: str = "snapshot"
    shadow: bool = False


class Audience(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True,
               forbid_unknown_fields=True):  # fmt: skip
    """Whose queries take part; an empty list allows all. callers: ids of API keys."""

    tenants: tuple[str, ...] = ()
    callers: tuple[str, ...] = ()
    least_tokens: int = 0
    most_tokens: int | None = None


class Metric(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True,
             forbid_unknown_fields=True):  # fmt: skip
    """A number of the user's own, sent with rewards as `metrics`; from `low` to `high`."""

    name: str
    low: float = 0.0
    high: float = 1.0
    lower_is_better: bool = False


class Guardrail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True,
                forbid_unknown_fields=True):  # fmt: skip
    """What a variant must keep, by mean and by a sequence that holds at every look.

    least, most: what the mean must not be below or above. worse: how much worse than the control's
    mean it may be. Exactly one of the three. The range of values is the metric's; `high` bounds
    cost_usd and latency_s, and what is above counts as `high`.
    """

    metric: str
    least: float | None = None
    most: float | None = None
    worse: float | None = None
    high: float | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True,
           forbid_unknown_fields=True):  # fmt: skip
    """One step of a ramp: the share, kept until as many new units and hours have passed."""

    share: float
    units: int = 0
    hours: float = 0.0


class Experiment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True,
                 forbid_unknown_fields=True):  # fmt: skip
    """An experiment as it is configured.

    share: of the units that it could have, how many take part. unit: what keeps its variant.
    namespace, slots: experiments of one namespace share no unit while their slots, parts of
    [0, 1), do not overlap. scheme, salt, split_salt: how a unit is hashed (`bucketing`); the id
    where no salt is given, the salt where no other is given for the split.
    sticky: a unit keeps its first variant also when weights change. primary: the metric that
    decides. mode: "champion" moves weights towards what does better, none below `floor`.
    alpha: how often an experiment without any difference may be called. min_units: of each variant,
    before anything is said. inconclusive: what an end without a result keeps.
    overrides: units that always get a variant, and count nowhere.
    """

    id: str
    variants: tuple[Variant, ...]
    share: float = 1.0
    unit: str = "user"
    audience: Audience = Audience()
    namespace: str = ""
    slots: tuple[float, float] = (0.0, 1.0)
    scheme: str = "native"
    salt: str = ""
    split_salt: str = ""
    sticky: bool = False
    primary: str = "reward"
    metrics: tuple[Metric, ...] = ()
    guardrails: tuple[Guardrail, ...] = ()
    ramp: tuple[Step, ...] = ()
    cool_down_s: float = 86_400.0
    mode: str = "fixed"
    floor: float = 0.05
    alpha: float = 0.05
    min_units: int = 100
    inconclusive: str = "control"
    overrides: dict[str, str] = {}

    @property
    def served(self) -> tuple[Variant, ...]:
        """The variants that get units."""
        return tuple(one for one in self.variants if not one.shadow)

    @property
    def shadows(self) -> tuple[Variant, ...]:
        """The variants that only decide."""
        return tuple(one for one in self.variants if one.shadow)

    @property
    def control(self) -> Variant:
        """The first variant, beside which the others are judged."""
        return self.served[0]

    @property
    def weights(self) -> tuple[float, ...]:
        """Of the served variants, in their order."""
        return tuple(one.weight for one in self.served)

    def variant(self, key: str) -> Variant | None:
        """The variant of this key."""
        return next((one for one in self.variants if one.key == key), None)

    def names(self) -> tuple[str, ...]:
        """Every metric that is measured."""
        return (*METRICS, *(one.name for one in self.metrics))

    def bounds(self, metric: str, high: float | None = None) -> tuple[float, float]:
        """The range of one metric's values."""
        for one in self.metrics:
            if one.name == metric:
                return one.low, one.high
        if metric == "reward":
            return -1.0, 1.0
        return 0.0, 1.0 if metric == "quality" else high or 0.0

    def lower_is_better(self, metric: str) -> bool:
        """Whether less of it is wanted."""
        own = {one.name: one.lower_is_better for one in self.metrics}
        return own.get(metric, metric in ("cost_usd", "latency_s"))


class Rules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True,
            forbid_unknown_fields=True):  # fmt: skip
    """What stands over all experiments.

    stopped: no unit is in any experiment. holdout_share, holdout_arm: of all units, the share that
    always gets this arm and is in no experiment; `unit` and `salt` say which.
    """

    stopped: bool = False
    holdout_share: float = 0.0
    holdout_arm: str = ""
    unit: str = "user"
    salt: str = "holdout"


def holdout_of(rules: Rules) -> Experiment:
    """The hold-out as an experiment, to be measured as one."""
    held = Variant(key=HOLDOUT, weight=rules.holdout_share, arm=rules.holdout_arm)
    rest = Variant(key=ROUTED, weight=1.0 - rules.holdout_share, learning="shared")
    return Experiment(id=HOLDOUT, variants=(held, rest), unit=rules.unit)


def label_of(experiment: str, variant: str) -> str:
    """The name under which a variant's policy learns; no policy's name has a slash."""
    return f"{experiment}/{variant}"


def check(spec: Experiment) -> None:
    """Raise Refused naming the first field that is wrong, and what is allowed."""
    _check_names(spec)
    _check_variants(spec)
    _check_numbers(spec)
    for i, one in enumerate(spec.guardrails):
        _check_guardrail(spec, one, f"guardrails[{i}]")
    shares = [0.0, *(step.share for step in spec.ramp)]
    if any(not 0.0 < b <= 1.0 or b <= a for a, b in itertools.pairwise(shares)):
        _refuse("ramp", "the shares must grow, from above 0 to at most 1")
    if any(step.units <= 0 and step.hours <= 0.0 for step in spec.ramp[:-1]):
        _refuse("ramp", "every step but the last needs units or hours after which it ends")
    keys = {one.key for one in spec.served}
    for unit, key in spec.overrides.items():
        if key not in keys:
            _refuse("overrides", f"{unit!r}: no variant {key!r}; there are {', '.join(keys)}")


def _check_names(spec: Experiment) -> None:
    for name, value in (("id", spec.id), *(("variants", one.key) for one in spec.variants)):
        plain = value.replace("-", "").replace("_", "")
        if not (value.isascii() and plain.isalnum() and len(value) <= 64):
            _refuse(name, f"{value!r}: use 1 to 64 letters, digits, - and _")
    if spec.id == HOLDOUT:
        _refuse("id", f"{HOLDOUT!r} is the global hold-out's; use another")
    for name, value, allowed in (
        ("unit", spec.unit, UNITS),
        ("scheme", spec.scheme, SCHEMES),
        ("mode", spec.mode, MODES),
        ("inconclusive", spec.inconclusive, ("control", "best")),
        ("primary", spec.primary, spec.names()),
    ):
        if value not in allowed:
            _refuse(name, f"no {value!r}; there are {', '.join(allowed)}")
    names = [one.name for one in spec.metrics]
    if len(names) > MOST_METRICS or len({*names, *METRICS}) != len(names) + len(METRICS):
        _refuse("metrics", f"at most {MOST_METRICS}, each with a name of its own")
    for one in spec.metrics:
        if not (one.name.isidentifier() and len(one.name) <= 64):
            _refuse("metrics", f"{one.name!r}: use a name of letters, digits and _")
        if not (math.isfinite(one.low) and math.isfinite(one.high) and one.low < one.high):
            _refuse("metrics", f"{one.name}: low must be below high")


def _check_variants(spec: Experiment) -> None:
    served = spec.served
    if not 2 <= len(served) + len(spec.shadows) <= MOST_VARIANTS or not served:
        _refuse("variants", f"from 2 to {MOST_VARIANTS}, the first of which is the control")
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
            _refuse(at, f"learning: no {one.learning!r}; there are {', '.join(LEARNING)}")
        if one.begin not in ("snapshot", "nothing"):
            _refuse(at, f"begin: no {one.begin!r}; there are snapshot and nothing")
        if one.shadow and one.arm:
            _refuse(at, "a shadow is a policy; what one arm earns, the log already says")
        if one.shadow and one.weight:
            _refuse(at, "a shadow is not served: leave its weight out")
        if not one.weight >= 0.0:
            _refuse(at, f"weight: must be at least 0, got {one.weight:g}")
    total = math.fsum(spec.weights)
    if abs(total - 1.0) > 1e-6:
        _refuse("variants", f"the weights must sum to 1, they sum to {total:g}")


def _check_numbers(spec: Experiment) -> None:
    if not 0.0 <= spec.share <= 1.0:
        _refuse("share", f"must be from 0 to 1, got {spec.share:g}")
    low, high = spec.slots
    if not 0.0 <= low < high <= 1.0:
        _refuse("slots", f"must be [from, to) within [0, 1), got [{low:g}, {high:g})")
    if not 0.0 < spec.alpha <= 0.5:
        _refuse("alpha", f"must be above 0 and at most 0.5, got {spec.alpha:g}")
    if not 2 <= spec.min_units <= 10_000_000:
        _refuse("min_units", f"must be from 2 to 10000000, got {spec.min_units}")
    if not 0.0 <= spec.cool_down_s <= 31_536_000.0:
        _refuse("cool_down_s", "must be from 0 to 31536000")
    if spec.mode == "champion":
        count = len(spec.served)
        if not spec.floor > 0.0 or spec.floor * count >= 1.0:
            _refuse("floor", f"{spec.floor:g} for {count} variants: must be above 0 and below "
                    f"{1.0 / count:.3g}")  # fmt: skip
        if spec.scheme != "native":
            _refuse("mode", "champion moves weights, which keeps no unit of another scheme; "
                    "use scheme native")  # fmt: skip


def _check_guardrail(spec: Experiment, one: Guardrail, at: str) -> None:
    if one.metric not in spec.names():
        _refuse(f"{at}.metric", f"no {one.metric!r}; there are {', '.join(spec.names())}")
    given = [name for name in ("least", "most", "worse") if getattr(one, name) is not None]
    if len(given) != 1:
        _refuse(at, "give exactly one of least, most and worse")
    if one.metric in ("cost_usd", "latency_s") and not (one.high and one.high > 0.0):
        _refuse(f"{at}.high", f"{one.metric} has no range of its own: say what is high")
    if one.worse is not None and not one.worse >= 0.0:
        _refuse(f"{at}.worse", "must be at least 0")


def check_change(
    before: Experiment, after: Experiment, status: str, traffic: Mapping[str, int]
) -> None:
    """Raise Refused or Conflict for what may not change once units were assigned.

    traffic: decisions by variant. What may: weights, share, audience, guardrails, ramp, overrides,
    alpha only before the start.
    """
    if status == "stopped":
        _refuse("id", f"experiment {before.id!r} is finished; begin a new one under another id")
    if status == "draft":
        return
    for name in (
        "unit",
        "scheme",
        "salt",
        "split_salt",
        "primary",
        "metrics",
        "alpha",
        "mode",
        "namespace",
    ):
        if getattr(before, name) != getattr(after, name):
            _refuse(name, "cannot change once it has begun; stop it and begin a new one")
    gone = {one.key for one in before.variants} - {one.key for one in after.variants}
    for key in sorted(gone):
        if traffic.get(key):
            _refuse("variants", f"{key!r} had {traffic[key]} decisions and cannot be deleted; "
                    "set its weight to 0")  # fmt: skip
    for one in after.variants:
        old = before.variant(one.key)
        if old is None:
            _refuse("variants", f"{one.key!r} is new; stop this experiment and begin another")
        elif msgspec.structs.replace(old, weight=0.0) != msgspec.structs.replace(one, weight=0.0):
            _refuse("variants", f"{one.key!r}: only the weight can change once it has begun")
    if [one.key for one in before.variants] != [
        one.key for one in after.variants if one.key not in gone
    ]:
        _refuse("variants", "keep their order, on which the assignment rests")


def check_beside(spec: Experiment, others: Mapping[str, Experiment]) -> None:
    """Raise Refused where another experiment of the same namespace has some of its slots."""
    if not spec.namespace:
        return
    for id, other in others.items():
        if id == spec.id or other.namespace != spec.namespace:
            continue
        if spec.slots[0] < other.slots[1] and other.slots[0] < spec.slots[1]:
            _refuse("slots", f"[{spec.slots[0]:g}, {spec.slots[1]:g}) overlaps experiment {id!r}, "
                    f"which has [{other.slots[0]:g}, {other.slots[1]:g}) of namespace "
                    f"{spec.namespace!r}")  # fmt: skip


def check_rules(rules: Rules) -> None:
    """Raise Refused naming the first field that is wrong."""
    if not 0.0 <= rules.holdout_share <= 0.5:
        _refuse("holdout_share", f"must be from 0 to 0.5, got {rules.holdout_share:g}")
    if rules.holdout_share and not rules.holdout_arm:
        _refuse("holdout_arm", "name the arm that held-out units get")
    if rules.unit not in ("user", "tenant"):
        _refuse("unit", f"no {rules.unit!r}; there are user and tenant")


def _refuse(param: str, why: str) -> None:
    raise Refused(f"{param}: {why}", param=param)
