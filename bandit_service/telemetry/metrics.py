"""Every metric once: its name, help text, labels and buckets; `on` makes it in a registry.

Labels are bounded: arms by MOST_ARMS, experiments by MOST_EXPERIMENTS (`other` beyond), everything
else by the code or the configuration. Never a user's text or id.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

MOST_ARMS = 50
"""Arms with a label of their own."""

MOST_ESTIMATED = 15
"""Arms with estimates beside their mean reward: those of most outcomes lately."""

MOST_PROBABILITIES = 40
"""Probabilities of arms, of all policies together."""

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
class CounterOf:
    """A number that only grows while the process runs."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    def on(self, registry: CollectorRegistry) -> Counter:
        """The metric, in this registry."""
        return Counter(self.name, self.help, self.labels, registry=registry)

    def labelled(self, registry: CollectorRegistry) -> Children[Counter]:
        """The same by its labels."""
        return Children(self.on(registry))


@dataclass(frozen=True, slots=True)
class GaugeOf:
    """A number that is as it is."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    def on(self, registry: CollectorRegistry) -> Gauge:
        """The metric, in this registry."""
        return Gauge(self.name, self.help, self.labels, registry=registry)

    def labelled(self, registry: CollectorRegistry) -> Children[Gauge]:
        """The same by its labels."""
        return Children(self.on(registry))


@dataclass(frozen=True, slots=True)
class SummaryOf:
    """A count and a sum."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    def labelled(self, registry: CollectorRegistry) -> Children[Summary]:
        """The metric by its labels, in this registry."""
        return Children(Summary(self.name, self.help, self.labels, registry=registry))


@dataclass(frozen=True, slots=True)
class HistogramOf:
    """Counts by bucket, and a sum."""

    name: str
    help: str
    buckets: tuple[float, ...]
    labels: tuple[str, ...] = ()

    def on(self, registry: CollectorRegistry) -> Histogram:
        """The metric, in this registry."""
        return Histogram(self.name, self.help, self.labels, buckets=self.buckets, registry=registry)

    def labelled(self, registry: CollectorRegistry) -> Children[Histogram]:
        """The same by its labels."""
        return Children(self.on(registry))


# --- traffic

HTTP_REQUESTS = CounterOf(
    "bandit_http_requests_total", "HTTP requests by endpoint and status.", ("endpoint", "code")
)
HTTP_DURATION = HistogramOf(
    "bandit_http_request_duration_seconds", "From a request's head to its whole answer.",
    HTTP_BUCKETS, ("endpoint",),
)  # fmt: skip
REQUESTS_REJECTED = CounterOf(
    "bandit_requests_rejected_total",
    "Requests, and items of lists and streams, that got an error, by its code.", ("reason",),
)  # fmt: skip
REQUESTS_SHED = CounterOf(
    "bandit_requests_shed_total", "Requests refused for now, by reason; `decide` and `outcome` "
    "were refused before they were read.", ("reason",),
)  # fmt: skip
REQUESTS_DENIED = CounterOf(
    "bandit_requests_denied_total",
    "Requests rejected by authentication or authorization, or as of a foreign name or page, "
    "by reason.",
    ("reason",),
)
REQUESTS_UNDER_WAY = GaugeOf(
    "bandit_requests_under_way", "Requests let in and not yet answered.", ("kind",)
)
REQUESTS_ALLOWED = GaugeOf(
    "bandit_requests_allowed", "Requests that may be under way for now.", ("kind",)
)
EVENT_LOOP_LAG = HistogramOf(
    "bandit_event_loop_lag_seconds", "How late the event loop comes to a timer.", STAGE_BUCKETS
)
DECISIONS = CounterOf(
    "bandit_decisions_total", "Decisions by deciding policy and mode: exploit drew the likeliest "
    "arm, explore another, fixed had no choice, fallback had a stage that failed.",
    ("policy", "mode"),
)  # fmt: skip
ARM_DECISIONS = CounterOf("bandit_arm_decisions_total", "Decisions by drawn arm.", ("arm",))
STAGE_SECONDS = HistogramOf(
    "bandit_decision_stage_seconds", "Time in each stage of the decide path.",
    STAGE_BUCKETS, ("stage",),
)  # fmt: skip
FALLBACKS = CounterOf(
    "bandit_fallbacks_total", "Decisions in which a stage failed, by that stage.", ("stage",)
)
REWARDS = CounterOf(
    "bandit_rewards_total", "Rewards by deciding policy and outcome.", ("policy", "outcome")
)
COMPARISONS = CounterOf("bandit_comparisons_total", "Comparisons by outcome.", ("outcome",))
REWARD_DELAY = HistogramOf(
    "bandit_reward_delay_seconds", "From decision to its reward.", DELAY_BUCKETS
)
PENDING = GaugeOf("bandit_pending_decisions", "Decisions that may still be rewarded.")
EXPIRED = CounterOf("bandit_decisions_expired_total", "Decisions that left unrewarded.")
HISTORY = GaugeOf("bandit_history_queries", "Queries remembered in the history.")

