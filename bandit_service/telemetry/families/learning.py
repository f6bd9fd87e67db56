"""Metrics of what policies learn, how well they predict, and what drifts."""

from __future__ import annotations

from bandit_service.telemetry.families.make import PROPENSITY_BUCKETS, REWARD_BUCKETS, Maker


class LearningFamily:
    """An attribute for each of them."""

    def __init__(self, make: Maker) -> None:
        self.propensity = make.histogram(
            "bandit_decision_propensity",
            "Probability of the drawn arm.",
            PROPENSITY_BUCKETS,
        )
        self.arm_rewards = make.counters(
            "bandit_arm_rewards_total", "Decisions that received a scalar reward, by arm.", ("arm",)
        )
        self.reward_value = make.histogram(
            "bandit_reward_value", "Scalar rewards that policies learned from.", REWARD_BUCKETS
        )
        self.arm_reward_mean = make.gauges(
            "bandit_arm_reward_mean", "Moving mean reward of an arm's own decisions.", ("arm",)
        )
        self.arm_reward_change = make.gauges(
            "bandit_arm_reward_change",
            "Fast moving mean reward of an arm's decisions minus the slow one.",
            ("arm",),
        )
        self.arm_value = make.gauges(
            "bandit_arm_value_estimate",
            "Moving mean reward had every query gone to the arm, estimated from the propensities "
            "(self-normalised inverse weighting).",
            ("arm",),
        )
        self.arm_reward_bound = make.gauges(
            "bandit_arm_reward_bound",
            "Bounds of the 95 % confidence sequence of an arm's mean reward since the process "
            "started; absent before 100 outcomes.",
            ("arm", "bound"),
        )
        self.arm_probability = make.gauges(
            "bandit_arm_probability",
            "Mean propensity of an arm in a policy's share of the last 500 decisions; the least "
            "likely arms are summed as `other`.",
            ("policy", "arm"),
        )
        self.arm_elo = make.gauges(
            "bandit_arm_elo_rating", "Elo of the comparisons since the process started.", ("arm",)
        )
        self.reward_mean = make.gauge("bandit_reward_mean", "Moving mean reward of all decisions.")
        self.policy_value = make.gauges(
            "bandit_policy_value_estimate",
            "Mean reward of a policy's decisions since the process started, with its 95 % "
            "confidence sequence from 100 outcomes on.",
            ("policy", "bound"),
        )
        self.regret = make.gauge(
            "bandit_regret_estimate",
            "Best arm's value estimate minus the mean reward; below 0 if routing beats every "
            "single arm.",
        )
        self.regret_samples = make.gauge(
            "bandit_regret_effective_samples",
            "Effective sample size of the best arm's value estimate; the regret ignores arms below "
            "30.",
        )
        self.propensity_min = make.gauge(
            "bandit_propensity_min",
            "Lowest propensity of an eligible arm in the last 1000 decisions, except those of "
            "variants that fix the arm.",
        )
        self.entropy = make.gauge(
            "bandit_arm_entropy_ratio", "Entropy of the last 1000 drawn arms; 1 for an even split."
        )
        self.quality_error = make.gauge(
            "bandit_quality_error_mean",
            "Mean absolute difference of expected and reported quality.",
        )
        self.quality_bias = make.gauge(
            "bandit_quality_bias_mean", "Mean of expected minus reported quality."
        )
        self.propensity_calibration = make.gauges(
            "bandit_propensity_calibration_p_value",
            "Sequential p-value of a policy's logged propensities matching its draws.",
            ("policy",),
        )
        self.quality_calibration = make.gauge(
            "bandit_quality_calibration_error",
            "Expected calibration error of the quality: mean distance between expected and "
            "reported quality, each averaged over a tenth of the range.",
        )
        self.cost_calibration = make.gauge(
            "bandit_cost_calibration_error_ratio",
            "Expected calibration error of the cost, by powers of two of the expected cost, as "
            "share of the reported cost.",
        )
        self.cost_bias = make.gauge(
            "bandit_cost_bias_ratio", "Expected minus reported cost, as share of the reported cost."
        )
        self.drift_detected = make.counters(
            "bandit_drift_detected_total",
            "Alarms about an arm's residuals.",
            ("arm", "detector", "direction"),
        )
        self.arm_alarms = make.counters(
            "bandit_arm_alarms_total",
            "Alarms of the serving policy itself that an arm changed, after "
            "which it learns the arm again.",
            ("arm",),
        )
        self.query_drift_detected = make.counters(
            "bandit_query_drift_detected_total",
            "Alarms about queries unlike those remembered.",
            ("detector", "direction"),
        )
        self.arm_residual = make.gauges(
            "bandit_arm_residual_mean",
            "Mean of reward minus expected reward over about the newest 100 outcomes of an arm "
            "since its last alarm.",
            ("arm",),
        )
        self.query_distance = make.gauge(
            "bandit_query_distance_mean",
            "Mean of 1 - mean similarity of the recalled queries, over about the newest 100 "
            "queries.",
        )
        self.arm_info = make.gauges(
            "bandit_arm_info",
            "An active arm with its upstream (comma-separated for deployments) and the model's "
            "name there, always 1; both are empty if no upstream serves it.",
            ("arm", "upstream", "model"),
        )
        self.arms_offered = make.gauge("bandit_arms_offered", "Arms that can be chosen.")
        self.learn_failures = make.gauges(
            "bandit_policy_learn_failures",
            "Events that a policy refused to learn from.",
            ("policy",),
        )
        self.uncorrected = make.gauges(
            "bandit_policy_uncorrected", "Corrections that a policy could not apply.", ("policy",)
        )
