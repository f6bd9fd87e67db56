"""Uniform boundaries: how far a sum may stray at any time (Howard et al., arXiv 1810.08240).

`s` is a sum of centred numbers, `v` its accumulated variance, ρ says at which v a mixture is
narrowest (`best_rho`). A log mixture is the logarithm of a supermartingale that begins at 1, so it
reaches log(1/α) with probability α at most. `c` is the scale of a tail that is heavier than
normal. The sums of coins are in `binomial`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

from bandit_service.statistics.special import bisect, log_lower_gamma, lowest

_ZETA_1_4 = 3.105547  # ζ(1.4), of the stitchings below
_K1 = (2.0**0.25 + 2.0**-0.25) / math.sqrt(2.0)
_K2 = (math.sqrt(2.0) + 1.0) / 2.0


def best_rho(v_opt: float, alpha: float) -> float:
    """The ρ for which the two-sided mixture is narrowest at v = v_opt (prop. 3, approximated).

    One-sided mixtures have theirs at twice the alpha.
    """
    l = 2.0 * math.log(1.0 / alpha)  # noqa: E741
    return v_opt / (l + math.log1p(l))


def normal_bound(v: float, rho: float, alpha: float) -> float:
    """With probability 1 − α, |s| stays below this at all v at once (eq. 14)."""
    return math.sqrt((v + rho) * math.log((v + rho) / (rho * alpha * alpha)))


def gamma_exponential_log_mixture(s: float, v: float, rho: float, c: float) -> float:
    """For sums of sub-exponential numbers of scale c (prop. 9)."""
    r, u, w = rho / (c * c), (v + rho) / (c * c), (c * s + v + rho) / (c * c)
    return (
        r * math.log(r)
        - math.lgamma(r)
        - log_lower_gamma(r, r)
        + math.lgamma(u)
        + log_lower_gamma(u, w)
        - u * math.log(w)
        + w
        - r
    )


def bound(log_mixture: Callable[[float], float], alpha: float, begin: float) -> float:
    """The s at which a one-sided log mixture reaches log(1/α), looked for from `begin` upwards."""
    goal, high = math.log(1.0 / alpha), begin
    while log_mixture(high) < goal:
        high *= 2.0
    return bisect(lambda s: log_mixture(s) - goal, 0.0, high)


def stitched_bound(v: float, alpha: float, v_min: float, c: float) -> float:
    """Polynomial stitching with η = 2 and s = 1.4 (eq. 10): sqrt(k₁² v ℓ + k₂² c² ℓ²) + k₂ c ℓ."""
    v = max(v, v_min)
    l = 1.4 * math.log(math.log(2.0 * v / v_min)) + math.log(  # noqa: E741
        _ZETA_1_4 / (alpha * math.log(2.0) ** 1.4)
    )
    return math.sqrt(_K1 * _K1 * v * l + (_K2 * c * l) ** 2) + _K2 * c * l


def double_stitched_bound(p: float, t: float, alpha: float, t_opt: float) -> float:
    """For a count of t numbers at most the p-quantile, at all t and all p at once.

    Howard & Ramdas, arXiv 1906.09712, theorem 3 with δ = ½, η = 2, s = 1.4. From t_opt on.
    """
    t = max(t, t_opt)
    odds = math.log(p / (1.0 - p))
    r = p if p >= 0.5 else min(0.5, 1.0 / (1.0 + math.exp(-odds - math.sqrt(2.0 * t_opt / t))))
    v = r * (1.0 - r)
    j = math.sqrt(t / t_opt) * abs(odds) + 1.0
    l = (  # noqa: E741
        1.4 * math.log(math.log(2.0 * t / t_opt))
        + 1.4 * math.log(j)
        + math.log(2.0 * _ZETA_1_4 * (2.0 * _ZETA_1_4 + 1.0) / (alpha * math.log(2.0) ** 1.4))
    )
    tail = _K2 * (1.0 - 2.0 * p) / 3.0 * l
    return (
        0.5 * math.sqrt(2.0 * t * v / t_opt) + math.sqrt(_K1 * _K1 * v * t * l + tail * tail) + tail
    )


def empirical_process_bound(t: float, alpha: float, t_min: float, a: float = 0.85) -> float:
    """How far an empirical distribution strays from the true one anywhere, at all t >= t_min.

    A sqrt((log(1 + log(t / t_min)) + C) / t) (arXiv 1906.09712, theorem 2); infinite before.
    """
    if t < t_min:
        return math.inf
    return a * math.sqrt((math.log(1.0 + math.log(t / t_min)) + _lil_constant(alpha, a)) / t)


@cache
def _lil_constant(alpha: float, a: float) -> float:
    def error(c: float, eta: float) -> float:
        gamma = 2.0 / eta * (a - math.sqrt(2.0 * (eta - 1.0) / c)) ** 2
        if gamma <= 1.0 or eta <= 1.0:
            return math.inf
        return 4.0 * math.exp(-gamma * c) * (1.0 + 1.0 / ((gamma - 1.0) * math.log(eta)))

    def least(c: float) -> float:
        most = bisect(
            lambda eta: math.sqrt(eta / 2.0) + math.sqrt(2.0 * (eta - 1.0) / c) - a,
            1.0,
            2.0 * a * a,
        )
        return error(c, lowest(lambda eta: error(c, eta), 1.0, most))

    return bisect(lambda c: alpha - least(c), 1.0, 1_000.0)
