"""The activity that one audience may see: steps of time and the newest decisions.

It gets every event as it is applied, in O(1) and without a clock; expensive work is done only for a
viewer. It begins with the newest pending decisions and decides nothing. `telemetry.learning` folds
rewards and costs once, for all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from bandit_service.core import events as ev
from bandit_service.core.apply import uncollected
from bandit_service.core.resolved import Pending, Resolved
from bandit_service.core.world import World
from bandit_service.observe.ring import Ring, Step
from bandit_service.telemetry.learning import SIGNALS, Learning, LearningFold
from policies import ArmId

RECENT = 500
"""Decisions kept for the feed, the map and the reasons."""
RECALLED = 5_000
"""Pending decisions that a start looks at."""
STEP = 64
"""So many of them are looked at at once, which takes about 1.5 ms."""


class ActivityFeed:
    """Everything of one tenant, or of all. learning: what that audience may know is learned."""

    def __init__(self, learning: Learning) -> None:
        self.learning = learning
        self.numbers: dict[ArmId, int] = {}
        self.fine, self.coarse = Ring(1, 600), Ring(30, 360)
        self.recent: OrderedDict[str, Pending] = OrderedDict()

    def decided(self, some: Sequence[Pending]) -> None:
        """Decisions, in their order."""
        recent, numbers, fine, coarse = self.recent, self.numbers, self.fine, self.coarse
        for pending in some:
            event = pending.decided
            number = numbers.setdefault(event.arms[event.drawn], len(numbers))
            for ring in (fine, coarse):
                arms = self._step(ring, event.ts).arms
                arms[number] = arms.get(number, 0) + 1
            recent[event.id] = pending
        for _ in range(len(recent) - RECENT):
            recent.popitem(last=False)

    def rewarded(self, reward: float, ts: float) -> None:
        """The scalar reward of a decision, or of a query with no decision behind it."""
        for ring in (self.fine, self.coarse):
            self._step(ring, ts).reward.add(reward)

    def expired(self, ids: tuple[str, ...]) -> None:
        """These decisions are forgotten."""
        for id in ids:
            self.recent.pop(id, None)

    def forgot(self, owner: str) -> None:
        """All that is kept of one unit is forgotten; sums stay."""
        for id, pending in list(self.recent.items()):
            if ev.owner_of(pending.decided.tenant, pending.decided.unit) == owner:
                del self.recent[id]

    def newest(self, most: int) -> list[Pending]:
        """The newest decisions, newest first."""
        return list(islice(reversed(self.recent.values()), most))

    def number(self, arm: ArmId) -> int:
        """The number by which steps name an arm."""
        return self.numbers.setdefault(arm, len(self.numbers))

    def _step(self, ring: Ring, ts: float) -> Step:
        """The step of this time; the one before it is closed with the means as they are now."""
        if ts < ring.ends:  # as nearly always
            return ring.at(ts)
        before, step = ring.newest, ring.at(ts)
        if before is not None and before is not step:
            before.mean, before.best = self.learning.means()
        return step


class ActivityFeeds:
    """One feed of everything, and one for each tenant that a key is bound to."""

    def __init__(self, tenants: Iterable[str], learning: LearningFold) -> None:
        self._learning = learning
        self.all = ActivityFeed(learning.all)
        self._of: dict[str, ActivityFeed] = {}
        self.past: Iterator[None] = iter(())
        self.admit(tenants)

    def admit(self, tenants: Iterable[str]) -> None:
        """Show these tenants what is theirs; of a new one what comes from here on."""
        for tenant in tenants:
            if tenant not in self._of:
                self.catch_up()
                self._learning.admit((tenant,))
                self._of[tenant] = ActivityFeed(self._learning.of(tenant))

    def of(self, tenant: str | None) -> ActivityFeed:
        """What this tenant may see, all for None. KeyError for one that no key is bound to."""
        self.catch_up()
        return self.all if tenant is None else self._of[tenant]

    def recall(self, world: World) -> None:
        """Begin with the newest decisions that may still be rewarded, and their outcomes.

        They are counted by `catch_up`, or before it in the steps of `past`. Until then nothing may
        be applied to the world.
        """
        self.past = self._recalled(world)

    def catch_up(self) -> None:
        """Count what is left of the decisions from before the start."""
        with uncollected():
            for _ in self.past:
                pass

    def _recalled(self, world: World) -> Iterator[None]:
        decisions = world.pending.decisions
        newest = list(islice(decisions.older_than(None), RECALLED))
        for at, id in enumerate(reversed(newest), 1):
            for what in _recalled(decisions[id], world.events):
                self._learning.heard(what, world)
                self.heard(what, world)
            if at % STEP == 0:
                yield

    def heard(self, what: Resolved, world: World) -> None:
        """One event that was applied, after `telemetry.learning` got it."""
        match what.event:
            case ev.Decided():
                self.decided((what,), world)
            case ev.Rewarded() as event if event.reward is not None and not event.correction:
                for feed in self._audiences(what.tenant):
                    feed.rewarded(event.reward, event.ts)
            case ev.DecisionsExpired() as event:
                for feed in self._every():
                    feed.expired(event.ids)
            case ev.Forgotten() as event:
                for feed in self._every():
                    feed.forgot(event.owner)
            case _:
                pass

    def decided(self, some: Sequence[Resolved], _: World) -> None:
        """Decisions that were applied one after another."""
        made = [what.pending for what in some if what.pending is not None]
        self.all.decided(made)
        for tenant in self._of.keys() & {one.decided.tenant for one in made}:  # not of all tenants
            self._of[tenant].decided([one for one in made if one.decided.tenant == tenant])

    def _audiences(self, tenant: str) -> tuple[ActivityFeed, ...]:
        own = self._of.get(tenant) if tenant else None
        return (self.all,) if own is None else (self.all, own)

    def _every(self) -> tuple[ActivityFeed, ...]:
        return (self.all, *self._of.values())


def _recalled(pending: Pending, number: int) -> Iterator[Resolved]:
    """A decision from before the start, with all its signals as one reward."""
    decided = pending.decided
    known = pending.signals if pending.revoked else pending.learned or pending.signals
    yield Resolved(decided, number, pending, decided)
    values = {name: known[name] for name in (*SIGNALS, "reward") if name in known}
    if values:
        rewarded = ev.Rewarded(ts=decided.ts, decision_id=decided.id, **values)  # type: ignore[arg-type]
        yield Resolved(rewarded, number, pending, decided)
