"""Sessions and conversations whose decisions may still be rewarded, and their rewards.

A value of a session is credited to its decisions by weights from 0 to 1. At 1 a decision learns the
value itself, at 0 nothing, in between a value between the expected one and the session's. `credits`
are these weights as shares of one session, so that it counts as one, however many decisions it had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from bandit_service.core import events as ev
from bandit_service.core.feature import takes
from bandit_service.core.named_metrics import Tally
from bandit_service.core.resolved import Resolved
from policies import ArmId

CREDITS = ("equal", "last", "discounted")
GROUPS = ("session", "conversation")
MAX_CREDITED = 1_000
"""Decisions of one session that are credited, the newest."""
_GRID = 1 << 16


def group_of(tenant: str, kind: str, name: str) -> str:
    """What the log calls a session or a conversation of a tenant: a hash; "" where none is named.

    >>> group_of("", "session", "s") == group_of("", "conversation", "s")
    False
    """
    if not name:
        return ""
    return blake2b(f"{kind}:{len(tenant)}:{tenant}{name}".encode(), digest_size=16).hexdigest()


def groups_of(tenant: str, session: str, conversation: str) -> tuple[str, ...]:
    """The session and the conversation that a query is a part of, as far as they are named."""
    if not (session or conversation):
        return ()
    named = zip(GROUPS, (session, conversation), strict=True)
    return tuple(found for kind, name in named if (found := group_of(tenant, kind, name)))


def weights_of(n: int, rule: str, discount: float) -> list[float]:
    """(n,) the weights of a session's decisions, oldest first; the newest has 1.

    >>> weights_of(3, "discounted", 0.5), weights_of(3, "last", 0.5), weights_of(2, "equal", 0.5)
    ([0.25, 0.5, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0])
    """
    if rule == "equal":
        return [1.0] * n
    if rule == "last":
        return [0.0] * (n - 1) + [1.0]
    return [discount ** (n - 1 - i) for i in range(n)]


def shares_of(weights: Sequence[float]) -> list[float]:
    """(n,) the weights as shares of one, on a binary grid, so that their sum is 1 exactly.

    >>> sum(shares_of([1.0, 1.0, 1.0])), shares_of([0.0, 1.0])
    (1.0, [0.0, 1.0])
    """
    total = sum(weights)
    steps = [int(_GRID * weight / total) for weight in weights]
    left = _GRID - sum(steps)
    for i in range(1, left + 1):  # fewer than there are weights; the newest first
        steps[-i] += 1
    return [step / _GRID for step in steps]


@dataclass
class Told:
    """What was said of one session. signals: all of it. number: how often something new was said.

    keys: idempotency keys with digests. weights: of the decisions that are credited, by id; arms,
    credits: of the same. done: all of them have learned it. before, weights_before: the signals and
    the weights that were learned before the newest ones.
    """

    signals: dict[str, float] = field(default_factory=dict)
    number: int = 0
    keys: dict[str, str] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    arms: list[ArmId] = field(default_factory=list)
    credits: list[float] = field(default_factory=list)
    done: bool = True
    before: dict[str, float] = field(default_factory=dict)
    weights_before: dict[str, float] = field(default_factory=dict)


@dataclass
class Sessions:
    """members: ids of the decisions that may be rewarded by group, oldest first. told: by group.

    owners: of members, where they have one. named: the named metrics of sessions; tallies: what
    came of each by arm, a session counting as one.
    """

    members: dict[str, list[str]] = field(default_factory=dict)
    told: dict[str, Told] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    named: list[str] = field(default_factory=list)
    tallies: dict[str, dict[ArmId, Tally]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is anything of a session."""
        return bool(self.members or self.told or self.owners or self.named or self.tallies)

    def unfinished(self) -> list[str]:
        """The groups of which some decisions have not learned their part."""
        return [group for group, told in self.told.items() if not told.done]

    @takes(ev.MetricsChanged)
    def _named(self, event: ev.MetricsChanged, _: Resolved) -> None:
        self.named = [one.name for one in event.metrics if one.scope == "session"]
        for name in [name for name in self.tallies if name not in self.named]:
            del self.tallies[name]

    @takes(ev.Decided)
    def _decided(self, event: ev.Decided, what: Resolved) -> None:
        if event.duel_of:
            return  # nobody saw it
        for group in event.groups:
            self.members.setdefault(group, []).append(event.id)
        if event.groups and what.owner:
            self.owners[event.id] = what.owner

    @takes(ev.SessionRewarded)
    def _rewarded(self, event: ev.SessionRewarded, _: Resolved) -> None:
        told = self.told.setdefault(event.group, Told())
        self._count(told, -1.0)
        told.before, told.weights_before = told.signals, told.weights
        told.signals = told.signals | event.signals
        told.number += 1
        told.weights = dict(zip(event.ids, event.weights, strict=False))
        told.arms, told.credits = list(event.arms), list(event.credits)
        told.done = False
        if event.idempotency_key:
            told.keys[event.idempotency_key] = event.digest
        self._count(told, 1.0)

    @takes(ev.SessionCredited)
    def _credited(self, event: ev.SessionCredited, _: Resolved) -> None:
        told = self.told.get(event.group)
        if told is not None and told.number == event.number:
            told.done = True

    @takes(ev.DecisionsExpired)
    def _expired(self, _: ev.DecisionsExpired, what: Resolved) -> None:
        if what.decided is not None and what.decided.groups:
            self._leave(what.decided.id, what.decided.groups)

    @takes(ev.Forgotten)
    def _forgotten(self, event: ev.Forgotten, _: Resolved) -> None:
        gone = {id for id, owner in self.owners.items() if owner == event.owner}
        if not gone:
            return
        for group, ids in list(self.members.items()):  # once, however many decisions it had
            if not gone.isdisjoint(ids):
                self._keep(group, [id for id in ids if id not in gone])
        for id in gone:
            del self.owners[id]

    def _leave(self, id: str, groups: Sequence[str]) -> None:
        """A decision may not be rewarded any more."""
        self.owners.pop(id, None)
        for group in groups:
            ids = self.members.get(group, [])
            if id in ids:  # the first one, as the oldest leave first
                ids.remove(id)
                self._keep(group, ids)

    def _keep(self, group: str, ids: list[str]) -> None:
        """These are left of a session; one without any is forgotten."""
        self.members[group] = ids
        if not ids:
            del self.members[group]
            self.told.pop(group, None)

    def _count(self, told: Told, sign: float) -> None:
        for name in self.named:
            if name not in told.signals:
                continue
            by_arm = self.tallies.setdefault(name, {})
            for arm, credit in zip(told.arms, told.credits, strict=False):
                tally = by_arm.setdefault(arm, Tally())
                tally.add(sign * credit * told.signals[name], sign * credit)


def credited(
    value: float, weight: float, expected: float, low: float = 0.0, high: float = 1.0
) -> float:
    """What a decision learns: `weight` of the way from the expected value to the session's.

    >>> credited(1.0, 0.5, 0.6), credited(1.0, 1.0, 0.6)
    (0.8, 1.0)
    """
    if weight >= 1.0:
        return value
    return min(high, max(low, expected + weight * (value - expected)))


def merged(
    tallies: Mapping[str, Mapping[ArmId, Tally]], more: Mapping[str, Mapping[ArmId, Tally]]
) -> dict[str, Mapping[ArmId, Tally]]:
    """Tallies of decisions and of sessions, whose metrics have different names."""
    return {**tallies, **more}
