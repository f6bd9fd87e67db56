"""Is the split the one that was configured? A test that may be made after every unit.

Lindon & Malek, arXiv 2011.03567: the Bayes factor of a Dirichlet-multinomial around the configured
weights against those weights is a martingale when they hold, so 1 over it is a p-value at any time.
Units that came under the same weights are one sample; the factors of different weights multiply.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from bandit_service.statistics.special import upper_gamma

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


def log_factor(weights: Sequence[float], counts: Sequence[int]) -> float:
    """log Bayes factor against the weights; infinite for a unit where the weight is 0."""
    if any(c and w <= 0.0 for w, c in zip(weights, counts, strict=True)):
        return math.inf
    kept = [(w, c) for w, c in zip(weights, counts, strict=True) if w > 0.0]
    if len(kept) < 2:
        return 0.0
    free, fixed = log_marginals([w for w, _ in kept], [c for _, c in kept])
    return free - fixed


def p_of(log_factor: float) -> float:
    """1 / Bayes factor, at most 1."""
    return math.exp(min(0.0, -log_factor))


def sequential_p(epochs: Epochs) -> float:
    """1 / Bayes factor over all epochs, as it is now."""
    return p_of(sum(log_factor(weights, counts) for weights, counts in pooled(epochs)))


def pooled(epochs: Epochs) -> list[tuple[Sequence[float], Sequence[int]]]:
    """Epochs of the same weights put together."""
    found: dict[tuple[float, ...], list[int]] = {}
    for weights, counts in epochs:
        sums = found.setdefault(tuple(weights), [0] * len(counts))
        for i, count in enumerate(counts):
            sums[i] += count
    return list(found.items())


def chi_square_p(epochs: Epochs) -> float | None:
    """Pearson's test of the same, for those who know it; not to be looked at repeatedly.

    Statistics and degrees of freedom add over sets of weights. None where nothing can be compared.
    """
    statistic, freedom = 0.0, 0
    for weights, counts in pooled(epochs):
        n = sum(counts)
        kept = [(w * n, c) for w, c in zip(weights, counts, strict=True) if w > 0.0]
        if n and len(kept) > 1:
            statistic += sum((c - e) ** 2 / e for e, c in kept)
            freedom += len(kept) - 1
    return upper_gamma(freedom / 2.0, statistic / 2.0) if freedom else None
