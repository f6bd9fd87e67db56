"""What was learned beforehand as a prior: it counts as so many outcomes, and live ones overrule it.

A warm start teaches its outcomes like any others. Then one event lets what was learned of each arm
fade to the weight that a prior is to have, so that its estimates stay where they were and the first
real outcomes move them. No policy need know of priors, only how to forget a share of one arm.

Sums do not tell which outcome is in them. Where an arm had n live outcomes before, it is left the
weight that they and the prior should have together, strength + n; its estimate then is the mean of
both, each by its number of outcomes.
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
    """Outcomes of each arm, or None for "full"; ValueError says what is allowed.

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
    """The event after which no arm's prior counts for more; None where none does.

    It is the same for outcomes taught at once or in parts, and None when it has just happened.
    """
    keep: dict[ArmId, float] = {}
    for id in sorted(world.arms):
        record = world.arms[id]
        allowed = strength + record.live
        if record.weight > allowed * (1.0 + _NEXT_TO_NOTHING):
            keep[id] = allowed / record.weight
    return ev.PriorWeighed(ts=ts, strength=strength, keep=keep) if keep else None
