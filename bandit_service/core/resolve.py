"""One event with everything that it refers to, looked up once, before it is applied.

The folds of `core` take it, and so does whoever listens to what happens (`runtime.writer`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from bandit_service.core import events as ev
from bandit_service.core.experiments.spec import label_of
from bandit_service.core.world import Pending, World
from policies import ArmId

Subject: TypeAlias = ev.Decided | ev.Subject


class Resolved(msgspec.Struct, frozen=True):
    """One event with everything that it refers to.

    number: how many events there are with this one. pending: the decision that it makes, or that it
    is about while that may be rewarded. subject: that decision, or else the query that the event
    itself carries. before, settled: the signals and the scalar reward that were known before.
    """

    event: ev.AnyEvent
    number: int
    pending: Pending | None = None
    subject: Subject | None = None
    before: Mapping[str, float] = {}
    settled: float | None = None

    @property
    def decided(self) -> ev.Decided | None:
        """The decision, None where there is none or it has left."""
        return None if self.pending is None else self.pending.decided

    @property
    def arm(self) -> ArmId:
        """The arm that a decision or a reward is of, "" of another event."""
        if self.pending is not None:
            return self.pending.decided.arm
        return self.event.arm if isinstance(self.event, ev.Rewarded) else ArmId("")

    @property
    def propensity(self) -> float:
        """With which probability that arm was drawn; 1 where it was not drawn here."""
        return 1.0 if self.pending is None else self.pending.decided.propensity

    @property
    def tenant(self) -> str:
        """The tenant of the subject, "" where there is none."""
        return "" if self.subject is None else self.subject.tenant

    @property
    def owner(self) -> str:
        """Whose data it is, "" where it is nobody's."""
        return _owner(self.subject)

    @property
    def variant(self) -> str:
        """The decision's "experiment/variant", "" outside of experiments."""
        subject = self.subject
        if isinstance(subject, ev.Decided) and subject.experiment:
            return label_of(subject.experiment, subject.variant)
        return ""


def resolve(world: World, event: ev.AnyEvent) -> Resolved:
    """The event with what the world knows of it. It is total, like `apply`: it only looks up."""
    number = world.events + 1
    match event:
        case ev.Decided():
            return Resolved(event, number, Pending(event), event)
        case ev.Rewarded() | ev.Compared():
            pending = _pending(world, event)
            if pending is None:
                return Resolved(event, number, None, event.subject)
            settled = pending.learned.get("reward")
            return Resolved(event, number, pending, pending.decided, dict(pending.signals), settled)
        case ev.Spent() if not event.judge:
            pending = world.pending.get(event.decision_id)
            return Resolved(event, number, pending)  # a cost is nobody's data
        case _:
            return Resolved(event, number)


def owner_of(world: World, event: ev.AnyEvent) -> str:
    """Whose data an event is; what `resolve` says, without the rest."""
    match event:
        case ev.Decided():
            return _owner(event)
        case ev.Rewarded() | ev.Compared():
            pending = _pending(world, event)
            return _owner(event.subject if pending is None else pending.decided)
        case _:
            return ""


def expiring(event: ev.DecisionsExpired, number: int, pending: Pending) -> Resolved:
    """The same for each of the decisions that one event lets leave."""
    settled = pending.learned.get("reward")
    return Resolved(event, number, pending, pending.decided, pending.signals, settled)


def _pending(world: World, event: ev.Rewarded | ev.Compared) -> Pending | None:
    return world.pending.get(event.decision_id) if event.decision_id else None


def _owner(subject: Subject | None) -> str:
    return "" if subject is None else ev.owner_of(subject.tenant, subject.unit)