# --- embedding

EMBEDDING_BATCH = HistogramOf(
    "bandit_embedding_batch_texts", "Texts in one call of the embedding model.", BATCH_BUCKETS
)
EMBEDDING_MODEL = HistogramOf(
    "bandit_embedding_model_seconds", "Time of one call of the embedding model.", STAGE_BUCKETS
)
EMBEDDING_CACHE = CounterOf(
    "bandit_embedding_cache_total", "Look-ups in the embedding cache, by result.", ("result",)
)
EMBEDDING_QUEUE = GaugeOf(
    "bandit_embedding_queue_texts", "Texts that wait for the embedding model."
)

# --- log, snapshots, process

LOG_APPEND = HistogramOf(
    "bandit_log_append_seconds", "Time to hand one batch of events to the kernel.", DISK_BUCKETS
)
LOG_BATCH = HistogramOf("bandit_log_batch_events", "Events in one append.", BATCH_BUCKETS)
LEARN = HistogramOf(
    "bandit_learn_seconds", "Time to append and apply one batch of events.", STAGE_BUCKETS
)
LOG_SYNC = HistogramOf(
    "bandit_log_sync_seconds", "Time of one group commit to the disk.", DISK_BUCKETS
)
LOG_OFFSET = GaugeOf("bandit_log_offset", "Offset of the newest event.")
LOG_FIRST = GaugeOf("bandit_log_first_offset", "Offset of the oldest event.")
LOG_SIZE = GaugeOf("bandit_log_size_bytes", "Pages in use by the log.")
LOG_WRITABLE = GaugeOf("bandit_log_writable", "1, or 0 while the log cannot be written.")
LOG_LAST_EVENT = GaugeOf("bandit_log_last_event_timestamp_seconds", "Time of the newest event.")
LOG_BACKLOG = GaugeOf("bandit_log_backlog", "Decisions answered that wait for space on the disk.")
UNLOGGED = CounterOf(
    "bandit_decisions_unlogged_total", "Decisions that the backlog had no room for."
)
SNAPSHOT_OFFSET = GaugeOf("bandit_snapshot_offset", "Offset of the newest snapshot.")
SNAPSHOT_TIME = GaugeOf(
    "bandit_snapshot_timestamp_seconds", "When the newest snapshot was made; the start of the "
    "process where there is none.",
)  # fmt: skip
SNAPSHOT_SIZE = GaugeOf(
    "bandit_snapshot_size_bytes", "Size of the newest snapshot that this process made."
)
SNAPSHOT_SECONDS = GaugeOf(
    "bandit_snapshot_seconds", "How long the newest snapshot that this process made took."
)
RECOVERY = GaugeOf("bandit_recovery_seconds", "How long the start read log and snapshot.")
UPKEEP_FAILURES = CounterOf(
    "bandit_upkeep_failures_total", "Snapshots, retention, erasure or folding that failed."
)
TASK_FAILURES = CounterOf(
    "bandit_task_failures_total", "Rounds of a long-lived task that failed and are tried again.",
    ("task",),
)  # fmt: skip
TASK_FAILING = GaugeOf(
    "bandit_task_failing", "1 for a long-lived task of which no round went well since it failed.",
    ("task",),
)  # fmt: skip
CHILDREN_ENDED = CounterOf(
    "bandit_children_ended_total", "Child processes that made no progress and were killed."
)
UNAPPLIED = GaugeOf(
    "bandit_events_unapplied", "Events of the log that an error of ours stopped half-way."
)
RECOVERY_UNKNOWN = GaugeOf(
    "bandit_recovery_unknown_events", "Erased or lost events that the state of this start does not "
    "know, since no snapshot that knew them could be read.",
)  # fmt: skip
CONNECTIONS_REFUSED = CounterOf(
    "bandit_connections_refused_total", "Connections closed since file descriptors were short."
)
BUILD = GaugeOf("bandit_build_info", "Version, always 1.", ("version",))
CONFIG = GaugeOf(
    "bandit_config_info", "Digest of the settings in force, always 1; keys are no part of it.",
    ("digest",),
)  # fmt: skip
SERVING = GaugeOf("bandit_serving_policy_info", "The policy that decides, always 1.", ("policy",))

