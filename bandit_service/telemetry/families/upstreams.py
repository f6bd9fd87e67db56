"""Metrics of calls to providers, judges and duels."""

from __future__ import annotations

from bandit_service.telemetry.families.make import ANSWER_BUCKETS, RATE_BUCKETS, Maker


class UpstreamFamily:
    """An attribute for each of them."""

    def __init__(self, make: Maker) -> None:
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
