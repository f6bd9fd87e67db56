"""Means and targets of each arm in the training part, without missing outcomes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bandit_service.lab.data import Labelled
from policies import Floats

# Below what any regression on qualities in [0, 1] predicts.
UNSEEN = -1.0


def seen(train: Labelled) -> int:
    """How many outcomes there are."""
    return int(train.answered.sum())


def mean_quality(train: Labelled) -> Floats:
    """(K,) mean quality of each arm's answers; `UNSEEN` for an arm without any."""
    return _mean(train.quality, UNSEEN)


def mean_cost(train: Labelled) -> Floats:
    """(K,) mean USD of each arm's answers; the dearest arm's for an arm without any."""
    known = _mean(train.cost, np.nan)
    return np.where(np.isnan(known), np.nanmax(known), known)


def constant(values: Floats) -> Callable[[Labelled], Floats]:
    """The same (K,) for every query."""
    return lambda _: values


def _mean(table: Floats, empty: float) -> Floats:
    counts = (~np.isnan(table)).sum(axis=0)
    sums = np.nansum(table, axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), empty)


def column(train: Labelled, arm: int) -> tuple[Floats, Floats]:
    """(m, d) embeddings in double precision and (m,) qualities of the queries that it answered."""
    rows = train.answered[:, arm]
    return train.embeddings[rows].astype(np.float64), train.quality[rows, arm]
