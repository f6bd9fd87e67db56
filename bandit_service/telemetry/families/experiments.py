"""Metrics of experiments and their variants."""

from __future__ import annotations

from bandit_service.telemetry.families.make import Maker

_BY_VARIANT = ("experiment", "variant")


class ExperimentFamily:
    """An attribute for each of them."""

    def __init__(self, make: Maker) -> None:
        self.experiment_decisions = make.counters(
            "bandit_experiment_decisions_total",
            "Decisions by experiment and variant, including shadows.",
            _BY_VARIANT,
        )
        self.experiment_units = make.gauges(
            "bandit_experiment_units", "Units assigned to a variant.", _BY_VARIANT
        )
        self.experiment_weight = make.gauges(
            "bandit_experiment_weight",
            "Share of the experiment's units that a variant gets now.",
            _BY_VARIANT,
        )
        self.experiment_srm = make.gauges(
            "bandit_experiment_srm_p_value",
            "Sequential p-value of the split matching the configured weights.",
            ("experiment",),
        )
        self.experiment_effect = make.gauges(
            "bandit_experiment_effect",
            "Difference of the primary metric to the control's: low, mean and "
            "high of its confidence sequence; absent while there is not enough data.",
            (*_BY_VARIANT, "bound"),
        )
        self.experiment_guardrails = make.gauges(
            "bandit_experiment_guardrail_state",
            "1 if a variant broke a guardrail, otherwise 0.",
            _BY_VARIANT,
        )
