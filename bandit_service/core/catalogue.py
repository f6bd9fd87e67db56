"""The arms: what each is, what its calls really cost and took, and how much was learned of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import is_

import numpy as np

import policies
from bandit_service.core import events as ev
from bandit_service.core.arm_kinds import is_named_only, is_routed
from bandit_service.core.arm_record import ArmRecord, relative_price
from bandit_service.core.arm_table import ArmTable, families
from bandit_service.core.feature import takes, takes_lessons
from bandit_service.core.learner import Fading, Lesson
from bandit_service.core.resolved import Resolved
from policies import ArmId, Arms


@dataclass
class Catalogue:
    """arms: all there ever were. configured: what the configuration last said of each arm, which
    the API may have changed since."""

    arms: dict[ArmId, ArmRecord] = field(default_factory=dict)
    configured: dict[ArmId, ev.ArmSpec] = field(default_factory=dict)
    _table: ArmTable | None = field(default=None, init=False, compare=False, repr=False)

    def table(self) -> ArmTable:
        """The arms that are offered, compiled."""
        if self._table is None:
            self._table = ArmTable(self.offered(), self._every())
        return self._table

    def present(self) -> list[ArmRecord]:
        """Arms that are not retired, of every kind, in the canonical order."""
        return [record for record in self._every() if not record.retired]

    def offered(self) -> list[ArmRecord]:
        """Of these the ones that a policy may choose."""
        return [record for record in self.present() if is_routed(record.spec)]

    def open_to(self, named: Sequence[ArmId] | None) -> list[ArmRecord]:
        """Arms that a query may get: the offered ones, and one that it names alone.

        named: the only arms that the query allows; None for any.
        """
        offered = self.offered()
        if named is None or len(named) != 1:
            return offered
        record = self.arms.get(named[0])
        if record is None or record.retired or not is_named_only(record.spec):
            return offered
        return sorted([*offered, record], key=lambda each: each.spec.id)

    def priced(self, records: Sequence[ArmRecord], tokens: int) -> Arms:
        """These arms, with the cost of a query of this many tokens on each."""
        return self.costing(records, [record.expected_cost_usd(tokens) for record in records])

    def costing(self, records: Sequence[ArmRecord], cost_usd: Sequence[float]) -> Arms:
        """These arms, with what a query costs on each."""
        table = self.table()
        if len(records) == len(table.records) and all(map(is_, records, table.records)):
            return table.costing(np.array(cost_usd))
        dearest = table.dearest
        family, kin = families(records, self._every(), dearest)
        return Arms(
            ids=tuple(record.spec.id for record in records),
            cost_usd=np.array(cost_usd),
            price=np.array([relative_price(record.spec, dearest) for record in records]),
            first_price=np.array([record.first_price for record in records]),
            family=family,
            kin=kin,
        )

    def _every(self) -> Iterator[ArmRecord]:
        """All arms there ever were, in the canonical order."""
        return (self.arms[id] for id in sorted(self.arms))

    def dearest_price(self) -> float:
        """The highest list price (in + out, USD per million tokens) of any offered arm."""
        return self.table().dearest

    @takes(ev.ArmAdded, ev.ArmUpdated)
    def _set(self, event: ev.ArmAdded | ev.ArmUpdated, _: Resolved) -> None:
        self._table = None
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
        self._table = None
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
        arm = what.arm
        before: Mapping[str, float] = what.replaced if event.correction else {}
        record = self.arms[arm]
        if event.cost_usd is not None:
            if "cost_usd" not in before:
                record.listed_usd += what.listed_usd
                record.costs += 1
            usd = event.cost_usd - before.get("cost_usd", 0.0)
            record.observed_usd += usd
            decided = what.decided
            if decided is not None and decided.prompt_tokens and decided.arm == arm:
                if "cost_usd" not in before:
                    cached = decided.cached_tokens[decided.drawn] if decided.cached_tokens else 0
                    listed = record.list_prompt_usd(decided.prompt_tokens, cached)
                    record.prompt_listed_usd += listed
                record.prompt_usd += usd
        if event.latency_s is not None:
            record.latencies += "latency_s" not in before
            record.latency_s += event.latency_s - before.get("latency_s", 0.0)

    @takes_lessons
    def _taught(self, _: object, what: Resolved) -> None:
        for lesson in what.lessons:
            self._weigh(lesson, what)

    def _weigh(self, lesson: Lesson, what: Resolved) -> None:
        """Count one more outcome of its arms; corrections and signals without a reward do not
        count. Weighing a prior leaves a share of them; drift changes nothing here.
        """
        arms: tuple[ArmId, ...] = ()
        if isinstance(lesson, policies.Rewarded):
            arms = (lesson.arm,) if lesson.reward is not None else ()
        elif isinstance(lesson, policies.Compared):
            arms = lesson.winner, lesson.loser
        elif isinstance(lesson, Fading) and not lesson.drift:
            self.arms[lesson.arm].weight *= lesson.keep
        for arm in arms:
            record = self.arms.get(arm)
            if record is not None:
                record.taught(prior=what.prior)
