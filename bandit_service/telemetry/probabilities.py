"""How likely each arm was drawn lately, by deciding policy. Pure."""

from __future__ import annotations

from collections import deque

from policies import ArmId

LATELY = 500


class Probabilities:
    """Means over the newest decisions of all policies; one that decides no more leaves them.

    `decided` is O(1), as it stands in the way of an answer; `means` adds up, for a scrape.
    """

    def __init__(self, lately: int = LATELY) -> None:
        self._newest: deque[tuple[str, tuple[ArmId, ...], tuple[float, ...]]] = deque(maxlen=lately)

    def decided(
        self, policy: str, arms: tuple[ArmId, ...], propensities: tuple[float, ...]
    ) -> None:
        """One decision, with the propensities of the eligible arms."""
        self._newest.append((policy, arms, propensities))

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
