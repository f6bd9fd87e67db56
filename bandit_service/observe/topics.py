"""What each arm earns and costs by topic. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bandit_service.core.resolved import Pending
from bandit_service.statistics.moments import Moments
from policies import ArmId


@dataclass(slots=True)
class ArmInTopic:
    """One arm's decisions of one topic, and what came back."""

    decisions: int = 0
    reward: Moments = field(default_factory=Moments)
    cost_usd: Moments = field(default_factory=Moments)


def by_arm(
    pendings: Sequence[Pending], topics: Sequence[int | None]
) -> Mapping[int, Mapping[ArmId, ArmInTopic]]:
    """By topic and arm what these decisions came to; those of no topic are left out."""
    found: dict[int, dict[ArmId, ArmInTopic]] = defaultdict(lambda: defaultdict(ArmInTopic))
    for one, topic in zip(pendings, topics, strict=True):
        if topic is None:
            continue
        arm = found[topic][one.arm]
        arm.decisions += 1
        if one.reward is not None:
            arm.reward.add(one.reward)
        if (cost := one.signals.get("cost_usd")) is not None:
            arm.cost_usd.add(cost)
    return found
