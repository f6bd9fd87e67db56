"""A confidence sequence for a candidate's value from weighted outcomes, at any time, for any tails.

Karampatziakis, Mineiro & Ramdas, "Off-policy confidence sequences" (ICML 2021, arXiv 2102.09540):
with X = w r >= 0 for r in [0, 1], E[X] = v, and any predictable guess x̂,

    log ∫ exp(λ Σ(X − v) − ψ(λ) Σ(X − x̂)²) dF(λ),    ψ(λ) = −log(1 − λ) − λ,

exceeds log(1/α) at any time with probability at most α, although w has no bound. F is the
gamma-exponential mixture with ρ = 1 (Howard et al., arXiv 1810.08240, prop. 9), so the integral has
a closed form. The upper end is the lower end for 1 − r, by E[w] = 1. It asks for nothing but true
propensities: outcomes may depend on each other's past, as they do where a policy learns.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_RHO = 1.0


def interval(w: Floats, r: Floats, low: float, high: float, alpha: float) -> tuple[float, float]:
    """Where the value is after these n outcomes, of rewards from `low` to `high`, low < high."""
    if not low < high:
        raise ValueError(f"low: must be below high, got {low:g} and {high:g}")
    if not len(w):
        return low, high
    r = np.clip((r - low) / (high - low), 0.0, 1.0)
    least = _lower(w * r, alpha / 2.0)
    most = 1.0 - _lower(w * (1.0 - r), alpha / 2.0)
    return low + least * (high - low), low + most * (high - low)


def _lower(x: Floats, alpha: float) -> float:
    """The lower end for the mean, within [0, 1], of x >= 0."""
    n = len(x)
    total = np.cumsum(x)
    guess = (np.concatenate([[0.0], total[:-1]]) + 0.5) / np.arange(1, n + 1)
    v = float(np.square(x - guess).sum())
    s, goal = float(total[-1]), math.log(1.0 / alpha)
    low, high = 0.0, min(1.0, s / n)
    if log_wealth(s, v) <= goal:
        return low
    if log_wealth(s - n * high, v) >= goal:
        return high
    while high - low > 1e-10:
        middle = 0.5 * (low + high)
        if log_wealth(s - n * middle, v) > goal:
            low = middle
        else:
            high = middle
    return low


def log_wealth(s: float, v: float, rho: float = _RHO) -> float:
    """The log of the gamma-exponential mixture at sum s and variance v."""
    x = s + v + rho
    if x <= 0.0:
        return -math.inf
    return (
        s + v + rho * math.log(rho) - (v + rho) * math.log(x)
        + log_lower_gamma(v + rho, x) - log_lower_gamma(rho, rho)
    )  # fmt: skip


def log_lower_gamma(a: float, x: float) -> float:
    """log γ(a, x), the lower incomplete gamma function, for a, x > 0.

    By γ(a, x) = xᵃ e⁻ˣ Σ_k xᵏ / (a (a+1) … (a+k)), all of whose terms are positive; where x lies
    far above a, it is Γ(a) to within double precision.
    """
    if x > a + 60.0 + 12.0 * math.sqrt(a + 30.0):
        return math.lgamma(a)
    log_sum, last, k = 0.0, 0.0, 0
    while True:
        step = np.cumsum(math.log(x) - np.log(a + np.arange(k + 1, k + 513)))
        logs = last + step
        top = max(log_sum, float(logs.max()))
        log_sum = top + math.log(math.exp(log_sum - top) + float(np.exp(logs - top).sum()))
        last, k = float(logs[-1]), k + 512
        if last < log_sum - 40.0 and x < a + k:
            return a * math.log(x) - x - math.log(a) + log_sum
