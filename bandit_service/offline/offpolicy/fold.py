"""Runs a candidate along a log: at each decision, what it would have done then.

Its state is what it would have learned from the logged outcomes up to that moment, so it knows
nothing of later ones; the eligible arms, the context and the costs are those of that moment. The
exploration floor, and what drift adds to it, are as in the service.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

import policies
from bandit_service.core import events as ev
from bandit_service.core import exclusions
from bandit_service.core.apply import apply, skip
from bandit_service.core.decide import proposed
from bandit_service.core.exploration import Exploration
from bandit_service.core.history import PER_ITEM
from bandit_service.core.learner import Learner
from bandit_service.core.learners import Learners
from bandit_service.core.lessons import context_of
from bandit_service.core.switching_cost import then
from bandit_service.core.world import World, new_world
from bandit_service.offline.candidates import Candidate
from policies import ArmId, Floats, lift

METRICS = ("reward", "quality", "cost_usd", "latency_s")
BOUNDS = {"reward": (-1.0, 1.0), "quality": (0.0, 1.0)}
"""Of the metrics that have a range by themselves."""
UNKNOWN, FORGOTTEN, OLDER = "unknown", "forgotten", "older"
LEFT_OUT = {
    exclusions.ROUTED: "of another route",
    exclusions.DUEL: "second answers of duels",
    exclusions.SINGLE: "with one eligible arm",
    exclusions.REDIRECTED: "that another model answered than the one that was asked",
    exclusions.STAYED: "that stayed with their conversation's arm",
    exclusions.FIXED: "with an arm that an experiment or the hold-out fixed",
    exclusions.OVERRIDE: "by an override of an experiment",
    UNKNOWN: "with arms that the log does not describe",
    FORGOTTEN: "of units that were erased",
    OLDER: "older than the newest that fit in",
}
"""Why a decision is in no estimate, and how that is said."""


_ELSEWHERE = (
    ev.ExperimentChanged,
    ev.ExperimentDeleted,
    ev.VariantSeeded,
    ev.RulesChanged,
    ev.PolicyJoined,
    ev.PolicyLeft,
)
"""Events of other policies, and of what experiments count: they do not matter to a candidate."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be evaluated, and on which decisions.

    route: whose decisions these are, and whose policy the candidates take the place of; "" is the
    default route. experiment: only decisions of this one's units. tags: only those that have all
    of these.
    since, until: of decisions, UTC seconds.
    frozen: the candidates stop learning where the window begins (`frozen_at`: or at this event).
    metric: what is estimated: of METRICS, or a metric of the user's own. most: the newest
    decisions that are kept. explore: the floor that
    every candidate gets. capacity, per_item: of the history.
    """

    candidates: tuple[Candidate, ...]
    route: str = ""
    experiment: str = ""
    tags: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    frozen: bool = False
    frozen_at: int = 0
    metric: str = "reward"
    most: int = 50_000
    explore: Exploration = Exploration()
    capacity: int = 20_000
    per_item: int = PER_ITEM


@dataclass(slots=True)
class _Row:
    """One decision: what was logged, and each candidate's probabilities (K,)."""

    arms: tuple[ArmId, ...]
    logged: Floats
    drawn: int
    owner: str
    features: NDArray[np.float32]
    proposals: list[Floats]
    value: float | None = None
    by_default: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """n decisions with an outcome, in the order of the log, over all k arms that occur.

    ids: n. arm, units: (n,) indices. logged: (n,) the probability of the arm drawn. value: (n,) of
    the metric. features: (n, d). targets: (n, k) by candidate, 0 for an arm that was not eligible.
    impossible: (n,) by candidate, its probability of arms that were eligible and could not be
    drawn; 0 where only the drawn arm's propensity is known. least: (n,) the smallest logged
    probability of an eligible arm, and offered: (n,) the number of these; where only the drawn
    arm's is known the others share the rest, so that it is an upper bound. behaviour: (n, k) the
    logged distribution; None where only the drawn arm's probability is known.
    """

    ids: tuple[str, ...]
    arms: tuple[ArmId, ...]
    arm: NDArray[np.int64]
    units: NDArray[np.int64]
    logged: Floats
    value: Floats
    features: NDArray[np.float32]
    targets: list[Floats]
    impossible: list[Floats]
    least: Floats
    offered: NDArray[np.int64]
    behaviour: Floats | None


