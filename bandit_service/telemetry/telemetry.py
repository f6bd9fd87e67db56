"""What the service counts, in one registry that is passed; `metrics` has the names."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

from prometheus_client import (
    CollectorRegistry,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from bandit_service import clock
from bandit_service.core import events as ev
from bandit_service.core.errors import ServiceError
from bandit_service.core.resolved import Resolved
from bandit_service.core.world import World
from bandit_service.telemetry.batches import observe_many, observe_times, sum_many
from bandit_service.telemetry.experiment_metrics import ExperimentMetrics
from bandit_service.telemetry.learning_metrics import LearningMetrics
from bandit_service.telemetry.metrics import (
    MAX_ARMS,
    MAX_DEPLOYMENTS,
    MAX_LABELLED_ROUTES,
    OTHER,
    Metrics,
)

disable_created_metrics()  # type: ignore[no-untyped-call] # as many series again, and nobody asks for them

STAGES = ("embed", "recall", "propose", "draw", "record", "total")
AT_ONCE = 256
"""Decisions, requests, rewards, answers of arms or times that are counted together."""
TIMED = ("/v1/decide", "/v1/rewards", "/v1/comparisons", "/v1/chat/completions")
"""Endpoints with a latency of their own; the rest counts as "other"."""
_OF_EXPERIMENTS = (ev.ExperimentChanged, ev.ExperimentDeleted, ev.RulesChanged, ev.RouteChanged)
"""Events by which an experiment, or a hold-out, may begin or end."""


class Telemetry:
    """Call the methods where things happen; `look`, then `render` for a scrape.

    pending, remembered: called at a scrape. baseline: the arm that savings are counted against.
    """

    def __init__(
        self,
        pending: Callable[[], float],
        remembered: Callable[[], float],
        baseline: str = "",
    ) -> None:
        self.metrics = Metrics(CollectorRegistry())
        self._arms: set[str] = set()
        self._routes: set[str] = set()
        self._deployments: set[tuple[str, str]] = set()
        self.learning = LearningMetrics(self.metrics, self.arm_label, baseline)
        self.experiments = ExperimentMetrics(self.metrics)
        self.looks: list[Callable[[], None]] = []
        self.took_s: deque[float] = deque(maxlen=1000)
        self._uncounted: list[tuple[ev.Decided, float]] = []
        self._times: list[tuple[Histogram, float, int]] = []
        self._requests: list[tuple[str, int, float | None]] = []
        self._rewards: list[tuple[str, str, float | None]] = []
        self._answers: list[tuple[str, float, float, int | None]] = []
        self.codes: deque[tuple[float, int]] = deque(maxlen=1000)
        ProcessCollector(registry=self.metrics.registry)
        duration = self.metrics.http_duration
        self._durations = {name: duration(name) for name in (*TIMED, "other")}
        stage = self.metrics.stage_seconds
        self._stages = {name: stage(name) for name in STAGES}
        self.metrics.pending.set_function(pending)
        self.metrics.history.set_function(remembered)
        cache = self.metrics.embedding_cache
        self._cache = {name: cache(name) for name in ("hit", "miss")}
        self._looked_up = dict.fromkeys(self._cache, 0)
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """The rate of a missing series is missing, not 0;

        so series with known labels exist at once.
        """
        for name in ("queue", "body", "credits", "draining", "decide", "outcome"):
            self.metrics.requests_shed(name)
        for name in ("missing", "unknown", "expired", "scope", "tenant", "rate", "share"):
            self.metrics.requests_denied(name)
        for name in ("host", "origin"):
            self.metrics.requests_denied(name)
        for name in ("embed", "propose"):
            self.metrics.fallbacks(name)
        for name in ("accepted", "duplicate", "refused"):
            self.metrics.comparisons(name)
        for stayed, reason in (("yes", "stayed"), ("yes", "tool_loop"), ("no", "switched")):
            self.metrics.conversation_turns(stayed, reason)

    # --- requests

    def request(self, endpoint: str, code: int, seconds: float | None = None) -> None:
        """One HTTP answer; `endpoint` is the route's pattern, never the path asked for."""
        if (
            endpoint.startswith("/v1/") and code >= 200
        ):  # a stream's messages are counted one by one
            self.told(code)
        self._requests.append((endpoint, code, seconds))
        if len(self._requests) >= AT_ONCE:
            self._count_requests()

    def _count_requests(self) -> None:
        told, self._requests = self._requests, []
        answers = Counter((endpoint, code) for endpoint, code, _ in told)
        for (endpoint, code), n in answers.items():
            self.metrics.http_requests(endpoint, str(code)).inc(n)
        took: dict[str, list[float]] = {}
        for endpoint, _, seconds in told:
            if seconds is not None:
                took.setdefault(endpoint if endpoint in TIMED else "other", []).append(seconds)
        for name, all_s in took.items():
            observe_many(self._durations[name], all_s)

    def told(self, code: int, answers: int = 1) -> None:
        """Answers by this status, of the API or of messages of a stream."""
        self.codes.extend([(clock.now(), code)] * answers)

    def rejected(self, error: ServiceError) -> None:
        """One request, or one item of a list or stream, that got an error."""
        self.metrics.requests_rejected(error.code).inc()
        reason = getattr(error, "reason", "")
        if reason:
            self.metrics.requests_denied(reason).inc()

    def shed(self, reason: str) -> None:
        """One request refused for now."""
        self.metrics.requests_shed(reason).inc()

    def overloaded(self, endpoint: str, kind: str) -> None:
        """Count one request that was not let in; no endpoint for one of a stream."""
        self.metrics.requests_shed(kind).inc()
        if endpoint:
            self.request(endpoint, 429)

    # --- decide

    def stage(self, name: str, seconds: float, decisions: int = 1) -> None:
        """One stage of this many decisions, with the time of each."""
        self._observe(self._stages[name], seconds, decisions)

    def _observe(self, histogram: Histogram, value: float, times: int = 1) -> None:
        """`observe` this many times, together with others, and before a scrape."""
        self._times.append((histogram, value, times))
        if len(self._times) >= AT_ONCE:
            self._count_times()

    def _count_times(self) -> None:
        told, self._times = self._times, []
        of: dict[Histogram, list[tuple[float, int]]] = {}
        for histogram, value, times in told:
            of.setdefault(histogram, []).append((value, times))
        for histogram, some in of.items():
            observe_times(histogram, some)

    def decided(self, made: Sequence[tuple[ev.Decided, float]]) -> None:
        """Decisions, each with the seconds that it took. They are counted with others, and before a
        scrape.
        """
        self.took_s.extend([seconds for _, seconds in made])
        self._uncounted += made
        if len(self._uncounted) >= AT_ONCE:
            self._count_decisions()

    def count(self) -> None:
        """Count what was told of, which is done for many at once, and before a scrape."""
        self._count_times()
        self._count_requests()
        self._count_rewards()
        self._count_answers()
        self._count_decisions()
        self.learning.count()
        for result, n in self._looked_up.items():
            self._cache[result].inc(n)
            self._looked_up[result] = 0

    def _count_decisions(self) -> None:
        """The ids of the slowest go along as exemplars."""
        told, self._uncounted = self._uncounted, []
        if not told:
            return
        events = [event for event, _ in told]
        modes: Counter[tuple[str, str]] = Counter()
        for event, explored in zip(events, self.learning.decided(events), strict=True):
            mode = "explore" if explored else "exploit"
            if event.fallback:
                mode = "fallback"
                self.metrics.fallbacks(event.fallback.partition(":")[0]).inc()
            elif event.policy == "fixed" or len(event.arms) == 1:
                mode = "fixed"
            modes[event.policy, mode] += 1
            if event.route:
                self.metrics.route_decisions(self.route_label(event.route)).inc()
            if event.experiment:
                self.experiments.decided(event.experiment, event.variant)
        for labels, n in modes.items():
            self.metrics.decisions(*labels).inc(n)
        for arm, n in Counter([event.arm for event in events]).items():
            self.metrics.arm_decisions(self.arm_label(arm)).inc(n)
        drawn = [event.propensity for event in events]
        observe_many(self.metrics.propensity, drawn)
        ids = [event.id for event in events]
        observe_many(self._stages["total"], [seconds for _, seconds in told], ids)

    def embedded(self, size: int, seconds: float) -> None:
        """One call of the embedding model."""
        self._observe(self.metrics.embedding_batch, size)
        self._observe(self.metrics.embedding_model, seconds)

    def cached(self, result: str) -> None:
        """One look-up in the embedding cache: hit or miss. It is counted before a scrape."""
        self._looked_up[result] += 1

    # --- learn

    def heard(self, what: Resolved, world: World) -> None:
        """One event that was applied to the world as it is now."""
        self.learning.heard(what, world)
        match what.event:
            case ev.Rewarded(correction=False) as event if what.decided and what.decided.route:
                route = self.route_label(what.decided.route)
                if event.reward is not None:
                    self.metrics.route_rewards(route).inc()
                if event.cost_usd is not None:
                    self.metrics.route_cost(route).inc(max(0.0, event.cost_usd))
        if isinstance(what.event, ev.Shadowed):
            for shadow in what.event.shadows:
                self.experiments.decided(shadow.experiment, shadow.variant)
        if isinstance(what.event, _OF_EXPERIMENTS):
            self.experiments.admit(world)

    def decisions(self, some: Sequence[Resolved], _: World) -> None:
        """Decisions that were applied one after another."""
        events = (what.event for what in some)
        self.learning.fold.decided([one for one in events if isinstance(one, ev.Decided)])

    def rewarded(self, policy: str, outcome: str, delay_s: float | None = None) -> None:
        """One reward: accepted, duplicate, unknown, expired, conflict or refused."""
        self._rewards.append((policy, outcome, delay_s))
        if len(self._rewards) >= AT_ONCE:
            self._count_rewards()

    def _count_rewards(self) -> None:
        told, self._rewards = self._rewards, []
        outcomes = Counter((policy, outcome) for policy, outcome, _ in told)
        for labels, n in outcomes.items():
            self.metrics.rewards(*labels).inc(n)
        delays = [max(delay_s, 0.0) for _, _, delay_s in told if delay_s is not None]
        observe_many(self.metrics.reward_delay, delays)

    # --- log and snapshots

    def appended(self, events: int, seconds: float) -> None:
        """One append: what it took to hand these events to the kernel."""
        self._observe(self.metrics.log_batch, events)
        self._observe(self.metrics.log_append, seconds)

    def applied(self, seconds: float) -> None:
        """One batch appended and applied."""
        self._observe(self.metrics.learn, seconds)

    def snapshot(
        self, offset: int, size: int = 0, seconds: float = 0.0, made: float | None = None
    ) -> None:
        """A snapshot was made just now, in so long, or was found at the start and made then."""
        self.metrics.snapshot_offset.set(offset)
        self.metrics.snapshot_time.set(clock.now() if made is None else made)
        self.metrics.snapshot_size.set(size)
        self.metrics.snapshot_seconds.set(seconds)

    def task_failed(self, task: str) -> None:
        """One round of a long-lived task failed."""
        self.metrics.task_failures(task).inc()

    def task_failing(self, task: str, failing: bool) -> None:
        """A long-lived task fails from now on, or no longer."""
        self.metrics.task_failing(task).set(1.0 if failing else 0.0)

    # --- upstreams

    def answered(self, arm: str, seconds: float, first_token_s: float, tokens: int | None) -> None:
        """One answer of an arm."""
        self._answers.append((arm, seconds, first_token_s, tokens))
        if len(self._answers) >= AT_ONCE:
            self._count_answers()

    def _count_answers(self) -> None:
        told, self._answers = self._answers, []
        if not told:
            return
        of_arms: dict[str, list[float]] = {}
        for arm, seconds, _, _ in told:
            of_arms.setdefault(self.arm_label(arm), []).append(seconds)
        for label, all_s in of_arms.items():
            sum_many(self.metrics.upstream_seconds(label), all_s)
        observe_many(self.metrics.upstream_duration, [seconds for _, seconds, _, _ in told])
        observe_many(self.metrics.upstream_first_token, [first_s for _, _, first_s, _ in told])
        rates = [
            tokens / (seconds - first_s)
            for _, seconds, first_s, tokens in told
            if tokens and seconds > first_s
        ]
        observe_many(self.metrics.upstream_rate, rates)

    def upstream_failed(self, arm: str, kind: str) -> None:
        """One call of an arm that gave no answer: timeout or failed."""
        self.metrics.upstream_failures(self.arm_label(arm), kind).inc()

    def deployment_failed(self, arm: str, deployment: str, kind: str) -> None:
        """One call of a deployment that gave no answer: timeout or failed."""
        self.metrics.deployment_failures(*self.deployment_labels(arm, deployment), kind).inc()

    def deployment_labels(self, arm: str, deployment: str) -> tuple[str, str]:
        """The labels of a deployment, or "other" twice, so that the series stay bounded."""
        label = self.arm_label(arm)
        if label != OTHER and (arm, deployment) in self._deployments:
            return label, deployment
        if label == OTHER or len(self._deployments) >= MAX_DEPLOYMENTS:
            return OTHER, OTHER
        self._deployments.add((arm, deployment))
        return label, deployment

    def answered_by_other(self, arm: str, known: bool) -> None:
        """One answer of another model than the arm's; known: some arm has it."""
        self.metrics.answered_by_other(self.arm_label(arm), "yes" if known else "no").inc()

    def sent_again(self, upstream: str) -> None:
        """One call sent a second time to the same provider."""
        self.metrics.sent_again(upstream).inc()

    def conversation_went_on(self, stayed: bool, reason: str) -> None:
        """One more turn of a conversation, with the arm of the last one or not, and why."""
        self.metrics.conversation_turns("yes" if stayed else "no", reason).inc()

    def cached_prompt(self, tokens: int, usd: float) -> None:
        """What a provider's prompt cache saved."""
        if not tokens:
            return
        self.metrics.cached_tokens.inc(tokens)
        self.metrics.cached_saved.inc(max(0.0, usd))

    def judged(self, judge: str, result: str) -> None:
        """Judged, or why not: busy, no arm, rate, budget, failed, unreadable, refused,
        timeout, large."""
        self.metrics.judged(judge, result).inc()

    def passed(self, arm: str, usd: float) -> None:
        """What embeddings of one request cost."""
        self.metrics.passed_cost(self.arm_label(arm)).inc(usd)

    def estimated(self, arm: str, usd: float) -> None:
        """What was booked for an answer without usage."""
        self.metrics.estimated_cost(self.arm_label(arm)).inc(usd)

    def judge_paid(self, judge: str, usd: float) -> None:
        """What one judgement of a model cost."""
        self.metrics.judge_cost(judge).inc(usd)

    def dueled(self, result: str) -> None:
        """One duel: first, second, tie, open (left to the user), none (no other arm answered)."""
        self.metrics.duels(result).inc()

    def client_left(self) -> None:
        """One client that left before its answer was whole."""
        self.metrics.clients_left.inc()

    # --- the scrape

    def look(self) -> None:
        """Set the gauges of what can be looked at only on the event loop; before `render`."""
        self.count()
        for look in self.looks:
            look()

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition and its content type. Call it off the event loop.

        accept: the header of who asks; exemplars are only in the OpenMetrics format.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self.metrics.registry), content_type

    def route_label(self, route: str) -> str:
        """The route's id, or "other" beyond MAX_LABELLED_ROUTES, removed ones counted."""
        if route not in self._routes:
            if len(self._routes) >= MAX_LABELLED_ROUTES:
                return OTHER
            self._routes.add(route)
        return route

    def arm_label(self, arm: str) -> str:
        """The arm's id, or "other" beyond MAX_ARMS, so that the series stay bounded."""
        if arm not in self._arms:
            if len(self._arms) >= MAX_ARMS:
                return OTHER
            self._arms.add(arm)
        return arm
