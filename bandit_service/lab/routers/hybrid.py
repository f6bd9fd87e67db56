"""Hybrid LLM: one small and one large arm, and how likely the small one is good enough."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bandit_service.lab.data import Labelled
from bandit_service.lab.routers._logistic import Logit, fit_logistic, sigmoid
from bandit_service.lab.routers._protocol import Axis
from bandit_service.lab.routers._sweep import Indices, by_threshold, thresholds_of
from bandit_service.lab.targets import mean_cost, mean_quality
from policies import Floats, above, one_of, within

_GRID = 101


@dataclass(frozen=True, slots=True)
class HybridLLM:
    """A logistic head r(x) for "the small arm is good enough": small where r(x) > threshold.

    H = q(small) − q(large) of each training query that both answered.

    label: "det", y = 1[H ≥ 0]; "prob", y = Pr[H ≥ 0]; "trans" (default), y = Pr[H ≥ −t] at the
        t that spreads the labels most, t* = argmax (1/N²) Σ_ij |y_i − y_j|, over 101 values from
        0 to the largest gap. The paper estimates Pr from ten answers of each arm; with one
        recorded answer it is σ((H + t)/temperature), and with temperature 0 the indicator.
    temperature: >= 0, in quality; 0.1 as a published port has it.
    ratio: in (0, 1]; the small arm is the one of highest mean training quality among those whose
        mean cost is at most this share of the large one's, or the cheapest if there is none. The
        large arm is the one of highest mean training quality.
    strength: C > 0 of the logistic regression. The paper fine-tunes DeBERTa-v3-large.

    With more than two arms the others are never used. Threshold: swept over quantiles.
    Source: arXiv 2404.14618, section 3.
    """

    label: str = "trans"
    temperature: float = 0.1
    ratio: float = 0.5
    strength: float = 1.0

    def __post_init__(self) -> None:
        one_of("label", self.label, ("det", "prob", "trans"))
        within("temperature", self.temperature, 0.0)
        above("ratio", self.ratio, 0.0)
        within("ratio", self.ratio, 0.0, 1.0)
        above("strength", self.strength, 0.0)

    def fit(self, train: Labelled, _seed: int, /) -> _Hybrid:
        """ValueError where no training query was answered by both arms."""
        small, large = self.pair(train)
        gap = train.quality[:, small] - train.quality[:, large]
        both = np.flatnonzero(~np.isnan(gap))
        if not both.size:
            raise ValueError(
                f"train: no query was answered by both {train.arms[small]} and {train.arms[large]}"
            )
        x = train.embeddings[both].astype(np.float64)
        head = fit_logistic(x, self.labels(gap[both]), self.strength)
        return _Hybrid(head, small, large, 2 * both.size)

    def pair(self, train: Labelled) -> tuple[int, int]:
        """Indices of the small and of the large arm. ValueError for a single arm."""
        quality, cost = mean_quality(train), mean_cost(train)
        if quality.size < 2:
            raise ValueError("train: must have two arms or more")
        large = int(np.lexsort((cost, -quality))[0])
        others = np.arange(quality.size) != large
        cheap = others & (cost <= self.ratio * cost[large])
        if not cheap.any():
            return int(np.where(others, cost, np.inf).argmin()), large
        return int(np.where(cheap, quality, -np.inf).argmax()), large

    def labels(self, gap: Floats) -> Floats:
        """(m,) y of the gaps H."""
        if self.label == "det":
            return (gap >= 0.0).astype(np.float64)
        if self.label == "prob":
            return self._chance(gap, 0.0)
        relaxed = np.linspace(0.0, max(float(-gap.min()), 0.0), _GRID).tolist()
        spreads = [_spread(self._chance(gap, t)) for t in relaxed]
        return self._chance(gap, relaxed[int(np.argmax(spreads))])

    def _chance(self, gap: Floats, t: float) -> Floats:
        if self.temperature == 0.0:
            return (gap >= -t).astype(np.float64)
        return sigmoid((gap + t) / self.temperature)


def _spread(y: Floats) -> float:
    """(1/N²) Σ_ij |y_i − y_j|, in O(N log N)."""
    n = y.size
    rank = 2.0 * np.arange(n) - (n - 1)
    return float(2.0 * (rank @ np.sort(y)) / n**2)


@dataclass(frozen=True, slots=True)
class _Hybrid:
    head: Logit
    small: int
    large: int
    seen: int
    axis: Axis = "threshold"

    def choices(self, queries: Labelled) -> Iterator[tuple[float, Indices]]:
        needs_large = 1.0 - self.head.chance(queries.embeddings.astype(np.float64))
        yield from by_threshold(
            needs_large, thresholds_of(needs_large), self.large, self.small, queries.answered
        )
