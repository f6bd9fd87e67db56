"""What may be concluded of an experiment.

A field that the service left out is None; one that is newer than this client is passed over.
"""

from __future__ import annotations

import msgspec

from bandit_client.answers.catalogue import Calibrated


class Bounds(msgspec.Struct, kw_only=True, frozen=True):
    """An estimate with its interval.

    mean: The estimate.
    low: Lower end of the confidence sequence.
    high: Upper end of the confidence sequence.
    """

    mean: float
    low: float
    high: float


class Difference(msgspec.Struct, kw_only=True, frozen=True):
    """The difference of a variant to the control.

    state: Whether there is enough data to show a number.
    units: Units of the variant behind it.
    mean: The difference of the means.
    low: Lower end of the confidence sequence.
    high: Upper end of the confidence sequence.
    p: A p-value that is valid at every look.
    relative: The difference as a part of the control's mean.
    """

    state: str
    units: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    relative: Bounds | None = None


class Estimate(msgspec.Struct, kw_only=True, frozen=True):
    """The mean of one metric of one variant.

    state: Whether there is enough data to show a number.
    units: Units behind it.
    mean: The mean.
    low: Lower end of the confidence sequence. Null without enough data.
    high: Upper end of the confidence sequence. Null without enough data.
    difference: The difference of this variant to the control.
    """

    state: str
    units: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    difference: Difference | None = None


class Quantile(msgspec.Struct, kw_only=True, frozen=True):
    """One quantile of the latency, seconds.

    value: The quantile.
    low: Lower end of the confidence sequence.
    high: Upper end of the confidence sequence. Null where there is none.
    p: A p-value that it equals the control's, valid at every look.
    """

    value: float
    low: float
    high: float | None
    p: float | None = None


class Latency(msgspec.Struct, kw_only=True, frozen=True):
    """How long the answers of a variant took.

    state: Whether there is enough data to show a number.
    answers: Answers whose latency is known.
    p50: The median.
    p95: 95 % of the answers were below this.
    """

    state: str
    answers: int
    p50: Quantile | None = None
    p95: Quantile | None = None


class OverTime(msgspec.Struct, kw_only=True, frozen=True):
    """The primary metric at one moment.

    ts: The moment, UTC seconds.
    units: Units at that time.
    mean: The mean at that time.
    low: Lower end of the confidence sequence.
    high: Upper end of the confidence sequence.
    difference: Difference to the control; null for the control.
    """

    ts: float
    units: int
    mean: float
    low: float
    high: float
    difference: Bounds | None


class VariantResults(msgspec.Struct, kw_only=True, frozen=True):
    """What is known of one variant.

    key: The variant's key.
    control: Whether the others are compared with it.
    decides: The arm or policy that decides.
    learning: What its policy learns from: isolated, shared or nothing.
    weight: Its share of the units now.
    held: Whether a guardrail stopped its traffic.
    units: Units assigned to it.
    mixed_units: Units that also had another variant.
    decisions: Decisions made for it.
    rewards: Rewards that came for them.
    enough: Whether it has the units that `min_units` requires.
    metrics: Each metric, by name.
    latency: How long its answers took.
    calibration: How well its propensities match its draws.
    over_time: The primary metric over time.
    difference: The difference of the primary metric to the control's.
    """

    key: str
    control: bool
    decides: str
    learning: str
    weight: float
    held: bool
    units: int
    mixed_units: int
    decisions: int
    rewards: int
    enough: bool
    metrics: dict[str, Estimate]
    latency: Latency
    calibration: Calibrated
    over_time: list[OverTime]
    difference: Difference | None = None


class ShadowResults(msgspec.Struct, kw_only=True, frozen=True):
    """What is known of a variant that decides without being served.

    key: The variant's key.
    decides: The policy that decides.
    learning: What it learns from.
    decisions: Decisions it made.
    rewards: Rewards that came for those queries.
    agreement: Share of decisions with the same arm as was served.
    cost_difference_usd: Expected USD per decision minus the served decisions'.
    effective_units: How many outcomes the estimate is worth.
    mean_weight: Mean importance weight; about 1 if all is well.
    state: Whether there is an estimate.
    reward: Estimated reward, had it been served.
    low: Lower end of its 95 % interval.
    high: Upper end of its 95 % interval.
    why: Why there is no estimate.
    """

    key: str
    decides: str
    learning: str
    decisions: int
    rewards: int
    agreement: float | None = None
    cost_difference_usd: float | None = None
    effective_units: float | None = None
    mean_weight: float | None = None
    state: str
    reward: float | None = None
    low: float | None = None
    high: float | None = None
    why: str | None = None


