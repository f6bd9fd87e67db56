"""What an experiment is: variants, who takes part, what is measured, what stops it.

Plain records, as in the API, the configuration and the log. `trial.py` has the numbers,
`assignment.py` who gets which variant, and `checks.py` what is refused.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any

import msgspec

from bandit_service.core.fields import doc

IN_THE_LOG = {
    "min_tokens": "least_tokens",
    "max_tokens": "most_tokens",
    "min": "least",
    "max": "most",
    "max_regression": "worse",
}
"""How these fields were called first, which is what the event log calls them for ever."""

UNITS = ("user", "session", "conversation", "tenant")
SCHEMES = ("native", "growthbook_v2", "unleash", "optimizely", "eppo")
LEARNING = ("isolated", "shared")
METRICS = ("reward", "quality", "cost_usd", "latency_s")
STATUSES = ("draft", "starting", "running", "paused", "stopped")
MODES = ("fixed", "champion")
MAX_VARIANTS = 20
MAX_METRICS = 8
MAX_GUARDRAILS = 20
MIN_ALPHA = 1e-6
"""It is divided later on, and its logarithm taken."""
MIN_WEIGHT = 1e-6
"""What is not 0 and below would be divided by, and is never drawn."""
HOLDOUT, ROUTED = "holdout", "routed"
"""The hold-out's id, which no experiment may have, and the variant of the units not held out."""


