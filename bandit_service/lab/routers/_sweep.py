"""From scores to choices: the rules by which a router trades quality for money."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandit_service.lab.data import Labelled
from bandit_service.lab.routers._protocol import Axis
from policies import Floats

Answered = NDArray[np.bool_]
Indices = NDArray[np.int64]
PRICES: Floats = np.concatenate([[0.0], np.logspace(-1.0, 7.0, 161)])
THRESHOLDS = 101


def best(scores: Floats, cost: Floats, answered: Answered) -> Indices:
    """The arm of the highest score among those that answered; on ties the cheaper one. (n,)"""
    (_, chosen) = next(by_price(scores, cost, answered, np.zeros(1)))
    return chosen


def by_price(
    quality: Floats, cost: Floats, answered: Answered, prices: Floats = PRICES
) -> Iterator[tuple[float, Indices]]:
    """argmax over arms of q̂ − λ·ĉ for each λ in USD⁻¹; on ties the cheaper arm.

    quality: (n, K). cost: (n, K) or (K,) in USD. answered: (n, K), the others are not chosen.
    """
    order, ranked = _cheapest_first(cost, answered)
    masked = np.where(answered, quality, -np.inf)
    ranked_quality = np.take_along_axis(masked, order, axis=1)
    rows = np.arange(len(order))
    for price in prices.tolist():
        yield price, order[rows, (ranked_quality - price * ranked).argmax(axis=1)]


def by_budget(scores: Floats, cost: Floats, answered: Answered) -> Iterator[tuple[float, Indices]]:
    """The highest score among the arms whose cost is within the budget; the cheapest if none.

    Eagle's rule (arXiv 2409.15518v2, section 2). cost: (K,) USD. One budget for every cost that
    there is, the dearest first.
    """
    for budget in np.unique(cost)[::-1].tolist():
        fits = answered & (cost <= budget)
        within = np.where(fits.any(axis=1, keepdims=True), fits, _cheapest(cost, answered))
        yield budget, best(scores, cost, within)


def by_threshold(
    score: Floats, thresholds: Floats, strong: int, weak: int, answered: Answered
) -> Iterator[tuple[float, Indices]]:
    """The strong arm where its score reaches the threshold, else the weak one.

    score: (n,). A query that one of the two did not answer goes to the other, and one that
    neither did to the first arm that has an answer.
    """
    either = np.where(answered[:, strong], strong, answered.argmax(axis=1))
    fallback = np.where(answered[:, weak], weak, either)
    preferred = np.where(answered[:, strong], strong, fallback)
    for threshold in thresholds.tolist():
        yield threshold, np.where(score >= threshold, preferred, fallback)


def thresholds_of(score: Floats) -> Floats:
    """Thresholds from "all strong" to "none": −∞, quantiles of the scores (n,), and +∞.

    As in RouteLLM's evaluation, they are quantiles of the queries' own scores, which say nothing of
    their outcomes.
    """
    inner = np.unique(np.quantile(score, np.linspace(0.0, 1.0, THRESHOLDS)))
    return np.concatenate([[-np.inf], inner, [np.inf]])


def by_dominance(
    strength: Floats, cost: Floats, levels: Floats, answered: Answered
) -> Iterator[tuple[float, Indices]]:
    """The cheapest arm that no dearer arm beats with probability α or more, for each α.

    P(j beats i) = 1/(1 + exp(s_i − s_j)) for strengths (n, K) in natural logits. With two arms it
    is RouteLLM's threshold: the dearer one where it beats the cheaper with α or more. At α = ½ it
    is the arm of the highest strength, on ties the dearest. cost: (K,) USD.
    """
    order, _ = _cheapest_first(cost, answered)
    ranked = np.take_along_axis(np.where(answered, strength, -np.inf), order, axis=1)
    # the strongest of the arms that are dearer than each
    above = np.full(ranked.shape, -np.inf)
    above[:, :-1] = np.maximum.accumulate(ranked[:, :0:-1], axis=1)[:, ::-1]
    with np.errstate(invalid="ignore"):  # −∞ less −∞ among arms that did not answer
        lead = np.where(ranked == -np.inf, np.inf, above - ranked)
    rows = np.arange(len(order))
    for level in levels.tolist():
        needed = _logit(level)
        stands = np.where(lead == -np.inf, True, lead < needed)
        yield level, order[rows, stands.argmax(axis=1)]


def levels_of(strength: Floats, cost: Floats, answered: Answered) -> Floats:
    """Levels α for `by_dominance`: ½ first, then quantiles of how surely dearer arms beat cheaper.

    For more than two arms none below ½: those would buy a dearer arm that is held to be worse.
    """
    order = np.argsort(cost, kind="stable")
    ranked = np.where(answered, strength, np.nan)[:, order]
    first, second = np.triu_indices(ranked.shape[1], 1)
    lead = (ranked[:, second] - ranked[:, first]).ravel()
    lead = lead[np.isfinite(lead)]
    if not lead.size:
        return np.array([0.5])
    chance = 1.0 / (1.0 + np.exp(-np.clip(lead, -500.0, 500.0)))
    inner = np.unique(np.quantile(chance, np.linspace(0.0, 1.0, THRESHOLDS)))
    if ranked.shape[1] > 2:
        return np.concatenate([[0.5], inner[inner > 0.5], [2.0]])
    return np.concatenate([[0.5, 0.0], inner, [2.0]])


def _logit(level: float) -> float:
    if level <= 0.0:
        return -np.inf
    return np.inf if level >= 1.0 else float(np.log(level / (1.0 - level)))


def _cheapest_first(cost: Floats, answered: Answered) -> tuple[Indices, Floats]:
    full = np.broadcast_to(cost, answered.shape)
    order = np.argsort(full, axis=1, kind="stable").astype(np.int64)
    return order, np.take_along_axis(full, order, axis=1)


def _cheapest(cost: Floats, answered: Answered) -> Answered:
    masked = np.where(answered, np.broadcast_to(cost, answered.shape), np.inf)
    least: Answered = masked == masked.min(axis=1, keepdims=True)
    return answered & least


@dataclass(frozen=True, slots=True)
class Priced:
    """A prediction of quality swept by λ.

    estimate: (n, K) expected quality of the queries. cost: (K,) or (n, K) expected USD of them.
    """

    estimate: Callable[[Labelled], Floats]
    cost: Callable[[Labelled], Floats]
    seen: int
    axis: Axis = "price"

    def quality(self, queries: Labelled) -> Floats:
        """(n, K) as estimated."""
        return self.estimate(queries)

    def choices(self, queries: Labelled) -> Iterator[tuple[float, Indices]]:
        """One choice for λ = 0 and for each of 161 values even in log10 from 1e-1 to 1e7."""
        return by_price(self.estimate(queries), self.cost(queries), queries.answered)
