"""The only writer: take what came in one turn of the loop, append once, apply each in order.

Everything here runs on the event loop's thread, and between checking an event against the
world and applying it there is no await; so there is no lock, and the order of the log is the
order in which the world changed. Only two things leave the loop: the embedding model, and the
fsync that an outcome's answer waits for, which all outcomes under way share (group commit).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from bandit_service import clock, wire
from bandit_service.core import events as ev
from bandit_service.core import outcomes
from bandit_service.core.apply import apply
from bandit_service.core.decide import Exploration, Query, Recalled, decide
from bandit_service.core.errors import Busy, Expired, ServiceError, Unavailable, Unknown
from bandit_service.core.outcomes import RewardRule
from bandit_service.core.world import Pending, World
from bandit_service.embedding import EmbeddingStage, Overloaded, estimate_tokens
from bandit_service.telemetry import Telemetry
from policies import ArmId, Vector
from store import EventLog, HistoryIndex, Record, StoreError

_log = logging.getLogger("bandit.router")
_SWEEP = 1000
_TIDY_S, _TIDY_MOST = 0.005, 4


@dataclass(frozen=True, slots=True)
class RouterRules:
    """The settings that the router itself reads."""

    explore: Exploration
    reward: RewardRule
    neighbours: int = 20
    ttl_s: float = 86_400.0
    max_pending: int = 100_000
    max_query_chars: int = 200_000
    max_in_flight: int = 1024
    embed_timeout_s: float = 5.0
    sync_interval_s: float = 0.5


@dataclass(slots=True)
class _Command:
    """What to check against the world and append. Two with one key never share a batch."""

    prepare: Callable[[], ev.AnyEvent | None]
    done: asyncio.Future[ev.AnyEvent | None]
    key: str
    durable: bool


class Router:
    """Decide, learn, and change the catalogue. Make one inside the running loop, then `start`."""

    def __init__(
        self,
        *,
        world: World,
        log: EventLog,
        index: HistoryIndex,
        embedder: EmbeddingStage,
        telemetry: Telemetry,
        rules: RouterRules,
    ) -> None:
        self.world = world
        self.rules = rules
        self._event_log = log
        self._index = index
        self._embedder = embedder
        self._telemetry = telemetry
        self._ids = clock.Ids()
        self._commands: list[_Command] = []
        self._waiting: list[tuple[asyncio.Future[ev.AnyEvent | None], ev.AnyEvent | None]] = []
        self._wake = asyncio.Event()
        self._unsynced = False
        self._in_flight = 0
        self._tidying: asyncio.TimerHandle | None = None
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="fsync")
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to commit and to sweep."""
        self._tasks = [
            asyncio.create_task(self._commit_forever(), name="commit"),
            asyncio.create_task(self._sweep_forever(), name="sweep"),
        ]

    def warm(self) -> None:
        """Propose once and forget it, so that the first query waits for no policy's caches."""
        if self.world.offered():
            query = Query(np.zeros(self._embedder.dim, np.float32), 1, self._worth(None))
            decide(self.world, query, Recalled(), "warm", 0.0, self.rules.explore)

    async def close(self) -> None:
        """Flush what is under way, make it durable, stop. The log itself is the caller's."""
        self._flush()
        await self._sync()
        if self._tidying is not None:
            self._tidying.cancel()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        self._threads.shutdown()

    # --- decide ---------------------------------------------------------------------------

    async def decide(self, request: wire.DecideRequest) -> ev.Decided:
        """Embed, recall, propose, draw; the record is with the kernel before this returns."""
        wire.check_constraints(request)
        self._admit()
        self._in_flight += 1
        try:
            embedding, tokens, fallback = await self._features(request)
            query = Query(
                embedding=embedding,
                tokens=tokens,
                willingness_to_pay=self._worth(request.willingness_to_pay),
                arms=wire.arm_ids(request.arms),
                max_cost_usd=request.max_cost_usd,
                max_latency_s=request.max_latency_s,
                requires=tuple(request.requires),
                tenant=request.tenant,
                unit=request.unit,
                fallback=fallback,
            )
            event = await self._submit(lambda: self._decide(query), key="", durable=False)
        finally:
            self._in_flight -= 1
        assert isinstance(event, ev.Decided)
        self._telemetry.decided(event)
        if event.fallback:
            _log.warning("fallback", extra={"decision_id": event.id, "why": event.fallback})
        return event

    def _decide(self, query: Query) -> ev.Decided:
        begun = time.perf_counter()
        recalled = self._recall(query.embedding)
        recalled_at = time.perf_counter()
        ts = clock.now()
        event = decide(self.world, query, recalled, self._ids.new(ts), ts, self.rules.explore)
        self._telemetry.stage("recall", recalled_at - begun)
        self._telemetry.stage("propose", time.perf_counter() - recalled_at)
        return event

    def _recall(self, embedding: Vector) -> Recalled:
        if not self.rules.neighbours or not len(self._index):
            return Recalled()
        found = self._index.recall(embedding, self.rules.neighbours)
        return Recalled(tuple(found.ids.tolist()), tuple(found.similarities.tolist()))

    # --- learn ----------------------------------------------------------------------------

    async def reward(self, request: wire.RewardRequest) -> str:
        """Append, apply, make durable. "accepted" or "duplicate"; raises what was wrong."""
        report = request.reported()
        if request.decision_id is not None:
            wire.refuse_subject(request)
            decision_id = request.decision_id
            return await self._learn(
                lambda: outcomes.decision_rewarded(
                    self._pending(decision_id), decision_id, report, self.rules.reward, clock.now()
                ),
                key=decision_id,
            )
        arm = wire.required(request, "arm")
        subject = await self._subject(request, request.willingness_to_pay)
        return await self._learn(
            lambda: outcomes.subject_rewarded(
                self.world, subject, ArmId(arm), report, self.rules.reward, clock.now()
            ),
            key=report.idempotency_key,
        )

    async def compare(self, request: wire.CompareRequest) -> str:
        """Append, apply, make durable. "accepted" or "duplicate"; raises what was wrong."""
        winner, loser, digested = ArmId(request.winner), ArmId(request.loser), request.digested()
        subject = None
        if request.decision_id is None:
            subject = await self._subject(request, request.willingness_to_pay)
        else:
            wire.refuse_subject(request)

        def prepare() -> ev.Compared | None:
            decision_id = request.decision_id
            pending = None if decision_id is None else self._pending(decision_id)
            outcomes.check_arms(self.world, winner, loser)
            key = request.idempotency_key
            if outcomes.comparison_resent(self.world, pending, key, digested):
                return None
            return ev.Compared(
                ts=clock.now(),
                winner=winner,
                loser=loser,
                tie=request.tie,
                decision_id=decision_id or "",
                subject=subject,
                idempotency_key=key,
                digest=digested if key else "",
            )

        return await self._learn(prepare, key=request.decision_id or request.idempotency_key)

    async def _learn(self, prepare: Callable[[], ev.AnyEvent | None], key: str) -> str:
        self._admit()
        self._in_flight += 1
        try:
            event = await self._submit(prepare, key=key, durable=True)
        finally:
            self._in_flight -= 1
        return "duplicate" if event is None else "accepted"

    def count_reward(self, decision_id: str | None, outcome: str, arm: str | None = None) -> None:
        """Count one reward by outcome; its arm only where we know it is one of ours."""
        pending = self.world.pending.get(decision_id or "")
        if pending is not None:
            delay = clock.now() - pending.decided.ts if outcome == "accepted" else None
            self._telemetry.rewarded(pending.decided.arm, pending.decided.policy, outcome, delay)
        else:
            known = arm if arm in self.world.arms else ""
            self._telemetry.rewarded(known or "", self.world.serving, outcome)

    def count_comparison(self, outcome: str) -> None:
        """Count one comparison by outcome."""
        self._telemetry.compared(outcome)

    def find(self, decision_id: str) -> Pending:
        """A decision that may still be rewarded; Unknown or Expired otherwise."""
        return self._pending(decision_id)

    def _pending(self, decision_id: str) -> Pending:
        pending = self.world.pending.get(decision_id)
        if pending is not None:
            return pending
        # Decisions leave oldest first and their ids sort by age, so whatever sorts before the
        # oldest one kept was forgotten.
        oldest = next(iter(self.world.pending), decision_id)
        made = clock.time_of(decision_id)
        if made is not None and (made < clock.now() - self.rules.ttl_s or decision_id < oldest):
            raise Expired(
                f"decision_id: {decision_id!r} was made too long ago and is forgotten; "
                f"reward.ttl_s is {self.rules.ttl_s:g}, "
                f"reward.max_pending is {self.rules.max_pending}",
                param="decision_id",
            )
        raise Unknown(f"decision_id: no decision {decision_id!r}", param="decision_id")

    # --- catalogue ------------------------------------------------------------------------

    async def put_arm(self, spec: ev.ArmSpec, source: str = "api") -> bool:
        """Add or replace an arm; True when it is new or back. Nothing happens if it is the same."""
        existed = False

        def prepare() -> ev.AnyEvent | None:
            nonlocal existed
            record = self.world.arms.get(spec.id)
            existed = record is not None and not record.retired
            same = record is not None and existed and record.spec == spec
            if same and (source == "api" or self.world.configured.get(spec.id) == spec):
                return None
            kind = ev.ArmUpdated if existed else ev.ArmAdded
            return kind(ts=clock.now(), arm=spec, source=source)

        await self._submit(prepare, key="catalogue", durable=True)
        return not existed

    async def retire_arm(self, id: ArmId, source: str = "api") -> None:
        """Offer the arm no more; it keeps what was learned and still accepts rewards."""

        def prepare() -> ev.AnyEvent:
            record = self.world.arms.get(id)
            if record is None or record.retired:
                raise Unknown(f"id: no arm {id!r}; GET /v1/arms lists them", param="id")
            return ev.ArmRetired(ts=clock.now(), id=id, source=source)

        await self._submit(prepare, key="catalogue", durable=True)

    async def change_policy(self, name: str, key: str, parameters: dict[str, Any]) -> None:
        """Write down that from here on another policy, or other parameters, decide."""
        event = ev.PolicyChanged(
            ts=clock.now(), policy=name, key=key, parameters=msgspec.json.encode(parameters)
        )
        await self._submit(lambda: event, key="catalogue", durable=True)

    # --- the writer -----------------------------------------------------------------------

    def _admit(self) -> None:
        if self._in_flight >= self.rules.max_in_flight:
            self._telemetry.shed("queue")
            raise Busy(f"{self._in_flight} requests are under way; retry after a second")

    def _submit(
        self, prepare: Callable[[], ev.AnyEvent | None], *, key: str, durable: bool
    ) -> asyncio.Future[ev.AnyEvent | None]:
        loop = asyncio.get_running_loop()
        command = _Command(prepare, loop.create_future(), key, durable)
        if not self._commands:
            loop.call_soon(self._flush)
        self._commands.append(command)
        return command.done

    def _flush(self) -> None:
        """Everything that came in this turn of the loop, in order, in as few appends as can be."""
        commands, self._commands = self._commands, []
        batch: list[tuple[_Command, ev.AnyEvent]] = []
        keys: set[str] = set()
        for command in commands:
            if command.key and command.key in keys:
                self._commit(batch)  # what this one is checked against must be applied first
                batch, keys = [], set()
            try:
                event = command.prepare()
            except ServiceError as error:
                _fail(command.done, error)
                continue
            except Exception as error:  # noqa: BLE001 - one command's bug is not the others'
                _fail(command.done, error)
                continue
            if event is None:
                self._settle(command, None)
                continue
            batch.append((command, event))
            keys.add(command.key)
        self._commit(batch)
        self._bound_pending()

    def _commit(self, batch: Sequence[tuple[_Command, ev.AnyEvent]]) -> None:
        if not batch:
            return
        begun = time.perf_counter()
        try:
            self._event_log.append([self._record(event) for _, event in batch])
        except StoreError as error:
            _log.error("append failed", extra={"why": str(error)})
            for command, _ in batch:
                _fail(command.done, Unavailable(f"the event log cannot be written: {error}"))
            return
        appended = time.perf_counter()
        for command, event in batch:
            self._apply(event)
            if isinstance(event, ev.Decided):
                self._telemetry.stage("append", (appended - begun) / len(batch))
            self._settle(command, event)
        self._unsynced = True
        self._telemetry.applied(time.perf_counter() - begun, self._event_log.last)

    def _record(self, event: ev.AnyEvent) -> Record:
        eid = event.id if isinstance(event, ev.Decided) else self._ids.new(event.ts)
        return Record(eid=eid, kind=ev.kind(event), ts=event.ts, body=ev.encode(event))

    def _apply(self, event: ev.AnyEvent) -> None:
        before = self.world.learners[self.world.serving].failures
        self.world = apply(self.world, event)
        learner = self.world.learners[self.world.serving]
        if learner.failures != before:
            _log.warning("the policy refused to learn", extra={"event": ev.kind(event)})
            self._telemetry.learner_failures(self.world.serving, learner.failures)
        added, removed = self.world.history.take_changes()
        for id in removed:
            self._index.remove(id)
        for id in added:
            self._index.add(id, self.world.history.vector(id))
        if added and self._tidying is None:
            self._tidying = asyncio.get_running_loop().call_later(_TIDY_S, self._tidy)

    def _tidy(self) -> None:
        """Between answers, a little of what the index has put off; it answers rightly without."""
        left = self._index.settle(_TIDY_MOST)
        again = asyncio.get_running_loop().call_later(_TIDY_S, self._tidy) if left else None
        self._tidying = again

    def _settle(self, command: _Command, event: ev.AnyEvent | None) -> None:
        if command.durable:
            self._waiting.append((command.done, event))
            self._wake.set()
        elif not command.done.done():
            command.done.set_result(event)

    def _bound_pending(self) -> None:
        excess = len(self.world.pending) - self.rules.max_pending
        if excess > 0:
            oldest: list[str] = []
            for id in self.world.pending:
                if len(oldest) == excess:
                    break
                oldest.append(id)
            self._expire(oldest)

    def _expire(self, ids: list[str]) -> None:
        event = ev.DecisionsExpired(ts=clock.now(), ids=tuple(ids))
        try:
            self._event_log.append([self._record(event)])
        except StoreError as error:
            _log.error("append failed", extra={"why": str(error)})
            return
        self._apply(event)
        self._unsynced = True

    def sweep(self, now: float) -> int:
        """Forget the decisions that were made before `now` − ttl_s; how many."""
        gone: list[str] = []
        for id, pending in self.world.pending.items():
            if pending.decided.ts >= now - self.rules.ttl_s or len(gone) == _SWEEP:
                break
            gone.append(id)
        if gone:
            self._expire(gone)
        return len(gone)

    async def _sweep_forever(self) -> None:
        while True:
            more = self.sweep(clock.now()) == _SWEEP
            await asyncio.sleep(0 if more else min(5.0, self.rules.ttl_s))

    # --- durability -----------------------------------------------------------------------

    async def _commit_forever(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self.rules.sync_interval_s)
            if self._waiting or self._unsynced:
                await self._sync()

    async def _sync(self) -> None:
        """One fsync for everything appended so far; then the outcomes it covers are answered."""
        self._wake.clear()
        waiting, self._waiting = self._waiting, []
        self._unsynced = False
        begun = time.perf_counter()
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._event_log.sync)
        except StoreError as error:
            _log.critical("sync failed", extra={"why": str(error)})
            for done, _ in waiting:
                _fail(done, Unavailable(f"the event log cannot be made durable: {error}"))
            return
        self._telemetry.synced(time.perf_counter() - begun)
        for done, event in waiting:
            if not done.done():
                done.set_result(event)

    # --- features -------------------------------------------------------------------------

    def _worth(self, willingness_to_pay: float | None) -> float:
        given = willingness_to_pay
        return self.rules.reward.willingness_to_pay if given is None else given

    async def _features(self, request: wire.Query) -> tuple[Vector, int, str]:
        """Embedding, token estimate, and why the embedding could not be had if it could not."""
        text, size = wire.text_and_size(request, self.rules.max_query_chars)
        if text is None:
            return wire.embedding_of(request, self._embedder.dim), 0, ""
        tokens = estimate_tokens(size)
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(self.rules.embed_timeout_s):
                embedding = await self._embedder.embed_one(text)
        except Overloaded as error:
            self._telemetry.shed("queue")
            raise Busy(f"the embedding queue is full: {error}") from None
        except Exception as error:  # noqa: BLE001 - a query gets an answer without its embedding
            return (
                np.zeros(self._embedder.dim, np.float32),
                tokens,
                f"embed: {type(error).__name__}",
            )
        self._telemetry.stage("embed", time.perf_counter() - begun)
        return embedding, tokens, ""

    async def _subject(self, request: wire.Query, worth: float | None) -> ev.Subject:
        wire.check_positive("willingness_to_pay", worth, least=1e-9, most=1e6)
        embedding, tokens, failed = await self._features(request)
        if failed:
            raise Unavailable(f"the query cannot be embedded now ({failed}); retry")
        recalled = self._recall(embedding)
        return ev.Subject(
            embedding=ev.pack(embedding),
            tokens=tokens,
            willingness_to_pay=self._worth(worth),
            neighbours=tuple(recalled.ids),
            similarities=tuple(recalled.similarities),
        )


def _fail(done: asyncio.Future[ev.AnyEvent | None], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
