"""Exploration, written once for every policy: greedy, mix, floor and draw.

A policy returns a distribution; the floor, a share in all (`mix`) or so much per arm (`floor`), is
added to it here and one arm is drawn from the result here, so the propensity that is recorded is by
construction the one drawn from.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from policies._types import Floats

WIDEST = 0.5
"""The largest standard deviation that one quality in [0, 1] can have: in units of it, a policy
that knows no better says how sure it is of a mean."""


def greedy(scores: Floats) -> Floats:
    """All mass on the best score; exact ties share it evenly. (…, K) -> (…, K).

    >>> greedy(np.array([1.0, 3.0, 3.0])).tolist()
    [0.0, 0.5, 0.5]
    """
    if scores.size == 0:
        raise ValueError("arms: no eligible arm to propose from")
    best = scores == np.maximum.reduce(scores, axis=-1, keepdims=True)
    shared: Floats = best / np.add.reduce(best, axis=-1, keepdims=True, dtype=np.float64)
    return shared


def mix(propensities: Floats, epsilon: float) -> Floats:
    """The floor as a share in all: p_i <- (1 - epsilon) p_i + epsilon / K; (…, K) -> (…, K).

    >>> mix(np.array([1.0, 0.0]), 0.5).tolist()
    [0.75, 0.25]
    """
    mixed: Floats = (1.0 - epsilon) * propensities + epsilon / propensities.shape[-1]
    return mixed


def floor(propensities: Floats, at_least: float, share: float = 0.1) -> Floats:
    """The additive floor p_i <- f + (1 - K f) p_i with f = min(at_least, share / K); (…, K).

    Additive, not clip-and-renormalise, so that no arm's floor depends on another's mass.
    `share` bounds what all floors together may take, so that a large pool does not turn the
    router into a coin toss.

    >>> floor(np.array([1.0, 0.0]), 0.01).tolist()
    [0.99, 0.01]
    """
    k = propensities.shape[-1]
    f = min(at_least, share / k)
    lifted: Floats = f + (1.0 - k * f) * propensities
    return lifted


def lift(propensities: Floats, floors: Floats, share: float = 0.5) -> Floats:
    """Floors of its own for each arm, added: p_i <- f_i + (1 - Σf) p_i; (K,), (K,) -> (K,).

    Where they take more than `share` together, they are scaled down to that.

    >>> lift(np.array([0.5, 0.5]), np.array([0.2, 0.0])).round(12).tolist()
    [0.6, 0.4]
    """
    total = float(floors.sum())
    if total > share:
        floors, total = floors * (share / total), share
    lifted: Floats = floors + (1.0 - total) * propensities
    return lifted


def draw(propensities: Sequence[float] | Floats, u: float) -> int:
    """The index where the cumulated propensities first exceed u, for u in [0, 1).

    An arm of propensity zero is never drawn, whatever rounding does to the last sum.

    >>> draw([0.2, 0.0, 0.8], 0.2)
    2
    """
    cumulated = list(accumulate(propensities))
    index = bisect_right(cumulated, u * cumulated[-1])
    if index >= len(cumulated) or propensities[index] <= 0.0:
        return max(i for i, p in enumerate(propensities) if p > 0.0)
    return index


PLACES = 40
"""How many points the quadrature of `best_probability` has."""
_PLACES = np.linspace(0.0, 1.0, PLACES)[:, None]


def best_probability(means: Floats, deviations: Floats) -> Floats:
    """P(k is the largest) of independent normal values, by quadrature; (…, K) twice -> (…, K).

    ∫ φ((x − m_k)/s_k)/s_k · Π_{j≠k} Φ((x − m_j)/s_j) dx at 40 places, where Φ is within 0.0003 by
    its approximation with tanh. No draw is needed, so the propensities come with it.

    >>> best_probability(np.zeros(2), np.ones(2)).round(12).tolist()
    [0.5, 0.5]
    """
    if means.shape[-1] == 1:
        return np.ones(means.shape)
    deviations = np.maximum(deviations, 1e-9)
    reach = 3.5 * deviations
    low = np.maximum.reduce(means - reach, axis=-1)[..., None, None]
    high = np.maximum.reduce(means + reach, axis=-1)[..., None, None]
    z = low + (high - low) * _PLACES - means[..., None, :]
    z /= deviations[..., None, :]
    density = z * z
    z *= 0.7978845608 + 0.0356774081 * density
    np.tanh(z, z)
    z *= 0.5
    z += 0.5
    below = np.maximum(z, 1e-9, out=z)
    density *= -0.5
    np.exp(density, density)
    density /= below
    density *= np.multiply.reduce(below, axis=-1, keepdims=True)
    p: Floats = np.add.reduce(density, axis=-2)
    p /= deviations
    p /= np.add.reduce(p, axis=-1, keepdims=True)
    return p
