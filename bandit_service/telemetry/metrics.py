"""Every metric once: its name, help text, labels and buckets, as an attribute of `Metrics`.

Labels are bounded: arms by MOST_ARMS, their deployments by MOST_DEPLOYMENTS, routes by
MOST_LABELLED_ROUTES, experiments by MOST_EXPERIMENTS (`other` beyond), everything else by the code
or the configuration. Never a user's text or id.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

MOST_ARMS = 50
MOST_LABELLED_ROUTES = 40
"""Arms with a label of their own."""

MOST_ESTIMATED = 15
"""How many arms have estimates in addition to their mean reward: those with the most recent
outcomes.
"""

MOST_PROBABILITIES = 30
"""Probabilities of arms, of all policies together."""

MOST_DEPLOYMENTS = 20
"""Deployments with series of their own, of all arms together."""
MOST_EXPERIMENTS, MOST_VARIANTS = 10, 20
"""Experiments, and variants of all of them together, with a label of their own."""

OTHER = "other"

# A decide on a given embedding is to take about a millisecond and one with text about ten, at the
# 99th percentile; so buckets are dense around these, and end where a client has given up.
STAGE_BUCKETS = (0.0001, 0.0003, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 1.0)
HTTP_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.5, 2.0, 10.0, 60.0)
DISK_BUCKETS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
ANSWER_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
DELAY_BUCKETS = (0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 21_600.0, 86_400.0, 604_800.0)
PROPENSITY_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
REWARD_BUCKETS = (-0.5, -0.1, 0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
RATE_BUCKETS = (1.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
BATCH_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)

M = TypeVar("M", Counter, Gauge, Summary, Histogram)


class Children(Generic[M]):
    """The children of a metric by their label values, each looked up in the metric only once."""

    def __init__(self, metric: M) -> None:
        self._metric: M = metric
        self._children: dict[tuple[str, ...], M] = {}

    def __call__(self, *values: str) -> M:
        """The child with these label values, in the order of the labels."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._metric.labels(*values)
        return child

    def only(self, kept: Iterable[tuple[str, ...]]) -> None:
        """Remove every child but these."""
        for values in self._children.keys() - set(kept):
            self._metric.remove(*values)
            del self._children[values]


@dataclass(frozen=True, slots=True)
class Declared:
    """What of a metric is documented."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]


class Maker:
    """Creates metrics in one registry, and records the declared ones."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.declared: list[Declared] = []

    def counter(self, name: str, text: str) -> Counter:
        """A number that only grows while the process runs."""
        return self._made(Counter, "counter", name, text)

    def counters(self, name: str, text: str, labels: tuple[str, ...]) -> Children[Counter]:
        """The same by labels."""
        return Children(self._made(Counter, "counter", name, text, labels))

    def gauge(self, name: str, text: str) -> Gauge:
        """A value that can go up and down."""
        return self._made(Gauge, "gauge", name, text)

    def gauges(self, name: str, text: str, labels: tuple[str, ...]) -> Children[Gauge]:
        """The same by labels."""
        return Children(self._made(Gauge, "gauge", name, text, labels))

    def summaries(self, name: str, text: str, labels: tuple[str, ...]) -> Children[Summary]:
        """A count and a sum, by labels."""
        return Children(self._made(Summary, "summary", name, text, labels))

    def histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        """Counts by bucket, and a sum."""
        return self._made(Histogram, "histogram", name, text, buckets=buckets)

    def histograms(
        self, name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...]
    ) -> Children[Histogram]:
        """The same by labels."""
        return Children(self._made(Histogram, "histogram", name, text, labels, buckets=buckets))

    def _made(
        self,
        metric: type[M],
        kind: str,
        name: str,
        text: str,
        labels: tuple[str, ...] = (),
        **more: Any,
    ) -> M:
        self.declared.append(Declared(name, kind, text, labels))
        return metric(name, text, labels, registry=self._registry, **more)


_FULLEST = "a budget's fullest account"
_BY_VARIANT = ("experiment", "variant")


