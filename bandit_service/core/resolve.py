"""What an event refers to, looked up once in the world, before it is applied."""

from __future__ import annotations

from bandit_service.core import events as ev
from bandit_service.core.resolved import Pending, Resolved, owner_of_subject
from bandit_service.core.world import World


def resolve(world: World, event: ev.AnyEvent) -> Resolved:
    """The event with what the world knows of it. It is total, like `apply`: it only looks up."""
    number = world.events + 1
    if type(event) is ev.Decided:
        return Resolved(event, number, Pending(event), event)
    match event:
        case ev.Rewarded() | ev.Compared():
            pending = _pending(world, event)
            if pending is None:
                return Resolved(event, number, None, event.subject)
            before, revoked = pending.signals, pending.revoked  # replaced by others, never changed
            settled = None if revoked else pending.learned.get("reward")
            return Resolved(event, number, pending, pending.decided, before, settled, revoked)
        case ev.Shadowed() | ev.Redirected() | ev.Judged():
            pending = world.pending.decisions.get(event.decision_id)
            if pending is None:
                return Resolved(event, number)
            settled = pending.reward
            return Resolved(event, number, pending, pending.decided, settled=settled)
        case ev.Spent() if not event.judge:
            pending = world.pending.decisions.get(event.decision_id)
            return Resolved(event, number, pending)  # a cost is nobody's data
        case _:
            return Resolved(event, number)


def owner_of(world: World, event: ev.AnyEvent) -> str:
    """Whose data an event is; what `resolve` says, without the rest."""
    match event:
        case ev.Decided():
            return owner_of_subject(event)
        case ev.Rewarded() | ev.Compared():
            pending = _pending(world, event)
            return owner_of_subject(event.subject if pending is None else pending.decided)
        case ev.SessionRewarded():
            return event.owner
        case ev.Shadowed() | ev.Redirected() | ev.Judged():
            pending = world.pending.decisions.get(event.decision_id)
            return "" if pending is None else owner_of_subject(pending.decided)
        case _:
            return ""


def _pending(world: World, event: ev.Rewarded | ev.Compared) -> Pending | None:
    return world.pending.decisions.find(event.decision_id) if event.decision_id else None
