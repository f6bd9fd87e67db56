"""The arms: what each is, what its calls really cost and took, and how much was learned of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

import policies
from bandit_service.core import events as ev
from bandit_service.core.feature import takes, takes_lessons
from bandit_service.core.learner import Fading, Lesson
from bandit_service.core.pool import Pool
from bandit_service.core.resolved import Resolved
from policies import ArmId, Arms

PRIOR_DECISIONS = 5.0
"""How many decisions at list price a never-observed arm's cost estimate is worth."""


@dataclass
class ArmRecord:
    """One arm of the catalogue, and what its calls really cost and took.

    listed_usd, observed_usd: sums over the decisions whose cost came back, of the cost by list
    price and token estimate, and of the cost reported. first_price: USD for a million tokens, one
    part in and two out, when the arm first had a price; 0 until then. weight: as how many outcomes
    what was learned of the arm counts; live: how many came otherwise than by a warm start.
    """

    spec: ev.ArmSpec
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
class Catalogue:
    """arms: all there ever were. configured: what the configuration last said of each arm, which
    the API may have changed since."""

    arms: dict[ArmId, ArmRecord] = field(default_factory=dict)
    configured: dict[ArmId, ev.ArmSpec] = field(default_factory=dict)
    _pool: Pool | None = field(default=None, init=False, compare=False, repr=False)

    def pool(self) -> Pool:
        """The arms that are offered, compiled."""
        if self._pool is None:
            self._pool = Pool(self.offered())
        return self._pool

    def offered(self) -> list[ArmRecord]:
        """Arms that are not retired, in the canonical order."""
        return [self.arms[id] for id in sorted(self.arms) if not self.arms[id].retired]

    def priced(self, records: Sequence[ArmRecord], tokens: int) -> Arms:
        """These arms, with what a query of so many tokens costs on each."""
        dearest = self.dearest_price()
        return Arms(
            ids=tuple(record.spec.id for record in records),
            cost_usd=np.array([record.expected_cost_usd(tokens) for record in records]),
            price=np.array([relative_price(record.spec, dearest) for record in records]),
            first_price=np.array([record.first_price for record in records]),
        )

    def dearest_price(self) -> float:
        """The highest list price (in + out, USD per million tokens) of any offered arm."""
        prices = (
            record.spec.usd_per_mtok_in + record.spec.usd_per_mtok_out for record in self.offered()
        )
        return max(prices, default=0.0)

    @takes(ev.ArmAdded, ev.ArmUpdated)
    def _set(self, event: ev.ArmAdded | ev.ArmUpdated, _: Resolved) -> None:
        self._pool = None
        spec, source = event.arm, event.source
        if source == "config":
            self.configured[spec.id] = spec
        record = self.arms.get(spec.id)
        if record is None:
            record = self.arms[spec.id] = ArmRecord(spec, source)
        else:
            record.spec, record.source, record.retired = spec, source, False
        if record.first_price == 0.0:
            record.first_price = (spec.usd_per_mtok_in + 2.0 * spec.usd_per_mtok_out) / 3.0

    @takes(ev.ArmRetired)
    def _retire(self, event: ev.ArmRetired, _: Resolved) -> None:
        self._pool = None
        if event.id in self.arms:
            self.arms[event.id].retired = True
            self.arms[event.id].source = event.source
        if event.source == "config":
            self.configured.pop(event.id, None)

    @takes(ev.Rewarded)
    def _account(self, event: ev.Rewarded, what: Resolved) -> None:
        """Cost and latency of a call; a correction counts as its difference."""
        if not what.known:
            return
        record, before = self.arms[what.arm], what.replaced
        if event.cost_usd is not None:
            if "cost_usd" not in before:
                record.listed_usd += what.listed_usd
                record.costs += 1
            record.observed_usd += event.cost_usd - before.get("cost_usd", 0.0)
        if event.latency_s is not None:
            record.latencies += "latency_s" not in before
            record.latency_s += event.latency_s - before.get("latency_s", 0.0)

    @takes_lessons
    def _taught(self, _: object, what: Resolved) -> None:
        for lesson in what.lessons:
            self._weigh(lesson, what)

    def _weigh(self, lesson: Lesson, what: Resolved) -> None:
        """One outcome more of its arms; a correction is none, nor are signals without a reward.

        A prior that is weighed leaves a share of them; drift changes nothing here.
        """
        arms: tuple[ArmId, ...] = ()
        if isinstance(lesson, policies.Compared):
            arms = lesson.winner, lesson.loser
        elif isinstance(lesson, policies.Rewarded) and lesson.reward is not None:
            arms = (lesson.arm,)
        elif isinstance(lesson, Fading) and not lesson.drift:
            self.arms[lesson.arm].weight *= lesson.keep
        for arm in arms:
            record = self.arms.get(arm)
            if record is not None:
                record.weight += 1.0
                record.live += not what.prior


def relative_price(spec: ev.ArmSpec, dearest: float) -> float:
    """The arm's list price divided by the dearest offered arm's, in [0, 1]."""
    price = spec.usd_per_mtok_in + spec.usd_per_mtok_out
    return min(price / dearest, 1.0) if dearest > 0.0 else 0.0
