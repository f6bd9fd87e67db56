"""The world: everything the service knows, as one fold of the log.

It consists of features. Each is one type in one file: plain data, with methods that say which
events they take in (`core.feature`). A feature sees none of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, get_type_hints

from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.core.arm_record import ArmRecord
from bandit_service.core.budget_leases import BudgetLeases
from bandit_service.core.calibrations import Calibrations
from bandit_service.core.catalogue import Catalogue
from bandit_service.core.chosen_policy import ChosenPolicy
from bandit_service.core.configuration import Configuration
from bandit_service.core.conversations import Conversations
from bandit_service.core.counts import Counts
from bandit_service.core.drift import Drift
from bandit_service.core.erasures import Erasures
from bandit_service.core.experiments.records import ExperimentRecords
from bandit_service.core.feature import Taker, TakerOfMany, taker_of_many, takers
from bandit_service.core.history import PER_ITEM, History
from bandit_service.core.judge_grades import JudgeGrades
from bandit_service.core.learner import Learner, beside
from bandit_service.core.learners import Learners
from bandit_service.core.named_metrics import NamedMetrics
from bandit_service.core.pending import PendingDecisions
from bandit_service.core.policy_building import PolicyBuilding
from bandit_service.core.resolved import Resolved
from bandit_service.core.retention import Retention
from bandit_service.core.routes import Routes
from bandit_service.core.sessions import Sessions
from bandit_service.core.spend import Spend
from policies import ArmId, Policy


@dataclass(kw_only=True)
class World:
    """States, pending decisions, history and catalogue after all events up to now.

    `apply` is the only thing that changes it. Each field is folded: `digest` and snapshots have all
    but those whose name begins with an underscore. A field whose type takes in events is a feature.

    ts: the latest time of any event. events: how many there were. unapplied: how many of these a
    bug stopped half-way.
    """

    counts: Counts = field(default_factory=Counts)
    policy: ChosenPolicy = field(default_factory=ChosenPolicy)
    catalogue: Catalogue = field(default_factory=Catalogue)
    pending: PendingDecisions = field(default_factory=PendingDecisions)
    calibrations: Calibrations = field(default_factory=Calibrations)
    experiments: ExperimentRecords = field(default_factory=ExperimentRecords)
    spend: Spend = field(default_factory=Spend)
    drift: Drift = field(default_factory=Drift)
    erasures: Erasures = field(default_factory=Erasures)
    conversations: Conversations = field(default_factory=Conversations)
    routes: Routes = field(default_factory=Routes, metadata=codec.IF_ANY)
    leases: BudgetLeases = field(default_factory=BudgetLeases, metadata=codec.IF_ANY)
    building: PolicyBuilding = field(default_factory=PolicyBuilding, metadata=codec.IF_ANY)
    named: NamedMetrics = field(default_factory=NamedMetrics, metadata=codec.IF_ANY)
    sessions: Sessions = field(default_factory=Sessions, metadata=codec.IF_ANY)
    configuration: Configuration = field(default_factory=Configuration, metadata=codec.IF_ANY)
    judging: JudgeGrades = field(default_factory=JudgeGrades, metadata=codec.IF_ANY)
    retention: Retention = field(default_factory=Retention, metadata=codec.IF_ANY)
    history: History
    learners: Learners
    ts: float = 0.0
    events: int = 0
    unapplied: int = 0
    _why_unapplied: str = ""

    @property
    def arms(self) -> Mapping[ArmId, ArmRecord]:
        """All arms there ever were."""
        return self.catalogue.arms

    @property
    def decisions(self) -> int:
        """How many there were."""
        return self.counts.decisions

    @property
    def rewards(self) -> int:
        """How many there were."""
        return self.counts.rewards

    @property
    def comparisons(self) -> int:
        """How many there were."""
        return self.counts.comparisons

    @property
    def serving(self) -> str:
        """The label of the policy that decides."""
        return self.learners.serving

    @property
    def why_unapplied(self) -> str:
        """Where the last event that was not applied whole was stopped, in this process."""
        return self._why_unapplied

    def stopped(self, where: str) -> None:
        """A bug stopped an event half-way."""
        self.unapplied += 1
        self._why_unapplied = where

    def key_of(self, learner: Learner) -> str:
        """What the decisions of this learner say that they were made by."""
        return learner.key or self.learners.serving_key or self.policy.key

    def offered(self) -> list[ArmRecord]:
        """Arms that a policy may choose, in the canonical order."""
        return self.catalogue.offered()

    def deciding(self) -> list[str]:
        """The policies that a query may name: the serving one, and those that learn beside it."""
        prefix, learners = beside(""), self.learners
        names = {label.removeprefix(prefix) for label in learners if label.startswith(prefix)}
        return [self.serving, *sorted((names | learners.awaited) - {self.serving})]

    @contextmanager
    def in_blocks(self) -> Iterator[None]:
        """While a log is folded, much of it is taken in many events at once, to the same bits.

        What waits when an error ends the fold is not taken in: the world is of no use any more.
        """
        with self.learners.in_blocks(), self.history.in_blocks():
            yield

    def digest(self) -> str:
        """SHA-256 of everything folded, bit for bit; caches do not count."""
        return codec.sha256(codec.dump(self))


def _takers_by_kind() -> dict[type[Any], tuple[tuple[str, Taker], ...]]:
    found: dict[type[Any], list[tuple[str, Taker]]] = {}
    types = get_type_hints(World)
    for each in fields(World):
        for kind, method in takers(types[each.name]):
            found.setdefault(kind, []).append((each.name, method))
    return {kind: tuple(methods) for kind, methods in found.items()}


TAKERS = _takers_by_kind()
"""For each kind of event: which features take it in, and how, in the order of the fields."""


def taking_in(takers: Sequence[tuple[str, Taker]]) -> Callable[[World, Any, Resolved], None]:
    """One function that lets these features take an event in, one after another.

    It is compiled, so that each call has a line of its own, which the interpreter specializes: a
    loop over the features takes twice as long as what most of them do.
    """
    calls = [f"    world.{feature}.{take.__name__}(event, what)" for feature, take in takers]
    made: dict[str, Any] = {}
    exec("\n".join(["def take_in(world, event, what):", *calls]), made)  # noqa: S102
    take_in: Callable[[World, Any, Resolved], None] = made["take_in"]
    return take_in


TAKE_IN = {kind: taking_in(takers) for kind, takers in TAKERS.items()}
"""For each kind of event: what lets all of its features take it in."""


def _takers_of_many() -> tuple[tuple[str, TakerOfMany], ...]:
    types = get_type_hints(World)
    return tuple(
        (name, taker_of_many(types[name]) or partial(_one_by_one, take))
        for name, take in TAKERS[ev.Decided]
    )


def _one_by_one(
    take: Taker, feature: Any, decisions: Sequence[ev.Decided], some: Sequence[Resolved]
) -> None:
    for event, what in zip(decisions, some, strict=True):
        take(feature, event, what)


TAKERS_OF_MANY = _takers_of_many()
"""Which features take in decisions that follow one another, and how, in the order of the fields."""


def new_world(
    by_label: Mapping[str, Policy[Any]],
    serving: str,
    history_capacity: int,
    per_item: int = PER_ITEM,
) -> World:
    """The world before any event; `per_item` outcomes of each remembered query are kept."""
    learners = Learners({label: Learner(one, one.init()) for label, one in by_label.items()})
    learners.serving = serving
    return World(learners=learners, history=History(history_capacity, per_item))
