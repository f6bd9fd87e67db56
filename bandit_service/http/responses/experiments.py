"""An experiment with its state, and what other policies would have earned on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from bandit_service.core.experiments.public import PublicExperiment
from bandit_service.core.experiments.spec import HOLDOUT, STATUSES, Rules
from bandit_service.core.fields import doc


class ExperimentStanding(msgspec.Struct, kw_only=True, frozen=True):
    """An experiment: its description and its state."""

    id: Annotated[str, doc("The experiment.", "cheaper-models")]
    status: Annotated[str, doc("Its status.", "running", enum=[*STATUSES, HOLDOUT])]
    experiment: Annotated[PublicExperiment, doc("How it is configured; defaults are left out.")]
    begun: Annotated[float | None, doc("When it began, UTC seconds.", 1764000000.0)]
    ended: Annotated[float | None, doc("When it ended; null while it runs.", None)]
    winner: Annotated[str | None, doc("The variant that was kept.", None)]
    decisions: Annotated[int, doc("Decisions made in it.", 1_900)]
    units: Annotated[int, doc("Units that take part.", 620)]
    held: Annotated[
        Mapping[str, float],
        doc(
            "Variants stopped by a guardrail, with the time of their return.",
            {"treatment": 1764432000.0},
        ),
    ]
    conclusion: Annotated[
        str, doc("The conclusion in a sentence.", "treatment is better than control.")
    ]


class Experiments(msgspec.Struct, kw_only=True, frozen=True):
    """Every experiment, and the rules over all."""

    experiments: Annotated[list[ExperimentStanding], doc("Those that the key may see.")]
    rules: Annotated[Rules, doc("The kill switch and the hold-out; defaults are left out.")]


class Interval(msgspec.Struct, kw_only=True, frozen=True):
    """An interval that holds at every look."""

    low: Annotated[float, doc("Its lower end.", 0.58)]
    high: Annotated[float, doc("Its upper end.", 0.71)]


class Estimated(msgspec.Struct, kw_only=True, frozen=True):
    """An estimate with its bootstrap interval."""

    value: Annotated[float, doc("The estimate.", 0.64)]
    stderr: Annotated[float, doc("Its standard error.", 0.02)]
    low: Annotated[float, doc("Lower end of the interval.", 0.6)]
    high: Annotated[float, doc("Upper end of the interval.", 0.68)]


class BesideLog(msgspec.Struct, kw_only=True, frozen=True):
    """The candidate's value minus what the log earned."""

    difference: Annotated[float, doc("The difference.", 0.03)]
    low: Annotated[float, doc("Lower end of the interval.", 0.01)]
    high: Annotated[float, doc("Upper end of the interval.", 0.05)]


class Log(msgspec.Struct, kw_only=True, frozen=True):
    """The decisions that candidates are judged on."""

    decisions: Annotated[int, doc("Decisions read.", 20_000)]
    left_out: Annotated[
        dict[str, int], doc("Decisions not used, by reason.", {"of other experiments": 40})
    ]
    used: Annotated[int, doc("Decisions used.", 18_200)]
    without_outcome: Annotated[int, doc("Decisions without an outcome.", 1_760)]
    by_default: Annotated[int, doc("Outcomes that are the default for silence.", 0)]
    with_fallback: Annotated[int, doc("Decisions made by a fallback.", 12)]
    units: Annotated[int, doc("Units behind them.", 600)]
    value: Annotated[Estimated | None, doc("What the log itself earned.")]


class Exploration(msgspec.Struct, kw_only=True, frozen=True):
    """How much the log explores, which bounds what can be estimated."""

    share: Annotated[float, doc("Share of decisions drawn to explore.", 0.05)]
    per_arm: Annotated[float, doc("Exploring decisions per arm, n·ε/K.", 180.0)]
    floor: Annotated[str, doc("The exploration floor of the candidates.", "0.01")]


class Overlapping(msgspec.Struct, kw_only=True, frozen=True):
    """How much of the log speaks for a candidate."""

    effective_size: Annotated[float, doc("How many outcomes the estimate is worth.", 2_400.0)]
    mean_weight: Annotated[float, doc("Mean importance weight; about 1 if all is well.", 1.01)]
    most_weight: Annotated[float, doc("The largest weight.", 8.2)]
    most_share: Annotated[float, doc("The largest weight's share of all.", 0.002)]
    impossible: Annotated[float, doc("Outcomes to which the log gave no chance, by weight.", 0.0)]
    explored_per_arm: Annotated[float, doc("Exploring decisions per arm.", 180.0)]


class DoublyRobust(msgspec.Struct, kw_only=True, frozen=True):
    """Whether a doubly robust estimate is given."""

    state: Annotated[
        Literal["shown", "refused", "not enough data"], doc("Whether it is given.", "shown")
    ]
    why: Annotated[str | None, doc("Why it is not.", None)]
    decisions_needed: Annotated[
        float | None, doc("Decisions that the log would need for it.", 4_000)
    ]


class Candidate(msgspec.Struct, kw_only=True, frozen=True):
    """What one candidate would have earned, or why that cannot be estimated."""

    policy: Annotated[str, doc("The policy.", "eagle")]
    parameters: Annotated[dict[str, Any], doc("Its parameters.", {"explore": 0.1})]
    failures: Annotated[int, doc("Decisions on which it failed and uniform decided instead.", 0)]
    state: Annotated[
        Literal["shown", "refused", "not enough data"],
        doc("Whether there is an estimate.", "shown"),
    ]
    why: Annotated[str | None, doc("Why there is no value.", None)]
    overlap: Annotated[Overlapping, doc("How much of the log speaks for it.")]
    doubly_robust: Annotated[DoublyRobust, doc("Whether a doubly robust estimate is given.")]
    estimates: Annotated[dict[str, Estimated] | UnsetType, doc("The estimates, by estimator.")] = (
        UNSET
    )
    sequence: Annotated[
        Interval | UnsetType | None, doc("An interval that holds at every look.")
    ] = UNSET
    beside_log: Annotated[
        BesideLog | UnsetType, doc("The candidate's value minus what the log earned.")
    ] = UNSET


class WhatIf(msgspec.Struct, kw_only=True, frozen=True):
    """What other policies would have earned on logged decisions."""

    metric: Annotated[str, doc("The metric that is estimated.", "reward")]
    experiment: Annotated[
        str | None, doc("Whose decisions they are judged on; null for all.", "cheaper-models")
    ]
    route: Annotated[
        str | UnsetType,
        doc("The route whose decisions they are; absent for the default one.", "support-bot"),
    ] = UNSET
    since: Annotated[float | None, doc("Decisions from here on, UTC seconds.", None)]
    until: Annotated[float | None, doc("Decisions up to here.", None)]
    learning: Annotated[str, doc("How the candidates learn.", "along the log")]
    alpha: Annotated[float, doc("1 minus the confidence of the intervals.", 0.05)]
    clip: Annotated[float, doc("The largest weight of clipped estimators.", 10.0)]
    log: Annotated[Log, doc("The decisions they are judged on.")]
    exploration: Annotated[Exploration, doc("How much the log explores.")]
    policies: Annotated[list[Candidate], doc("Each candidate.")]
