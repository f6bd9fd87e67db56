"""RouterBench's MLP and SVM, and k-means: the baselines that scikit-learn fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bandit_service.lab.data import Labelled
from bandit_service.lab.routers._extra import sklearn, unconverged
from bandit_service.lab.routers._protocol import Axis
from bandit_service.lab.routers._sweep import Indices, Priced, best, by_price
from bandit_service.lab.routers.linear import Head, per_arm
from bandit_service.lab.targets import mean_cost, mean_quality, seen
from policies import Floats, above, one_of, within

_ALPHAS = np.linspace(1.0, 0.0, 101)
_PRIOR = 1e-6
_ENOUGH = 100


@dataclass(frozen=True, slots=True)
class MLP:
    """A regressor per arm with ReLU units, trained by Adam (scikit-learn's MLPRegressor).

    hidden: units of each hidden layer; "two layers, hidden size 100" in Eagle's appendix A.2,
        read as two hidden layers.
    iterations: epochs at most, RouterBench's 200; scikit-learn stops before where the loss
        no longer falls.
    early_stopping: keep a tenth of the rows back and stop where they no longer gain, which the
        papers' did not.
    """

    hidden: tuple[int, ...] = (100, 100)
    iterations: int = 200
    early_stopping: bool = False

    def __post_init__(self) -> None:
        within("iterations", self.iterations, 1)
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden: must be one or more sizes >= 1, got {self.hidden!r}")

    def fit(self, train: Labelled, seed: int, /) -> Priced:
        """From weights and an order of batches drawn by `seed`."""
        network = sklearn("neural_network").MLPRegressor

        def head(x: Floats, y: Floats) -> Head:
            fitted = network(
                hidden_layer_sizes=self.hidden,
                max_iter=self.iterations,
                # a tenth of fewer rows than this is no sample to stop by
                early_stopping=self.early_stopping and y.size >= _ENOUGH,
                random_state=seed,
            )
            with unconverged():
                fitted.fit(x, y)
            return _predicted(fitted)

        return per_arm(train, head)


@dataclass(frozen=True, slots=True)
class SVM:
    """A linear support vector regression per arm (scikit-learn's LinearSVR).

    epsilon: half-width of the band without loss, Eagle's and RouterBench's 0: then it fits the
        median, which for qualities of 0 and 1 is near one of them.
    strength: C > 0, the inverse of the penalty.
    """

    epsilon: float = 0.0
    strength: float = 1.0

    def __post_init__(self) -> None:
        within("epsilon", self.epsilon, 0.0)
        above("strength", self.strength, 0.0)

    def fit(self, train: Labelled, seed: int, /) -> Priced:
        """Coordinate descent in an order drawn by `seed`."""
        regression = sklearn("svm").LinearSVR

        def head(x: Floats, y: Floats) -> Head:
            fitted = regression(epsilon=self.epsilon, C=self.strength, random_state=seed)
            with unconverged():
                fitted.fit(x, y)
            return _predicted(fitted)

        return per_arm(train, head)


def _predicted(fitted: object) -> Head:
    predict = fitted.predict  # type: ignore[attr-defined]
    return lambda x: np.asarray(predict(x), np.float64)


@dataclass(frozen=True, slots=True)
class KMeans:
    """The Avengers: mean quality of each arm per cluster of training queries.

    q̂_i(x) is the mean over the `nearest` clusters of arm i's mean quality in each.

    clusters: >= 1, at most as many as there are training queries are made. The released code's
        documented default is 25.
    nearest: >= 1 clusters that are averaged; the released code's documented default is 3.
    rule: "price", argmax of q̂ − λ·ĉ with the mean cost of each arm, so that it is on the axis of
        the others; or "alpha", the paper's: argmax of α·q̃ − (1 − α)·c̃ for α from 1 to 0, both
        scaled to [0, 1] among the arms, for each query and with costs of its clusters; with two
        arms nothing but 0 and 1 is left by that.

    Source: arXiv 2505.19797 and 2508.12631 (Avengers-Pro).
    """

    clusters: int = 25
    nearest: int = 3
    rule: str = "price"

    def __post_init__(self) -> None:
        within("clusters", self.clusters, 1)
        within("nearest", self.nearest, 1)
        one_of("rule", self.rule, ("price", "alpha"))

    def fit(self, train: Labelled, seed: int, /) -> Priced:
        """Centres from k-means++ drawn by `seed`, one start."""
        make = sklearn("cluster").KMeans
        made = make(min(self.clusters, len(train)), n_init=1, random_state=seed)
        label = made.fit_predict(train.embeddings.astype(np.float64))
        centres = np.asarray(made.cluster_centers_, np.float64)
        quality = _by_cluster(train.quality, label, len(centres), mean_quality(train))
        usd = _by_cluster(train.cost, label, len(centres), mean_cost(train))

        def averaged(table: Floats, queries: Labelled) -> Floats:
            x = queries.embeddings.astype(np.float64)
            far = (centres**2).sum(axis=1) - 2.0 * x @ centres.T
            near = np.argsort(far, axis=1, kind="stable")[:, : self.nearest]
            mean: Floats = table[near].mean(axis=1)
            return mean

        if self.rule == "price":
            costs = mean_cost(train)
            return Priced(lambda q: averaged(quality, q), lambda _: costs, seen(train))
        return _Scaled(lambda q: averaged(quality, q), lambda q: averaged(usd, q), seen(train))


def _by_cluster(table: Floats, label: Indices, clusters: int, overall: Floats) -> Floats:
    """(clusters, K) means; the arm's overall mean, a millionth of an answer, fills the gaps."""
    means = np.empty((clusters, table.shape[1]))
    for cluster in range(clusters):
        rows = table[label == cluster]
        count = (~np.isnan(rows)).sum(axis=0)
        means[cluster] = (np.nansum(rows, axis=0) + _PRIOR * overall) / (count + _PRIOR)
    return means


@dataclass(frozen=True, slots=True)
class _Scaled(Priced):
    """α·q̃ − (1 − α)·c̃; at α = 1 ties go to the cheaper arm."""

    axis: Axis = "threshold"

    def choices(self, queries: Labelled) -> Iterator[tuple[float, Indices]]:
        """One choice for each α."""
        answered, usd = queries.answered, self.cost(queries)
        quality, cost = _scaled(self.estimate(queries)), _scaled(usd)
        for alpha in _ALPHAS.tolist():
            if alpha == 0.0:
                yield alpha, best(-usd, usd, answered)
            else:
                weight = np.array([(1.0 - alpha) / alpha])
                yield alpha, next(by_price(quality, cost, answered, weight))[1]


def _scaled(table: Floats) -> Floats:
    low, high = table.min(axis=1, keepdims=True), table.max(axis=1, keepdims=True)
    scaled: Floats = (table - low) / np.where(high > low, high - low, 1.0)
    return scaled
