"""A confidence sequence for a candidate's value from weighted outcomes, at any time, for any tails.

Karampatziakis, Mineiro & Ramdas, "Off-policy confidence sequences" (ICML 2021, arXiv 2102.09540):
with X = w r >= 0 for r in [0, 1], E[X] = v, and any predictable guess x̂ <= 1,

    log ∫ exp(λ Σ(X − v) − ψ(λ) Σ(X − x̂)²) dF(λ),    ψ(λ) = −log(1 − λ) − λ,

exceeds log(1/α) at any time with probability at most α, although w has no bound. F is the
gamma-exponential mixture with ρ = 1 (Howard et al., arXiv 1810.08240, prop. 9), so the integral has
a closed form. The upper end is the lower end for 1 − r, by E[w] = 1. v may change from decision to
decision, as it does where a policy learns; the sequence is for its mean so far. It asks for nothing
but true propensities.

Where all propensities are logged, the reward's mean so far, c, takes most of the noise away (the
doubly robust variables of Waudby-Smith et al., arXiv 2210.10768, with c as their model):

    X = (φ + k) / (1 + k),    φ = w r − min(w c, k) + Σ_a min(π(a) c, k μ(a)) >= −k,    E[φ] = v.

Which k is best depends on the tails, so the wealth is spread evenly over K; k = 0 is the plain X.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
K = (0.0, 1.0, 5.0, 20.0)
_RHO = 1.0


@dataclass(frozen=True, slots=True)
class Distributions:
    """(n, k) the candidate's and the logged probabilities, 0 for arms that were not eligible."""

    target: Floats
    logged: Floats


def interval(
    w: Floats,
    r: Floats,
    low: float,
    high: float,
    alpha: float,
    of: Distributions | None = None,
    cap: float = 1.0,
) -> tuple[float, float]:
    """Where the value is after these n outcomes, of rewards from `low` to `high`, low < high.

    cap: of x̂. The inequality needs 1; vw-estimators has none, which its own values differ by.
    """
    if not low < high:
        raise ValueError(f"low: must be below high, got {low:g} and {high:g}")
    if not len(w):
        return low, high
    r = np.clip((r - low) / (high - low), 0.0, 1.0)
    least = _lower(_sums(w, r, of, cap), len(w), alpha / 2.0)
    most = 1.0 - _lower(_sums(w, 1.0 - r, of, cap), len(w), alpha / 2.0)
    return low + least * (high - low), low + most * (high - low)


@dataclass(frozen=True, slots=True)
class _Sums:
    """Of X with this k: its sum, and that of (X − x̂)²."""

    k: float
    s: float
    v: float


def _sums(w: Floats, r: Floats, of: Distributions | None, cap: float) -> list[_Sums]:
    if of is None:
        return [_summed(0.0, w * r, cap)]
    before_w = np.concatenate([[0.0], np.cumsum(w)[:-1]])
    before = np.concatenate([[0.0], np.cumsum(w * r)[:-1]])
    c = np.minimum((before + 0.5) / (before_w + 1.0), 1.0)
    found = []
    for k in K:
        phi = w * r - np.minimum(w * c, k)
        phi += np.minimum(c[:, None] * of.target, k * of.logged).sum(axis=1)
        found.append(_summed(k, (phi + k) / (1.0 + k), cap))
    return found


def _summed(k: float, x: Floats, cap: float) -> _Sums:
    total = np.cumsum(x)
    guess = (np.concatenate([[0.0], total[:-1]]) + 0.5) / np.arange(1, len(x) + 1)
    return _Sums(k, float(total[-1]), float(np.square(x - np.minimum(guess, cap)).sum()))


def _lower(sums: Sequence[_Sums], n: int, alpha: float) -> float:
    """The lower end for the mean of r, within [0, 1]: where the wealth reaches 1/α."""
    goal = math.log(len(sums) / alpha)

    def wealth(mean: float) -> float:
        each = [log_wealth(one.s - n * (mean + one.k) / (1.0 + one.k), one.v) for one in sums]
        return float(np.logaddexp.reduce(each))

    low, high = 0.0, 1.0
    if wealth(low) <= goal:
        return low
    if wealth(high) >= goal:
        return high
    while high - low > 1e-10:
        middle = 0.5 * (low + high)
        if wealth(middle) > goal:
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
        s
        + v
        + rho * math.log(rho)
        - (v + rho) * math.log(x)
        + log_lower_gamma(v + rho, x)
        - log_lower_gamma(rho, rho)
    )


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
