"""Which decisions say something of another policy: those that chance made among several arms."""

from __future__ import annotations

from bandit_service.core import events as ev

DUEL, SINGLE, STAYED, OVERRIDE, FIXED = "duel", "single", "stayed", "override", "fixed"
ROUTED = "route"
"""It was of another route, with arms and a policy of its own."""
REDIRECTED = "redirected"
"""Another model answered, which is known after the decision."""


def no_choice(event: ev.Decided, route: str = "") -> str:
    """Why a decision says nothing of another policy of this route; empty where it does.

    With one arm there was nothing to choose, and the second answer of a duel was never what the
    policy wanted. In logs of before, a conversation that stayed had drawn its arm when its first
    query came; since then staying is part of the distribution that is drawn from. An arm
    that an experiment or the hold-out fixed was drawn by the split of units, not for this query,
    and who has an override was no one's chance.
    """
    if event.route != route:
        return ROUTED
    if event.duel_of:
        return DUEL
    if len(event.arms) < 2:
        return SINGLE
    if event.stayed and not event.conversation:
        return STAYED
    if event.experiment and event.split <= 0.0:
        return OVERRIDE
    if event.experiment and event.policy == "fixed" and not event.key:
        return FIXED
    return ""