# --- learning

PROPENSITY = HistogramOf(
    "bandit_decision_propensity", "Probability with which the drawn arm was drawn.",
    PROPENSITY_BUCKETS,
)  # fmt: skip
ARM_REWARDS = CounterOf(
    "bandit_arm_rewards_total", "Decisions that got their scalar reward, by arm.", ("arm",)
)
REWARD_VALUE = HistogramOf(
    "bandit_reward_value", "Scalar rewards as they were learned from.", REWARD_BUCKETS
)
ARM_REWARD_MEAN = GaugeOf(
    "bandit_arm_reward_mean", "Mean reward of an arm's own decisions, forgetting.", ("arm",)
)
ARM_REWARD_CHANGE = GaugeOf(
    "bandit_arm_reward_change", "Mean reward of an arm's newest decisions less the one that "
    "forgets slowly.", ("arm",),
)  # fmt: skip
ARM_VALUE = GaugeOf(
    "bandit_arm_value_estimate", "Mean reward had every query gone to the arm, estimated from the "
    "propensities (self-normalised inverse weighting), forgetting.", ("arm",),
)  # fmt: skip
ARM_REWARD_BOUND = GaugeOf(
    "bandit_arm_reward_bound", "Low and high of the 95 % confidence sequence of an arm's mean "
    "reward since the process started; absent before 100 outcomes.", ("arm", "bound"),
)  # fmt: skip
ARM_PROBABILITY = GaugeOf(
    "bandit_arm_probability", "Mean propensity of an arm in a policy's part of the last 500 "
    "decisions; the least likely arms together as `other`.", ("policy", "arm"),
)  # fmt: skip
ARM_ELO = GaugeOf(
    "bandit_arm_elo_rating", "Elo of the comparisons since the process started.", ("arm",)
)
REWARD_MEAN = GaugeOf("bandit_reward_mean", "Mean reward of all decisions, forgetting.")
POLICY_VALUE = GaugeOf(
    "bandit_policy_value_estimate", "Mean reward of the decisions that a policy made since the "
    "process started, with the 95 % confidence sequence of it from 100 outcomes on.",
    ("policy", "bound"),
)  # fmt: skip
REGRET = GaugeOf(
    "bandit_regret_estimate", "Best arm's value estimate less the mean reward; below 0 where "
    "routing beats every single arm.",
)  # fmt: skip
REGRET_SAMPLES = GaugeOf(
    "bandit_regret_effective_samples", "Effective sample size of the best arm's value estimate; "
    "arms below 30 are no part of the regret.",
)  # fmt: skip
PROPENSITY_MIN = GaugeOf(
    "bandit_propensity_min",
    "Least propensity of an eligible arm, last 1000 decisions but those of "
    "variants that are one arm.",
)
ENTROPY = GaugeOf(
    "bandit_arm_entropy_ratio", "Entropy of the last 1000 drawn arms; 1 for an even split."
)
QUALITY_ERROR = GaugeOf(
    "bandit_quality_error_mean", "Mean distance of expected from reported quality."
)
QUALITY_BIAS = GaugeOf("bandit_quality_bias_mean", "Mean of expected less reported quality.")
PROPENSITY_CALIBRATION = GaugeOf(
    "bandit_propensity_calibration_p_value", "p-value, valid at any look, of a policy's logged "
    "propensities being those drawn with.", ("policy",),
)  # fmt: skip
QUALITY_CALIBRATION = GaugeOf(
    "bandit_quality_calibration_error", "Expected calibration error of the quality: mean distance "
    "of expected from reported, each the mean of its tenth.",
)  # fmt: skip
COST_CALIBRATION = GaugeOf(
    "bandit_cost_calibration_error_ratio", "The same of the cost, by powers of two of what was "
    "expected, as share of what was reported.",
)  # fmt: skip
COST_BIAS = GaugeOf(
    "bandit_cost_bias_ratio", "Expected less reported cost, as share of what was reported."
)
DRIFT_DETECTED = CounterOf(
    "bandit_drift_detected_total", "Alarms that an arm's residuals changed.",
    ("arm", "detector", "direction"),
)  # fmt: skip
ARM_ALARMS = CounterOf(
    "bandit_arm_alarms_total", "Alarms of the serving policy itself that an arm changed, after "
    "which it learns the arm anew.", ("arm",),
)  # fmt: skip
QUERY_DRIFT_DETECTED = CounterOf(
    "bandit_query_drift_detected_total", "Alarms that queries became unlike those remembered.",
    ("detector", "direction"),
)  # fmt: skip
ARM_RESIDUAL = GaugeOf(
    "bandit_arm_residual_mean", "Reward less expected reward, mean of about an arm's newest 100 "
    "outcomes since its last alarm.", ("arm",),
)  # fmt: skip
QUERY_DISTANCE = GaugeOf(
    "bandit_query_distance_mean", "1 - mean similarity of what was recalled, mean of about the "
    "newest 100 queries.",
)  # fmt: skip
ARM_INFO = GaugeOf(
    "bandit_arm_info", "An arm that is offered: its upstream and the model's name there, always "
    "1; both empty where no upstream serves it.", ("arm", "upstream", "model"),
)  # fmt: skip
ARMS_OFFERED = GaugeOf("bandit_arms_offered", "Arms that may be chosen.")
LEARN_FAILURES = GaugeOf(
    "bandit_policy_learn_failures", "Events that a policy refused to learn from.", ("policy",)
)
UNCORRECTED = GaugeOf(
    "bandit_policy_uncorrected", "Corrections that a policy could not take in.", ("policy",)
)

