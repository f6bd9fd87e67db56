"""Uniform boundaries: how far a sum may stray at any time (Howard et al., arXiv 1810.08240).

`s` is a sum of centred numbers, `v` its accumulated variance.
"""

from __future__ import annotations

import math

_ZETA_1_4 = 3.105547  # ζ(1.4), of the stitching below


def best_rho(v_opt: float, alpha: float) -> float:
    """The ρ for which the two-sided mixture is narrowest at v = v_opt (prop. 3, approximated)."""
    l = 2.0 * math.log(1.0 / alpha)  # noqa: E741
    return v_opt / (l + math.log1p(l))


def normal_log_mixture(s: float, v: float, rho: float) -> float:
    """log of the mixture martingale: ½ log(ρ / (v + ρ)) + s² / (2 (v + ρ)) (eq. 14)."""
    return 0.5 * math.log(rho / (v + rho)) + s * s / (2.0 * (v + rho))


def normal_log_mixture_one_sided(s: float, v: float, rho: float) -> float:
    """½ log(4ρ / (v + ρ)) + s² / (2 (v + ρ)) + log Φ(s / sqrt(v + ρ)) (prop. 6)."""
    phi = 0.5 * math.erfc(-s / math.sqrt(2.0 * (v + rho)))
    return 0.5 * math.log(4.0 * rho / (v + rho)) + s * s / (2.0 * (v + rho)) + math.log(phi)


def normal_bound(v: float, rho: float, alpha: float) -> float:
    """With probability 1 − α, |s| stays below this at all v at once (eq. 14)."""
    return math.sqrt((v + rho) * math.log((v + rho) / (rho * alpha * alpha)))


def normal_bound_one_sided(v: float, rho: float, alpha: float) -> float:
    """The same for s alone; where the one-sided mixture reaches log(1/α), by bisection."""
    low, high = 0.0, normal_bound(v, rho, alpha)
    goal = math.log(1.0 / alpha)
    while high - low > 1e-12 * max(1.0, high):
        middle = 0.5 * (low + high)
        if normal_log_mixture_one_sided(middle, v, rho) < goal:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def stitched_bound(v: float, alpha: float, v_min: float, c: float) -> float:
    """Polynomial stitching with η = 2 and s = 1.4 (eq. 10): sqrt(k₁² v ℓ + k₂² c² ℓ²) + k₂ c ℓ."""
    eta, power = 2.0, 1.4
    k1 = (eta**0.25 + eta**-0.25) / math.sqrt(2.0)
    k2 = (math.sqrt(eta) + 1.0) / 2.0
    v = max(v, v_min)
    l = power * math.log(math.log(eta * v / v_min)) + math.log(  # noqa: E741
        _ZETA_1_4 / (alpha * math.log(eta) ** power)
    )
    return math.sqrt(k1 * k1 * v * l + (k2 * c * l) ** 2) + k2 * c * l
