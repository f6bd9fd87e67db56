"""References for a router: random choice, single models, the oracle, the task's label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bandit_service.lab.data import Labelled
from bandit_service.lab.routers._protocol import Axis
from bandit_service.lab.routers._sweep import Indices, Priced, best, by_price
from bandit_service.lab.targets import constant, mean_cost, mean_quality, seen
from policies import Floats


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every arm that answered with the same probability; its expectation, not a draw.

    Blending (arXiv 2401.02994) is this on single-turn questions.
    """

    def fit(self, _train: Labelled, _seed: int, /) -> _Uniform:
        """Nothing is learned."""
        return _Uniform()


@dataclass(frozen=True, slots=True)
class _Uniform:
    seen: int = 0
    axis: Axis = "price"

    def choices(self, queries: Labelled) -> Iterator[tuple[float, Floats]]:
        answered = queries.answered.astype(np.float64)
        yield 0.0, answered / answered.sum(axis=1, keepdims=True)


@dataclass(frozen=True, slots=True)
class BestSingle:
    """Always the arm of the highest mean training quality; where it did not answer, the next."""

    def fit(self, train: Labelled, _seed: int, /) -> _Singles:
        """Means only."""
        return _Singles(mean_quality(train), mean_cost(train), seen(train), arms=1)


@dataclass(frozen=True, slots=True)
class ZeroRouter:
    """Every single model, to be mixed at random: the best possible result without reading the
    query.

    Its hull is RouterBench's zero router. Along λ it buys the model of the highest mean training
    quality less λ times mean training cost.
    """

    def fit(self, train: Labelled, _seed: int, /) -> _Singles:
        """Means only."""
        quality = mean_quality(train)
        return _Singles(quality, mean_cost(train), seen(train), arms=quality.size)


@dataclass(frozen=True, slots=True)
class _Singles:
    means: Floats
    cost: Floats
    seen: int
    arms: int
    axis: Axis = "price"

    def choices(self, queries: Labelled) -> Iterator[tuple[float, Indices]]:
        answered = queries.answered
        scores = np.broadcast_to(self.means, answered.shape)
        if self.arms > 1:
            yield from by_price(scores, self.cost, answered)
            for arm in range(self.arms):
                first = np.where(np.arange(self.arms) == arm, np.inf, self.means)
                yield np.nan, best(np.broadcast_to(first, answered.shape), self.cost, answered)
        else:
            yield 0.0, best(scores, self.cost, answered)


@dataclass(frozen=True, slots=True)
class Oracle:
    """Reads the recorded quality and cost of every query: an upper bound, not a router.

    argmax of quality − λ·cost; at λ = 0 the cheapest of the best arms.
    """

    def fit(self, _train: Labelled, _seed: int, /) -> Priced:
        """Nothing is learned."""
        return Priced(_recorded_quality, _recorded_cost, 0)


def _recorded_quality(queries: Labelled) -> Floats:
    return queries.quality


def _recorded_cost(queries: Labelled) -> Floats:
    return np.where(queries.answered, queries.cost, 0.0)  # what did not answer is masked


@dataclass(frozen=True, slots=True)
class TaskTable:
    """Mean training quality per task and arm: what knowing the task's label is worth.

    A reference, not a router, since queries come without a label. A task that training did not
    have, or not with that arm, has the arm's mean over all tasks.
    """

    def fit(self, train: Labelled, _seed: int, /) -> Priced:
        """Means per task."""
        overall = mean_quality(train)
        tasks = np.array(train.recorded.tasks)
        table: dict[str, Floats] = {}
        for task in sorted(set(train.recorded.tasks)):
            rows = train.take(np.flatnonzero(tasks == task))
            answered = rows.answered.any(axis=0)
            table[task] = np.where(answered, mean_quality(rows), overall)

        def estimate(queries: Labelled) -> Floats:
            return np.array([table.get(task, overall) for task in queries.recorded.tasks])

        return Priced(estimate, constant(mean_cost(train)), seen(train))
