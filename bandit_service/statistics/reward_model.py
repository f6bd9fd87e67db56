"""A model of the reward that no decision helped to fit which it is asked about (cross-fitting).

For each arm a ridge regression of what it earned beyond its mean on the centred features,

    q(x, a) = m_a + θ_aᵀ(x − x̄),    θ_a = (Σ (x − x̄)(x − x̄)ᵀ + λI)⁻¹ Σ (x − x̄)(r − m_a),

fitted on the other folds; m_a is the arm's mean, the mean of all arms counting as PRIOR outcomes.
An arm that the other folds never took has the mean of all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PRIOR = 5.0
RIDGE = 1.0
FOLDS = 5


def crossfit(
    features: NDArray[np.floating],
    arm: NDArray[np.int64],
    reward: Floats,
    arms: int,
    bounds: tuple[float, float],
    folds: int = FOLDS,
) -> Floats:
    """(n, arms) rewards that the model expects, within `bounds`; decision i is in fold i mod folds.

    features: (n, d). arm: (n,) the one that was drawn, 0…arms−1. Costs O(n d² + arms folds d³).
    """
    n = len(reward)
    if n < folds:
        raise ValueError(f"reward: {n} outcomes cannot be split into {folds} folds")
    x = np.asarray(features, np.float64) - np.mean(features, axis=0, dtype=np.float64)
    fold = np.arange(n) % folds
    expected = np.empty((n, arms))
    overall = np.array([reward[fold != f].mean() for f in range(folds)])
    for a in range(arms):
        mine = np.flatnonzero(arm == a)
        parts = [mine[fold[mine] == f] for f in range(folds)]
        grams = np.stack([x[rows].T @ x[rows] for rows in parts])
        whole = grams.sum(axis=0)
        for f in range(folds):
            train = mine[fold[mine] != f]
            asked = fold == f
            mean = (PRIOR * overall[f] + reward[train].sum()) / (PRIOR + len(train))
            if not len(train):
                expected[asked, a] = mean
                continue
            system = whole - grams[f] + RIDGE * np.eye(x.shape[1])
            theta = np.linalg.solve(system, x[train].T @ (reward[train] - mean))
            expected[asked, a] = mean + x[asked] @ theta
    clipped: Floats = np.clip(expected, *bounds)
    return clipped
