"""Uniform: every eligible arm with the same probability, as the Blending paper does per turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from policies._types import Arms, Compared, Context, Contexts, Proposal, Proposals, Rewarded

__all__ = ["Uniform"]


@dataclass
class _Nothing:
    """Nothing is learned."""


@dataclass(frozen=True, slots=True)
class Uniform:
    """p_i = 1/K over the K eligible arms; learns nothing. O(K).

    The baseline that a router must beat, the logging policy with the cleanest off-policy
    estimates, and what Blending (arXiv 2401.02994) does at every turn of a conversation.

    >>> arms = Arms(("a", "b"), np.zeros(2), np.zeros(2))
    >>> policy = Uniform()
    >>> policy.propose(policy.init(), Context(np.ones(1, np.float32), 0, 0.1), arms).propensities
    array([0.5, 0.5])
    """

    reads_neighbours: ClassVar[bool] = False
    order_free: ClassVar[bool] = True
    exempt: ClassVar[dict[str, str]] = {
        "the_best_arm_of_an_easy_problem_is_found": "it learns nothing, by design"
    }

    def init(self) -> _Nothing:
        """Nothing."""
        return _Nothing()

    def propose(self, state: _Nothing, context: Context, arms: Arms) -> Proposal:
        """1/K each."""
        return self.propose_many(state, Contexts.of((context,)), arms)[0]

    def propose_many(self, state: _Nothing, contexts: Contexts, arms: Arms) -> Proposals:
        """The same for each of B queries."""
        k = len(arms)
        if not k:
            raise ValueError("arms: no eligible arm to propose from")
        shape = len(contexts), k
        return Proposals(np.zeros(shape), np.full(shape, 1.0 / k))

    def learn(self, state: _Nothing, event: Rewarded | Compared) -> _Nothing:
        """Nothing."""
        return state
