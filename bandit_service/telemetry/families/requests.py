"""Metrics of HTTP requests, decisions, rewards and the embedding model."""

from __future__ import annotations

from bandit_service.telemetry.families.make import (
    BATCH_BUCKETS,
    DELAY_BUCKETS,
    HTTP_BUCKETS,
    STAGE_BUCKETS,
    Maker,
)


class RequestFamily:
    """An attribute for each of them."""

    def __init__(self, make: Maker) -> None:
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
