"""A sum and a count of outcomes for each arm: exact, the same in any order."""

from __future__ import annotations

from dataclasses import dataclass, field

from policies._checks import two_arms, within
from policies._grid import TARGET, WEIGHT, rounded
from policies._types import ArmId, Compared

_STEPS = TARGET * WEIGHT
_MOST = 2.0**20


@dataclass
class ArmSums:
    """Per arm, sorted: the sum of outcomes by weight, and the sum of weights.

    Whole multiples of 2⁻²⁰, exact up to 2³³: eight thousand million outcomes of size 1.
    """

    total: dict[ArmId, float] = field(default_factory=dict)
    count: dict[ArmId, float] = field(default_factory=dict)

    def add(self, arm: ArmId, value: float, weight: float = 1.0) -> None:
        """One outcome; the weight is in sixteenths, and the value is rounded to 2⁻¹⁶."""
        if arm not in self.count:
            self.total = dict(sorted([*self.total.items(), (arm, 0.0)]))
            self.count = dict(sorted([*self.count.items(), (arm, 0.0)]))
        self._move(arm, weight * _on_grid(value))
        self.count[arm] = rounded(self.count[arm] + weight, _STEPS)

    def compare(self, event: Compared, weight: float) -> None:
        """A comparison as two outcomes: 1 for the winner, 0 for the loser, ½ for each of a tie."""
        two_arms(event)
        won = 0.5 if event.tie else 1.0
        self.add(event.winner, won, weight)
        self.add(event.loser, 1.0 - won, weight)

    def revise(self, arm: ArmId, before: float, after: float) -> None:
        """Replace an outcome by a corrected one."""
        self._move(arm, _on_grid(after) - _on_grid(before))

    def fade(self, arm: ArmId, keep: float) -> None:
        """Both sums of one arm times `keep`, rounded once."""
        within("keep", keep, 0.0, 1.0)
        if arm in self.count:
            self.total[arm] = rounded(keep * self.total[arm], _STEPS)
            self.count[arm] = rounded(keep * self.count[arm], _STEPS)

    def _move(self, arm: ArmId, by: float) -> None:
        # changes only what was kept before there was a grid
        self.total[arm] = rounded(self.total[arm] + by, _STEPS)


def _on_grid(value: float) -> float:
    return rounded(min(_MOST, max(-_MOST, value)), TARGET)