class Split(msgspec.Struct, kw_only=True, frozen=True):
    """Whether the split between variants matches their weights.

    state: `wrong`: sample-ratio mismatch; do not trust any result.
    sequential_p: A p-value that is valid at every look.
    chi_square_p: The p-value of a chi-square test now.
    """

    state: str
    sequential_p: float | None
    chi_square_p: float | None


class GuardrailResults(msgspec.Struct, kw_only=True, frozen=True):
    """The state of one guardrail for one variant.

    metric: The guarded metric.
    min: The mean must not be below this.
    max: The mean must not be above this.
    max_regression: How much worse than the control the mean may be.
    variant: The variant.
    state: `open`: not yet shown to be kept or broken.
    why: The state in words.
    held: Whether the variant's traffic is stopped.
    low: Lower end of the confidence sequence. Null before there is one.
    high: Upper end of the confidence sequence. Null before there is one.
    """

    metric: str
    min: float | None = None
    max: float | None = None
    max_regression: float | None = None
    variant: str
    state: str
    why: str
    held: bool
    low: float | None
    high: float | None


class Ramp(msgspec.Struct, kw_only=True, frozen=True):
    """The present step of the ramp.

    step: The step it is at, from 0; null if at none.
    steps: Steps it has.
    """

    step: int | None
    steps: int


class Saved(msgspec.Struct, kw_only=True, frozen=True):
    """What one variant saves.

    state: Whether there is enough data to show a number.
    usd_per_decision: USD saved per decision.
    low: Lower end of the confidence sequence.
    high: Upper end of the confidence sequence.
    usd_so_far: USD saved so far.
    """

    state: str
    usd_per_decision: float | None = None
    low: float | None = None
    high: float | None = None
    usd_so_far: float | None = None


class Cost(msgspec.Struct, kw_only=True, frozen=True):
    """What the variants save, and compared with what.

    kind: `measured` against the hold-out, else an estimate.
    against: What they are compared with.
    saved: By variant.
    """

    kind: str
    against: str
    saved: dict[str, Saved]


class Change(msgspec.Struct, kw_only=True, frozen=True):
    """One change of the experiment.

    ts: When, UTC seconds.
    status: The status from then on.
    by: The key that made it, or `service`.
    why: The reason that was given.
    """

    ts: float
    status: str
    by: str
    why: str


class ExperimentResults(msgspec.Struct, kw_only=True, frozen=True):
    """What may be concluded of an experiment now.

    id: The experiment.
    status: Its status.
    state: Whether a difference is shown.
    conclusion: The conclusion in a sentence.
    caveats: What limits the conclusion.
    begun: When it began, UTC seconds.
    ended: When it ended; null while it runs.
    winner: The variant that was kept.
    route: The route whose decisions take part; empty for the default one.
    primary: The metric that decides.
    unit: What keeps its variant.
    share: Share of the units that takes part.
    mode: `fixed` weights, or `champion`.
    alpha: Probability of reporting a difference where there is none.
    min_units: Units of each variant before there is a conclusion.
    estimator: How means are estimated.
    seeded_at_event: The event up to which the variants' policies learned at the start.
    mixed_units: Units that had more than one variant.
    uncounted_decisions: Decisions that count for no variant, such as overridden units'.
    variants: Each served variant, the control first.
    shadows: Each shadow.
    split: Whether the split matches the weights.
    guardrails: Each guardrail of each variant.
    ramp: The present step of the ramp.
    cost: What the variants save.
    changes: Who changed it, when and why.
    """

    id: str
    status: str
    state: str
    conclusion: str
    caveats: list[str]
    begun: float | None
    ended: float | None
    winner: str | None
    route: str
    primary: str
    unit: str
    share: float
    mode: str
    alpha: float
    min_units: int
    estimator: str
    seeded_at_event: int
    mixed_units: int
    uncounted_decisions: int
    variants: list[VariantResults]
    shadows: list[ShadowResults]
    split: Split
    guardrails: list[GuardrailResults]
    ramp: Ramp
    cost: Cost
    changes: list[Change]
