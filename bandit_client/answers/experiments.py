"""Experiments: their configuration and state.

A field that the service left out is None; fields newer than this client are ignored.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Variant(msgspec.Struct, kw_only=True, frozen=True):
    """One side of an experiment; the first of an experiment is its control.

    key: Its name; 1 to 64 letters, digits, - and _.
    weight: Its share of the experiment's units; the weights sum to 1.
    policy: The policy that decides; empty for the one that serves.
    parameters: The policy's parameters.
    arm: One arm always, in place of a policy.
    learning: `isolated`: from its own units only; `shared`: from all traffic.
    begin: `snapshot`: start with what the whole log teaches; `nothing`: start untrained.
    shadow: Decide on every query of the audience without being served.
    """

    key: str
    weight: float = 0.0
    policy: str = ""
    parameters: dict[str, Any] = {}
    arm: str = ""
    learning: str = "isolated"
    begin: str = "snapshot"
    shadow: bool = False


class Audience(msgspec.Struct, kw_only=True, frozen=True):
    """Whose queries take part; an empty list allows all.

    tenants: Only these tenants; empty for all.
    callers: Only these API keys, by id; empty for all.
    min_tokens: Only queries of at least this many tokens.
    max_tokens: Only queries of at most this many tokens.
    """

    tenants: list[str] = []
    callers: list[str] = []
    min_tokens: int = 0
    max_tokens: int | None = None


class Metric(msgspec.Struct, kw_only=True, frozen=True):
    """A number of the user's own, sent with rewards as `metrics`; from `low` to `high`.

    name: Its name, as sent in `metrics` of a reward.
    low: The least value.
    high: The greatest value.
    lower_is_better: Whether a lower value is better.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    lower_is_better: bool = False


class Guardrail(msgspec.Struct, kw_only=True, frozen=True):
    """What a variant must keep, by mean and by a sequence that holds at every look.

    metric: The metric that is guarded.
    min: The mean must not be below this.
    max: The mean must not be above this.
    max_regression: How much worse than the control's mean it may be.
    high: Upper bound of cost_usd and latency_s: higher values count as this.
    """

    metric: str
    min: float | None = None
    max: float | None = None
    max_regression: float | None = None
    high: float | None = None


class Step(msgspec.Struct, kw_only=True, frozen=True):
    """One step of a ramp: the share, kept until as many new units and hours have passed.

    share: Share of the units that takes part.
    units: New units after which the step ends.
    hours: Hours after which the step ends.
    approve: Wait for a person to set the next share.
    """

    share: float
    units: int = 0
    hours: float = 0.0
    approve: bool = False


class ExperimentSpec(msgspec.Struct, kw_only=True, frozen=True):
    """An experiment as it is configured.

    id: Its name; 1 to 64 letters, digits, - and _.
    variants: From 2 to 20; the first is the control.
    route: The route whose decisions take part; empty for the default one.
    share: Share of the units that takes part.
    unit: What keeps its variant.
    audience: Whose queries take part.
    namespace: Experiments of one namespace share no unit if their slots do not overlap.
    slots: Its part [from, to) of the namespace.
    scheme: How a unit is hashed.
    salt: Salt of the hash; the id if empty.
    split_salt: Salt of the split into variants; `salt` if empty.
    sticky: Whether a unit keeps its first variant when weights change.
    primary: The metric that decides.
    metrics: Your own metrics; at most 8.
    guardrails: What variants must keep; at most 20.
    ramp: Shares to go through, each above the last.
    cool_down_s: Seconds until a variant that broke a guardrail may return.
    mode: `champion` moves weights towards the better variant.
    floor: In mode `champion`: no weight falls below this.
    alpha: Probability of reporting a difference where there is none.
    min_units: Units of each variant before there is a conclusion.
    inconclusive: What is kept if the end shows no difference.
    overrides: Units that always get a variant, and are not counted.
    why: The reason, recorded in the log; at most 1,000 characters.
    """

    id: str | None = None
    variants: list[Variant]
    route: str = ""
    share: float = 1.0
    unit: str = "user"
    audience: Audience | None = None
    namespace: str = ""
    slots: tuple[float, float] = (0.0, 1.0)
    scheme: str = "native"
    salt: str = ""
    split_salt: str = ""
    sticky: bool = False
    primary: str = "reward"
    metrics: list[Metric] = []
    guardrails: list[Guardrail] = []
    ramp: list[Step] = []
    cool_down_s: float = 86400.0
    mode: str = "fixed"
    floor: float = 0.05
    alpha: float = 0.05
    min_units: int = 100
    inconclusive: str = "control"
    overrides: dict[str, str] = {}
    why: str | None = None


class Experiment(msgspec.Struct, kw_only=True, frozen=True):
    """An experiment: its configuration and state.

    id: The experiment.
    status: Its status.
    experiment: How it is configured; defaults are left out.
    begun: When it began, UTC seconds.
    ended: When it ended; null while it runs.
    winner: The variant that was kept.
    decisions: Decisions made in it.
    units: Units that take part.
    held: Variants stopped by a guardrail, with the time of their return.
    conclusion: The conclusion in a sentence.
    """

    id: str
    status: str
    experiment: ExperimentSpec
    begun: float | None
    ended: float | None
    winner: str | None
    decisions: int
    units: int
    held: dict[str, float]
    conclusion: str


class Rules(msgspec.Struct, kw_only=True, frozen=True):
    """The rules over all experiments.

    stopped: Whether all experiments are stopped.
    holdout_share: Share of all units that is held out of experiments.
    holdout_arm: The arm that held-out units get.
    unit: What is held out.
    salt: Salt of the hash.
    why: The reason, recorded in the log; at most 1,000 characters.
    """

    stopped: bool = False
    holdout_share: float = 0.0
    holdout_arm: str = ""
    unit: str = "user"
    salt: str = "holdout"
    why: str | None = None


class Experiments(msgspec.Struct, kw_only=True, frozen=True):
    """Every experiment, and the rules over all.

    experiments: Those that the key may see.
    rules: The kill switch and the hold-out; defaults are left out.
    """

    experiments: list[Experiment]
    rules: Rules
