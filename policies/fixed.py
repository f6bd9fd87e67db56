"""Fixed: always the same arm, which is what most teams run before they have a router."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from policies._explore import greedy
from policies._types import Arms, Compared, Context, Proposal, Rewarded

__all__ = ["Fixed"]


@dataclass
class _Nothing:
    """Nothing is learned."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """p = 1 on one arm; learns nothing. O(K).

    arm: the arm's id. Empty, or where that arm is not eligible: the arm with the least expected
        cost for the query, ties sharing.

    >>> arms = Arms(("a", "b"), np.array([0.2, 0.1]), np.zeros(2))
    >>> context = Context(np.ones(1, np.float32), 0, 0.1)
    >>> Fixed(arm="a").propose(Fixed().init(), context, arms).propensities
    array([1., 0.])
    >>> Fixed().propose(Fixed().init(), context, arms).propensities
    array([0., 1.])
    """

    arm: str = ""
    reads_neighbours: ClassVar[bool] = False
    order_free: ClassVar[bool] = True
    exempt: ClassVar[dict[str, str]] = {
        "the_best_arm_of_an_easy_problem_is_found": "it learns nothing, by design"
    }

    @staticmethod
    def examples() -> list[Fixed]:
        """Settings that the laws test, too."""
        return [Fixed(arm="a")]

    def init(self) -> _Nothing:
        """Nothing."""
        return _Nothing()

    def propose(self, state: _Nothing, context: Context, arms: Arms) -> Proposal:
        """All mass on the arm, or on the cheapest."""
        if not len(arms):
            raise ValueError("arms: no eligible arm to propose from")
        named = np.array([float(id == self.arm) for id in arms.ids])
        scores = named if named.any() else -arms.cost_usd
        return Proposal(scores, greedy(scores))

    def learn(self, state: _Nothing, event: Rewarded | Compared) -> _Nothing:
        """Nothing."""
        return state
