"""RouteLLM's routers that learn from comparisons, for two arms and for more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from bandit_service.lab.data import Labelled
from bandit_service.lab.routers._pairs import drawn_pairs, wins_of
from bandit_service.lab.routers._protocol import Axis
from bandit_service.lab.routers._sweep import Indices, by_dominance, levels_of
from bandit_service.lab.routers.neighbours import similarities
from bandit_service.lab.targets import mean_cost, seen
from policies import Floats, above, fit_bradley_terry, train_factorization, within


@dataclass(frozen=True, slots=True)
class _Dominating:
    """Strengths (n, K), in natural logits, swept by α: see `by_dominance`."""

    strengths: Callable[[Labelled], Floats]
    cost: Floats
    seen: int
    axis: Axis = "threshold"

    def choices(self, queries: Labelled) -> Iterator[tuple[float, Indices]]:
        strength, answered = self.strengths(queries), queries.answered
        yield from by_dominance(
            strength, self.cost, levels_of(strength, self.cost, answered), answered
        )


@dataclass(frozen=True, slots=True)
class SimilarityWeighted:
    """RouteLLM's similarity-weighted ranking: a Bradley-Terry fit for every query.

    Comparison on training query q' weighs γ·γ^S, S = cos(q, q') / max over the training part of
    cos(q, ·): the denominator of the released code, the paper's being another.
    P(j beats i) = σ(ξ_j − ξ_i); then the cheapest arm that no dearer one beats with probability
    ≥ α, α swept, which for two arms is the paper's threshold.

    base: γ > 0, 10 in the code. Weights then span one decade only, so that far queries still
        count most by their number.
    margin: >= 0, qualities that are no further apart are a tie, half a win for each (the code
        counts a decided one twice and a tie once each way, which is the same).
    pairs: comparisons drawn for each training query; None for all pairs of its answers.
    ridge: > 0, keeps an arm finite that always won; the code has no penalty.

    The paper ranks tiers of arms, here every arm is a tier of its own. Choosing costs a matrix
    product with all training queries, and a Newton solve for each query.
    Source: arXiv 2406.18665v4, section 4.2.
    """

    base: float = 10.0
    margin: float = 0.0
    pairs: int | None = None
    ridge: float = 0.01

    def __post_init__(self) -> None:
        above("base", self.base, 0.0)
        _check_pairs(self.margin, self.pairs)
        above("ridge", self.ridge, 0.0)

    def fit(self, train: Labelled, seed: int, /) -> _Dominating:
        """Keeps the comparisons."""
        n, k = train.quality.shape
        pairs = drawn_pairs(train, self.pairs, self.margin, seed)
        wins = wins_of(pairs, n, k).reshape(n, k * k)

        def strengths(queries: Labelled) -> Floats:
            fitted = np.empty((len(queries), k))
            for rows, cosine in similarities(queries.embeddings, train.embeddings):
                top = np.maximum(cosine.max(axis=1, keepdims=True), 1e-9)
                weight = self.base * self.base ** (cosine / top).astype(np.float64)
                for row, each in zip(range(rows.start, rows.stop), weight @ wins, strict=True):
                    fitted[row] = fit_bradley_terry(each.reshape(k, k), self.ridge)
            return fitted

        return _Dominating(strengths, mean_cost(train), _learned(self.pairs, len(pairs), train))


@dataclass(frozen=True, slots=True)
class MatrixFactorization:
    """RouteLLM's matrix factorization: δ(M, q) = w2ᵀ(v_M ⊙ W1ᵀq), P(win) = σ(δ_j − δ_i).

    dim: length of v_M, 128 in the code. epochs: 10 in the paper, 100 in the code's example.
    learning_rate, weight_decay: of Adam, the paper's. noise: deviation of the Gaussian noise on
        every component of an embedding in training; the code's 0.1 is for 1536 components.
    margin: >= 0, qualities no further apart are a tie, which is left out.
    pairs: comparisons drawn for each training query; None for all pairs of its answers.

    Choice as `SimilarityWeighted`. Source: arXiv 2406.18665v4, section 4.2.
    """

    dim: int = 128
    epochs: int = 10
    learning_rate: float = 3e-4
    weight_decay: float = 1e-5
    noise: float = 0.1
    margin: float = 0.0
    pairs: int | None = None

    def __post_init__(self) -> None:
        within("dim", self.dim, 1)
        within("epochs", self.epochs, 1)
        above("learning_rate", self.learning_rate, 0.0)
        within("weight_decay", self.weight_decay, 0.0)
        within("noise", self.noise, 0.0)
        _check_pairs(self.margin, self.pairs)

    def fit(self, train: Labelled, seed: int, /) -> _Dominating:
        """From values, an order and noise drawn by `seed`."""
        pairs = drawn_pairs(train, self.pairs, self.margin, seed)
        decided = np.flatnonzero(pairs.margin)
        won = pairs.margin[decided] > 0.0
        first, second = pairs.first[decided], pairs.second[decided]
        fitted = train_factorization(
            train.embeddings[pairs.row[decided]],
            np.where(won, first, second),
            np.where(won, second, first),
            len(train.arms),
            dim=self.dim,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            noise=self.noise,
            seed=seed,
        )
        return _Dominating(
            lambda queries: fitted.strengths(queries.embeddings),
            mean_cost(train),
            _learned(self.pairs, len(pairs), train),
        )


def _learned(asked: int | None, pairs: int, train: Labelled) -> int:
    return seen(train) if asked is None else pairs


def _check_pairs(margin: float, pairs: int | None) -> None:
    within("margin", margin, 0.0)
    if pairs is not None:
        within("pairs", pairs, 1)