class Variant(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One side of an experiment; the first of an experiment is its control.

    policy, parameters: what decides; "" is the policy that serves outside the experiment. arm: one
    arm always, instead of a policy. weight: share of the experiment's units. learning: "isolated"
    learns from its own units only, "shared" from all traffic. begin: "snapshot" starts with what
    the policy would have learned of the whole log, "nothing" with nothing. shadow: decides on every
    query of the audience without being served; it has no weight and learns from all traffic.
    """

    key: Annotated[str, doc("Its name; 1 to 64 letters, digits, - and _.", "treatment")]
    weight: Annotated[
        float,
        doc(
            "Its share of the experiment's units; the weights sum to 1.", 0.5, minimum=0, maximum=1
        ),
    ] = 0.0
    policy: Annotated[
        str, doc("The policy that decides; empty for the one that serves.", "eagle")
    ] = ""
    parameters: Annotated[dict[str, Any], doc("The policy's parameters.", {"explore": 0.1})] = {}
    arm: Annotated[str, doc("One arm always, in place of a policy.", "")] = ""
    learning: Annotated[
        str,
        doc(
            "`isolated`: from its own units only; `shared`: from all traffic.",
            "isolated",
            enum=list(LEARNING),
        ),
    ] = "isolated"
    begin: Annotated[
        str,
        doc(
            "`snapshot`: start with what the whole log teaches; `nothing`: start untrained.",
            "snapshot",
            enum=["snapshot", "nothing"],
        ),
    ] = "snapshot"
    shadow: Annotated[
        bool, doc("Decide on every query of the audience without being served.", False)
    ] = False


class Audience(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    rename=IN_THE_LOG,
):
    """Whose queries take part; an empty list allows all. callers: ids of API keys."""

    tenants: Annotated[tuple[str, ...], doc("Only these tenants; empty for all.", ["acme"])] = ()
    callers: Annotated[
        tuple[str, ...], doc("Only these API keys, by id; empty for all.", ["web"])
    ] = ()
    min_tokens: int = 0
    max_tokens: int | None = None


class Metric(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """A number of the user's own, sent with rewards as `metrics`; from `low` to `high`."""

    name: Annotated[str, doc("Its name, as sent in `metrics` of a reward.", "thumbs")]
    low: Annotated[float, doc("The least value.", 0.0)] = 0.0
    high: Annotated[float, doc("The greatest value.", 1.0)] = 1.0
    lower_is_better: Annotated[bool, doc("Whether a lower value is better.", False)] = False


class Guardrail(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    rename=IN_THE_LOG,
):
    """What a variant must keep, by mean and by a sequence that holds at every look.

    min, max: what the mean must not be below or above. max_regression: how much worse than the
    control's mean it may be. Exactly one of the three. The range of values is the metric's; `high`
    bounds cost_usd and latency_s, and what is above counts as `high`.
    """

    metric: Annotated[str, doc("The metric that is guarded.", "quality")]
    min: float | None = None
    max: float | None = None
    max_regression: float | None = None
    high: Annotated[
        float | None,
        doc("Upper bound of cost_usd and latency_s: higher values count as this.", 0.1),
    ] = None


class Step(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One step of a ramp: the share, kept until as many new units and hours have passed.

    approve: and until a person sets the next step's share; nothing goes on by itself.
    """

    share: Annotated[float, doc("Share of the units that takes part.", 0.1, minimum=0, maximum=1)]
    units: Annotated[int, doc("New units after which the step ends.", 200, minimum=0)] = 0
    hours: Annotated[
        float, doc("Hours after which the step ends.", 24.0, minimum=0, maximum=100000)
    ] = 0.0
    approve: Annotated[bool, doc("Wait for a person to set the next share.", False)] = False


class Experiment(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    dict=True,
):
    """An experiment as it is configured.

    route: whose decisions it is about, "" for the default one.
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

    id: Annotated[str, doc("Its name; 1 to 64 letters, digits, - and _.", "cheaper-models")]
    variants: Annotated[tuple[Variant, ...], doc("From 2 to 20; the first is the control.")]
    route: Annotated[
        str, doc("The route whose decisions take part; empty for the default one.", "support-bot")
    ] = ""
    share: Annotated[
        float, doc("Share of the units that takes part.", 1.0, minimum=0, maximum=1)
    ] = 1.0
    unit: Annotated[str, doc("What keeps its variant.", "user", enum=list(UNITS))] = "user"
    audience: Annotated[Audience, doc("Whose queries take part.")] = Audience()
    namespace: Annotated[
        str, doc("Experiments of one namespace share no unit if their slots do not overlap.", "")
    ] = ""
    slots: Annotated[
        tuple[float, float], doc("Its part [from, to) of the namespace.", [0.0, 0.5])
    ] = (0.0, 1.0)
    scheme: Annotated[str, doc("How a unit is hashed.", "native", enum=list(SCHEMES))] = "native"
    salt: Annotated[str, doc("Salt of the hash; the id if empty.", "")] = ""
    split_salt: Annotated[str, doc("Salt of the split into variants; `salt` if empty.", "")] = ""
    sticky: Annotated[
        bool, doc("Whether a unit keeps its first variant when weights change.", False)
    ] = False
    primary: Annotated[str, doc("The metric that decides.", "reward")] = "reward"
    metrics: Annotated[tuple[Metric, ...], doc("Your own metrics; at most 8.")] = ()
    guardrails: Annotated[tuple[Guardrail, ...], doc("What variants must keep; at most 20.")] = ()
    ramp: Annotated[tuple[Step, ...], doc("Shares to go through, each above the last.")] = ()
    cool_down_s: Annotated[
        float,
        doc(
            "Seconds until a variant that broke a guardrail may return.",
            86_400.0,
            minimum=0,
            maximum=31536000,
        ),
    ] = 86_400.0
    mode: Annotated[
        str, doc("`champion` moves weights towards the better variant.", "fixed", enum=list(MODES))
    ] = "fixed"
    floor: Annotated[
        float, doc("In mode `champion`: no weight falls below this.", 0.05, minimum=MIN_WEIGHT)
    ] = 0.05
    alpha: Annotated[
        float,
        doc(
            "Probability of reporting a difference where there is none.",
            0.05,
            minimum=MIN_ALPHA,
            maximum=0.5,
        ),
    ] = 0.05
    min_units: Annotated[
        int,
        doc(
            "Units of each variant before there is a conclusion.", 100, minimum=2, maximum=10000000
        ),
    ] = 100
    inconclusive: Annotated[
        str,
        doc("What is kept if the end shows no difference.", "control", enum=["control", "best"]),
    ] = "control"
    overrides: Annotated[
        dict[str, str],
        doc("Units that always get a variant, and are not counted.", {"user-17": "control"}),
    ] = {}

    @cached_property
    def served(self) -> tuple[Variant, ...]:
        """The variants that get units."""
        return tuple(one for one in self.variants if not one.shadow)

    @cached_property
    def shadows(self) -> tuple[Variant, ...]:
        """The variants that only decide."""
        return tuple(one for one in self.variants if one.shadow)

    @property
    def control(self) -> Variant:
        """The first variant, beside which the others are judged."""
        return self.served[0]

    @cached_property
    def for_everybody(self) -> bool:
        """Whether the audience allows all queries of the route."""
        return self.audience == Audience()

    @cached_property
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
        """Whether a lower value is better."""
        own = {one.name: one.lower_is_better for one in self.metrics}
        return own.get(metric, metric in ("cost_usd", "latency_s"))


class Rules(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """Rules for all experiments.

    stopped: no unit is in any experiment. holdout_share, holdout_arm: of all units, the share that
    always gets this arm and is in no experiment; `unit` and `salt` say which.
    """

    stopped: Annotated[bool, doc("Whether all experiments are stopped.", False)] = False
    holdout_share: Annotated[
        float,
        doc("Share of all units that is held out of experiments.", 0.01, minimum=0, maximum=0.5),
    ] = 0.0
    holdout_arm: Annotated[str, doc("The arm that held-out units get.", "gpt-5-mini")] = ""
    unit: Annotated[str, doc("What is held out.", "user", enum=["user", "tenant"])] = "user"
    salt: Annotated[str, doc("Salt of the hash.", "holdout")] = "holdout"


def holdout_id(route: str) -> str:
    """The id under which a hold-out is measured, "" being the default route.

    >>> holdout_id(""), holdout_id("bot")
    ('holdout', 'holdout:bot')
    """
    return f"{HOLDOUT}:{route}" if route else HOLDOUT


def is_holdout(experiment: str) -> bool:
    """Whether an id is that of a hold-out; no other experiment's has a colon.

    >>> is_holdout("holdout:bot"), is_holdout("holdouts")
    (True, False)
    """
    return experiment.partition(":")[0] == HOLDOUT


def holdout_of(rules: Rules, route: str = "") -> Experiment:
    """A hold-out as an experiment, to be measured as one. rules: with the share and the arm."""
    held = Variant(key=HOLDOUT, weight=rules.holdout_share, arm=rules.holdout_arm)
    rest = Variant(key=ROUTED, weight=1.0 - rules.holdout_share, learning="shared")
    return Experiment(
        id=holdout_id(route),
        variants=(held, rest),
        route=route,
        unit=rules.unit,
        salt=rules.salt,
    )


def label_of(experiment: str, variant: str) -> str:
    """The name under which a variant's policy learns; no policy's name has a slash."""
    return f"{experiment}/{variant}"
