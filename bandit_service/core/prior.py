"""A warm start as a prior: it counts as a few outcomes, and live outcomes override it.

A warm start learns its outcomes like any others. Then one event reduces what was learned about each
arm to the weight of a prior: the estimates stay, and the first real outcomes can move them.
Policies need not know about priors, only how to forget a share of one arm.

A sum does not show which outcomes are in it. If an arm had n live outcomes before, it keeps the
weight that they and the prior should have together, strength + n; its estimate is then the mean of
both, weighted by their numbers of outcomes.
"""

from __future__ import annotations

import math

from bandit_service.core import events as ev
from bandit_service.core.world import World
from policies import ArmId

STRENGTH = 2.0
"""Outcomes of each arm that a warm start counts as, unless another number is asked for."""

_NEXT_TO_NOTHING = 1e-9


def strength_of(text: str) -> float | None:
    """Outcomes of each arm, or None for "full". Raises ValueError with what is allowed.

    >>> strength_of("12.5"), strength_of("full")
    (12.5, None)
    """
    if text == "full":
        return None
    try:
        strength = float(text)
    except ValueError:
        strength = math.nan
    if not (math.isfinite(strength) and strength > 0.0):
        raise ValueError(f"must be a number of outcomes above 0, or 'full', got {text!r}")
    return strength


def weighing(world: World, strength: float, ts: float) -> ev.PriorWeighed | None:
    """The event after which no arm's prior counts for more; None if none does.

    It is the same for outcomes taught at once or in parts, and None directly after such an event.
    """
    keep: dict[ArmId, float] = {}
    for id in sorted(world.arms):
        record = world.arms[id]
        allowed = strength + record.live
        if record.weight > allowed * (1.0 + _NEXT_TO_NOTHING):
            keep[id] = allowed / record.weight
    return ev.PriorWeighed(ts=ts, strength=strength, keep=keep) if keep else None