@dataclass
class LogEvaluation:
    """A log on its way past the candidates; `take` every event in order, then ask for `sample`.

    known: the propensities of all arms are logged, not only of the drawn one. measured: the metrics
    of the user's own that came. routes: of the decisions so far, "" for the default one.
    """

    asked: Asked
    world: World
    known: bool = True
    decisions: int = 0
    fallbacks: int = 0
    failed: list[int] = field(default_factory=list)
    measured: set[str] = field(default_factory=set)
    left_out: Counter[str] = field(default_factory=Counter)
    routes: set[str] = field(default_factory=set)
    _learners: list[Learner] = field(default_factory=list)
    _rows: OrderedDict[str, _Row] = field(default_factory=OrderedDict)
    _thawed: bool = True

    def __post_init__(self) -> None:
        own = ev.label_of_route(self.asked.route) if self.asked.route else ""
        self._learners = [_learner(each, own) for each in self.asked.candidates]
        by_label = {f"candidate {i}": one for i, one in enumerate(self._learners)}
        if own:
            # What a route teaches is made out for the learner of its label, which a log that was
            # shortened does not bring.
            by_label[own] = _learner(Candidate(name="uniform"), own)
        self.world.learners = Learners(by_label)
        self.failed = [0] * len(self._learners)

    def take(self, event: ev.AnyEvent | None) -> None:
        """The next event; None for one that was erased."""
        world = self.world
        match event:
            case _ if event is None or isinstance(event, _ELSEWHERE):
                self.world = skip(world)
                return
            case ev.Decided():
                self._decided(world, event)
            case ev.Rewarded() if event.decision_id in self._rows:
                self.measured.update(event.metrics)
                self._valued(self._rows[event.decision_id], event)
            case ev.Redirected() if self._rows.pop(event.decision_id, None) is not None:
                self.left_out[exclusions.REDIRECTED] += 1
            case ev.DecisionsExpired():
                for id in event.ids:
                    self._expired(id, event.default_reward)
            case ev.Forgotten():
                self._forgotten(event.owner)
            case _:
                pass
        if self.asked.frozen and self._thawed and world.events + 1 >= self.asked.frozen_at > 0:
            self._freeze(world)
        self.world = apply(world, event)
        self.world.history.take_changes()

    def _decided(self, world: World, event: ev.Decided) -> None:
        asked = self.asked
        if asked.since is not None and event.ts < asked.since:
            return
        if asked.frozen and self._thawed and not asked.frozen_at:
            self._freeze(world)
        if asked.frozen and self._thawed:
            return
        if asked.until is not None and event.ts >= asked.until:
            return
        if asked.experiment and event.experiment != asked.experiment:
            return
        if not set(asked.tags) <= set(event.tags):
            return
        self.decisions += 1
        self.routes.add(event.route)
        if why := _why_not(world, event, asked.route):
            self.left_out[why] += 1
            return
        self.fallbacks += bool(event.fallback)
        self._rows[event.id] = _Row(
            event.arms,
            np.array(event.propensities),
            event.drawn,
            ev.owner_of(event.tenant, event.unit) or event.id,
            ev.unpack(event.embedding),
            self._proposals(world, event),
        )
        while len(self._rows) > asked.most:
            self._rows.popitem(last=False)
            self.left_out[OLDER] += 1

    def _proposals(self, world: World, event: ev.Decided) -> list[Floats]:
        arms, stay = then(world.catalogue, event)
        offered = arms if stay is None else replace(arms, cost_usd=stay.warm)
        context = context_of(world, event, self._learners[0])  # all may see the same
        floors = world.drift.floors(event.arms)
        found = []
        for i, learner in enumerate(self._learners):
            proposal, failure = proposed(learner, context, offered, "")
            self.failed[i] += bool(failure)
            _, p = self.asked.explore.settled(proposal, stay, event.willingness_to_pay)
            found.append(p if floors is None else lift(p, floors))
        return found

    def _freeze(self, world: World) -> None:
        """From now on the candidates learn nothing; the world continues."""
        world.learners.clear()
        self._thawed = False

    def _valued(self, row: _Row, event: ev.Rewarded) -> None:
        metric = self.asked.metric
        value = getattr(event, metric) if metric in METRICS else event.metrics.get(metric)
        if event.revoked and self.asked.metric in (*event.revoked, "reward"):
            row.value, row.by_default = None, False
        elif value is not None:
            row.value, row.by_default = value, False

    def _expired(self, id: str, default: float | None) -> None:
        row = self._rows.get(id)
        if row is None or row.value is not None or default is None:
            return
        if self.asked.metric == "reward":
            row.value, row.by_default = default, True

    def _forgotten(self, owner: str) -> None:
        for id in [id for id, row in self._rows.items() if row.owner == owner]:
            del self._rows[id]
            self.left_out[FORGOTTEN] += 1

    def bounds(self) -> tuple[float, float] | None:
        """The range of the metric, where it has one; of a named one, as it is told last, where all
        values lie in it.
        """
        spec = self.world.named.specs.get(self.asked.metric)
        if spec is None or self.asked.metric in METRICS:
            return BOUNDS.get(self.asked.metric)
        values = [row.value for row in self._rows.values() if row.value is not None]
        within = all(spec.low <= value <= spec.high for value in values)
        return (spec.low, spec.high) if within else None

    @property
    def kept(self) -> int:
        """Decisions that an estimate could be made of, with or without an outcome."""
        return len(self._rows)

    @property
    def by_default(self) -> int:
        """Of these, those whose outcome is the default at expiry."""
        return sum(row.by_default for row in self._rows.values())

    def sample(self) -> Sample:
        """The decisions that have an outcome by now."""
        there = {id: row for id, row in self._rows.items() if row.value is not None}
        rows = list(there.values())
        arms = tuple(sorted({arm for row in rows for arm in row.arms}))
        column = {arm: i for i, arm in enumerate(arms)}
        n, owners = len(rows), dict[str, int]()
        arm, units = np.zeros(n, np.int64), np.zeros(n, np.int64)
        dim = max((len(row.features) for row in rows), default=0)
        features = np.zeros((n, dim), np.float32)
        targets = [np.zeros((n, len(arms))) for _ in self._learners]
        impossible = [np.zeros(n) for _ in self._learners]
        behaviour = np.zeros((n, len(arms))) if self.known else None
        for i, row in enumerate(rows):
            at = [column[each] for each in row.arms]
            arm[i] = at[row.drawn]
            units[i] = owners.setdefault(row.owner, len(owners))
            features[i, : len(row.features)] = row.features
            never = row.logged <= 0.0
            if behaviour is not None:
                behaviour[i, at] = row.logged
            for j, proposal in enumerate(row.proposals):
                targets[j][i, at] = proposal
                impossible[j][i] = float(proposal[never].sum()) if self.known else 0.0
        return Sample(
            tuple(there),
            arms,
            arm,
            units,
            np.array([row.logged[row.drawn] for row in rows]),
            np.array([row.value for row in rows], np.float64),
            features,
            targets,
            impossible,
            np.array([row.logged.min() for row in rows], np.float64),
            np.array([len(row.logged) for row in rows], np.int64),
            behaviour,
        )


def _learner(candidate: Candidate, own: str) -> Learner:
    policy = policies.load(candidate.name, **candidate.parameters)
    return Learner(policy, policy.init(), own=own)


def along(
    events: Iterable[ev.AnyEvent | None], asked: Asked, *, known: bool = True
) -> LogEvaluation:
    """The whole of a log past the candidates."""
    found = LogEvaluation(asked, new_world({}, "", asked.capacity, asked.per_item), known)
    for event in events:
        found.take(event)
    return found


def _why_not(world: World, event: ev.Decided, route: str) -> str:
    """Why a decision is left out; empty if it is used."""
    known = all(arm in world.arms for arm in event.arms)
    return exclusions.why_excluded(event, route) or ("" if known else UNKNOWN)
