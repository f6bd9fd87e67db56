"""The results of an experiment as structs, for the API, the command line and the page.

A field that is `UNSET` is left out.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from bandit_service.core.fields import doc

State: TypeAlias = Literal["shown", "not enough data"]
_STATE = doc("Whether there is enough data to show a number.", "shown")
_LOW, _HIGH = "Lower end of the confidence sequence.", "Upper end of the confidence sequence."


class Calibrated(msgspec.Struct, kw_only=True, frozen=True):
    """How well recorded propensities agree with what was drawn."""

    state: Annotated[State, _STATE]
    decisions: Annotated[int, doc("Decisions that were drawn at random.", 2_400)]
    p_value: Annotated[
        float | UnsetType, doc("Valid at any time; small if they disagree.", 0.7)
    ] = UNSET
    impossible: Annotated[int | UnsetType, doc("Draws of an arm with probability 0.", 0)] = UNSET


class Bounds(msgspec.Struct, kw_only=True, frozen=True):
    """An estimate with its interval."""

    mean: Annotated[float, doc("The estimate.", 0.05)]
    low: Annotated[float, doc(_LOW, 0.01)]
    high: Annotated[float, doc(_HIGH, 0.09)]


class Difference(msgspec.Struct, kw_only=True):
    """The difference of a variant to the control."""

    state: Annotated[State, _STATE]
    units: Annotated[int, doc("Units of the variant behind it.", 310)]
    mean: Annotated[float | UnsetType, doc("The difference of the means.", 0.04)] = UNSET
    low: Annotated[float | UnsetType | None, doc(_LOW, 0.01)] = UNSET
    high: Annotated[float | UnsetType | None, doc(_HIGH, 0.07)] = UNSET
    p: Annotated[float | UnsetType, doc("A p-value that is valid at every look.", 0.003)] = UNSET
    relative: Annotated[
        Bounds | UnsetType, doc("The difference as a part of the control's mean.")
    ] = UNSET


class Estimate(msgspec.Struct, kw_only=True):
    """The mean of one metric of one variant."""

    state: Annotated[State, _STATE]
    units: Annotated[int, doc("Units behind it.", 310)]
    mean: Annotated[float | UnsetType, doc("The mean.", 0.82)] = UNSET
    low: Annotated[float | UnsetType | None, doc(_LOW + " Null without enough data.", 0.79)] = UNSET
    high: Annotated[float | UnsetType | None, doc(_HIGH + " Null without enough data.", 0.85)] = (
        UNSET
    )
    difference: Annotated[
        Difference | UnsetType, doc("The difference of this variant to the control.")
    ] = UNSET


class Quantile(msgspec.Struct, kw_only=True):
    """One quantile of the latency, seconds."""

    value: Annotated[float, doc("The quantile.", 1.4)]
    low: Annotated[float, doc(_LOW, 1.2)]
    high: Annotated[float | None, doc(_HIGH + " Null where there is none.", 1.7)]
    p: Annotated[
        float | UnsetType, doc("A p-value that it equals the control's, valid at every look.", 0.2)
    ] = UNSET


class Latency(msgspec.Struct, kw_only=True):
    """How long the answers of a variant took."""

    state: Annotated[State, _STATE]
    answers: Annotated[int, doc("Answers whose latency is known.", 900)]
    p50: Annotated[Quantile | UnsetType, doc("The median.")] = UNSET
    p95: Annotated[Quantile | UnsetType, doc("95 % of the answers were below this.")] = UNSET


class OverTime(msgspec.Struct, kw_only=True):
    """The primary metric as it stood at one moment."""

    ts: Annotated[float, doc("The moment, UTC seconds.", 1764345600.0)]
    units: Annotated[int, doc("Units at that time.", 120)]
    mean: Annotated[float, doc("The mean at that time.", 0.8)]
    low: Annotated[float, doc(_LOW, 0.74)]
    high: Annotated[float, doc(_HIGH, 0.86)]
    difference: Annotated[Bounds | None, doc("Difference to the control; null for the control.")]


class VariantResults(msgspec.Struct, kw_only=True):
    """What is known of one variant."""

    key: Annotated[str, doc("The variant's key.", "treatment")]
    control: Annotated[bool, doc("Whether the others are compared with it.", False)]
    decides: Annotated[str, doc("The arm or policy that decides.", "metallm")]
    learning: Annotated[
        str, doc("What its policy learns from: isolated, shared or nothing.", "isolated")
    ]
    weight: Annotated[float, doc("Its share of the units now.", 0.5)]
    held: Annotated[bool, doc("Whether a guardrail stopped its traffic.", False)]
    units: Annotated[int, doc("Units assigned to it.", 310)]
    mixed_units: Annotated[int, doc("Units that also had another variant.", 0)]
    decisions: Annotated[int, doc("Decisions made for it.", 940)]
    rewards: Annotated[int, doc("Rewards that came for them.", 900)]
    enough: Annotated[bool, doc("Whether it has the units that `min_units` requires.", True)]
    metrics: Annotated[dict[str, Estimate], doc("Each metric, by name.")]
    latency: Annotated[Latency, doc("How long its answers took.")]
    calibration: Annotated[Calibrated, doc("How well its propensities match its draws.")]
    over_time: Annotated[list[OverTime], doc("The primary metric over time.")]
    difference: Annotated[
        Difference | UnsetType, doc("The difference of the primary metric to the control's.")
    ] = UNSET


class ShadowResults(msgspec.Struct, kw_only=True):
    """What is known of a variant that decides without being served."""

    key: Annotated[str, doc("The variant's key.", "next-policy")]
    decides: Annotated[str, doc("The policy that decides.", "eagle")]
    learning: Annotated[str, doc("What it learns from.", "shared")]
    decisions: Annotated[int, doc("Decisions it made.", 2_000)]
    rewards: Annotated[int, doc("Rewards that came for those queries.", 1_900)]
    agreement: Annotated[
        float | UnsetType, doc("Share of decisions with the same arm as was served.", 0.71)
    ] = UNSET
    cost_difference_usd: Annotated[
        float | UnsetType, doc("Expected USD per decision minus the served decisions'.", -0.0002)
    ] = UNSET
    effective_units: Annotated[
        float | UnsetType, doc("How many outcomes the estimate is worth.", 420.0)
    ] = UNSET
    mean_weight: Annotated[
        float | UnsetType, doc("Mean importance weight; about 1 if all is well.", 1.02)
    ] = UNSET
    state: Annotated[
        Literal["shown", "refused", "not enough data"],
        doc("Whether there is an estimate.", "shown"),
    ]
    reward: Annotated[float | UnsetType, doc("Estimated reward, had it been served.", 0.64)] = UNSET
    low: Annotated[float | UnsetType, doc("Lower end of its 95 % interval.", 0.6)] = UNSET
    high: Annotated[float | UnsetType, doc("Upper end of its 95 % interval.", 0.68)] = UNSET
    why: Annotated[
        str | UnsetType, doc("Why there is no estimate.", "too few outcomes overlap")
    ] = UNSET


class Split(msgspec.Struct, kw_only=True, frozen=True):
    """Whether the split between variants matches their weights."""

    state: Annotated[
        str,
        doc(
            "`wrong`: sample-ratio mismatch; do not trust any result.",
            "as configured",
            enum=["as configured", "wrong", "not enough data"],
        ),
    ]
    sequential_p: Annotated[float | None, doc("A p-value that is valid at every look.", 0.8)]
    chi_square_p: Annotated[float | None, doc("The p-value of a chi-square test now.", 0.6)]


class GuardrailResults(msgspec.Struct, kw_only=True):
    """How one variant stands with one guardrail."""

    metric: Annotated[str, doc("The guarded metric.", "quality")]
    min: Annotated[float | UnsetType, doc("The mean must not be below this.", 0.7)] = UNSET
    max: Annotated[float | UnsetType, doc("The mean must not be above this.", 0.01)] = UNSET
    max_regression: Annotated[
        float | UnsetType, doc("How much worse than the control the mean may be.", 0.05)
    ] = UNSET
    variant: Annotated[str, doc("The variant.", "treatment")]
    state: Annotated[
        str,
        doc(
            "`open`: not yet shown to be kept or broken.",
            "kept",
            enum=["broken", "kept", "open", "not enough data"],
        ),
    ]
    why: Annotated[str, doc("The state in words.", "quality is at least 0.74")]
    held: Annotated[bool, doc("Whether the variant's traffic is stopped.", False)]
    low: Annotated[float | None, doc(_LOW + " Null before there is one.", 0.74)]
    high: Annotated[float | None, doc(_HIGH + " Null before there is one.", 0.88)]


class Ramp(msgspec.Struct, kw_only=True, frozen=True):
    """The present step of the ramp."""

    step: Annotated[int | None, doc("The step it is at, from 0; null if at none.", 1)]
    steps: Annotated[int, doc("Steps it has.", 3)]


class Saved(msgspec.Struct, kw_only=True, frozen=True):
    """What one variant saves."""

    state: Annotated[State, _STATE]
    usd_per_decision: Annotated[float | UnsetType, doc("USD saved per decision.", 0.0004)] = UNSET
    low: Annotated[float | UnsetType, doc(_LOW, 0.0001)] = UNSET
    high: Annotated[float | UnsetType, doc(_HIGH, 0.0007)] = UNSET
    usd_so_far: Annotated[float | UnsetType, doc("USD saved so far.", 0.38)] = UNSET


class Cost(msgspec.Struct, kw_only=True, frozen=True):
    """What the variants save, and compared with what."""

    kind: Annotated[
        Literal["measured", "estimate"],
        doc("`measured` against the hold-out, else an estimate.", "measured"),
    ]
    against: Annotated[str, doc("What they are compared with.", "the hold-out")]
    saved: Annotated[dict[str, Saved], doc("By variant.")]


class Change(msgspec.Struct, kw_only=True, frozen=True):
    """One change of the experiment."""

    ts: Annotated[float, doc("When, UTC seconds.", 1764345600.0)]
    status: Annotated[str, doc("The status from then on.", "running")]
    by: Annotated[str, doc("The key that made it, or `service`.", "ops")]
    why: Annotated[str, doc("The reason that was given.", "first look is fine")]


class ExperimentResults(msgspec.Struct, kw_only=True, frozen=True):
    """What may be concluded of an experiment now."""

    id: Annotated[str, doc("The experiment.", "cheaper-models")]
    status: Annotated[str, doc("Its status.", "running")]
    state: Annotated[
        str,
        doc(
            "Whether a difference is shown.",
            "shown",
            enum=["not begun", "wrong split", "not enough data", "shown", "not shown"],
        ),
    ]
    conclusion: Annotated[
        str, doc("The conclusion in a sentence.", "treatment is better than control.")
    ]
    caveats: Annotated[list[str], doc("What limits the conclusion.", ["mixed units: 3 of 620"])]
    begun: Annotated[float | None, doc("When it began, UTC seconds.", 1764000000.0)]
    ended: Annotated[float | None, doc("When it ended; null while it runs.", None)]
    winner: Annotated[str | None, doc("The variant that was kept.", None)]
    route: Annotated[
        str, doc("The route whose decisions take part; empty for the default one.", "")
    ]
    primary: Annotated[str, doc("The metric that decides.", "reward")]
    unit: Annotated[str, doc("What keeps its variant.", "user")]
    share: Annotated[float, doc("Share of the units that takes part.", 1.0)]
    mode: Annotated[str, doc("`fixed` weights, or `champion`.", "fixed")]
    alpha: Annotated[float, doc("Probability of reporting a difference where there is none.", 0.05)]
    min_units: Annotated[int, doc("Units of each variant before there is a conclusion.", 100)]
    estimator: Annotated[
        str, doc("How means are estimated.", "ratio means over units (delta method)")
    ]
    seeded_at_event: Annotated[
        int, doc("The event up to which the variants' policies learned at the start.", 9_120)
    ]
    mixed_units: Annotated[int, doc("Units that had more than one variant.", 3)]
    uncounted_decisions: Annotated[
        int, doc("Decisions that count for no variant, such as overridden units'.", 0)
    ]
    variants: Annotated[list[VariantResults], doc("Each served variant, the control first.")]
    shadows: Annotated[list[ShadowResults], doc("Each shadow.")]
    split: Annotated[Split, doc("Whether the split matches the weights.")]
    guardrails: Annotated[list[GuardrailResults], doc("Each guardrail of each variant.")]
    ramp: Annotated[Ramp, doc("The present step of the ramp.")]
    cost: Annotated[Cost, doc("What the variants save.")]
    changes: Annotated[list[Change], doc("Who changed it, when and why.")]
