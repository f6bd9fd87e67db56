"""The outcomes of a fitted router's choices, by setting and query."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bandit_service.lab.data import Labelled
from bandit_service.lab.routers._protocol import Axis, Choice, Predictor
from policies import Floats


@dataclass(frozen=True, slots=True)
class Trace:
    """s settings of a router on n queries and K arms.

    settings: (s,), see `Axis`. quality, cost: (s, n) recorded outcome of what was chosen, cost in
    USD. shares: (s, K) of the queries that went to each arm.
    """

    axis: Axis
    settings: Floats
    quality: Floats
    cost: Floats
    shares: Floats

    @property
    def points(self) -> tuple[Floats, Floats]:
        """(s,) mean cost in USD and (s,) mean quality."""
        return self.cost.mean(axis=1), self.quality.mean(axis=1)


def trace(predictor: Predictor, queries: Labelled) -> Trace:
    """Route the queries at every setting. RuntimeError for an arm that did not answer."""
    settings, quality, cost, shares = [], [], [], []
    for setting, choice in predictor.choices(queries):
        q, c, share = _earned(choice, queries)
        if not np.isfinite(q).all():
            raise RuntimeError(f"setting {setting}: chose an arm that has no answer to the query")
        settings.append(setting)
        quality.append(q)
        cost.append(c)
        shares.append(share)
    return Trace(
        predictor.axis, np.array(settings), np.array(quality), np.array(cost), np.array(shares)
    )


def _earned(choice: Choice, queries: Labelled) -> tuple[Floats, Floats, Floats]:
    n, k = queries.quality.shape
    if choice.ndim == 1:
        rows, arms = np.arange(n), choice.astype(np.int64)
        shares = np.bincount(arms, minlength=k) / n
        return queries.quality[rows, arms], queries.cost[rows, arms], shares
    quality = np.where(choice > 0.0, choice * queries.quality, 0.0).sum(axis=1)
    cost = np.where(choice > 0.0, choice * queries.cost, 0.0).sum(axis=1)
    return quality, cost, choice.mean(axis=0)