# --- money

COST = CounterOf("bandit_cost_usd_total", "Cost that was reported, USD, by arm.", ("arm",))
EXPECTED_COST = CounterOf(
    "bandit_expected_cost_usd_total", "What the same decisions were expected to cost, USD."
)
BASELINE_COST = CounterOf(
    "bandit_baseline_cost_usd_total", "What the baseline arm was expected to cost for the same "
    "decisions, USD.", ("baseline",),
)  # fmt: skip
_OF = "Of a budget's fullest account:"
BUDGET_LIMIT = GaugeOf("bandit_budget_limit_usd", f"{_OF} its limit, USD.", ("budget",))
BUDGET_SPENT = GaugeOf("bandit_budget_spent_usd", f"{_OF} spent in this window, USD.", ("budget",))
BUDGET_HELD = GaugeOf(
    "bandit_budget_held_usd", f"{_OF} reserved for requests under way, USD.", ("budget",)
)
BUDGET_LEFT = GaugeOf(
    "bandit_budget_left_usd", f"{_OF} neither spent nor reserved, USD.", ("budget",)
)
BUDGET_PRICE = GaugeOf(
    "bandit_budget_shadow_price", f"{_OF} the price of a dollar, times the willingness to pay, "
    "which is divided by 1 + this; 0 while the spend is not ahead of the clock.", ("budget",),
)  # fmt: skip
BUDGET_ENDS = GaugeOf(
    "bandit_budget_window_end_timestamp_seconds", "When a budget's window ends.", ("budget",)
)

