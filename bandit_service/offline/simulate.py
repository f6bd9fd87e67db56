"""Recorded traffic through a policy, by the very fold that the service runs.

The online protocol: queries arrive one by one, and of each only the drawn arm's quality and cost
are shown to the policy (`bandit`). Two other kinds of feedback serve as references: `full` shows
every arm's outcome, and `duel` shows no quality at all, but which of the drawn arm and another
one, taken evenly from the rest, was the better. No HTTP, no disk, no clock; equal arguments give
equal runs.

An arm without a recorded answer to a query is not eligible for that query.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bandit_service.core import chance
from bandit_service.core import events as ev
from bandit_service.core import prior as prior_of
from bandit_service.core.apply import fold
from bandit_service.core.decide import decide
from bandit_service.core.exploration import Exploration
from bandit_service.core.history import PER_ITEM
from bandit_service.core.outcomes import (
    Reported,
    RewardRule,
    Signals,
    decision_rewarded,
    subject_rewarded,
)
from bandit_service.core.query import Query, Recalled
from bandit_service.core.resolve import resolve
from bandit_service.core.resolved import Resolved
from bandit_service.core.world import World, new_world
from bandit_service.data.recall import Recall, recall_stream
from bandit_service.data.recordings import Recorded, surface_once
from bandit_service.offline.baselines import Baselines, Track, baselines, joined
from policies import ArmId, Floats, Policy, Vector

Watch = Callable[[int, float], None]
React = Callable[[Resolved, World], ev.AnyEvent | None]
Heard = Callable[[ev.AnyEvent], None]
Feedback = Literal["bandit", "full", "duel"]
_EXPIRE_EVERY = 1000
_LABEL = "replayed"
_TIE = 1e-9


@dataclass(frozen=True, slots=True)
class Run:
    """One pass of a policy over a recording.

    order:     (n,) rows of the recording as they came.
    outcomes:  how many outcomes, or comparisons, the policy was shown, those before the run too.
    arm:       (n,) index of the drawn arm in `Recorded.arms`.
    chance:    (n,) with which that arm was drawn.
    baselines: in the same order as `track`.
    fallbacks: decisions in which the policy failed and uniform stood in.
    failures:  rewards that the policy refused to learn from.
    """

    seed: int
    order: NDArray[np.int64]
    arm: NDArray[np.int64]
    chance: Floats
    track: Track
    baselines: Baselines
    fallbacks: int
    failures: int
    outcomes: int

    def regret(self, against: Track) -> Floats:
        """(n,) the reward of `against` less the reward got, cumulated."""
        regret: Floats = np.cumsum(against.reward - self.track.reward)
        return regret


def order_of(recorded: Recorded, seed: int) -> NDArray[np.int64]:
    """The rows shuffled by id; where they stand in the file does not matter."""
    keys = [chance.uniform(seed, f"order:{id}") for id in recorded.ids]
    return np.argsort(np.array(keys), kind="stable").astype(np.int64)


@dataclass(frozen=True, slots=True)
class Phase:
    """What holds from step `start` on.

    recorded: the same queries and arms, with the outcomes of this phase; NaN where an arm is
              not offered. events: what happens when the phase begins.
    """

    start: int
    recorded: Recorded
    events: tuple[ev.AnyEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class Warm:
    """Queries that are known beforehand.

    pairs: 0 for the outcomes of every arm; or how many comparisons of each query are known in
           their place, of pairs drawn evenly.
    strength: as at most how many outcomes of each arm they count; None for each as one.
    """

    recorded: Recorded
    embeddings: Vector
    pairs: int = 0
    strength: float | None = None


def added(recorded: Recorded) -> tuple[ev.AnyEvent, ...]:
    """The events that put every arm of the recording into the catalogue."""
    return tuple(ev.ArmAdded(ts=0.0, arm=arm, source="config") for arm in recorded.arms)


def stream(
    recorded: Recorded,
    embeddings: Vector,
    *,
    seed: int,
    neighbours: int,
    capacity: int,
    warm: Warm | None = None,
) -> Recall:
    """What is recalled at every step of `simulate` with these arguments, for any policy."""
    vectors = embeddings[order_of(recorded, seed)]
    if warm is not None:
        vectors = np.concatenate([warm.embeddings, vectors])
    return recall_stream(vectors, neighbours, capacity)


def simulate(
    recorded: Recorded,
    embeddings: Vector,
    policy: Policy[Any],
    *,
    seed: int,
    explore: Exploration,
    rule: RewardRule,
    neighbours: int = 20,
    capacity: int = 20_000,
    feedback: Feedback = "bandit",
    warm: Warm | None = None,
    phases: Sequence[Phase] = (),
    recall: Recall | None = None,
    watch: Watch | None = None,
    heard: Heard | None = None,
    react: React | None = None,
    ids: Sequence[str] | None = None,
    delay: int = 0,
) -> Run:
    """Stream the queries, shuffled by `seed`, through a fresh world in which `policy` decides.

    embeddings: (n, d) float32 of unit norm. warm: what is learnt before the first query.
    phases: how the world changes, by start; by default it does not. recall: what `stream`
    gave for the same arguments, so that it is not computed again. watch: called after every step
    with the number of steps made and the sum of their rewards. heard: called with every event
    in order, which together are the log that the service would have written. react: called after
    every event with the world as it then is; an event that it gives back is applied, too.
    ids: of the decisions, step by step, where those of a run that was served are to be drawn again.
    delay: after how many more decisions an outcome is shown.
    """
    if recall is None:
        recall = stream(
            recorded, embeddings, seed=seed, neighbours=neighbours, capacity=capacity, warm=warm
        )
    phases = phases or (Phase(0, recorded, added(recorded)),)
    session = _Session(
        new_world({_LABEL: policy}, _LABEL, capacity, max(PER_ITEM, len(recorded.arms))),
        recall,
        replace(explore, seed=seed),
        rule,
        heard,
        react,
        ids,
    )
    for event in phases[0].events:
        session.apply(event)
    if warm is not None:
        session.learn_all(warm)
    order = order_of(recorded, seed)
    drawn = np.zeros(len(order), np.int64)
    reward, likely = np.zeros(len(order)), np.ones(len(order))
    starts = [phase.start for phase in phases[1:]]
    now, fallbacks, total, base = phases[0], 0, 0.0, session.at
    waiting: deque[tuple[int, Recorded, int, int, ev.Decided]] = deque()

    def shown() -> float:
        of, then, row, k, decided = waiting.popleft()
        session.at = base + of
        reward[of] = earned = session.reward(then, row, k, decided, feedback)
        return earned

    for step, row in enumerate(order.tolist()):
        if step in starts:
            now = phases[1 + starts.index(step)]
            for event in now.events:
                session.apply(event)
        session.at = base + step
        decided = session.decide(now.recorded, row, embeddings[row], step)
        k = session.column(now.recorded, decided.arm)
        drawn[step] = k
        waiting.append((step, now.recorded, row, k, decided))
        likely[step] = decided.propensities[decided.arms.index(decided.arm)]
        fallbacks += bool(decided.fallback)
        if len(waiting) > delay:
            total += shown()
        if watch is not None:
            watch(step + 1, total)
        if (step + 1) % _EXPIRE_EVERY == 0:
            session.expire(step, {each[-1].id for each in waiting})
    while waiting:
        shown()
    track, beside = _run(phases, order, drawn, reward, rule)
    return Run(
        seed=seed,
        order=order,
        arm=drawn,
        chance=likely,
        track=track,
        baselines=beside,
        fallbacks=fallbacks,
        failures=session.world.learners[_LABEL].failures,
        outcomes=session.outcomes,
    )


class _Session:
    """One world on its way through a stream."""

    def __init__(
        self,
        world: World,
        recall: Recall,
        explore: Exploration,
        rule: RewardRule,
        heard: Heard | None = None,
        react: React | None = None,
        ids: Sequence[str] | None = None,
    ) -> None:
        self.world, self.outcomes = world, 0
        self._recall, self._explore, self._rule = recall, explore, rule
        self._heard, self._react, self._ids = heard, react, ids
        self.at = 0  # the row of the stream that is under way, those learnt before the run too
        self._columns: dict[ArmId, int] = {}
        self._items: dict[int, int] = {}  # ids of the queries remembered so far, by their number

    def apply(self, event: ev.AnyEvent) -> None:
        if self._heard is not None:
            self._heard(event)
        what = resolve(self.world, event)
        fold(self.world, what)
        for id in self.world.history.take_changes()[0]:
            self._items[int(self._recall.own[self.at])] = id
        told = None if self._react is None else self._react(what, self.world)
        if told is not None:
            self.apply(told)

    def _recalled(self) -> Recalled:
        """What is recalled for this row; the recall counts queries, the history numbers them.

        One of which nothing came back is not remembered.
        """
        near = zip(*self._recall.at(self.at), strict=True)
        known = [(self._items[n], s) for n, s in near if n in self._items]
        return Recalled([id for id, _ in known], [similarity for _, similarity in known])

    def column(self, recorded: Recorded, arm: ArmId) -> int:
        if not self._columns:
            self._columns = {each.id: k for k, each in enumerate(recorded.arms)}
        return self._columns[arm]

    def learn_all(self, warm: Warm) -> None:
        """Every recorded outcome of `warm`, or comparisons of pairs drawn evenly."""
        for row in range(len(warm.recorded)):
            tokens = int(warm.recorded.tokens[row])
            answered = np.flatnonzero(~np.isnan(warm.recorded.quality[row]))
            for k in [] if warm.pairs else answered.tolist():
                self._show(warm.recorded, row, k, warm.embeddings[row], tokens, prior=True)
            rng = np.random.default_rng([self._explore.seed, row])
            for _ in range(warm.pairs if len(answered) > 1 else 0):
                first, second = rng.choice(answered, 2, replace=False).tolist()
                pair = first, second
                self._compare(warm.recorded, row, *pair, warm.embeddings[row], tokens, prior=True)
            self._done()
        if warm.strength is not None:
            weighed = prior_of.weighing(self.world, warm.strength, float(self.at))
            if weighed is not None:
                self.apply(weighed)

    def decide(self, recorded: Recorded, row: int, embedding: Vector, step: int) -> ev.Decided:
        answered = ~np.isnan(recorded.quality[row])
        query = Query(
            embedding=embedding,
            surface=surface_once(recorded.texts[row]),
            tokens=int(recorded.tokens[row]),
            willingness_to_pay=self._rule.willingness_to_pay,
            arms=None
            if answered.all()
            else tuple(arm.id for arm, there in zip(recorded.arms, answered, strict=True) if there),
        )
        recalled = self._recalled()
        id = f"{self._explore.seed}-{step}" if self._ids is None else self._ids[step]
        decided = decide(self.world, query, recalled, id, float(step), self._explore)
        self.apply(decided)
        return decided

    def reward(
        self, recorded: Recorded, row: int, k: int, decided: ev.Decided, feedback: Feedback
    ) -> float:
        """What the drawn arm earned; the policy is shown what `feedback` says."""
        signals = _signals(recorded, row, k)
        embedding = ev.unpack(decided.embedding)
        if feedback == "duel":
            answered = np.flatnonzero(~np.isnan(recorded.quality[row]))
            others = answered[answered != k]
            if others.size:
                u = chance.uniform(self._explore.seed, f"duel:{decided.id}")
                against = int(others[int(u * others.size)])
                self._compare(recorded, row, k, against, embedding, decided.tokens)
            self._done()
            quality, cost_usd = float(recorded.quality[row, k]), float(recorded.cost[row, k])
            waited = signals.latency_s or 0.0
            return self._rule.scalar(quality, cost_usd, waited, decided.willingness_to_pay)
        report = Reported(signals)
        pending = self.world.pending.decisions[decided.id]
        rewarded = decision_rewarded(pending, decided.id, report, self._rule, decided.ts)
        assert rewarded is not None
        assert rewarded.reward is not None
        self.apply(rewarded)
        self.outcomes += 1
        if feedback == "full":
            for other in np.flatnonzero(~np.isnan(recorded.quality[row])).tolist():
                if other != k:
                    self._show(recorded, row, other, embedding, decided.tokens)
        self._done()
        return rewarded.reward

    def expire(self, step: int, waiting: Collection[str]) -> None:
        # The others are rewarded by now, and the service would not keep them for ever either.
        gone = tuple(id for id in self.world.pending.decisions if id not in waiting)
        self.apply(ev.DecisionsExpired(ts=float(step), ids=gone))

    def _done(self) -> None:
        self.at += 1

    def _show(
        self,
        recorded: Recorded,
        row: int,
        k: int,
        embedding: Vector,
        tokens: int,
        prior: bool = False,
    ) -> None:
        """One arm's outcome on a query, as a reward that no decision stands behind."""
        report = Reported(_signals(recorded, row, k))
        event = subject_rewarded(
            self.world,
            self._subject(recorded, row, embedding, tokens),
            recorded.arms[k].id,
            report,
            self._rule,
            float(self.at),
            prior,
        )
        assert event is not None
        self.apply(event)
        self.outcomes += 1

    def _compare(
        self,
        recorded: Recorded,
        row: int,
        first: int,
        second: int,
        embedding: Vector,
        tokens: int,
        prior: bool = False,
    ) -> None:
        """Which of two arms had the better quality on a query."""
        gap = float(recorded.quality[row, first] - recorded.quality[row, second])
        winner, loser = (first, second) if gap >= 0.0 else (second, first)
        self.apply(
            ev.Compared(
                ts=float(self.at),
                winner=recorded.arms[winner].id,
                loser=recorded.arms[loser].id,
                tie=abs(gap) < _TIE,
                subject=self._subject(recorded, row, embedding, tokens),
                prior=prior,
            )
        )
        self.outcomes += 1

    def _subject(self, recorded: Recorded, row: int, embedding: Vector, tokens: int) -> ev.Subject:
        """The query, which is its own nearest neighbour once something is known of it."""
        recalled = self._recalled()
        ids, similarities = tuple(recalled.ids), tuple(recalled.similarities)
        number = int(self._recall.own[self.at])
        own = self._items.get(number, 0)
        if own in self.world.history.items and own not in ids:
            ids, similarities = (own, *ids), (1.0, *similarities)
        return ev.Subject(
            embedding=ev.pack(embedding),
            surface=surface_once(recorded.texts[row]),
            tokens=tokens,
            willingness_to_pay=self._rule.willingness_to_pay,
            neighbours=ids,
            similarities=similarities,
        )


