"""The calls of the service: decide, learn, change the catalogue, forget.

Each call checks its arguments, computes the features that its event carries, and submits it to the
writer. The writer checks it against the world, appends and applies it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import msgspec
import numpy as np

from bandit_service import clock, logs, wire
from bandit_service.core import events as ev
from bandit_service.core import outcomes
from bandit_service.core import prior as prior_of
from bandit_service.core.conversations import Sent
from bandit_service.core.decide import Weighed, decide, weigh
from bandit_service.core.eligibility import left_out
from bandit_service.core.errors import (
    Busy,
    Expired,
    NotThere,
    NotYet,
    Refused,
    TooLarge,
    Unavailable,
    Unknown,
)
from bandit_service.core.experiments.assignment import forget_units
from bandit_service.core.exploration import Exploration
from bandit_service.core.named_metrics import NamedMetrics
from bandit_service.core.outcomes import Reported, RewardRule
from bandit_service.core.query import Query, Recalled
from bandit_service.core.resolved import Pending, Resolved
from bandit_service.core.session_outcomes import CreditRule
from bandit_service.core.sessions import groups_of
from bandit_service.core.staying import turn_of
from bandit_service.core.tags import tags_of
from bandit_service.core.world import World
from bandit_service.embedding import EmbeddingStage, Overloaded, estimate_tokens
from bandit_service.embedding import key_of as key_of_text
from bandit_service.runtime.crediting import Crediting
from bandit_service.runtime.deciding import Deciding
from bandit_service.runtime.feedback import Feedback
from bandit_service.runtime.group_commit import Done
from bandit_service.runtime.index_feed import IndexFeed
from bandit_service.runtime.measuring import Measuring, check_feedback, check_names
from bandit_service.runtime.repeats import Repeats, digest_of, key_of
from bandit_service.runtime.shadows import Shadows
from bandit_service.runtime.supervisor import Kept
from bandit_service.runtime.writer import Writer
from bandit_service.settings import Settings, exploration
from bandit_service.telemetry import tracing
from bandit_service.telemetry.telemetry import Telemetry
from policies import ArmId, Vector
from store import HistoryIndex, Unsupported, can_erase

_log = logging.getLogger("bandit.router")
_SWEEP = 1000


class _Features(msgspec.Struct, frozen=True, gc=False):
    """The features of a query; fallback: why its text could not be embedded."""

    embedding: Vector
    tokens: int = 0
    surface: bytes = b""
    fallback: str = ""


@dataclass(frozen=True, slots=True)
class RouterRules:
    """The settings that the router reads; `of` takes them from all."""

    explore: Exploration
    reward: RewardRule
    neighbours: int
    ttl_s: float
    default_reward: float | None
    max_pending: int
    max_arms: int
    max_query_chars: int
    max_in_flight: int
    embed_timeout_s: float
    credit: CreditRule = field(default_factory=CreditRule)

    @classmethod
    def of(cls, settings: Settings) -> RouterRules:
        """The rules of these settings."""
        reward, server = settings.reward, settings.server
        return cls(
            explore=exploration(settings.exploration),
            reward=RewardRule(reward.willingness_to_pay, reward.latency_weight),
            credit=CreditRule(reward.session_credit, reward.session_discount),
            neighbours=settings.history.neighbours,
            ttl_s=reward.ttl_s,
            default_reward=reward.default if reward.on_expiry == "default" else None,
            max_pending=reward.max_pending,
            max_arms=server.max_arms,
            max_query_chars=server.max_query_chars,
            max_in_flight=server.max_in_flight,
            embed_timeout_s=settings.embedding.timeout_s,
        )


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
        self._deciding = Deciding(writer, index, telemetry, rules.explore, rules.neighbours)
        self._feed = IndexFeed(index, writer.tasks)
        writer.listen(self._feed.heard)
        writer.listen(self._forgotten)
        self._repeats = Repeats(lambda: self.world, writer.waits)
        self._shadows = Shadows(writer, rules.explore)
        writer.listen(self._shadows.heard)
        self.measuring = Measuring(writer, rules.reward)
        self._crediting = Crediting(writer, rules.reward, rules.credit)
        self._embedder = embedder
        self._telemetry = telemetry
        self._in_flight = 0
        self._sweeping: Kept | None = None

    @property
    def world(self) -> World:
        """Everything known now."""
        return self.writer.world

    @property
    def texts_waiting(self) -> int:
        """Texts that wait for the embedding model."""
        return self._embedder.waiting

    async def start(self) -> None:
        """Begin to commit and to sweep."""
        self.writer.start()
        self._sweeping = self.writer.tasks.keep("sweep", self._sweep_forever)
        self.measuring.start()
        self._crediting.start()

    def warm(self) -> None:
        """Propose once and discard it, so that the first query does not wait for caches."""
        if self.world.offered():
            query = Query(np.zeros(self._embedder.dim, np.float32), 1, self._worth(None))
            decide(self.world, query, Recalled(), "warm", 0.0, self.rules.explore)

    async def close(self) -> None:
        """Flush what is under way, make it durable, stop. The log itself is the caller's."""
        if self._sweeping is not None:
            await self._sweeping.end()
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
            query = self._query(request, await self._features(request, bounded))
            query.caller = caller
            query.request_key, query.request_digest = asked
            if sent is not None:
                query.prompt, query.turn, query.reason = sent.prompt, sent.turn, sent.reason
                query.effort_asked, query.efforts = sent.effort_asked, sent.efforts
                query.groups = groups_of(query.tenant, query.session, sent.talk)
            query.duel_of, query.masked = duel_of, masked or {}
            query.outside = query.outside if outside is None else outside
            event = await self._deciding.decide(query, look, patient=True)
        finally:
            self._in_flight -= 1
        self._bound_pending()
        self._tell(event, begun)
        return event

    def decide_soon(self, request: wire.DecideRequest, caller: str, done: Done) -> None:
        """`decide` for a request with an embedding, with a callback instead of a future.

        Raises an error for an invalid request. Otherwise `done` gets the decision, or the reason
        why there is none, in this turn of the loop or the next, and its owner calls `answered`.
        """
        self._admit()
        query = self._query(request, _Features(wire.embedding_of(request, self._embedder.dim)))
        query.caller = caller
        self._in_flight += 1
        try:
            self._deciding.submit(query, done)
        except BaseException:
            self._in_flight -= 1
            raise

    def answered(self, made: Sequence[tuple[ev.Decided | Exception, float]]) -> None:
        """Count the results of `done`, each with the time of its request."""
        self._in_flight -= len(made)
        self._bound_pending()
        for event, begun in made:
            if not isinstance(event, Exception):
                self._tell(event, begun)

    def _tell(self, event: ev.Decided, begun: float) -> None:
        logs.decision_id.set(event.id)
        self._telemetry.decided(event, time.perf_counter() - begun)
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
            query = self._again(self._pending(request.decision_id, tenant).decided)
        else:
            wire.check_constraints(request)
            query = self._query(request, await self._features(request))
        recalled = self._deciding.recall(query.embedding)
        return weigh(self.world, query, recalled, self.rules.explore), left_out(self.world, query)

    def _again(self, decided: ev.Decided) -> Query:
        """The query of a decision, with the arms of that time. Its policy decides again if it still
        exists and was not chosen by an experiment. Raises Unknown if the decision's route was
        removed.
        """
        routed = bool(decided.route)
        if routed and decided.route not in self.world.routes.specs:
            raise Unknown(
                f"decision_id: {decided.id!r} was made by the route {decided.route!r}, which is "
                "no longer configured, so it cannot be explained again; "
                f"GET /v1/decisions/{decided.id} has what it was made from",
                param="decision_id",
            )
        named = decided.policy in self.world.deciding() and not (decided.experiment or routed)
        return Query(
            embedding=ev.unpack(decided.embedding),
            tokens=decided.tokens,
            willingness_to_pay=decided.willingness_to_pay,
            arms=decided.arms,
            tenant=decided.tenant,
            unit=decided.unit,
            policy=decided.policy if named else "",
            fallback=decided.fallback if not np.any(ev.unpack(decided.embedding)) else "",
            surface=decided.surface,
            prompt=decided.prompt_tokens,
            turn=turn_of(decided),
            route=decided.route,
        )

    def _query(self, request: wire.DecideRequest, of: _Features) -> Query:
        arms = wire.arm_ids(request.arms)
        if request.route:
            arms = self._of_route(request, arms)
        return Query(
            embedding=of.embedding,
            tokens=of.tokens,
            surface=of.surface,
            willingness_to_pay=self.worth_of(request),
            arms=arms,
            max_cost_usd=request.max_cost_usd,
            max_latency_s=request.max_latency_s,
            requires=tuple(request.requires),
            tenant=request.tenant,
            unit=request.unit,
            session=request.session,
            conversation=request.conversation,
            policy=request.policy,
            outside=request.arms is not None and len(request.arms) == 1,
            fallback=of.fallback,
            tags=tags_of(request.tags),
            groups=groups_of(request.tenant, request.session, request.conversation),
            route=request.route,
            all_of_route=bool(request.route) and request.arms is None,
        )

    def _of_route(
        self, request: wire.DecideRequest, arms: tuple[ArmId, ...] | None
    ) -> tuple[ArmId, ...] | None:
        """The arms that a route allows a query."""
        route, there = self.world.routes.find(request.route), self.world.arms
        if request.policy:
            raise Refused(
                f"policy: the route {route.id!r} has its own; leave it out", param="policy"
            )
        if route.arms and arms is None:
            arms = self.world.routes.arms_of(route.id, there)
        elif route.arms and arms is not None and (other := set(arms) - set(route.arms)):
            raise Refused(
                f"arms: {min(other)!r} is no arm of the route {route.id!r}; expected one of "
                f"{', '.join(route.arms)}",
                param="arms",
            )
        return arms

    def worth_of(self, request: wire.DecideRequest) -> float:
        """USD that one unit of quality is worth to a query: its own value, or its route's, or the
        service's.
        """
        given = request.willingness_to_pay
        if given is None and request.route:
            given = self.world.routes.find(request.route).willingness_to_pay
        return self._worth(given)

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
        subject = await self._subject(request)
        report = replace(
            report, idempotency_key=outcomes.keyed_by(request.tenant, report.idempotency_key)
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
        key = outcomes.keyed_by(request.tenant, request.idempotency_key)
        subject = None
        if request.decision_id is None:
            if request.correction:
                raise Refused(
                    "correction: corrects an earlier report about a decision; send its decision_id",
                    param="correction",
                )
            subject = await self._subject(request)
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

    def find(self, decision_id: str, tenant: str | None = None) -> Pending:
        """A decision that may still be rewarded; Unknown or Expired otherwise."""
        return self._pending(decision_id, tenant)

    def _pending(self, decision_id: str, tenant: str | None) -> Pending:
        # report another tenant's decision as unknown
        pending = self.world.pending.decisions.get(decision_id)
        if pending is not None and tenant in (None, pending.decided.tenant):
            return pending
        if self.writer.in_backlog(decision_id, tenant):
            raise Unavailable(f"the event log cannot be written: {self.writer.degraded}")
        # Decisions leave oldest first and their ids sort by age, so whatever sorts before the
        # oldest one kept was forgotten.
        oldest = next(iter(self.world.pending.decisions), decision_id)
        made = clock.time_of(decision_id)
        late = made is not None and made < self.writer.now() - self.rules.ttl_s
        if not late and self.writer.may_come(decision_id):
            raise NotYet.of(decision_id)
        if made is not None and (late or decision_id < oldest):
            raise Expired(
                f"decision_id: {decision_id!r} has expired; "
                f"reward.ttl_s is {self.rules.ttl_s:g}, "
                f"reward.max_pending is {self.rules.max_pending}",
                param="decision_id",
            )
        raise Unknown(f"decision_id: no decision {decision_id!r}", param="decision_id")

    # --- catalogue ------------------------------------------------------------------------

    async def put_arm(
        self,
        spec: ev.ArmSpec,
        source: str = "api",
        check: Callable[[list[ev.ArmSpec]], None] = lambda _: None,
    ) -> bool:
        """Add or replace an arm; True when it is new or back. Nothing happens if it is the same.

        check: gets the resulting arms, and raises an error if they are not allowed.
        """
        existed = False

        def prepare() -> ev.AnyEvent | None:
            nonlocal existed
            record = self.world.arms.get(spec.id)
            existed = record is not None and not record.retired
            same = record is not None and existed and record.spec == spec
            if same and (source == "api" or self.world.catalogue.configured.get(spec.id) == spec):
                return None
            if source == "api" and spec.id in self.world.routes.specs:
                raise Refused(
                    f"id: there is a route {spec.id!r}; put the arm under another id", param="id"
                )
            most = self.rules.max_arms
            if record is None and source == "api" and len(self.world.arms) >= most:
                raise TooLarge(f"id: there are {most} arms, retired ones included", param="id")
            there = self.world.catalogue.present()
            check([spec, *(one.spec for one in there if one.spec.id != spec.id)])
            kind = ev.ArmUpdated if existed else ev.ArmAdded
            return kind(ts=self.writer.now(), arm=spec, source=source)

        await self.writer.submit(prepare, key="catalogue")
        return not existed

    async def retire_arm(self, id: ArmId, source: str = "api") -> None:
        """Stop offering the arm; its learned state stays, and it still accepts rewards."""

        def prepare() -> ev.AnyEvent:
            record = self.world.arms.get(id)
            if record is None or record.retired:
                raise Unknown(f"id: no arm {id!r}; GET /v1/arms lists them", param="id")
            return ev.ArmRetired(ts=self.writer.now(), id=id, source=source)

        await self.writer.submit(prepare, key="catalogue")

    async def set_routes(self, wanted: Mapping[str, tuple[ev.RouteSpec, str]]) -> None:
        """Set the routes, each with the key of its policy."""
        learners = self.world.learners

        def removed(id: str) -> ev.RouteRemoved | None:
            there = id in self.world.routes.specs
            return ev.RouteRemoved(ts=self.writer.now(), id=id) if there else None

        def changed(spec: ev.RouteSpec, key: str) -> ev.RouteChanged | None:
            learner = learners.get(ev.label_of_route(spec.id))
            same = learner is not None and learner.key == key
            if same and self.world.routes.specs.get(spec.id) == spec:
                return None
            return ev.RouteChanged(ts=self.writer.now(), route=spec, key=key)

        for id in [id for id in self.world.routes.specs if id not in wanted]:
            await self.writer.submit(partial(removed, id), key="catalogue")
        for id, (spec, key) in wanted.items():
            learner = learners.get(ev.label_of_route(id))
            if learner is not None and learner.key != key:
                _log.warning(
                    "a route has another policy, or other parameters, than before, and begins with "
                    "nothing learned",
                    extra={"route": id, "policy": spec.policy},
                )
            await self.writer.submit(partial(changed, spec, key), key="catalogue")

    async def change_policy(
        self, name: str, key: str, parameters: dict[str, Any], source: str
    ) -> None:
        """Write the event that this policy decides from now on, with its present state."""

        def prepare() -> ev.PolicyChanged | None:
            if self.world.policy.key == key:
                return None
            return ev.PolicyChanged(
                ts=self.writer.now(),
                policy=name,
                key=key,
                parameters=msgspec.json.encode(parameters),
                source=source,
            )

        await self.writer.submit(prepare, key="catalogue")

    async def forget(self, tenant: str, unit: str) -> str:
        """Forget one unit's decisions and outcomes;

        returns the owner whose records must be erased.
        """
        wire.check_names(unit, tenant)
        owner = ev.owner_of(tenant, unit)
        if not owner:
            raise Refused("unit: must not be empty", param="unit")
        if self.writer.cannot_erase:
            raise NotThere(self.writer.cannot_erase)
        if self.writer.shared:
            self.writer.check_read_by_all(ev.ErasureOrdered)
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

    def _bound_pending(self) -> None:
        """Beyond max_pending the oldest decision is dropped.

        It teaches nothing, since its time was not over.
        """
        excess = len(self.world.pending.decisions) - self.rules.max_pending
        if excess > 0:
            oldest: list[str] = []
            for id in self.world.pending.decisions:
                if len(oldest) == excess:
                    break
                oldest.append(id)
            self._expire(oldest)

    def _expire(self, ids: list[str], default_reward: float | None = None) -> bool:
        return self.writer.append_now(
            ev.DecisionsExpired(ts=self.writer.now(), ids=tuple(ids), default_reward=default_reward)
        )

    def sweep(self, now: float) -> int:
        """Forget the decisions that were made before `now` − ttl_s; returns how many."""
        gone: list[str] = []
        for id, pending in self.world.pending.decisions.items():
            if pending.decided.ts >= now - self.rules.ttl_s or len(gone) == _SWEEP:
                break
            gone.append(id)
        if not gone or not self._expire(gone, self.rules.default_reward):
            return 0
        return len(gone)

    async def _sweep_forever(self) -> None:
        while True:
            more = self.sweep(self.writer.now()) == _SWEEP
            self.writer.tasks.well("sweep")
            await asyncio.sleep(0 if more else min(5.0, self.rules.ttl_s))

    # --- features -------------------------------------------------------------------------

    def _worth(self, willingness_to_pay: float | None) -> float:
        given = willingness_to_pay
        return self.rules.reward.willingness_to_pay if given is None else given

    async def _features(self, request: wire.Query, bounded: bool = True) -> _Features:
        most = self.rules.max_query_chars if bounded else None
        text, size = wire.text_and_size(request, most)
        if text is None:
            return _Features(wire.embedding_of(request, self._embedder.dim))
        tokens = estimate_tokens(size)
        begun = time.perf_counter()
        try:
            key = key_of_text(text)
            embedded = self._embedder.kept(key)
            if embedded is None:
                async with asyncio.timeout(self.rules.embed_timeout_s):
                    embedded = await self._embedder.embed_new(key, text)
        except Overloaded as error:
            self._telemetry.shed("queue")
            raise Busy(f"the embedding queue is full: {error}") from None
        except Exception as error:  # noqa: BLE001 - a query gets an answer without its embedding
            nothing = np.zeros(self._embedder.dim, np.float32)
            return _Features(nothing, tokens, fallback=f"embed: {type(error).__name__}")
        ended = time.perf_counter()
        self._telemetry.stage("embed", ended - begun)
        if (span := tracing.current()) is not None:
            span.stage("embed", begun, ended)
        return _Features(embedded.vector, tokens, embedded.surface)

    async def _subject(self, request: wire.RewardRequest | wire.CompareRequest) -> ev.Subject:
        worth = request.willingness_to_pay
        wire.check_worth(worth)
        wire.check_names(request.unit, request.tenant)
        of = await self._features(request)
        if of.fallback:
            raise Unavailable(f"the query cannot be embedded now ({of.fallback}); retry")
        recalled = self._deciding.recall(of.embedding)
        return ev.Subject(
            embedding=ev.pack(of.embedding),
            tokens=of.tokens,
            surface=of.surface,
            willingness_to_pay=self._worth(worth),
            neighbours=tuple(recalled.ids),
            similarities=tuple(recalled.similarities),
            tenant=request.tenant,
            unit=request.unit,
        )
