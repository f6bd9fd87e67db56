"""The papers' fine-tuned transformer predictors, as offline routers; needs the extra `torch`.

One encoder, by default the weights of the embedding model, is trained whole with a linear head on
the mean of its last hidden states: FORC's predictor of correctness, Hybrid LLM's predictor of the
quality gap, and RouteLLM's classifier of wins. The papers' encoders (DistilBERT, DeBERTa-v3-large,
BERT-base) can be used from a local directory. On one core of a CPU a step of 16 short texts takes
some tenths of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from bandit_service.lab._encoder import FineTuned, Training, train_encoder
from bandit_service.lab.data import Labelled
from bandit_service.lab.routers._logistic import sigmoid
from bandit_service.lab.routers._protocol import Axis
from bandit_service.lab.routers._sweep import (
    Indices,
    by_price,
    by_threshold,
    thresholds_of,
)
from bandit_service.lab.routers._targets import UNSEEN, seen
from bandit_service.lab.routers.forc import estimated_cost
from bandit_service.lab.routers.hybrid import HybridLLM
from policies import Floats
from policies._checks import within

__all__ = ["FineTunedFORC", "FineTunedHybridLLM", "FineTunedRouteLLM", "Training"]

WIN, TIE, LOSE = 0, 1, 2

# Not stated by the papers beyond these: Hybrid LLM trains 5 epochs; RouteLLM 2000 steps of 16.
_HYBRID = Training(epochs=5)
_ROUTELLM = Training(learning_rate=1e-5, epochs=10, steps=2000)


@dataclass(frozen=True, slots=True)
class FineTunedFORC:
    """p̂_i(x) = σ(one logit of "name of arm i: query"), binary cross-entropy on recorded quality.

    One encoder for all arms. ĉ_i(x) as in `routers.forc`; the choice is argmax p̂ − λ·ĉ. Routing n
    queries takes n·K passes of the encoder. Source: arXiv 2308.06077 and its code.
    """

    training: Training = field(default_factory=Training)

    def fit(self, train: Labelled, seed: int, /) -> _Correctness:
        """One example per answer, in an order drawn by `seed`."""
        rows, arms = np.nonzero(train.answered)
        names = train.arms
        fitted = train_encoder(
            [names[k] for k in arms],
            [train.recorded.texts[i] for i in rows],
            train.quality[rows, arms],
            1,
            self.training,
            seed,
        )
        return _Correctness(fitted, train, seen(train))


@dataclass(frozen=True, slots=True)
class FineTunedHybridLLM:
    """σ(one logit of the query): that the small arm is good enough, by `HybridLLM`'s labels.

    label, temperature, ratio: as in `routers.HybridLLM`. The paper keeps the best of 5 epochs on
    a validation part, here the last one is kept. Source: arXiv 2404.14618, section 3.
    """

    label: str = "trans"
    temperature: float = 0.1
    ratio: float = 0.5
    training: Training = _HYBRID

    def __post_init__(self) -> None:
        self._paper()

    def _paper(self) -> HybridLLM:
        return HybridLLM(self.label, self.temperature, self.ratio)

    def fit(self, train: Labelled, seed: int, /) -> _TwoArms:
        """One example per query that both arms answered. ValueError if there is none."""
        paper = self._paper()
        small, large = paper.pair(train)
        both, gap = _gaps(train, small, large)
        fitted = train_encoder(
            None, [train.recorded.texts[i] for i in both], paper.labels(gap), 1, self.training, seed
        )

        def needs_large(texts: Sequence[str]) -> Floats:
            return 1.0 - sigmoid(fitted.logits(None, texts)[:, 0])

        return _TwoArms(needs_large, small, large, 2 * both.size, fitted.losses)


@dataclass(frozen=True, slots=True)
class FineTunedRouteLLM:
    """Three logits of the query, the strong arm wins, ties or loses; P(win) = 1 − P(tie) − P(lose).

    margin: >= 0, qualities no further apart are a tie. ratio: how the two arms are picked, as in
    `routers.HybridLLM`; the paper has tiers. Strong where P(win) reaches a threshold, which is
    swept. Source: arXiv 2406.18665v4, section 4.2, and its code.
    """

    margin: float = 0.0
    ratio: float = 0.5
    training: Training = _ROUTELLM

    def __post_init__(self) -> None:
        within("margin", self.margin, 0.0)
        HybridLLM(ratio=self.ratio)

    def fit(self, train: Labelled, seed: int, /) -> _TwoArms:
        """One example per query that both arms answered. ValueError if there is none."""
        weak, strong = HybridLLM(ratio=self.ratio).pair(train)
        both, gap = _gaps(train, weak, strong)
        labels = np.where(gap < -self.margin, WIN, np.where(gap > self.margin, LOSE, TIE))
        fitted = train_encoder(
            None, [train.recorded.texts[i] for i in both], labels, 3, self.training, seed
        )

        def wins(texts: Sequence[str]) -> Floats:
            z = fitted.logits(None, texts)
            e = np.exp(z - z.max(axis=1, keepdims=True))
            chance: Floats = e[:, WIN] / e.sum(axis=1)
            return chance

        return _TwoArms(wins, weak, strong, 2 * both.size, fitted.losses)


@dataclass(frozen=True, slots=True)
class _Correctness:
    fitted: FineTuned
    train: Labelled
    seen: int
    axis: Axis = "price"

    @property
    def losses(self) -> tuple[float, ...]:
        """The loss of every step."""
        return self.fitted.losses

    def quality(self, queries: Labelled) -> Floats:
        """(n, K) p̂; −1 for an arm that never answered in training."""
        n, k = queries.quality.shape
        names = [name for _ in range(n) for name in self.train.arms]
        texts = [text for text in queries.recorded.texts for _ in range(k)]
        found = sigmoid(self.fitted.logits(names, texts)[:, 0]).reshape(n, k)
        return np.where(self.train.answered.any(axis=0), found, UNSEEN)

    def choices(self, queries: Labelled) -> Iterator[tuple[float, Indices]]:
        """One choice for each λ of `by_price`."""
        cost = estimated_cost(self.train, queries)
        return by_price(self.quality(queries), cost, queries.answered)


@dataclass(frozen=True, slots=True)
class _TwoArms:
    needs_large: Callable[[Sequence[str]], Floats]
    small: int
    large: int
    seen: int
    losses: tuple[float, ...]
    axis: Axis = "threshold"

    def choices(self, queries: Labelled) -> Iterator[tuple[float, Indices]]:
        """One choice for each threshold of `thresholds_of`."""
        score = self.needs_large(queries.recorded.texts)
        yield from by_threshold(
            score, thresholds_of(score), self.large, self.small, queries.answered
        )


def _gaps(train: Labelled, small: int, large: int) -> tuple[Indices, Floats]:
    """Rows that both arms answered, and quality of the small one less that of the large one."""
    gap = train.quality[:, small] - train.quality[:, large]
    both = np.flatnonzero(~np.isnan(gap))
    if not both.size:
        raise ValueError(
            f"train: no query was answered by both {train.arms[small]} and {train.arms[large]}"
        )
    return both, gap[both]