def _signals(recorded: Recorded, row: int, k: int) -> Signals:
    """What is known of one arm's answer to one query."""
    waited = math.nan if recorded.latency is None else float(recorded.latency[row, k])
    return Signals(
        quality=float(recorded.quality[row, k]),
        cost_usd=float(recorded.cost[row, k]),
        latency_s=None if math.isnan(waited) else waited,
    )


def _run(
    phases: Sequence[Phase],
    order: NDArray[np.int64],
    drawn: NDArray[np.int64],
    reward: Floats,
    rule: RewardRule,
) -> tuple[Track, Baselines]:
    """What was earned, and the baselines phase by phase; `best_arm` is the last phase's."""
    ends = [*(phase.start for phase in phases[1:]), len(order)]
    earned, beside, best_arm = [], [], ""
    for phase, end in zip(phases, ends, strict=True):
        steps = slice(phase.start, end)
        rows = order[steps]
        at = rows, drawn[steps]
        earned.append(Track(reward[steps], phase.recorded.quality[at], phase.recorded.cost[at]))
        of = baselines(phase.recorded, rule)
        beside.append(of.take(rows))
        best_arm = of.best_arm
    return joined(earned), Baselines(
        best_arm,
        joined([each.uniform for each in beside]),
        joined([each.best for each in beside]),
        joined([each.oracle for each in beside]),
    )
