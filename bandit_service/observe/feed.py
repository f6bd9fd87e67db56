"""What one audience may see of what happens: sums, steps of time and the newest decisions.

It is told of every event as it is applied, in O(1) and without a clock; everything dearer is done
when somebody looks. It begins with the newest pending decisions and decides nothing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

from bandit_service.core import events as ev
from bandit_service.core.resolve import Resolved
from bandit_service.core.world import Pending, World
from bandit_service.observe.ring import Ring, Step
from bandit_service.statistics.moments import Moments
from bandit_service.telemetry.learning_health import LearningHealth
from policies import ArmId

RECENT = 500
"""Decisions kept for the feed, the map and the reasons."""
RECALLED = 5_000
"""Pending decisions that a start looks at."""
KNOWN = 30
"""Rewards of an arm before its value estimate counts."""
LATELY, _HALF_MINUTE = 21, 30
SIGNALS = ("quality", "cost_usd", "latency_s")


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
            self.lately.append((begins, {}))
        self.lately[-1][1].setdefault(name, Moments()).add(value)


@dataclass(slots=True)
class Money:
    """What decisions cost, and what one arm was expected to cost for the same ones."""

    spent_usd: float = 0.0
    would_cost_usd: float = 0.0
    saved: Moments = field(default_factory=Moments)


class Watch:
    """Everything of one tenant, or of all: `decided`, `rewarded`, `compared`, `expired`, `forgot`.

    baseline: the arm that savings are counted against.
    """

    def __init__(self, baseline: Callable[[World], str]) -> None:
        self.numbers: dict[ArmId, int] = {}
        self.arms: dict[ArmId, ArmSeen] = {}
        self.fine, self.coarse = Ring(1, 600), Ring(30, 360)
        self.recent: OrderedDict[str, Pending] = OrderedDict()
        self.health = LearningHealth()
        self.money: dict[ArmId, Money] = {}
        self._baseline = baseline

    def decided(self, pending: Pending) -> None:
        """One decision."""
        event = pending.decided
        arm, ts = event.arm, event.ts
        number = self.number(arm)
        self.seen(arm).decisions += 1
        for ring in (self.fine, self.coarse):
            step = self._step(ring, ts)
            step.arms[number] = step.arms.get(number, 0) + 1
        self.health.decided(arm, event.propensity, event.propensities)
        self.recent[event.id] = pending
        if len(self.recent) > RECENT:
            self.recent.popitem(last=False)

    def rewarded(self, event: ev.Rewarded, pending: Pending | None, world: World) -> None:
        """Signals of one decision, or of a query that none of ours stands behind."""
        decided = None if pending is None else pending.decided
        arm = event.arm if decided is None else decided.arm
        seen = self.seen(arm)
        for name in SIGNALS:
            value = getattr(event, name)
            if value is not None:
                seen.add(name, value, event.ts)
        if event.reward is not None:
            seen.signals["reward"].add(event.reward)
            for ring in (self.fine, self.coarse):
                self._step(ring, event.ts).reward.add(event.reward)
            self._settled(event.reward, arm, pending)
        if event.cost_usd is not None and decided is not None:
            self._cost(event.cost_usd, decided, world)

    def recall(self, pending: Pending, world: World) -> None:
        """A decision of before the start, with what is known of it."""
        event, known = pending.decided, pending.learned or pending.signals
        self.decided(pending)
        told = {name: known[name] for name in (*SIGNALS, "reward") if name in known}
        if told:
            as_one = ev.Rewarded(ts=event.ts, decision_id=event.id, **told)  # type: ignore[arg-type]
            self.rewarded(as_one, pending, world)

    def compared(self, event: ev.Compared) -> None:
        """One comparison."""
        self.health.compared(event.winner, event.loser, event.tie)
        for arm in (event.winner, event.loser):
            self.seen(arm).compared += 1

    def expired(self, ids: tuple[str, ...]) -> None:
        """These decisions are forgotten."""
        for id in ids:
            self.recent.pop(id, None)

    def forgot(self, owner: str) -> None:
        """All that is kept of one unit is forgotten; sums stay."""
        for id, pending in list(self.recent.items()):
            if ev.owner_of(pending.decided.tenant, pending.decided.unit) == owner:
                del self.recent[id]

    def means(self) -> tuple[float | None, float | None]:
        """Mean reward, and the value estimate of the best arm of those with enough rewards.

        An arm with a few has an estimate that may be anywhere, and the best of several such is far
        too good.
        """
        known = (
            one.value for arm, one in self.health.corrected.items()
            if self.seen(ArmId(arm)).signals["reward"].n >= KNOWN
        )  # fmt: skip
        return self.health.rewards.value, max((v for v in known if v is not None), default=None)

    def newest(self, most: int) -> list[Pending]:
        """The newest decisions, newest first."""
        return list(islice(reversed(self.recent.values()), most))

    def number(self, arm: ArmId) -> int:
        """The number by which steps name an arm."""
        return self.numbers.setdefault(arm, len(self.numbers))

    def seen(self, arm: ArmId) -> ArmSeen:
        """What was seen of an arm."""
        found = self.arms.get(arm)
        if found is None:
            found = self.arms[arm] = ArmSeen()
        return found

    def _step(self, ring: Ring, ts: float) -> Step:
        """The step of this time; the one before it is closed with the means as they are now."""
        before = ring.newest
        step = ring.at(ts)
        if before is not None and before is not step:
            before.mean, before.best = self.means()
        return step

    def _settled(self, reward: float, arm: ArmId, pending: Pending | None) -> None:
        if pending is None:
            self.health.settled(arm, 1.0, reward)
            return
        decided = pending.decided
        self.health.settled(
            arm, decided.propensity, reward, pending.learned.get("quality"),
            decided.expected_quality,
        )  # fmt: skip

    def _cost(self, cost_usd: float, decided: ev.Decided, world: World) -> None:
        baseline = world.arms.get(ArmId(self._baseline(world)))
        if baseline is None:
            return
        would_cost = baseline.expected_cost_usd(decided.tokens)
        money = self.money.setdefault(baseline.spec.id, Money())
        money.spent_usd += cost_usd
        money.would_cost_usd += would_cost
        money.saved.add(would_cost - cost_usd)


class Watches:
    """One watch over everything, and one for each tenant that a key is bound to."""

    def __init__(self, tenants: set[str], baseline: Callable[[World], str]) -> None:
        self.all = Watch(baseline)
        self._of = {tenant: Watch(baseline) for tenant in tenants}

    def of(self, tenant: str | None) -> Watch:
        """What this tenant may see, all for None. KeyError for one that no key is bound to."""
        return self.all if tenant is None else self._of[tenant]

    def recall(self, world: World) -> None:
        """Begin with the newest decisions that may still be rewarded."""
        newest = list(islice(reversed(world.pending.values()), RECALLED))
        for pending in reversed(newest):
            for watch in self._watching(pending.decided.tenant):
                watch.recall(pending, world)

    def heard(self, what: Resolved, world: World) -> None:
        """One event that was applied to the world as it is now."""
        match what.event:
            case ev.Decided():
                if what.pending is not None:
                    for watch in self._watching(what.tenant):
                        watch.decided(what.pending)
            case ev.Rewarded() as event if not event.correction:
                for watch in self._watching(what.tenant):
                    watch.rewarded(event, what.pending, world)
            case ev.Compared() as event:
                for watch in self._watching(what.tenant):
                    watch.compared(event)
            case ev.DecisionsExpired() as event:
                for watch in self._every():
                    watch.expired(event.ids)
            case ev.Forgotten() as event:
                for watch in self._every():
                    watch.forgot(event.owner)
            case _:
                pass

    def _watching(self, tenant: str) -> tuple[Watch, ...]:
        own = self._of.get(tenant) if tenant else None
        return (self.all,) if own is None else (self.all, own)

    def _every(self) -> tuple[Watch, ...]:
        return (self.all, *self._of.values())