# --- upstreams

UPSTREAM_SECONDS = SummaryOf(
    "bandit_upstream_seconds", "From the call of an arm to the end of its answer.", ("arm",)
)
UPSTREAM_DURATION = HistogramOf(
    "bandit_upstream_duration_seconds", "The same over all arms.", ANSWER_BUCKETS
)
UPSTREAM_FIRST_TOKEN = HistogramOf(
    "bandit_upstream_first_token_seconds", "From the call of an arm to its first token.",
    ANSWER_BUCKETS,
)  # fmt: skip
UPSTREAM_RATE = HistogramOf(
    "bandit_upstream_tokens_per_second", "Tokens a second after the first one.", RATE_BUCKETS
)
UPSTREAM_FAILURES = CounterOf(
    "bandit_upstream_failures_total", "Calls of an arm that gave no answer, by kind: failed, "
    "timeout, or refused where another arm then answered.",
    ("arm", "kind"),
)  # fmt: skip
UPSTREAM_UP = GaugeOf(
    "bandit_upstream_up", "1 offered, 0 masked after failures, 0.5 due for a probe.", ("arm",)
)
SENT_AGAIN = CounterOf(
    "bandit_upstream_sent_again_total", "Calls sent a second time to the same provider, after no "
    "connection or an idle one just closed.", ("upstream",),
)  # fmt: skip
CONVERSATION_TURNS = CounterOf(
    "bandit_conversation_turns_total", "Turns of a conversation that was answered before, by "
    "whether it stayed with its arm.", ("stayed",),
)  # fmt: skip
CACHED_TOKENS = CounterOf(
    "bandit_cached_prompt_tokens_total", "Prompt tokens that a provider had cached."
)
CACHED_SAVED = CounterOf(
    "bandit_cached_prompt_saved_usd_total", "USD saved by the provider's prompt cache."
)
JUDGED = CounterOf(
    "bandit_judged_total", "Answers that a judge looked at, by what came of it.",
    ("judge", "result"),
)  # fmt: skip
JUDGE_COST = CounterOf("bandit_judge_cost_usd_total", "What judging cost, USD.", ("judge",))
PASSED_COST = CounterOf(
    "bandit_passed_cost_usd_total", "Cost of embeddings that were passed through, USD.", ("arm",)
)
ESTIMATED_COST = CounterOf(
    "bandit_estimated_cost_usd_total", "Booked for answers of which no usage came, USD: by the "
    "length of the prompt and of what was answered.", ("arm",),
)  # fmt: skip
DUELS = CounterOf(
    "bandit_duels_total", "Duels by result.",
    ("result",),
)  # fmt: skip
CLIENTS_LEFT = CounterOf(
    "bandit_clients_left_total", "Clients that left before their answer was whole."
)

# --- experiments

_BY_VARIANT = ("experiment", "variant")
EXPERIMENT_DECISIONS = CounterOf(
    "bandit_experiment_decisions_total", "Decisions by experiment and variant, those of shadows "
    "too.", _BY_VARIANT,
)  # fmt: skip
EXPERIMENT_UNITS = GaugeOf("bandit_experiment_units", "Units that a variant got.", _BY_VARIANT)
EXPERIMENT_WEIGHT = GaugeOf(
    "bandit_experiment_weight", "Share of the experiment's units that a variant gets now.",
    _BY_VARIANT,
)  # fmt: skip
EXPERIMENT_SRM = GaugeOf(
    "bandit_experiment_srm_p_value", "Sequential p-value of the split being as configured.",
    ("experiment",),
)  # fmt: skip
EXPERIMENT_EFFECT = GaugeOf(
    "bandit_experiment_effect", "Difference of the primary metric to the control's: low, mean and "
    "high of its confidence sequence; absent while there is not enough data.",
    (*_BY_VARIANT, "bound"),
)  # fmt: skip
EXPERIMENT_GUARDRAILS = GaugeOf(
    "bandit_experiment_guardrail_state", "0 while a variant keeps its guardrails, 1 where it broke "
    "one.", _BY_VARIANT,
)  # fmt: skip
