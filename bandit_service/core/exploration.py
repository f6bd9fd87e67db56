"""The exploration that every decision gets in addition to its policy's own."""

from __future__ import annotations

from dataclasses import dataclass

from bandit_service.core.switching_cost import Stay
from policies import Floats, Proposal, floor, lift, mix


@dataclass(frozen=True, slots=True)
class Exploration:
    """The probability floor that every decision gets, and the seed of all chance.

    share: of the probability, given to the eligible arms evenly. floor: if set, it replaces the
    share: this much for each arm, and for all together at most floor_share.
    """

    seed: int = 0
    share: float = 0.02
    floor: float | None = None
    floor_share: float = 0.1

    def settled(
        self, proposal: Proposal, stay: Stay | None, worth: float
    ) -> tuple[Proposal, Floats]:
        """The proposal with what a switch costs, and (K,) what is drawn from."""
        if stay is None:
            return proposal, self.added(proposal.propensities)
        kept = stay.keep(proposal, worth)
        k = len(kept.propensities)
        each = self.share / k if self.floor is None else min(self.floor, self.floor_share / k)
        return kept, lift(kept.propensities, stay.scaled(each), share=1.0)

    def added(self, propensities: Floats) -> Floats:
        """(K,) with the floor: none below share / K, or below min(floor, floor_share / K)."""
        if self.floor is None:
            return mix(propensities, self.share)
        return floor(propensities, self.floor, self.floor_share)

    @property
    def label(self) -> str:
        """In a few words.

        >>> Exploration().label, Exploration(floor=0.01).label, Exploration(share=0.0).label
        ('2 % in all', '0.01 per arm', 'no floor')
        """
        if not (self.share if self.floor is None else self.floor):
            return "no floor"
        return f"{100 * self.share:g} % in all" if self.floor is None else f"{self.floor:g} per arm"
