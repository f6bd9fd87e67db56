"""How likely each arm was drawn lately, by deciding policy. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TypeAlias

from policies import ArmId

LATELY = 500

Chances: TypeAlias = tuple[str, tuple[ArmId, ...], tuple[float, ...]]
"""The policy of a decision, its eligible arms, and their propensities."""


class Probabilities:
    """Means over the newest decisions of all policies; one that decides no more leaves them.

    `decided` is O(1), as it stands in the way of an answer; `means` adds up, for a scrape.
    """

    def __init__(self, lately: int = LATELY) -> None:
        self._newest: deque[Chances] = deque(maxlen=lately)

    def decided(self, decisions: Iterable[Chances]) -> None:
        """Decisions, in their order."""
        self._newest.extend(decisions)

    def means(self) -> dict[str, dict[ArmId, float]]:
        """By policy and arm; they add up to 1, as an arm that was not eligible counts as 0."""
        alike: dict[tuple[str, tuple[ArmId, ...]], list[tuple[float, ...]]] = {}
        for policy, arms, propensities in self._newest:
            alike.setdefault((policy, arms), []).append(propensities)
        decisions: dict[str, int] = {}
        found: dict[str, dict[ArmId, float]] = {}
        for (policy, arms), rows in alike.items():
            decisions[policy] = decisions.get(policy, 0) + len(rows)
            sums = found.setdefault(policy, {})
            for arm, total in zip(arms, map(sum, zip(*rows, strict=True)), strict=True):
                sums[arm] = sums.get(arm, 0.0) + total
        return {
            policy: {arm: total / decisions[policy] for arm, total in sums.items()}
            for policy, sums in found.items()
        }
