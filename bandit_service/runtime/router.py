"""The calls of the service: decide, learn, forget.

Each call checks its arguments, computes the features that its event carries, and submits it to the
writer. The writer checks it against the world, appends and applies it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from bandit_service import logs, wire
from bandit_service.core import events as ev
from bandit_service.core import outcomes
from bandit_service.core import prior as prior_of
from bandit_service.core.conversations import Sent
from bandit_service.core.decide import Weighed, decide, weigh
from bandit_service.core.eligibility import left_out
from bandit_service.core.errors import (
    Busy,
    NotThere,
    Refused,
)
from bandit_service.core.experiments.assignment import forget_units
from bandit_service.core.named_metrics import NamedMetrics
from bandit_service.core.outcomes import Reported, RewardRule
from bandit_service.core.query import Query, Recalled
from bandit_service.core.resolved import Pending, Resolved
from bandit_service.core.world import World
from bandit_service.embedding import EmbeddingStage
from bandit_service.runtime.catalogue_changes import CatalogueChanges
from bandit_service.runtime.deciding import Deciding
from bandit_service.runtime.feedback import Feedback
from bandit_service.runtime.group_commit import Done
from bandit_service.runtime.idempotency import Repeats, digest_of, key_of
from bandit_service.runtime.index_feed import IndexFeed
from bandit_service.runtime.named_metrics import Measuring, check_feedback, check_names
from bandit_service.runtime.pending_decisions import PendingDecisions
from bandit_service.runtime.queries import Came, Queries
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.runtime.session_rewards import Crediting
from bandit_service.runtime.shadows import Shadows
from bandit_service.runtime.texts import Texts
from bandit_service.runtime.topics import Topics
from bandit_service.runtime.writer import Writer
from bandit_service.telemetry.telemetry import Telemetry
from policies import ArmId
from store import HistoryIndex, Unsupported, can_erase

_log = logging.getLogger("bandit.router")


class Router:
    """Decide, learn, and change the catalogue. Make one inside the running loop, then `start`."""

    def __init__(
        self,
        *,
        writer: Writer,
        index: HistoryIndex,
        embedder: EmbeddingStage,
        telemetry: Telemetry,
        rules: RouterRules,
        feedback: Feedback | None = None,
    ) -> None:
        self.rules = rules
        self.feedback = Feedback.none() if feedback is None else feedback
        self.writer = writer
        self._deciding = Deciding(
            writer, index, telemetry, rules, lambda came: self.queries.of_embeddings(came)
        )
        self._feed = IndexFeed(index, writer.tasks)
        writer.listen(self._feed.heard, many=self._feed.heard)
        writer.listen(self._forgotten, ev.Forgotten)
        self._repeats = Repeats(lambda: self.world, writer.waits)
        self._shadows = Shadows(writer, rules)
        writer.listen(self._shadows.heard, ev.Decided, many=self._shadows.decided)
        self.measuring = Measuring(writer, rules)
        self._crediting = Crediting(writer, rules)
        self._embedder = embedder
        self._telemetry = telemetry
        self._in_flight = 0
        self.queries = Queries(
            lambda: self.world, embedder, telemetry, rules, self._deciding.recall
        )
        self.pending = PendingDecisions(writer, rules)
        self._pending = self.pending.find
        self.catalogue = CatalogueChanges(writer, rules)
        self.texts: Texts | None = None
        self.topics: Topics | None = None

    @property
    def world(self) -> World:
        """Everything known now."""
        return self.writer.world

    @property
    def texts_waiting(self) -> int:
        """Texts that wait for the embedding model."""
        return self._embedder.waiting

    @property
    def embedder(self) -> EmbeddingStage:
        """What embeds texts, which other logs of this process use, too."""
        return self._embedder

    async def start(self) -> None:
        """Begin to commit and to sweep."""
        self.writer.start()
        self.pending.start()
        self.measuring.start()
        self._crediting.start()

    def warm(self) -> None:
        """Propose once and discard it, so that the first query does not wait for caches."""
        if self.world.offered():
            query = Query(np.zeros(self._embedder.dim, np.float32), 1, self.queries.worth(None))
            decide(self.world, query, Recalled(), "warm", 0.0, self.rules.explore)

    async def close(self) -> None:
        """Flush what is under way, make it durable, stop. The log itself is the caller's."""
        await self.pending.close()
        await self._repeats.close()
        await self.measuring.close()
        await self._crediting.close()
        self.writer.flush()
        self._shadows.close()
        await self.writer.close()
        self._feed.close()

    # --- decide ---------------------------------------------------------------------------

    async def decide(
        self,
        request: wire.DecideRequest,
        caller: str = "",
        duel_of: str = "",
        outside: bool | None = None,
        masked: Mapping[ArmId, str] | None = None,
        look: Callable[[Weighed], None] | None = None,
        bounded: bool = True,
        sent: Sent | None = None,
        asked: tuple[str, str] = ("", ""),
    ) -> ev.Decided:
        """Embed, recall, propose, draw; the record is with the kernel before this returns.

        caller: id of the calling API key. duel_of: the decision that this one is compared with.
        outside: takes part in no experiment; None where one arm is named. masked: why arms that the
        request allows are excluded. look: gets what was weighed, which is more than the record has.
        bounded: a query is not longer than rules.max_query_chars; the gateway's are limited by the
        body and the window, and wait a little for others to be decided together with them. sent:
        what else the gateway knows about it. asked: the idempotency key, if there is one, and a
        digest of the request; then a resend gets this decision.
        """
        if request.idempotency_key and not duel_of:
            key = key_of(caller, request.tenant, request.idempotency_key)
            asked = key, digest_of(request)
            anew = msgspec.structs.replace(request, idempotency_key="")
            more = (caller, duel_of, outside, masked, look, bounded, sent, asked)
            return await self._repeats.decide(*asked, lambda: self.decide(anew, *more))
        begun = time.perf_counter()
        wire.check_constraints(request)
        self._admit()
        self._in_flight += 1
        try:
            features = await self.queries.features(request, bounded)
            query = self.queries.query(request, features, None if sent is None else sent.talk)
            query.caller = caller
            query.request_key, query.request_digest = asked
            if sent is not None:
                query.prompt, query.turn, query.reason = sent.prompt, sent.turn, sent.reason
                query.effort_asked, query.efforts = sent.effort_asked, sent.efforts
            query.duel_of, query.masked = duel_of, masked or {}
            query.outside = query.outside if outside is None else outside
            event = await self._deciding.decide(query, look, patient=not features.awaited)
        finally:
            self._in_flight -= 1
        self.pending.bound()
        logs.decision_id.set(event.id)
        self._tell([(event, time.perf_counter() - begun)])
        if self.texts is not None and sent is None:  # the gateway notes it with the answer
            text, _ = wire.text_and_size(request, None)
            if text is not None:
                self.texts.note(event, text)
        return event

    def decide_soon(
        self, request: wire.DecideRequest, caller: str, done: Done, patient: bool = False
    ) -> None:
        """`decide` for a request with an embedding, with a callback instead of a future.

        `done` gets the decision, or the reason why there is none, in this turn of the loop or the
        next, and its owner calls `answered`. Raises Busy.
        patient: or some turns later, together with others.
        """
        self._admit()
        self._in_flight += 1
        try:
            self._deciding.submit(Came(request, caller), done, patient)
        except BaseException:
            self._in_flight -= 1
            raise

    def answered(self, made: Sequence[tuple[ev.Decided | Exception, float]]) -> None:
        """Count the results of `done`, each with the time of its request."""
        self._in_flight -= len(made)
        self.pending.bound()
        now = time.perf_counter()
        self._tell([(one, now - begun) for one, begun in made if not isinstance(one, Exception)])

    def _tell(self, made: Sequence[tuple[ev.Decided, float]]) -> None:
        """Count decisions, each with the seconds that it took."""
        self._telemetry.decided(made)
        for event, _ in made:
            if event.fallback:
                _log.warning("fallback", extra={"decision_id": event.id, "why": event.fallback})

    async def explain(
        self, request: wire.ExplainRequest, tenant: str | None = None
    ) -> tuple[Weighed, dict[ArmId, str]]:
        """The decision that would be made, and why arms are excluded; nothing is written.

        tenant: the only one whose decisions may be weighed again, None for any.
        """
        if request.decision_id is not None:
            wire.refuse_more(request)
            await self.writer.arrived(request.decision_id)
            query = self.queries.again(self._pending(request.decision_id, tenant).decided)
        else:
            wire.check_constraints(request)
            query = self.queries.query(request, await self.queries.features(request))
        recalled = self._deciding.recall(query.embedding, query.coding)
        return weigh(self.world, query, recalled, self.rules.explore), left_out(self.world, query)

    # --- learn ----------------------------------------------------------------------------

    async def reward(
        self, request: wire.RewardRequest, tenant: str | None = None, prior: bool = False
    ) -> str:
        """Append, apply, make durable. "accepted" or "duplicate"; raises what was wrong.

        tenant: the only one whose decisions may be rewarded, None for any. prior: an outcome
        without a decision, from a warm start.
        """
        report = request.reported()
        if request.decision_id is not None:
            wire.refuse_subject(request)
            decision_id = request.decision_id
            return await self._learn(
                lambda: self._rewarded(self._pending(decision_id, tenant), decision_id, report),
                key=decision_id,
            )
        arm = wire.required(request, "arm")
        subject = await self.queries.subject(request)
        report = msgspec.structs.replace(
            report, idempotency_key=outcomes.namespaced_key(request.tenant, report.idempotency_key)
        )
        return await self._learn(
            lambda: outcomes.subject_rewarded(
                self.world, subject, ArmId(arm), report, self.rules.reward, self.writer.now(), prior
            ),
            key=report.idempotency_key,
        )

    async def reward_session(self, request: wire.RewardRequest) -> tuple[str, int]:
        """Append, apply, make durable a reward of a session of this tenant, and its part for each
        decision. "accepted" or "duplicate", and how many decisions are credited.
        """
        said = wire.session_of(request)
        report = request.reported()
        self._admit()
        self._in_flight += 1
        try:
            return await self._crediting.reward(said.group, said.name, report)
        finally:
            self._in_flight -= 1

    async def weigh_prior(self, strength: float) -> ev.PriorWeighed | None:
        """From now on the outcomes of a warm start count as at most `strength` outcomes of each
        arm. Returns the event; None if they count as no more already.
        """
        event = await self.writer.submit(
            lambda: prior_of.weighing(self.world, strength, self.writer.now()), key="catalogue"
        )
        assert event is None or isinstance(event, ev.PriorWeighed)
        return event

    async def observe(
        self,
        decision_id: str,
        signals: outcomes.Signals,
        provisional: bool = False,
        served: outcomes.Served | None = None,
    ) -> str:
        """An observation of the service itself, like `reward`.

        But no client gets an acknowledgement, so it does not wait for the disk: a power cut loses
        as much of it as of decisions. It is never refused because of load, since its cost must be
        booked. provisional: it is a judge's, and the user's own may replace it.
        """
        outcomes.check_signals(signals)
        report = Reported(signals, provisional=provisional, served=served or outcomes.Served())
        return await self._learn(
            lambda: self._rewarded(self._pending(decision_id, None), decision_id, report),
            key=decision_id,
            durable=False,
            admit=False,
            late=True,
        )

    async def judged(self, decision_id: str, judge: str, basis: str, score: float) -> None:
        """Write down what a judge says of an answer, before any calibration; not its quality."""

        def prepare() -> ev.Judged:
            self._pending(decision_id, None)
            return ev.Judged(
                ts=self.writer.now(), decision_id=decision_id, judge=judge, basis=basis, score=score
            )

        await self.writer.submit(prepare, key=decision_id, durable=False, late=True)

    def observe_soon(
        self, decision_id: str, signals: outcomes.Signals, served: outcomes.Served, done: Done
    ) -> None:
        """`observe` with a callback instead of a future: `done` gets the event, or the reason why
        there is none, and its owner calls `observed`.
        """

        def prepare() -> ev.Rewarded | None:
            outcomes.check_signals(signals)
            report = Reported(signals, served=served)
            return self._rewarded(self._pending(decision_id, None), decision_id, report)

        self._in_flight += 1
        self.writer.submit_late(prepare, done, key=decision_id)

    def observed(self, decision_id: str, event: ev.AnyEvent | Exception | None) -> None:
        """Count the result of `done` of an outcome."""
        self._in_flight -= 1
        if not isinstance(event, Exception):
            self.count_reward(decision_id, "duplicate" if event is None else "accepted")

    async def vote(self, decision_id: str, vote: float | None, tenant: str) -> str:
        """A user's vote on a decision of this tenant, as `reward`; None takes it back."""

        def prepare() -> ev.Rewarded | None:
            pending, now = self._pending(decision_id, tenant), self.writer.now()
            self._shadows.before(decision_id)
            rule, named = self._judged_by(pending)
            return outcomes.decision_voted(pending, decision_id, vote, rule, now, named)

        status = await self._learn(prepare, key=decision_id)
        if (
            vote is None and self.world.named.specs
        ):  # the other metrics still count without the vote
            await self.measuring.reweigh(decision_id)
        if vote is None:  # and so do its sessions
            await self._crediting.finish_of(decision_id)
        return status

    async def measured_by_user(
        self, decision_id: str, metrics: Mapping[str, float], tenant: str
    ) -> str:
        """Metrics that a user reports of a decision of this tenant by token; the last value counts.

        Raises Refused for a metric that users may not report.
        """
        signals = outcomes.Signals(metrics=metrics)
        outcomes.check_signals(signals)
        report = Reported(signals, correction=True)

        def prepare() -> ev.Rewarded | None:
            check_feedback(self.world.named, metrics)
            return self._rewarded(self._pending(decision_id, tenant), decision_id, report)

        return await self._learn(prepare, key=decision_id)

    def _rewarded(self, pending: Pending, id: str, report: Reported) -> ev.Rewarded | None:
        self._shadows.before(id)
        metrics = self.world.experiments.metrics_of(pending.decided.experiment)
        now, (rule, named) = self.writer.now(), self._judged_by(pending)
        check_names(named, report.signals.metrics, "decision", [one.name for one in metrics])
        return outcomes.decision_rewarded(pending, id, report, rule, now, metrics, named)

    def _judged_by(self, pending: Pending) -> tuple[RewardRule, NamedMetrics]:
        """The rule and the named metrics of a decision's route."""
        world, route = self.world, pending.decided.route
        return outcomes.rule_of(world, route, self.rules.reward), world.named.of(route)

    async def compare(
        self, request: wire.CompareRequest, tenant: str | None = None, provisional: bool = False
    ) -> str:
        """Append, apply, make durable, as `reward` does. provisional: a judge's."""
        winner, loser, digested = ArmId(request.winner), ArmId(request.loser), request.digested()
        key = outcomes.namespaced_key(request.tenant, request.idempotency_key)
        subject = None
        if request.decision_id is None:
            if request.correction:
                raise Refused(
                    "correction: corrects an earlier report about a decision; send its decision_id",
                    param="correction",
                )
            subject = await self.queries.subject(request)
        else:
            wire.refuse_subject(request)

        def prepare() -> ev.Compared | None:
            decision_id = request.decision_id
            pending = None if decision_id is None else self._pending(decision_id, tenant)
            self._shadows.before(decision_id or "")
            outcomes.check_arms(self.world, winner, loser)
            if pending is None and outcomes.comparison_resent(self.world, key, digested):
                return None
            event = ev.Compared(
                ts=self.writer.now(),
                winner=winner,
                loser=loser,
                tie=request.tie,
                decision_id=decision_id or "",
                subject=subject,
                idempotency_key=key,
                digest=digested if key else "",
                correction=request.correction,
                provisional=provisional,
            )
            return event if pending is None else outcomes.decision_compared(pending, event)

        return await self._learn(prepare, key=request.decision_id or key)

    async def _learn(
        self,
        prepare: Callable[[], ev.AnyEvent | None],
        key: str,
        durable: bool = True,
        admit: bool = True,
        late: bool = False,
    ) -> str:
        if admit:
            self._admit()
        self._in_flight += 1
        try:
            event = await self.writer.submit(prepare, key=key, durable=durable, late=late)
        finally:
            self._in_flight -= 1
        return "duplicate" if event is None else "accepted"

    def count_reward(self, decision_id: str | None, outcome: str) -> None:
        """Count one reward by outcome."""
        pending = self.world.pending.decisions.get(decision_id or "")
        if pending is not None:
            delay = self.writer.now() - pending.decided.ts if outcome == "accepted" else None
            self._telemetry.rewarded(pending.decided.policy, outcome, delay)
        else:
            self._telemetry.rewarded(self.world.serving, outcome)

    def count_comparison(self, outcome: str) -> None:
        """Count one comparison by outcome."""
        self._telemetry.metrics.comparisons(outcome).inc()

    async def forget(self, tenant: str, unit: str) -> str:
        """Forget one unit's decisions and outcomes;

        returns the owner whose records must be erased.
        """
        wire.check_names(unit, tenant)
        owner = ev.owner_of(tenant, unit)
        if not owner:
            raise Refused("unit: must not be empty", param="unit")
        if self.writer.membership.cannot_erase:
            raise NotThere(self.writer.membership.cannot_erase)
        if self.writer.shared:
            self.writer.membership.check_read_by_all(ev.ErasureOrdered)
        if not can_erase(self.writer.log):
            raise NotThere(str(Unsupported(self.writer.log, "erase the records of a unit")))
        await self.writer.submit(
            lambda: ev.Forgotten(ts=self.writer.now(), owner=owner), key="catalogue"
        )
        return owner

    def _forgotten(self, what: Resolved, _: World) -> None:
        """Nothing in this process' memory keeps it either, whoever was asked for it."""
        if isinstance(what.event, ev.Forgotten):
            self._embedder.clear()
            forget_units()
            self._telemetry.count()  # what is not counted yet has whole decisions

    # --- bounds ---------------------------------------------------------------------------

    def _admit(self) -> None:
        if self._in_flight >= self.rules.max_in_flight:
            self._telemetry.shed("queue")
            raise Busy(f"{self._in_flight} requests are running; retry after a second")
