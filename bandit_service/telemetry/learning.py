"""Rewards, costs and savings: one fold of the applied events, for /metrics and the page.

`LearningFold.heard` gets every event as it is applied, in O(1) and without a clock. It starts with
the process and decides nothing.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bandit_service.core import events as ev
from bandit_service.core.resolved import Resolved
from bandit_service.core.routes import AUTO
from bandit_service.core.world import World
from bandit_service.statistics.moments import Moments
from bandit_service.telemetry.learning_health import SPAN, LearningHealth, Mean, Memory
from policies import ArmId

KNOWN = 30
"""Rewards of an arm before its value estimate counts."""
SIGNALS = ("quality", "cost_usd", "latency_s")
LATELY, _HALF_MINUTE = 21, 30


@dataclass(slots=True)
class ArmSeen:
    """What was seen of one arm. lately: the same by half minutes, the newest last."""

    decisions: int = 0
    compared: int = 0
    signals: dict[str, Moments] = field(
        default_factory=lambda: {name: Moments() for name in ("reward", *SIGNALS)}
    )
    lately: deque[tuple[int, dict[str, Moments]]] = field(
        default_factory=lambda: deque(maxlen=LATELY)
    )

    def add(self, name: str, value: float, ts: float) -> None:
        """One value of a signal."""
        self.signals[name].add(value)
        begins = int(ts) // _HALF_MINUTE * _HALF_MINUTE
        if not self.lately or self.lately[-1][0] < begins:
            self.lately.append((begins, defaultdict(Moments)))
        self.lately[-1][1][name].add(value)


@dataclass(slots=True)
class RouteSeen:
    """What was seen of one route, since the process started. lately: its newest rewards count most.

    spent_usd: what was reported of its decisions.
    """

    decisions: int = 0
    spent_usd: float = 0.0
    signals: dict[str, Moments] = field(
        default_factory=lambda: {name: Moments() for name in ("reward", *SIGNALS)}
    )
    lately: Mean = field(default_factory=Mean)
    memory: Memory = field(default_factory=lambda: Memory(SPAN))

    def rewarded(self, event: ev.Rewarded) -> None:
        """What came back for one of its decisions."""
        for name in ("reward", *SIGNALS):
            value = getattr(event, name)
            if value is not None:
                self.signals[name].add(value)
        self.spent_usd += event.cost_usd or 0.0
        if event.reward is not None:
            self.lately.add(event.reward, self.memory.tick(lambda: (self.lately,)))


@dataclass(slots=True)
class Money:
    """The cost of decisions, and the expected cost of one arm for the same ones."""

    spent_usd: float = 0.0
    would_cost_usd: float = 0.0
    saved: Moments = field(default_factory=Moments)


class Baseline:
    """The arm that savings are counted against: the configured one, else the dearest offered."""

    def __init__(self, configured: str = "") -> None:
        self._configured, self._dearest = configured, ""

    def changed(self) -> None:
        """The catalogue has changed, and may have another dearest arm."""
        self._dearest = ""

    def arm(self, world: World) -> str:
        """Its id, "" where no arm is offered."""
        if self._configured in world.arms:
            return self._configured
        if not self._dearest:
            specs = [record.spec for record in world.offered()]
            priced = [(each.usd_per_mtok_in + each.usd_per_mtok_out, each.id) for each in specs]
            self._dearest = max(priced)[1] if priced else ""
        return self._dearest

    def would_cost(self, decided: ev.Decided, world: World) -> tuple[ArmId, float] | None:
        """The arm, and its expected cost for this decision."""
        record = world.arms.get(ArmId(self.arm(world)))
        if record is None:
            return None
        if not decided.prompt_tokens:
            return record.spec.id, record.expected_cost_usd(decided.tokens)
        warm = dict(zip(decided.arms, decided.warm_tokens, strict=False)).get(record.spec.id, 0)
        return record.spec.id, record.expected_prompt_usd(decided.prompt_tokens, warm)


class Learning:
    """The figures for one audience: a tenant, or all."""

    def __init__(self) -> None:
        self.arms: dict[ArmId, ArmSeen] = {}
        self.money: dict[ArmId, Money] = defaultdict(Money)
        self.routes: dict[str, RouteSeen] = {}
        self.health = LearningHealth()

    def seen(self, arm: ArmId) -> ArmSeen:
        """What was seen of an arm."""
        found = self.arms.get(arm)
        if found is None:
            found = self.arms[arm] = ArmSeen()
        return found

    def route(self, id: str) -> RouteSeen:
        """What was seen of a route, "" being the default one."""
        name = id or AUTO
        found = self.routes.get(name)
        if found is None:
            found = self.routes[name] = RouteSeen()
        return found

    def means(self) -> tuple[float | None, float | None]:
        """Mean reward, and the value estimate of the best arm of those with enough rewards.

        An arm with a few has an estimate that may be anywhere, and the best of several such is far
        too good.
        """
        known = [
            one.value
            for arm, one in self.health.corrected.items()
            if self.seen(ArmId(arm)).signals["reward"].n >= KNOWN
        ]
        return self.health.rewards.value, max((v for v in known if v is not None), default=None)

    def decided(self, events: Sequence[ev.Decided]) -> None:
        """Decisions, in their order."""
        drawn = [event.arm for event in events]
        for arm in drawn:
            self.seen(arm).decisions += 1
        for event in events:
            self.route(event.route).decisions += 1
        free = [event.propensities for event in events if event.by_chance]
        self.health.decided(drawn, free)

    def rewarded(
        self, event: ev.Rewarded, what: Resolved, would_cost: tuple[ArmId, float] | None
    ) -> None:
        """Signals of one decision, or of a query with no decision behind it."""
        seen, pending = self.seen(what.arm), what.pending
        if pending is not None:
            self.route(pending.decided.route).rewarded(event)
        for name in SIGNALS:
            value = getattr(event, name)
            if value is not None:
                seen.add(name, value, event.ts)
        if event.reward is not None:
            seen.signals["reward"].add(event.reward)
            if pending is None:
                self.health.settled(what.arm, 1.0, event.reward)
            else:
                quality, expected = pending.learned.get("quality"), pending.decided.expected_quality
                self.health.settled(what.arm, what.propensity, event.reward, quality, expected)
        if event.cost_usd is not None and pending is not None:
            self.health.paid(pending.decided.expected_cost_usd, event.cost_usd)
            if would_cost is not None:
                baseline, usd = would_cost
                money = self.money[baseline]
                money.spent_usd += event.cost_usd
                money.would_cost_usd += usd
                money.saved.add(usd - event.cost_usd)

    def compared(self, event: ev.Compared) -> None:
        """One comparison."""
        self.health.compared(event.winner, event.loser, event.tie)
        for arm in (event.winner, event.loser):
            self.seen(arm).compared += 1


class LearningFold:
    """One `Learning` of everything, and one for each tenant that `admit` named."""

    def __init__(self, baseline: str = "") -> None:
        self.all = Learning()
        self.baseline = Baseline(baseline)
        self._of: dict[str, Learning] = {}

    def admit(self, tenants: Iterable[str]) -> None:
        """Keep what these tenants may know apart, too; of a new one from here on."""
        for tenant in tenants:
            self._of.setdefault(tenant, Learning())

    def of(self, tenant: str | None) -> Learning:
        """What this tenant may know, all for None. KeyError for one that was not admitted."""
        return self.all if tenant is None else self._of[tenant]

    def heard(self, what: Resolved, world: World) -> tuple[ArmId, float] | None:
        """One event that was applied to the present world.

        Returns the baseline arm and its expected cost, if the event has a cost.
        """
        would_cost = None
        match what.event:
            case ev.Decided() as event:
                self.decided((event,))
            case ev.Rewarded() as event if not event.correction:
                if event.cost_usd is not None and what.decided is not None:
                    would_cost = self.baseline.would_cost(what.decided, world)
                for each in self._audiences(what.tenant):
                    each.rewarded(event, what, would_cost)
            case ev.Compared() as event:
                for each in self._audiences(what.tenant):
                    each.compared(event)
            case ev.RouteRemoved() as event:
                for each in (self.all, *self._of.values()):
                    each.routes.pop(event.id, None)
            case ev.ArmAdded() | ev.ArmUpdated() | ev.ArmRetired():
                self.baseline.changed()
            case _:
                pass
        return would_cost

    def decided(self, events: Sequence[ev.Decided]) -> None:
        """Decisions that were applied one after another."""
        self.all.decided(events)
        for tenant in self._of.keys() & {event.tenant for event in events}:  # not of all tenants
            self._of[tenant].decided([event for event in events if event.tenant == tenant])

    def _audiences(self, tenant: str) -> tuple[Learning, ...]:
        own = self._of.get(tenant) if tenant else None
        return (self.all,) if own is None else (self.all, own)
