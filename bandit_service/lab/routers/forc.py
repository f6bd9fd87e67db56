"""FORC: a performance predictor and a cost estimate per query, and rules to choose by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bandit_service.lab.data import Labelled
from bandit_service.lab.routers._logistic import fit_logistic, sigmoid
from bandit_service.lab.routers._protocol import Axis
from bandit_service.lab.routers._sweep import Indices, Priced, best
from bandit_service.lab.routers.linear import Logistic
from bandit_service.lab.targets import UNSEEN, constant, mean_cost, seen
from policies import Floats, above, one_of

_LEVELS = np.linspace(1.0, 0.0, 101)


def estimated_cost(train: Labelled, queries: Labelled) -> Floats:
    """(n, K) USD: tokens of the query × the arm's price in + its mean output cost in training.

    The output cost of an answer is its recorded cost less that of the query's tokens, at least 0.
    An arm without an answer in training is taken to cost what the dearest does.
    """
    price = np.array([arm.usd_per_mtok_in for arm in train.recorded.arms]) / 1e6
    output = np.maximum(train.cost - np.multiply.outer(train.recorded.tokens, price), 0.0)
    counts = train.answered.sum(axis=0)
    mean = np.nansum(output, axis=0) / np.maximum(counts, 1)
    cost: Floats = np.multiply.outer(queries.recorded.tokens, price) + mean
    return np.where(counts > 0, cost, cost[:, counts > 0].max(axis=1, keepdims=True))


@dataclass(frozen=True, slots=True)
class FORC:
    """p̂_i(x), the chance that arm i's answer is right, and ĉ_i(x), what it will cost.

    ĉ_i(x) = tokens(x) × price in + mean output cost of i, see `estimated_cost`.

    head: "shared", one logistic regression for all arms on the embedding and the arm's name as a
        one-hot, as the paper's one classifier with a name token; being linear it gives all arms
        one order of difficulty. "per_arm" (default), one for each arm. The paper fine-tunes
        DistilBERT.
    rule: "price", argmax of p̂ − μ·ĉ, the dual of the paper's assignment under a total budget,
        which loses at most one query to it. "threshold", the cheapest arm with p̂ > t and
        `otherwise` if there is none, t swept from 1 down to 0; the paper's t is ½.
    otherwise: "best", the highest p̂ (default, which at t = 1 is the paper's
        performance-maximising rule), "dearest" or "cheapest", the paper's two.
    strength: C > 0 of the logistic regression.

    Source: arXiv 2308.06077.
    """

    head: str = "per_arm"
    rule: str = "price"
    otherwise: str = "best"
    strength: float = 1.0

    def __post_init__(self) -> None:
        one_of("head", self.head, ("per_arm", "shared"))
        one_of("rule", self.rule, ("price", "threshold"))
        one_of("otherwise", self.otherwise, ("best", "dearest", "cheapest"))
        above("strength", self.strength, 0.0)

    def fit(self, train: Labelled, seed: int, /) -> Priced:
        """Logistic regressions on recorded quality, a soft label where it is not 0 or 1."""
        if self.head == "shared":
            heads = _shared(train, self.strength)
        else:
            heads = Logistic(self.strength).fit(train, seed)

        def cost(queries: Labelled) -> Floats:
            return estimated_cost(train, queries)

        if self.rule == "price":
            return Priced(heads.estimate, cost, seen(train))
        return _Thresholds(heads.estimate, cost, seen(train), otherwise=self.otherwise)


def _shared(train: Labelled, strength: float) -> Priced:
    rows, arms = np.nonzero(train.answered)
    names = np.eye(len(train.arms))
    x = np.concatenate([train.embeddings[rows].astype(np.float64), names[arms]], axis=1)
    fitted = fit_logistic(x, train.quality[rows, arms], strength)
    d = train.embeddings.shape[1]
    answered = train.answered.any(axis=0)
    by_query, by_arm = fitted.weights[:d], fitted.weights[d:] + fitted.bias

    def estimate(queries: Labelled) -> Floats:
        ease = queries.embeddings.astype(np.float64) @ by_query
        return np.where(answered, sigmoid(np.add.outer(ease, by_arm)), UNSEEN)

    return Priced(estimate, constant(mean_cost(train)), seen(train))


@dataclass(frozen=True, slots=True)
class _Thresholds(Priced):
    """The cheapest arm above each level of the estimate; `otherwise` if there is none."""

    axis: Axis = "threshold"
    otherwise: str = "best"

    def choices(self, queries: Labelled) -> Iterator[tuple[float, Indices]]:
        """One choice for each level."""
        answered, cost, chance = queries.answered, self.cost(queries), self.estimate(queries)
        fallback = {"best": chance, "dearest": cost, "cheapest": -cost}[self.otherwise]
        rest = best(fallback, cost, answered)
        for level in _LEVELS.tolist():
            good = answered & (chance > level)
            cheapest = np.where(good, cost, np.inf).argmin(axis=1)
            yield level, np.where(good.any(axis=1), cheapest, rest)
