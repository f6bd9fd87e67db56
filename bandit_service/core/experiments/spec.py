"""What an experiment is: variants, who takes part, what is measured, what stops it.

Plain records, as they come from the API and the configuration and as they stand in the log. What
the numbers are and who gets which variant is in `trial.py` and `assignment.py`, what is refused in
`checks.py`.
"""

from __future__ import annotations

from typing import Any

import msgspec

UNITS = ("user", "session", "conversation", "tenant")
SCHEMES = ("native", "growthbook_v2", "unleash", "optimizely", "eppo")
LEARNING = ("isolated", "shared")
METRICS = ("reward", "quality", "cost_usd", "latency_s")
STATUSES = ("draft", "starting", "running", "paused", "stopped")
MODES = ("fixed", "champion")
MOST_VARIANTS = 20
MOST_METRICS = 8
MOST_GUARDRAILS = 20
LEAST_ALPHA = 1e-6
LEAST_WEIGHT = 1e-6
"""What is not 0 and below would be divided by, and is never drawn."""
HOLDOUT, ROUTED = "holdout", "routed"
"""The hold-out's id, which no experiment may have, and the variant of the units not held out."""


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
    """One step of a ramp: the share, kept until as many new units and hours have passed.

    approve: and until a person sets the next step's share; nothing goes on by itself.
    """

    share: float
    units: int = 0
    hours: float = 0.0
    approve: bool = False


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
    return Experiment(id=HOLDOUT, variants=(held, rest), unit=rules.unit, salt=rules.salt)


def label_of(experiment: str, variant: str) -> str:
    """The name under which a variant's policy learns; no policy's name has a slash."""
    return f"{experiment}/{variant}"
