"""Sums of coins: the beta-binomial mixture, and its bounds of a share.

The sub-Bernoulli mixture of Howard et al., arXiv 1810.08240, prop. 7: exact for coins, where the
normal boundary of `boundaries` is wide for shares near 0 or 1.
"""

from __future__ import annotations

import math

from bandit_service.statistics.boundaries import best_rho
from bandit_service.statistics.special import bisect, log_beta

T_OPT = 1_000
_ALPHA_OPT = 0.05


def log_mixture(
    s: float, v: float, v_opt: float, g: float, h: float, *, one_sided: bool = False
) -> float:
    """log of the mixture martingale for a sum s of numbers from −g to h with mean 0.

    v: its variance, g·h for each number. v_opt: where the boundary is narrowest.
    """
    rho = best_rho(v_opt, 2.0 * _ALPHA_OPT if one_sided else _ALPHA_OPT)
    r, x = max(rho - g * h, 1e-3 * g * h), h / (g + h) if one_sided else 1.0
    below, above = g * (g + h), h * (g + h)
    return (
        v / (g * h) * math.log(g + h)
        - (v + h * s) / above * math.log(g)
        - (v - g * s) / below * math.log(h)
        + log_beta((r + v - g * s) / below, (r + v + h * s) / above, x)
        - log_beta(r / below, r / above, x)
    )


def of_count(count: float, trials: int, p: float, t_opt: float = T_OPT) -> float:
    """The log mixture of `count` heads in `trials` of a coin of chance p; p above 0, below 1."""
    each = p * (1.0 - p)
    return log_mixture(count - trials * p, trials * each, t_opt * each, p, 1.0 - p)


def interval(count: int, trials: int, alpha: float, t_opt: float = T_OPT) -> tuple[float, float]:
    """Where a coin's chance is, at all numbers of trials at once; [0, 1] before the first."""
    if not trials:
        return 0.0, 1.0
    goal, share = math.log(1.0 / alpha), count / trials

    def beyond(p: float) -> float:
        return of_count(count, trials, p, t_opt) - goal

    least = 1e-12
    low = bisect(lambda p: -beyond(p), least, share) if share > least else 0.0
    high = bisect(beyond, share, 1.0 - least) if share < 1.0 - least else 1.0
    return (0.0 if low <= 2 * least else low), (1.0 if high >= 1.0 - 2 * least else high)
