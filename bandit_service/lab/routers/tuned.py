"""Hyper-parameters chosen on a validation part of the training part, and on nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bandit_service.lab.curves import auc_linear, hull
from bandit_service.lab.data import Labelled, split
from bandit_service.lab.routers._protocol import OfflineRouter, Predictor
from bandit_service.lab.routers._trace import trace
from bandit_service.lab.targets import mean_cost, mean_quality
from policies import within


def score(predictor: Predictor, queries: Labelled) -> float:
    """AUC linear of the router on these queries, in the range of their single models."""
    cost, quality = mean_cost(queries), mean_quality(queries)
    cheapest = int(np.argmin(cost))
    low, high = float(cost[cheapest]), float(cost.max())
    curve = hull(*trace(predictor, queries).points, low, float(quality[cheapest]))
    return auc_linear(curve, low, high)


def tuned(
    router_grid: Sequence[OfflineRouter], train: Labelled, seed: int, share: float = 0.2
) -> OfflineRouter:
    """The router of the grid with the highest AUC linear on the validation part.

    The validation part is `share` of the training part, by the hash of the query's id salted by
    the seed; the rest fits. Of equal ones the first. ValueError for an empty grid or part.
    """
    if not router_grid:
        raise ValueError("router_grid: must have at least one router")
    if len(router_grid) == 1:
        return router_grid[0]
    within("share", share, 0.0, 1.0)
    validation, rest = split(train, share, f"validate-{seed}")
    if not len(validation) or not len(rest):
        raise ValueError(f"train: {len(train)} queries are too few to hold {share:g} of them back")
    scores = [score(router.fit(rest, seed), validation) for router in router_grid]
    return router_grid[int(np.argmax(scores))]


@dataclass(frozen=True, slots=True)
class Tuned:
    """The best of `grid`, chosen by `tuned` and fitted again on the whole training part."""

    grid: tuple[OfflineRouter, ...]
    share: float = 0.2

    def __post_init__(self) -> None:
        if not self.grid:
            raise ValueError("grid: must have at least one router")

    def chosen(self, train: Labelled, seed: int) -> OfflineRouter:
        """The router of the grid that would be fitted."""
        return tuned(self.grid, train, seed, self.share)

    def fit(self, train: Labelled, seed: int, /) -> Predictor:
        """Fits every router of the grid once on the rest, and the best one on all."""
        return self.chosen(train, seed).fit(train, seed)
