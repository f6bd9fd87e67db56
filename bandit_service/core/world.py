"""The world: everything the service knows, as one fold of the log."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bandit_service.core import codec
from bandit_service.core.drift import Drift
from bandit_service.core.events import ArmSpec, Decided
from bandit_service.core.experiments.spec import Experiment, Rules
from bandit_service.core.experiments.trial import Trial
from bandit_service.core.history import PER_ITEM, History
from bandit_service.core.learner import Learner, Learners, beside
from bandit_service.core.spend import Spend
from bandit_service.statistics.calibration import Calibration
from policies import ArmId, Arms, Policy

PRIOR_DECISIONS = 5.0
"""How many decisions at list price a never-observed arm's cost estimate is worth."""

REMEMBERED_KEYS = 100_000
"""How many idempotency keys of self-contained outcomes are remembered, newest first."""


@dataclass
class ArmRecord:
    """One arm of the catalogue, and what its calls really cost and took.

    listed_usd, observed_usd: sums over the decisions whose cost came back, of the cost by list
    price and token estimate, and of the cost reported. first_price: USD for a million tokens, one
    part in and two out, when the arm first had a price; 0 until then. weight: as how many outcomes
    what was learned of the arm counts; live: how many came otherwise than by a warm start.
    """

    spec: ArmSpec
    source: str
    retired: bool = False
    listed_usd: float = 0.0
    observed_usd: float = 0.0
    costs: int = 0
    latency_s: float = 0.0
    latencies: int = 0
    first_price: float = 0.0
    weight: float = 0.0
    live: int = 0

    def list_cost_usd(self, tokens: int) -> float:
        """(tokens · price in + expected output tokens · price out) / 10⁶."""
        spec = self.spec
        return (
            tokens * spec.usd_per_mtok_in + spec.expected_output_tokens * spec.usd_per_mtok_out
        ) / 1e6

    def expected_cost_usd(self, tokens: int) -> float:
        """List cost × (n₀·list + Σ observed) / (n₀·list + Σ listed), n₀ = PRIOR_DECISIONS.

        The ratio corrects the token estimate by what was billed; a changed price acts at once.
        An arm without a price costs the mean of what was reported.
        """
        listed = self.list_cost_usd(tokens)
        if listed <= 0.0:
            return self.observed_usd / self.costs if self.costs else 0.0
        prior = PRIOR_DECISIONS * listed
        return listed * (prior + self.observed_usd) / (prior + self.listed_usd)

    def expected_latency_s(self) -> float | None:
        """Mean latency, the configured one counting as PRIOR_DECISIONS; None if unknown."""
        configured = self.spec.expected_latency_s
        prior = 0.0 if configured is None else PRIOR_DECISIONS
        n = prior + self.latencies
        return (prior * (configured or 0.0) + self.latency_s) / n if n else None


@dataclass
class Pending:
    """A decision that may still be rewarded, and the signals that already came back.

    learned: what the policies and the history were taught when it was settled: `reward`, and
    `quality` and `cost_usd` and `latency_s` as far as they were known. Empty until then.
    provisional: its quality is a judge's. guessed_usd: what is booked in the place of a cost that
    was not reported. compared: how the arm did against each other one, 1 won, 1/2 a tie, 0 lost,
    and whether a judge said so.
    """

    decided: Decided
    signals: dict[str, float] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    learned: dict[str, float] = field(default_factory=dict)
    provisional: bool = False
    guessed_usd: float = 0.0
    compared: dict[str, tuple[float, bool]] = field(default_factory=dict)

    @property
    def settled(self) -> bool:
        """Whether its scalar reward is known."""
        return "reward" in self.learned


@dataclass
class World:
    """States, pending decisions, history and catalogue after all events up to now.

    `apply` is the only thing that changes it. Each field is folded: `digest` and snapshots have all
    but those whose name begins with an underscore.

    configured: what the configuration last said of each arm, which the API may have changed since.
    policy, policy_key, parameters (JSON): what the log last said of the policy. experiments,
    trials: what they are and what they have seen, by id, oldest first; `rules` stands over them.
    calibration: the propensities of each policy against what was drawn. ts: the latest time of any
    event. erasing: the owners whose records are still to be erased from the log. unapplied: how
    many events a bug stopped half-way.
    """

    learners: Learners
    history: History
    arms: dict[ArmId, ArmRecord] = field(default_factory=dict)
    configured: dict[ArmId, ArmSpec] = field(default_factory=dict)
    pending: OrderedDict[str, Pending] = field(default_factory=OrderedDict)
    keys: OrderedDict[str, str] = field(default_factory=OrderedDict)
    policy: str = ""
    policy_key: str = ""
    parameters: bytes = b"{}"
    configured_policy: str = ""
    ts: float = 0.0
    erasing: dict[str, None] = field(default_factory=dict)
    experiments: dict[str, Experiment] = field(default_factory=dict)
    configured_experiments: dict[str, Experiment] = field(default_factory=dict)
    trials: dict[str, Trial] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)
    configured_rules: Rules = field(default_factory=Rules)
    calibration: dict[str, Calibration] = field(default_factory=dict)
    spend: Spend = field(default_factory=Spend)
    drift: Drift = field(default_factory=Drift)
    events: int = 0
    decisions: int = 0
    rewards: int = 0
    comparisons: int = 0
    unapplied: int = 0
    _why_unapplied: str = ""

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
        return learner.key or self.learners.serving_key or self.policy_key

    def offered(self) -> list[ArmRecord]:
        """Arms that are not retired, in the canonical order."""
        return [self.arms[id] for id in sorted(self.arms) if not self.arms[id].retired]

    def deciding(self) -> list[str]:
        """The policies that a query may name: the serving one, and those that learn beside it."""
        prefix = beside("")
        names = {label.removeprefix(prefix) for label in self.learners if label.startswith(prefix)}
        return [self.serving, *sorted(names - {self.serving})]

    def digest(self) -> str:
        """SHA-256 of everything folded, bit for bit; caches do not count."""
        return codec.sha256(codec.dump(self))


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


def priced(world: World, records: Sequence[ArmRecord], tokens: int) -> Arms:
    """These arms, with what a query of so many tokens costs on each."""
    dearest = dearest_price(world)
    return Arms(
        ids=tuple(record.spec.id for record in records),
        cost_usd=np.array([record.expected_cost_usd(tokens) for record in records]),
        price=np.array([relative_price(record.spec, dearest) for record in records]),
        first_price=np.array([record.first_price for record in records]),
    )


def dearest_price(world: World) -> float:
    """The highest list price (in + out, USD per million tokens) of any offered arm."""
    prices = (
        record.spec.usd_per_mtok_in + record.spec.usd_per_mtok_out for record in world.offered()
    )
    return max(prices, default=0.0)


def relative_price(spec: ArmSpec, dearest: float) -> float:
    """The arm's list price divided by the dearest offered arm's, in [0, 1]."""
    price = spec.usd_per_mtok_in + spec.usd_per_mtok_out
    return min(price / dearest, 1.0) if dearest > 0.0 else 0.0
