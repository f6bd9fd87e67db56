"""Are the logged propensities the ones that were drawn with? A check that only a bandit has.

For each arm, Σ(1{drawn} − p) is a martingale with variance Σp(1 − p) when they are. It is held
against the two-sided normal mixture (`boundaries`), at α divided by the number of arms.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from bandit_service.statistics.boundaries import best_rho, normal_log_mixture

ALPHA = 0.001
_V_OPT = 1_000.0


@dataclass
class Calibration:
    """By arm: Σ(1{drawn} − p) and Σp(1 − p)."""

    sums: dict[str, list[float]] = field(default_factory=dict)

    def add(self, arms: Iterable[tuple[str, float]], drawn: str) -> None:
        """One decision: every eligible arm with its propensity, and the one that was drawn."""
        for arm, p in arms:
            both = self.sums.setdefault(arm, [0.0, 0.0])
            both[0] += (arm == drawn) - p
            both[1] += p * (1.0 - p)

    def p_value(self) -> float:
        """Of all arms together, valid at any time; 1 before anything was drawn."""
        rho = best_rho(_V_OPT, ALPHA)
        least = 1.0
        for s, v in self.sums.values():
            if v > 0.0:
                least = min(least, math.exp(min(0.0, -normal_log_mixture(s, v, rho))))
            elif s:
                least = 0.0
        return min(1.0, least * len(self.sums))
