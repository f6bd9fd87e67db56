"""A confidence sequence for the mean of numbers in [0, 1] that holds at every n, however small.

The predictable plug-in empirical Bernstein sequence (Waudby-Smith & Ramdas, arXiv 2010.09686,
theorem 2): with probability 1 − α, at all times at once,

    |Σλx / Σλ − μ| <= (log(2/α) + Σ 4 (xᵢ − μ̂ᵢ₋₁)² ψ(λᵢ)) / Σλ,    ψ(λ) = (−log(1 − λ) − λ) / 4,
    λᵢ = min(½, sqrt(2 log(2/α) / (σ̂²ᵢ₋₁ i log(1 + i)))).

It needs no normal approximation, so a system may act on it by itself. The price is width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class State:
    """Sums after n numbers: of x, of squared deviations, of λ, of λx, and of 4 (x − μ̂)² ψ(λ)."""

    n: int = 0
    x: float = 0.0
    squares: float = 0.0
    weights: float = 0.0
    weighted: float = 0.0
    penalty: float = 0.0


def add(state: State, x: float, alpha: float) -> None:
    """One more number, from 0 to 1; `alpha` must be the same for all."""
    if not 0.0 <= x <= 1.0:
        raise ValueError(f"x: must be from 0 to 1, got {x:g}")
    # the mean and variance before x, each with one made-up number, so that they are predictable
    mean = (0.5 + state.x) / (state.n + 1)
    variance = (0.25 + state.squares) / (state.n + 1)
    i = state.n + 1
    weight = min(0.5, math.sqrt(2.0 * math.log(2.0 / alpha) / (variance * i * math.log(1.0 + i))))
    state.weights += weight
    state.weighted += weight * x
    state.penalty += (x - mean) ** 2 * (-math.log1p(-weight) - weight)
    state.n, state.x = i, state.x + x
    state.squares += (x - (0.5 + state.x) / (i + 1)) ** 2


def interval(state: State, alpha: float) -> tuple[float, float]:
    """Where the mean is, within [0, 1]; all of [0, 1] before the first number."""
    if not state.n:
        return 0.0, 1.0
    centre = state.weighted / state.weights
    margin = (math.log(2.0 / alpha) + state.penalty) / state.weights
    return max(0.0, centre - margin), min(1.0, centre + margin)
