"""What the service counts, in one registry that is passed; `metrics` has the names."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from bandit_service import clock
from bandit_service.core import events as ev
from bandit_service.core.errors import ServiceError
from bandit_service.core.resolve import Resolved
from bandit_service.core.world import World
from bandit_service.telemetry import metrics
from bandit_service.telemetry.experiment_metrics import ExperimentMetrics
from bandit_service.telemetry.learning_metrics import LearningMetrics

disable_created_metrics()  # type: ignore[no-untyped-call] # as many series again, and nobody asks for them

STAGES = ("embed", "recall", "propose", "draw", "record", "total")
TIMED = ("/v1/decide", "/v1/rewards", "/v1/comparisons", "/v1/chat/completions")
"""Endpoints with a latency of their own; the rest counts as "other"."""


class Telemetry:
    """Call the methods where things happen; `look`, then `render` for a scrape.

    pending, remembered: what is asked at a scrape. baseline: the arm that savings are counted
    against.
    """

    def __init__(
        self,
        pending: Callable[[], float],
        remembered: Callable[[], float],
        baseline: str = "",
    ) -> None:
        self.registry = r = CollectorRegistry()
        self._arms: set[str] = set()
        self.learning = LearningMetrics(r, self.arm_label, baseline)
        self.experiments = ExperimentMetrics(r)
        self.looks: list[Callable[[], None]] = []
        self.took_s: deque[float] = deque(maxlen=1000)
        self.codes: deque[tuple[float, int]] = deque(maxlen=1000)
        ProcessCollector(registry=r)
        self._requests = metrics.HTTP_REQUESTS.labelled(r)
        duration = metrics.HTTP_DURATION.labelled(r)
        self._durations = {name: duration(name) for name in (*TIMED, "other")}
        self._rejected = metrics.REQUESTS_REJECTED.labelled(r)
        self._shed = metrics.REQUESTS_SHED.labelled(r)
        self._denied = metrics.REQUESTS_DENIED.labelled(r)
        self.loop_lag = metrics.EVENT_LOOP_LAG.on(r)
        stage = metrics.STAGE_SECONDS.labelled(r)
        self._stages = {name: stage(name) for name in STAGES}
        self._decided = metrics.DECISIONS.labelled(r)
        self._drawn = metrics.ARM_DECISIONS.labelled(r)
        self._fallbacks = metrics.FALLBACKS.labelled(r)
        self._rewards = metrics.REWARDS.labelled(r)
        self._comparisons = metrics.COMPARISONS.labelled(r)
        self._delay = metrics.REWARD_DELAY.on(r)
        metrics.PENDING.on(r).set_function(pending)
        metrics.HISTORY.on(r).set_function(remembered)
        self._batches = metrics.EMBEDDING_BATCH.on(r)
        self._model = metrics.EMBEDDING_MODEL.on(r)
        cache = metrics.EMBEDDING_CACHE.labelled(r)
        self._cache = {name: cache(name) for name in ("hit", "miss")}
        self._append = metrics.LOG_APPEND.on(r)
        self._appended = metrics.LOG_BATCH.on(r)
        self._learn = metrics.LEARN.on(r)
        self._sync = metrics.LOG_SYNC.on(r)
        self.log_offset = metrics.LOG_OFFSET.on(r)
        self._backlog = metrics.LOG_BACKLOG.on(r)
        self._unlogged = metrics.UNLOGGED.on(r)
        self._snapshot = metrics.SNAPSHOT_OFFSET.on(r)
        self._snapshot_time = metrics.SNAPSHOT_TIME.on(r)
        self._snapshot_size = metrics.SNAPSHOT_SIZE.on(r)
        self._snapshot_seconds = metrics.SNAPSHOT_SECONDS.on(r)
        self.recovery = metrics.RECOVERY.on(r)
        self._upkeep = metrics.UPKEEP_FAILURES.on(r)
        self._task_failures = metrics.TASK_FAILURES.labelled(r)
        self._task_failing = metrics.TASK_FAILING.labelled(r)
        self._children = metrics.CHILDREN_ENDED.on(r)
        self._unapplied = metrics.UNAPPLIED.on(r)
        self.recovery_unknown = metrics.RECOVERY_UNKNOWN.on(r)
        self._connections = metrics.CONNECTIONS_REFUSED.on(r)
        self._learner_failures = metrics.LEARN_FAILURES.labelled(r)
        self._uncorrected = metrics.UNCORRECTED.labelled(r)
        self._answers = metrics.UPSTREAM_SECONDS.labelled(r)
        self._durations_upstream = metrics.UPSTREAM_DURATION.on(r)
        self._first = metrics.UPSTREAM_FIRST_TOKEN.on(r)
        self._rate = metrics.UPSTREAM_RATE.on(r)
        self._upstream_failures = metrics.UPSTREAM_FAILURES.labelled(r)
        self._sent_again = metrics.SENT_AGAIN.labelled(r)
        self._went_on = metrics.CONVERSATION_TURNS.labelled(r)
        self._cached_tokens = metrics.CACHED_TOKENS.on(r)
        self._saved = metrics.CACHED_SAVED.on(r)
        self._judged = metrics.JUDGED.labelled(r)
        self._judge_usd = metrics.JUDGE_COST.labelled(r)
        self._passed_usd = metrics.PASSED_COST.labelled(r)
        self._estimated_usd = metrics.ESTIMATED_COST.labelled(r)
        self._duels = metrics.DUELS.labelled(r)
        self._left = metrics.CLIENTS_LEFT.on(r)
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """A rate of what is not there yet is nothing, not 0; so what is known is there at once."""
        for name in ("queue", "body", "credits", "draining", "decide", "outcome"):
            self._shed(name)
        for name in ("missing", "unknown", "expired", "scope", "tenant", "rate", "share"):
            self._denied(name)
        for name in ("host", "origin"):
            self._denied(name)
        for name in ("embed", "propose"):
            self._fallbacks(name)
        for name in ("accepted", "duplicate", "refused"):
            self._comparisons(name)
        for name in ("yes", "no"):
            self._went_on(name)

    # --- requests

    def request(self, endpoint: str, code: int, seconds: float | None = None) -> None:
        """One HTTP answer; `endpoint` is the route's pattern, never the path asked for."""
        self._requests(endpoint, str(code)).inc()
        if endpoint.startswith("/v1/") and code >= 200:  # a stream's messages are told one by one
            self.told(code)
        if seconds is not None:
            timed = self._durations.get(endpoint) or self._durations["other"]
            timed.observe(seconds)

    def told(self, code: int) -> None:
        """One answer by this status, of the API or of a message of a stream."""
        self.codes.append((clock.now(), code))

    def rejected(self, error: ServiceError) -> None:
        """One request, or one item of a list or stream, that got an error."""
        self._rejected(error.code).inc()
        reason = getattr(error, "reason", "")
        if reason:
            self._denied(reason).inc()

    def shed(self, reason: str) -> None:
        """One request refused for now."""
        self._shed(reason).inc()

    def overloaded(self, endpoint: str, kind: str) -> None:
        """Count one request that was not let in; no endpoint for one of a stream."""
        self._shed(kind).inc()
        if endpoint:
            self.request(endpoint, 429)

    # --- decide

    def stage(self, name: str, seconds: float) -> None:
        """One stage of one decision."""
        self._stages[name].observe(seconds)

    def decided(self, event: ev.Decided, seconds: float) -> None:
        """One decision, and how long it took; its id goes along as the exemplar."""
        arm = self.arm_label(event.arm)
        explored = self.learning.decided(event)
        mode = "explore" if explored else "exploit"
        if event.fallback:
            mode = "fallback"
            self._fallbacks(event.fallback.partition(":")[0]).inc()
        elif event.policy == "fixed" or len(event.arms) == 1:
            mode = "fixed"
        self._decided(event.policy, mode).inc()
        self._drawn(arm).inc()
        if event.experiment or event.shadows:
            self.experiments.decided(event)
        self._stages["total"].observe(seconds, {"decision_id": event.id})
        self.took_s.append(seconds)

    def embedded(self, size: int, seconds: float) -> None:
        """One call of the embedding model."""
        self._batches.observe(size)
        self._model.observe(seconds)

    def cached(self, result: str) -> None:
        """One look-up in the embedding cache: hit or miss."""
        self._cache[result].inc()

    # --- learn

    def heard(self, what: Resolved, world: World) -> None:
        """One event that was applied to the world as it is now."""
        self.learning.heard(what, world)
        if isinstance(what.event, ev.ExperimentChanged | ev.ExperimentDeleted | ev.RulesChanged):
            self.experiments.admit(world)

    def rewarded(self, policy: str, outcome: str, delay_s: float | None = None) -> None:
        """One reward: accepted, duplicate, unknown, expired, conflict or refused."""
        self._rewards(policy, outcome).inc()
        if delay_s is not None:
            self._delay.observe(max(delay_s, 0.0))

    def compared(self, outcome: str) -> None:
        """One comparison: accepted, duplicate or refused."""
        self._comparisons(outcome).inc()

    def learner_failures(self, policy: str, count: int) -> None:
        """How many events a policy has refused so far."""
        self._learner_failures(policy).set(count)

    def uncorrected(self, policy: str, count: int) -> None:
        """How many corrections a policy could not take in so far."""
        self._uncorrected(policy).set(count)

    # --- log and snapshots

    def appended(self, events: int, seconds: float) -> None:
        """One append: what it took to hand these events to the kernel."""
        self._appended.observe(events)
        self._append.observe(seconds)

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

    def snapshot(
        self, offset: int, size: int = 0, seconds: float = 0.0, made: float | None = None
    ) -> None:
        """A snapshot was made just now, in so long, or was found at the start and made then."""
        self._snapshot.set(offset)
        self._snapshot_time.set(clock.now() if made is None else made)
        self._snapshot_size.set(size)
        self._snapshot_seconds.set(seconds)

    def upkeep_failed(self) -> None:
        """Something beside serving could not be done."""
        self._upkeep.inc()

    def task_failed(self, task: str) -> None:
        """One round of a long-lived task failed."""
        self._task_failures(task).inc()

    def task_failing(self, task: str, failing: bool) -> None:
        """A long-lived task fails from here on, or does no more."""
        self._task_failing(task).set(1.0 if failing else 0.0)

    def child_ended(self) -> None:
        """A child process made no progress, and was killed."""
        self._children.inc()

    def unapplied(self, events: int) -> None:
        """So many events were not applied whole."""
        self._unapplied.set(events)

    def connection_refused(self) -> None:
        """A connection was closed since there are too few descriptors."""
        self._connections.inc()

    # --- upstreams

    def answered(self, arm: str, seconds: float, first_token_s: float, tokens: int | None) -> None:
        """One answer of an arm."""
        self._answers(self.arm_label(arm)).observe(seconds)
        self._durations_upstream.observe(seconds)
        self._first.observe(first_token_s)
        if tokens and seconds > first_token_s:
            self._rate.observe(tokens / (seconds - first_token_s))

    def upstream_failed(self, arm: str, kind: str) -> None:
        """One call of an arm that gave no answer: timeout or failed."""
        self._upstream_failures(self.arm_label(arm), kind).inc()

    def sent_again(self, upstream: str) -> None:
        """One call sent a second time to the same provider."""
        self._sent_again(upstream).inc()

    def conversation_went_on(self, stayed: bool) -> None:
        """One more turn of a conversation, with the arm of the last one or with another."""
        self._went_on("yes" if stayed else "no").inc()

    def cached_prompt(self, tokens: int, usd: float) -> None:
        """What a provider's prompt cache saved."""
        self._cached_tokens.inc(tokens)
        self._saved.inc(max(0.0, usd))

    def judged(self, judge: str, result: str) -> None:
        """Judged, or why not: busy, no arm, rate, budget, failed, unreadable, refused,
        timeout, large."""
        self._judged(judge, result).inc()

    def passed(self, arm: str, usd: float) -> None:
        """What embeddings of one request cost."""
        self._passed_usd(self.arm_label(arm)).inc(usd)

    def estimated(self, arm: str, usd: float) -> None:
        """What was booked for an answer without usage."""
        self._estimated_usd(self.arm_label(arm)).inc(usd)

    def judge_paid(self, judge: str, usd: float) -> None:
        """What one judgement of a model cost."""
        self._judge_usd(judge).inc(usd)

    def dueled(self, result: str) -> None:
        """One duel: first, second, tie, open (left to the user), none (no other arm answered)."""
        self._duels(result).inc()

    def client_left(self) -> None:
        """One client that left before its answer was whole."""
        self._left.inc()

    # --- the scrape

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
        """The arm's id, or "other" beyond MOST_ARMS, so that the series stay bounded."""
        if arm not in self._arms:
            if len(self._arms) >= metrics.MOST_ARMS:
                return metrics.OTHER
            self._arms.add(arm)
        return arm