class Metrics:
    """Every metric of the service, an attribute each, made in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = Maker(registry)
        self.registry = registry
        self.declared = make.declared
        # --- traffic
        self.http_requests = make.counters(
            "bandit_http_requests_total",
            "HTTP requests by endpoint and status.",
            ("endpoint", "code"),
        )
        self.http_duration = make.histograms(
            "bandit_http_request_duration_seconds",
            "Time from a request's head to the end of its answer.",
            HTTP_BUCKETS,
            ("endpoint",),
        )
        self.requests_rejected = make.counters(
            "bandit_requests_rejected_total",
            "Requests, and items of lists and streams, answered with an error, by its code.",
            ("reason",),
        )
        self.requests_shed = make.counters(
            "bandit_requests_shed_total",
            "Requests shed by reason; `decide` and `outcome` were refused before they were read.",
            ("reason",),
        )
        self.requests_denied = make.counters(
            "bandit_requests_denied_total",
            "Requests rejected by authentication, authorization, or the check of host and "
            "origin, by reason.",
            ("reason",),
        )
        self.requests_under_way = make.gauges(
            "bandit_requests_under_way", "Requests admitted and not yet answered.", ("kind",)
        )
        self.requests_allowed = make.gauges(
            "bandit_requests_allowed", "Current limit on requests in progress.", ("kind",)
        )
        self.event_loop_lag = make.histogram(
            "bandit_event_loop_lag_seconds",
            "How late the event loop runs a timer.",
            STAGE_BUCKETS,
        )
        self.decisions = make.counters(
            "bandit_decisions_total",
            "Decisions by policy and mode: exploit drew the most likely arm, explore another one, "
            "fixed had no choice, fallback followed a failed stage.",
            ("policy", "mode"),
        )
        self.arm_decisions = make.counters(
            "bandit_arm_decisions_total", "Decisions by drawn arm.", ("arm",)
        )
        self.stage_seconds = make.histograms(
            "bandit_decision_stage_seconds",
            "Time spent in each stage of a decision.",
            STAGE_BUCKETS,
            ("stage",),
        )
        self.fallbacks = make.counters(
            "bandit_fallbacks_total",
            "Decisions in which a stage failed, by that stage.",
            ("stage",),
        )
        self.rewards = make.counters(
            "bandit_rewards_total", "Rewards by deciding policy and outcome.", ("policy", "outcome")
        )
        self.comparisons = make.counters(
            "bandit_comparisons_total", "Comparisons by outcome.", ("outcome",)
        )
        self.metric_mean = make.gauges(
            "bandit_metric_mean",
            "Mean of a named metric's values on an arm, over the whole log.",
            ("metric", "arm"),
        )
        self.metric_values = make.gauges(
            "bandit_metric_values",
            "Values behind bandit_metric_mean of a metric and an arm; a session counts as one.",
            ("metric", "arm"),
        )
        self.reward_delay = make.histogram(
            "bandit_reward_delay_seconds", "Time from a decision to its reward.", DELAY_BUCKETS
        )
        self.pending = make.gauge("bandit_pending_decisions", "Decisions waiting for a reward.")
        self.expired = make.counter(
            "bandit_decisions_expired_total", "Decisions that expired without a reward."
        )
        self.history = make.gauge("bandit_history_queries", "Queries remembered in the history.")
        # --- embedding
        self.embedding_batch = make.histogram(
            "bandit_embedding_batch_texts",
            "Texts in one call of the embedding model.",
            BATCH_BUCKETS,
        )
        self.embedding_model = make.histogram(
            "bandit_embedding_model_seconds",
            "Time of one call of the embedding model.",
            STAGE_BUCKETS,
        )
        self.embedding_cache = make.counters(
            "bandit_embedding_cache_total",
            "Lookups in the embedding cache, by result.",
            ("result",),
        )
        self.embedding_queue = make.gauge(
            "bandit_embedding_queue_texts", "Texts waiting for the embedding model."
        )
        # --- log, snapshots, process
        self.log_append = make.histogram(
            "bandit_log_append_seconds",
            "Time to hand one batch of events to the kernel.",
            DISK_BUCKETS,
        )
        self.log_batch = make.histogram(
            "bandit_log_batch_events", "Events in one append.", BATCH_BUCKETS
        )
        self.learn = make.histogram(
            "bandit_learn_seconds", "Time to append and apply one batch of events.", STAGE_BUCKETS
        )
        self.log_sync = make.histogram(
            "bandit_log_sync_seconds", "Time of one group commit to the disk.", DISK_BUCKETS
        )
        self.log_offset = make.gauge("bandit_log_offset", "Offset of the newest event.")
        self.log_first = make.gauge("bandit_log_first_offset", "Offset of the oldest event.")
        self.log_size = make.gauge("bandit_log_size_bytes", "Pages in use by the log.")
        self.log_writable = make.gauge(
            "bandit_log_writable", "1 while the log can be written, otherwise 0."
        )
        self.log_last_event = make.gauge(
            "bandit_log_last_event_timestamp_seconds", "Time of the newest event."
        )
        self.log_backlog = make.gauge(
            "bandit_log_backlog", "Answered decisions waiting for space on disk."
        )
        self.unlogged = make.counter(
            "bandit_decisions_unlogged_total", "Decisions lost because the backlog was full."
        )
        self.cost_waiting = make.gauge(
            "bandit_cost_waiting_usd", "Costs of calls that wait to be written to the log, USD."
        )
        self.cost_lost = make.counter(
            "bandit_cost_lost_usd_total", "Costs of calls that could not be written down, USD."
        )
        self.snapshot_offset = make.gauge(
            "bandit_snapshot_offset", "Offset of the newest snapshot."
        )
        self.snapshot_time = make.gauge(
            "bandit_snapshot_timestamp_seconds",
            "When the newest snapshot was made; without one, when the process started.",
        )
        self.snapshot_size = make.gauge(
            "bandit_snapshot_size_bytes", "Size of the newest snapshot made by this process."
        )
        self.snapshot_seconds = make.gauge(
            "bandit_snapshot_seconds", "Duration of the newest snapshot made by this process."
        )
        self.recovery = make.gauge(
            "bandit_recovery_seconds", "Time to read the log and the snapshot at startup."
        )
        self.upkeep_failures = make.counter(
            "bandit_upkeep_failures_total", "Failed snapshots, retention, erasure or folding."
        )
        self.task_failures = make.counters(
            "bandit_task_failures_total",
            "Failed rounds of a long-lived task; each is retried.",
            ("task",),
        )
        self.task_failing = make.gauges(
            "bandit_task_failing",
            "1 for a long-lived task whose last round failed.",
            ("task",),
        )
        self.children_ended = make.counter(
            "bandit_children_ended_total", "Child processes killed because they made no progress."
        )
        self.unapplied = make.gauge(
            "bandit_events_unapplied", "Events of the log that a bug left partly applied."
        )
        self.recovery_unknown = make.gauge(
            "bandit_recovery_unknown_events",
            "Erased or lost events missing from the recovered state, because no readable "
            "snapshot contained them.",
        )
        self.connections_refused = make.counter(
            "bandit_connections_refused_total",
            "Connections closed because file descriptors ran out.",
        )
        self.build = make.gauges("bandit_build_info", "Version, always 1.", ("version",))
        self.config = make.gauges(
            "bandit_config_info",
            "Digest of the current settings without keys, always 1.",
            ("digest",),
        )
        self.serving = make.gauges(
            "bandit_serving_policy_info", "The policy that decides, always 1.", ("policy",)
        )
        # --- learning
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
        # --- money
        self.cost = make.counters("bandit_cost_usd_total", "Reported cost by arm, USD.", ("arm",))
        self.route_decisions = make.counters(
            "bandit_route_decisions_total",
            "Decisions by route, except the default route.",
            ("route",),
        )
        self.route_cost = make.counters(
            "bandit_route_cost_usd_total",
            "Reported cost by route, except the default route, USD.",
            ("route",),
        )
        self.route_reward_mean = make.gauges(
            "bandit_route_reward_mean",
            "Moving mean reward of a route's decisions; `auto` is the default route.",
            ("route",),
        )
        self.route_quality_mean = make.gauges(
            "bandit_route_quality_mean",
            "Mean quality of a route's decisions since the process started; `auto` is the default "
            "route.",
            ("route",),
        )
        self.route_rewards = make.counters(
            "bandit_route_rewards_total",
            "Scalar rewards that a route's policy learned, by route.",
            ("route",),
        )
        self.expected_cost = make.counter(
            "bandit_expected_cost_usd_total", "Expected cost of the same decisions, USD."
        )
        self.baseline_cost = make.counters(
            "bandit_baseline_cost_usd_total",
            "Expected cost of the baseline arm for the same decisions, USD.",
            ("baseline",),
        )
        self.budget_limit = make.gauges(
            "bandit_budget_limit_usd", f"Limit of {_FULLEST}, USD.", ("budget",)
        )
        self.budget_spent = make.gauges(
            "bandit_budget_spent_usd", f"Spend of {_FULLEST} in this window, USD.", ("budget",)
        )
        self.budget_held = make.gauges(
            "bandit_budget_held_usd",
            f"Reserved for running requests on {_FULLEST}, USD.",
            ("budget",),
        )
        self.budget_leased = make.gauges(
            "bandit_budget_leased_usd",
            f"What other replicas of the log may spend on {_FULLEST}, USD.",
            ("budget",),
        )
        self.budget_left = make.gauges(
            "bandit_budget_left_usd",
            f"Neither spent, reserved nor leased by other replicas, on {_FULLEST}, USD.",
            ("budget",),
        )
        self.budget_price = make.gauges(
            "bandit_budget_shadow_price",
            f"Shadow price of {_FULLEST}: the willingness to pay is divided by 1 + this; "
            "0 while the spend is not ahead of the clock.",
            ("budget",),
        )
        self.budget_ends = make.gauges(
            "bandit_budget_window_end_timestamp_seconds",
            "When a budget's window ends.",
            ("budget",),
        )
        # --- upstreams
        self.upstream_seconds = make.summaries(
            "bandit_upstream_seconds",
            "Time from the call of an arm to the end of its answer.",
            ("arm",),
        )
        self.upstream_duration = make.histogram(
            "bandit_upstream_duration_seconds",
            "Time from the call of any arm to the end of its answer.",
            ANSWER_BUCKETS,
        )
        self.upstream_first_token = make.histogram(
            "bandit_upstream_first_token_seconds",
            "Time from the call of an arm to its first token.",
            ANSWER_BUCKETS,
        )
        self.upstream_rate = make.histogram(
            "bandit_upstream_tokens_per_second",
            "Tokens per second after the first one.",
            RATE_BUCKETS,
        )
        self.upstream_failures = make.counters(
            "bandit_upstream_failures_total",
            "Failed calls of an arm, by kind: failed, timeout, or refused if another arm then "
            "answered.",
            ("arm", "kind"),
        )
        self.answered_by_other = make.counters(
            "bandit_answered_by_other_model_total",
            "Answers by another model than the arm's, by whether another arm has that model.",
            ("arm", "known"),
        )
        self.upstream_up = make.gauges(
            "bandit_upstream_up",
            "1 available, 0 masked after failures, 0.5 due for a probe.",
            ("arm",),
        )
        self.deployment_up = make.gauges(
            "bandit_deployment_up",
            "For an arm with several deployments: 1 available, 0 masked after failures, 0.5 due "
            "for a probe.",
            ("arm", "deployment"),
        )
        self.deployment_failures = make.counters(
            "bandit_deployment_failures_total",
            "Failed calls of a deployment, by kind: failed or timeout.",
            ("arm", "deployment", "kind"),
        )
        self.sent_again = make.counters(
            "bandit_upstream_sent_again_total",
            "Calls repeated to the same provider, after no connection or an idle one that had "
            "closed.",
            ("upstream",),
        )
        self.conversation_turns = make.counters(
            "bandit_conversation_turns_total",
            "Later turns of conversations, by whether they kept their arm and why (a value of the "
            "header x-bandit-reason).",
            ("stayed", "reason"),
        )
        self.cached_tokens = make.counter(
            "bandit_cached_prompt_tokens_total", "Prompt tokens read from a provider's cache."
        )
        self.cached_saved = make.counter(
            "bandit_cached_prompt_saved_usd_total", "USD saved by the provider's prompt cache."
        )
        self.judged = make.counters(
            "bandit_judged_total",
            "Answers judged, by result.",
            ("judge", "result"),
        )
        self.judge_cost = make.counters(
            "bandit_judge_cost_usd_total", "Cost of judging, USD.", ("judge",)
        )
        self.judge_pairs = make.gauges(
            "bandit_judge_pairs",
            "Answers that a judge scored and a person graded.",
            ("judge",),
        )
        self.judge_apart = make.gauges(
            "bandit_judge_absolute_difference",
            "Mean absolute difference between a judge's scores and people's grades.",
            ("judge",),
        )
        self.passed_cost = make.counters(
            "bandit_passed_cost_usd_total",
            "Cost of embeddings passed through, USD.",
            ("arm",),
        )
        self.estimated_cost = make.counters(
            "bandit_estimated_cost_usd_total",
            "Estimated cost of answers without usage, USD, by the length of prompt and answer.",
            ("arm",),
        )
        self.duels = make.counters("bandit_duels_total", "Duels by result.", ("result",))
        self.clients_left = make.counter(
            "bandit_clients_left_total", "Clients that disconnected before the end of their answer."
        )
        # --- configuration
        self.configuration_revision = make.gauge(
            "bandit_configuration_revision",
            "Number of the newest change of the configuration at run time; 0 if there was none.",
        )
        self.configuration_reloads = make.counters(
            "bandit_configuration_reloads_total",
            "Times that the file was read again (SIGHUP), by result: taken or refused.",
            ("result",),
        )
        self.texts = make.counters(
            "bandit_texts_total",
            "Questions to be kept, by result: stored, dropped, timeout, failed or gone.",
            ("result",),
        )
        # --- experiments
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
