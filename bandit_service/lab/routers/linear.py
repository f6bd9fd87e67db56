"""Linear heads on the embedding, one per arm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from bandit_service.lab.data import Labelled
from bandit_service.lab.routers._logistic import fit_logistic
from bandit_service.lab.routers._sweep import Priced
from bandit_service.lab.targets import UNSEEN, column, constant, mean_cost, seen
from policies import Floats, above

Head: TypeAlias = Callable[[Floats], Floats]


def per_arm(train: Labelled, fit: Callable[[Floats, Floats], Head]) -> Priced:
    """One head for each arm, fitted on the queries that it answered and swept by λ.

    fit: from (m, d) embeddings and (m,) qualities to the function from (n, d) to (n,).
    """
    heads: list[Head] = []
    for arm in range(len(train.arms)):
        x, y = column(train, arm)
        heads.append(fit(x, y) if y.size else _nothing)

    def estimate(queries: Labelled) -> Floats:
        x = queries.embeddings.astype(np.float64)
        return np.column_stack([head(x) for head in heads])

    return Priced(estimate, constant(mean_cost(train)), seen(train))


def _nothing(x: Floats) -> Floats:
    return np.full(len(x), UNSEEN)


@dataclass(frozen=True, slots=True)
class Ridge:
    """q̂_i(x) = x·w_i + b_i, least squares with penalty α‖w_i‖² for each arm, b_i unpenalised.

    alpha: α > 0.
    """

    alpha: float = 10.0

    def __post_init__(self) -> None:
        above("alpha", self.alpha, 0.0)

    def fit(self, train: Labelled, _seed: int, /) -> Priced:
        """The normal equations, centred."""

        def head(x: Floats, y: Floats) -> Head:
            mean, level = x.mean(axis=0), float(y.mean())
            centred = x - mean
            gram = centred.T @ centred
            gram[np.diag_indices(gram.shape[0])] += self.alpha
            weights: Floats = np.linalg.solve(gram, centred.T @ (y - level))
            return lambda z: (z - mean) @ weights + level

        return per_arm(train, head)


@dataclass(frozen=True, slots=True)
class Logistic:
    """q̂_i(x) = sigmoid(x·w_i + b_i) for each arm; a quality between 0 and 1 is a soft label.

    strength: C > 0, the inverse of the penalty on ‖w_i‖².
    """

    strength: float = 1.0

    def __post_init__(self) -> None:
        above("strength", self.strength, 0.0)

    def fit(self, train: Labelled, _seed: int, /) -> Priced:
        """Newton's method, one arm after the other."""
        return per_arm(train, lambda x, y: fit_logistic(x, y, self.strength).chance)
