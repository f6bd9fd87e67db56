"""kNN: the mean quality of each arm over the nearest training queries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandit_service.lab.data import Labelled
from bandit_service.lab.routers._sweep import Priced
from bandit_service.lab.targets import constant, mean_cost, mean_quality, seen
from policies import Floats, Vector, one_of, within

_BATCH = 512
_PRIOR = 1e-6


def similarities(queries: Vector, known: Vector) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Rows of the queries and their (b, n) cosines to all known vectors, by batches."""
    for start in range(0, len(queries), _BATCH):
        rows = slice(start, min(start + _BATCH, len(queries)))
        yield rows, queries[rows] @ known.T


def nearest(
    queries: Vector, known: Vector, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(n, k') ids of the k nearest by exact cosine and their similarities, nearest first.

    k' is at most the number of known vectors. Of equally near ones the smaller id comes first.
    """
    k = min(k, len(known))
    ids = np.zeros((len(queries), k), np.int64)
    near = np.zeros((len(queries), k), np.float32)
    for rows, cosine in similarities(queries, known):
        picked = np.sort(np.argpartition(-cosine, k - 1, axis=1)[:, :k], axis=1)
        found = np.take_along_axis(cosine, picked, axis=1)
        order = np.argsort(-found, axis=1, kind="stable")
        ids[rows] = np.take_along_axis(picked, order, axis=1)
        near[rows] = np.take_along_axis(found, order, axis=1)
    return ids, near


@dataclass(frozen=True, slots=True)
class KNN:
    """q̂_i = Σ w·q_i / Σ w over those of the k nearest training queries that arm i answered.

    k: neighbours, >= 1; RouterBench and Eagle's appendix use 40 (cosine).
    weighting: "uniform" as there, or "similarity": w = max(cosine, 0).

    The arm's mean over the training part counts as a millionth of a neighbour, so that it decides
    between arms that are level, and stands in where no neighbour has an answer of the arm.
    Source: arXiv 2403.12031 and arXiv 2409.15518v2 (appendix A.2); a strong baseline according to
    arXiv 2505.12601.
    """

    k: int = 40
    weighting: str = "uniform"

    def __post_init__(self) -> None:
        within("k", self.k, 1)
        one_of("weighting", self.weighting, ("uniform", "similarity"))

    def fit(self, train: Labelled, _seed: int, /) -> Priced:
        """Keeps the training part."""
        answered = train.answered.astype(np.float64)
        earned = np.where(train.answered, train.quality, 0.0)
        overall = mean_quality(train)

        def estimate(queries: Labelled) -> Floats:
            ids, cosine = nearest(queries.embeddings, train.embeddings, self.k)
            weight = np.ones(ids.shape)
            if self.weighting == "similarity":
                weight = np.maximum(cosine.astype(np.float64), 0.0)
            total = np.einsum("nk,nka->na", weight, earned[ids])
            mass = np.einsum("nk,nka->na", weight, answered[ids])
            mean: Floats = (total + _PRIOR * overall) / (mass + _PRIOR)
            return mean

        return Priced(estimate, constant(mean_cost(train)), seen(train))
