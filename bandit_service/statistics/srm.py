"""Is the split the one that was configured? A test that may be made after every unit.

Lindon & Malek, arXiv 2011.03567: the Bayes factor of a Dirichlet-multinomial around the configured
weights against those weights is a martingale when they hold, so 1 over it is a p-value at any time.
While weights stood still is one epoch; the factors of epochs multiply.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

CONCENTRATION = 10_000.0
ALPHA = 0.001
Epochs = Iterable[tuple[Sequence[float], Sequence[int]]]


def log_marginals(
    weights: Sequence[float], counts: Sequence[int], prior: Sequence[float] | None = None
) -> tuple[float, float]:
    """log probability of these counts under the prior's Dirichlet and under the weights.

    Both for the order in which they came, or both with the multinomial coefficient: only their
    difference matters. prior: CONCENTRATION · weights where none is given.
    """
    alpha = [CONCENTRATION * w for w in weights] if prior is None else list(prior)
    total, n = sum(alpha), sum(counts)
    free = math.lgamma(total) - math.lgamma(total + n)
    free += sum(math.lgamma(a + c) - math.lgamma(a) for a, c in zip(alpha, counts, strict=True))
    fixed = sum(c * math.log(w) for w, c in zip(weights, counts, strict=True) if c)
    return free, fixed


def sequential_p(epochs: Epochs) -> float:
    """1 / Bayes factor over all epochs, at most 1. A unit where the weight is 0 gives 0."""
    log_factor = 0.0
    for weights, counts in epochs:
        if any(c and w <= 0.0 for w, c in zip(weights, counts, strict=True)):
            return 0.0
        kept = [(w, c) for w, c in zip(weights, counts, strict=True) if w > 0.0]
        if len(kept) > 1:
            free, fixed = log_marginals([w for w, _ in kept], [c for _, c in kept])
            log_factor += free - fixed
    return min(1.0, math.exp(min(0.0, -log_factor)))


def chi_square_p(epochs: Epochs) -> float | None:
    """Pearson's test of the same, for those who know it; not to be looked at repeatedly.

    Statistics and degrees of freedom add over epochs. None where nothing can be compared.
    """
    statistic, freedom = 0.0, 0
    for weights, counts in epochs:
        n = sum(counts)
        kept = [(w * n, c) for w, c in zip(weights, counts, strict=True) if w > 0.0]
        if n and len(kept) > 1:
            statistic += sum((c - e) ** 2 / e for e, c in kept)
            freedom += len(kept) - 1
    return upper_gamma(freedom / 2.0, statistic / 2.0) if freedom else None


def upper_gamma(a: float, x: float) -> float:
    """The regularised upper incomplete gamma function Q(a, x), by series or continued fraction."""
    if x <= 0.0:
        return 1.0
    front = math.exp(-x + a * math.log(x) - math.lgamma(a))
    if x < a + 1.0:
        term = total = 1.0 / a
        n = a
        while abs(term) > abs(total) * 1e-16:
            n += 1.0
            term *= x / n
            total += term
        return max(0.0, 1.0 - front * total)
    tiny = 1e-300
    b = x + 1.0 - a
    c, d = 1.0 / tiny, 1.0 / b
    h, i = d, 0
    while True:  # Lentz
        i += 1
        an = -i * (i - a)
        b += 2.0
        d = an * d + b
        d = 1.0 / (d if abs(d) > tiny else tiny)
        c = b + an / c
        c = c if abs(c) > tiny else tiny
        h *= d * c
        if abs(d * c - 1.0) < 1e-15 or i > 10_000:
            return front * h
