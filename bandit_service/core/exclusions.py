"""Which decisions say something about another policy: those drawn at random among several arms."""

from __future__ import annotations

from bandit_service.core import events as ev

DUEL, SINGLE, STAYED, OVERRIDE, FIXED = "duel", "single", "stayed", "override", "fixed"
ROUTED = "route"
"""It was of another route, with arms and a policy of its own."""
REDIRECTED = "redirected"
"""Another model answered, which is known after the decision."""


def why_excluded(event: ev.Decided, route: str = "") -> str:
    """Why a decision says nothing about another policy of this route; empty if it does.

    With one arm there was no choice, and the second answer of a duel was not the policy's choice.
    In older logs a conversation that stayed had drawn its arm at its first query; now staying is
    part of the distribution of the draw. An arm that an experiment or the hold-out fixed was drawn
    by the split of units, not for this query, and an override was not drawn at all.
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
