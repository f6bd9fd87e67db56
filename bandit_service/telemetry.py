"""Metrics, in one registry that is passed; children are made once and cached.

Labels are bounded by configuration: arm, policy, stage, outcome. Never a user's text or id.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    Summary,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from bandit_service import clock
from bandit_service.core import events as ev
from bandit_service.core.errors import ServiceError
from bandit_service.learning_metrics import LearningMetrics

disable_created_metrics()  # type: ignore[no-untyped-call] # as many series again, and nobody asks for them

STAGES = ("embed", "recall", "propose", "append", "total")
TIMED = ("/v1/decide", "/v1/rewards", "/v1/comparisons", "/v1/chat/completions")
"""Endpoints with a latency of their own; the rest counts as "other"."""
_STAGE_BUCKETS = (0.0001, 0.0003, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0)
_HTTP_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0, 10.0, 60.0)
_ANSWER_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_DELAY_BUCKETS = (0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 21_600.0, 86_400.0, 604_800.0)
MAX_ARMS = 100


class Telemetry:
    """What the service counts. Call the methods where things happen; `render` for a scrape."""

    def __init__(
        self,
        pending: Callable[[], float],
        remembered: Callable[[], float],
        baseline: str = "",
    ) -> None:
        self.registry = CollectorRegistry()
        self._arms: set[str] = set()
        r = self.registry
        self.learning = LearningMetrics(r, self.arm_label, baseline)
        self.looks: list[Callable[[], None]] = []
        ProcessCollector(registry=r)
        self._requests = Counter(
            "bandit_http_requests", "HTTP requests by endpoint and status.",
            ["endpoint", "code"], registry=r,
        )  # fmt: skip
        duration = Histogram(
            "bandit_http_request_duration_seconds", "From a request's head to its whole answer.",
            ["endpoint"], buckets=_HTTP_BUCKETS, registry=r,
        )  # fmt: skip
        self._durations = {name: duration.labels(name) for name in (*TIMED, "other")}
        self.loop_lag = Histogram(
            "bandit_event_loop_lag_seconds", "How late the event loop comes to a timer.",
            buckets=_STAGE_BUCKETS, registry=r,
        )  # fmt: skip
        stage = Histogram(
            "bandit_decision_stage_seconds", "Time in each stage of the decide path.",
            ["stage"], buckets=_STAGE_BUCKETS, registry=r,
        )  # fmt: skip
        self._stages = {name: stage.labels(name) for name in STAGES}
        self._decided = Counter(
            "bandit_decisions", "Decisions by drawn arm and deciding policy.",
            ["arm", "policy"], registry=r,
        )  # fmt: skip
        self._deciding: dict[tuple[str, str], Counter] = {}
        self._fallbacks = Counter(
            "bandit_fallbacks", "Decisions in which a stage failed, by that stage.",
            ["stage"], registry=r,
        )  # fmt: skip
        self._rewards = Counter(
            "bandit_rewards", "Rewards by deciding policy and outcome.",
            ["policy", "outcome"], registry=r,
        )  # fmt: skip
        self._comparisons = Counter(
            "bandit_comparisons", "Comparisons by outcome.", ["outcome"], registry=r
        )
        self._delay = Histogram(
            "bandit_reward_delay_seconds", "From decision to its reward.",
            buckets=_DELAY_BUCKETS, registry=r,
        )  # fmt: skip
        self._learn = Histogram(
            "bandit_learn_seconds", "Time to append and apply one batch of events.",
            buckets=_STAGE_BUCKETS, registry=r,
        )  # fmt: skip
        self._sync = Histogram(
            "bandit_log_sync_seconds", "Time of one group commit to the disk.",
            buckets=_STAGE_BUCKETS, registry=r,
        )  # fmt: skip
        self._shed = Counter(
            "bandit_requests_shed", "Requests refused for now, by reason.", ["reason"], registry=r
        )
        self._batches = Histogram(
            "bandit_embedding_batch_texts", "Texts in one call of the embedding model.",
            buckets=(1, 2, 4, 8, 16, 32, 64), registry=r,
        )  # fmt: skip
        self._model = Histogram(
            "bandit_embedding_model_seconds", "Time of one call of the embedding model.",
            buckets=_STAGE_BUCKETS, registry=r,
        )  # fmt: skip
        cache = Counter(
            "bandit_embedding_cache", "Look-ups in the embedding cache, by result.",
            ["result"], registry=r,
        )  # fmt: skip
        self._cache = {name: cache.labels(name) for name in ("hit", "miss")}
        self._learner_failures = Gauge(
            "bandit_policy_learn_failures", "Events that a policy refused to learn from.",
            ["policy"], registry=r,
        )  # fmt: skip
        self._backlog = Gauge(
            "bandit_log_backlog", "Decisions answered that wait for space on the disk.", registry=r
        )
        self._unlogged = Counter(
            "bandit_decisions_unlogged", "Decisions that the backlog had no room for.", registry=r
        )
        self._snapshot = Gauge(
            "bandit_snapshot_offset", "Offset of the newest snapshot.", registry=r
        )
        self._snapshot_time = Gauge(
            "bandit_snapshot_timestamp_seconds", "When the newest snapshot was made; the start of "
            "the process where it was made before.", registry=r,
        )  # fmt: skip
        self._snapshot_size = Gauge(
            "bandit_snapshot_size_bytes", "Size of the newest snapshot that this process made.",
            registry=r,
        )  # fmt: skip
        self._upkeep = Counter(
            "bandit_upkeep_failures", "Snapshots, retention, erasure or folding that failed.",
            registry=r,
        )  # fmt: skip
        self._denied = Counter(
            "bandit_requests_denied", "Requests that a key was not good for, by reason.",
            ["reason"], registry=r,
        )  # fmt: skip
        self._answers = Summary(
            "bandit_upstream_seconds", "From the call of an arm to the end of its answer.",
            ["arm"], registry=r,
        )  # fmt: skip
        self._durations_upstream = Histogram(
            "bandit_upstream_duration_seconds", "The same over all arms.",
            buckets=_ANSWER_BUCKETS, registry=r,
        )  # fmt: skip
        self._first = Histogram(
            "bandit_upstream_first_token_seconds", "From the call of an arm to its first token.",
            buckets=_ANSWER_BUCKETS, registry=r,
        )  # fmt: skip
        self._rate = Histogram(
            "bandit_upstream_tokens_per_second", "Tokens a second after the first one.",
            buckets=(1, 5, 10, 20, 50, 100, 200, 500, 1000), registry=r,
        )  # fmt: skip
        self._upstream_failures = Counter(
            "bandit_upstream_failures", "Calls of an arm that gave no answer, by kind.",
            ["arm", "kind"], registry=r,
        )  # fmt: skip
        self._sent_again = Counter(
            "bandit_upstream_sent_again", "Calls sent a second time to the same provider, after no "
            "connection or an idle one just closed.", ["upstream"], registry=r,
        )  # fmt: skip
        self._went_on = Counter(
            "bandit_conversation_turns", "Turns of a conversation that was answered before, by "
            "whether it stayed with its arm.", ["stayed"], registry=r,
        )  # fmt: skip
        self._cached_tokens = Counter(
            "bandit_cached_prompt_tokens", "Prompt tokens that a provider had cached.",
            ["arm"], registry=r,
        )  # fmt: skip
        self._saved = Counter(
            "bandit_cached_prompt_saved_usd", "What they would have cost more, USD.",
            ["arm"], registry=r,
        )  # fmt: skip
        self._judged = Counter(
            "bandit_judged", "Answers that a judge looked at, by what came of it.",
            ["judge", "result"], registry=r,
        )  # fmt: skip
        self._judge_usd = Counter(
            "bandit_judge_cost_usd", "What judging cost, USD.", ["judge"], registry=r
        )
        self._duels = Counter(
            "bandit_duels", "Answers that a second arm stood against, by what came of it.",
            ["result"], registry=r,
        )  # fmt: skip
        self._left = Counter(
            "bandit_clients_left", "Clients that left before their answer was whole.", registry=r
        )
        self._uncorrected = Gauge(
            "bandit_policy_uncorrected", "Corrections that a policy could not take in.",
            ["policy"], registry=r,
        )  # fmt: skip
        self.recovery = Gauge(
            "bandit_recovery_seconds", "How long the start read log and snapshot.", registry=r
        )
        self.log_offset = Gauge("bandit_log_offset", "Offset of the newest event.", registry=r)
        Gauge(
            "bandit_pending_decisions", "Decisions that may still be rewarded.", registry=r
        ).set_function(pending)
        Gauge(
            "bandit_history_queries", "Queries remembered in the history.", registry=r
        ).set_function(remembered)
        for name in ("queue", "body", "credits", "draining", "decide", "outcome"):
            self._shed.labels(name)
        for name in ("missing", "unknown", "expired", "scope", "tenant", "rate", "share"):
            self._denied.labels(name)
        for name in ("embed", "propose"):
            self._fallbacks.labels(name)
        for name in ("accepted", "duplicate", "refused"):
            self._comparisons.labels(name)

    def request(self, endpoint: str, code: int, seconds: float | None = None) -> None:
        """One HTTP answer; `endpoint` is the route's pattern, never the path asked for."""
        self._requests.labels(endpoint, str(code)).inc()
        if seconds is not None:
            timed = self._durations.get(endpoint) or self._durations["other"]
            timed.observe(seconds)

    def stage(self, name: str, seconds: float) -> None:
        """One stage of one decision."""
        self._stages[name].observe(seconds)

    def decided(self, event: ev.Decided, seconds: float) -> None:
        """One decision, and how long it took; its id goes along as the exemplar."""
        arm = self.arm_label(event.arm)
        counter = self._deciding.get((arm, event.policy))
        if counter is None:
            counter = self._decided.labels(arm, event.policy)
            self._deciding[arm, event.policy] = counter
        counter.inc()
        self.learning.decided(event, arm)
        self._stages["total"].observe(seconds, {"decision_id": event.id})
        if event.fallback:
            self._fallbacks.labels(event.fallback.split(":")[0]).inc()

    def rewarded(self, policy: str, outcome: str, delay_s: float | None = None) -> None:
        """One reward: accepted, duplicate, unknown, expired, conflict or refused."""
        self._rewards.labels(policy, outcome).inc()
        if delay_s is not None:
            self._delay.observe(max(delay_s, 0.0))

    def compared(self, outcome: str) -> None:
        """One comparison: accepted, duplicate or refused."""
        self._comparisons.labels(outcome).inc()

    def applied(self, seconds: float, offset: int) -> None:
        """One batch appended and applied."""
        self._learn.observe(seconds)
        self.log_offset.set(offset)

    def synced(self, seconds: float) -> None:
        """One group commit."""
        self._sync.observe(seconds)

    def backlog(self, size: int) -> None:
        """How many decisions wait to be appended."""
        self._backlog.set(size)

    def unlogged(self) -> None:
        """One decision that was answered and will never be in the log."""
        self._unlogged.inc()

    def snapshot(self, offset: int, size: int = 0) -> None:
        """A snapshot was made, or found at the start."""
        self._snapshot.set(offset)
        self._snapshot_time.set(clock.now())
        self._snapshot_size.set(size)

    def upkeep_failed(self) -> None:
        """Something beside serving could not be done."""
        self._upkeep.inc()

    def overloaded(self, endpoint: str, kind: str) -> None:
        """Count one request that was not let in; no endpoint for one of a stream."""
        self._shed.labels(kind).inc()
        if endpoint:
            self.request(endpoint, 429)

    def shed(self, reason: str) -> None:
        """One request refused for now."""
        self._shed.labels(reason).inc()

    def embedded(self, size: int, seconds: float) -> None:
        """One call of the embedding model."""
        self._batches.observe(size)
        self._model.observe(seconds)

    def cached(self, result: str) -> None:
        """One look-up in the embedding cache: hit or miss."""
        self._cache[result].inc()

    def learner_failures(self, policy: str, count: int) -> None:
        """How many events a policy has refused so far."""
        self._learner_failures.labels(policy).set(count)

    def uncorrected(self, policy: str, count: int) -> None:
        """How many corrections a policy could not take in so far."""
        self._uncorrected.labels(policy).set(count)

    def denied(self, error: ServiceError) -> None:
        """One request that failed, where it was for its key."""
        reason = getattr(error, "reason", "")
        if reason:
            self._denied.labels(reason).inc()

    def answered(self, arm: str, seconds: float, first_token_s: float, tokens: int | None) -> None:
        """One answer of an arm."""
        self._answers.labels(self.arm_label(arm)).observe(seconds)
        self._durations_upstream.observe(seconds)
        self._first.observe(first_token_s)
        if tokens and seconds > first_token_s:
            self._rate.observe(tokens / (seconds - first_token_s))

    def upstream_failed(self, arm: str, kind: str) -> None:
        """One call of an arm that gave no answer: timeout or failed."""
        self._upstream_failures.labels(self.arm_label(arm), kind).inc()

    def sent_again(self, upstream: str) -> None:
        """One call sent a second time to the same provider."""
        self._sent_again.labels(upstream).inc()

    def conversation_went_on(self, stayed: bool) -> None:
        """One more turn of a conversation, with the arm of the last one or with another."""
        self._went_on.labels("yes" if stayed else "no").inc()

    def cached_prompt(self, arm: str, tokens: int, usd: float) -> None:
        """What a provider's prompt cache saved."""
        if tokens:
            self._cached_tokens.labels(self.arm_label(arm)).inc(tokens)
            self._saved.labels(self.arm_label(arm)).inc(max(0.0, usd))

    def judged(self, judge: str, result: str) -> None:
        """Judged, or why not: busy, no arm, rate, budget, failed, unreadable, refused."""
        self._judged.labels(judge, result).inc()

    def judge_paid(self, judge: str, usd: float) -> None:
        """What one judgement of a model cost."""
        self._judge_usd.labels(judge).inc(usd)

    def dueled(self, result: str) -> None:
        """One duel: first, second, tie, open (left to the user), none (no other arm answered)."""
        self._duels.labels(result).inc()

    def client_left(self) -> None:
        """One client that left before its answer was whole."""
        self._left.inc()

    def look(self) -> None:
        """Set the gauges of what can be looked at only on the event loop; before `render`."""
        for look in self.looks:
            look()

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition and its content type. Call it off the event loop.

        accept: the header of who asks; exemplars are only in the OpenMetrics format.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def arm_label(self, arm: str) -> str:
        """The arm's id, or "other" beyond MAX_ARMS, so that the series stay bounded."""
        if arm not in self._arms:
            if len(self._arms) >= MAX_ARMS:
                return "other"
            self._arms.add(arm)
        return arm
