"""RouteLLM's matrix factorization: how strong an arm is on a query, learned from comparisons.

δ(M, q) = w2ᵀ(u_M ⊙ (W1ᵀ q + b)),  u_M = v_M / ‖v_M‖,  P(i beats j | q) = σ(δ(i, q) − δ(j, q))

Source: arXiv 2406.18665, section 4.2, and lm-sys/RouteLLM, whose code normalises v_M and has no b.
Here b, where it is wanted, is the row of W1 that belongs to a constant 1 appended to q.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from policies._checks import above, within
from policies._sums import dot, softplus, times
from policies._types import Floats

_DECAY_1, _DECAY_2, _TINY = 0.9, 0.999, 1e-8


@dataclass
class Factorization:
    """K arms, d features, h factors.

    arms: (K, h) the v_M. projection: (d, h), W1. head: (h,), w2.
    """

    arms: Floats
    projection: Floats
    head: Floats

    def strengths(self, embeddings: Floats | NDArray[np.float32]) -> Floats:
        """δ of every arm on every query. (n, d) -> (n, K), natural logarithms."""
        found: Floats = (embeddings @ self.projection) @ (self.head * _unit(self.arms)).T
        return found

    def parameters(self) -> tuple[Floats, Floats, Floats]:
        """The three arrays themselves, in the order that `gradients` answers in."""
        return self.arms, self.projection, self.head


@dataclass
class Moments:
    """What Adam keeps (Kingma and Ba, arXiv 1412.6980): means of gradients and of their squares."""

    steps: int = 0
    first: list[Floats] = field(default_factory=list)
    second: list[Floats] = field(default_factory=list)

    @staticmethod
    def of(parameters: tuple[Floats, ...]) -> Moments:
        """Before the first step."""
        return Moments(
            0,
            [np.zeros_like(each) for each in parameters],
            [np.zeros_like(each) for each in parameters],
        )

    def step(
        self,
        parameters: tuple[Floats, ...],
        gradients: tuple[Floats, ...],
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        """Write one step into `parameters`; the decay is added to the gradient, as torch's Adam."""
        self.steps += 1
        # mean / (1 − β₁ᵗ) and √(square / (1 − β₂ᵗ)), with both factors moved out of the arrays
        scale = float(np.sqrt(1.0 - _DECAY_2**self.steps))
        rate, tiny = learning_rate * scale / (1.0 - _DECAY_1**self.steps), _TINY * scale
        parts = zip(parameters, gradients, self.first, self.second, strict=True)
        for parameter, gradient, mean, square in parts:
            slope = weight_decay * parameter
            slope += gradient
            mean -= slope
            mean *= _DECAY_1
            mean += slope
            slope *= slope
            square -= slope
            square *= _DECAY_2
            square += slope
            np.sqrt(square, out=slope)
            slope += tiny
            np.divide(mean, slope, out=slope)
            slope *= rate
            parameter -= slope


def drawn(k: int, d: int, dim: int, rng: np.random.Generator) -> Factorization:
    """Random ones, as torch begins: v_M normal, W1 and w2 even in ±1/√(inputs)."""
    arms = rng.standard_normal((k, dim))
    wide, narrow = 1.0 / np.sqrt(max(d, 1)), 1.0 / np.sqrt(dim)
    return Factorization(
        arms, rng.uniform(-wide, wide, (d, dim)), rng.uniform(-narrow, narrow, dim)
    )


def gradients(
    model: Factorization,
    embeddings: Floats,
    winner: NDArray[np.int64],
    loser: NDArray[np.int64],
    score: Floats,
    weight: Floats,
) -> tuple[float, tuple[Floats, Floats, Floats]]:
    """Loss and its slopes in arms, projection and head.

    loss = Σ weight·BCE(score, σ(δ_winner − δ_loser)) / n, with n rows; score is 1 where the
    winner won and ½ where it was a tie. embeddings (n, d), or (1, d) where every row is about the
    same query; the others (n,). O(n·d·h), or O((n + d)·h).
    """
    n = len(winner)
    units = _unit(model.arms)
    seen = embeddings.astype(np.float64)
    hidden = times(seen, model.projection)
    ahead = units[winner] - units[loser]
    margin = np.add.reduce(hidden * ahead * model.head, axis=1)
    share = weight / max(n, 1)
    loss = dot(share, np.array([softplus(m) for m in margin.tolist()]) - score * margin)
    p = np.array([math.exp(-softplus(-m)) for m in margin.tolist()])
    slope = ((p - score) * share)[:, None]
    head = (slope * ahead * hidden).sum(axis=0)
    by_hidden = slope * ahead * model.head
    if len(embeddings) < n:
        by_hidden = by_hidden.sum(axis=0, keepdims=True)
    projection = np.zeros_like(model.projection)
    for one, slopes in zip(seen, by_hidden, strict=True):
        projection += one[:, None] * slopes
    by_unit = slope * hidden * model.head
    of_units = np.zeros_like(units)
    np.add.at(of_units, winner, by_unit)
    np.subtract.at(of_units, loser, by_unit)
    # a unit vector moves along its sphere only
    along = (of_units * units).sum(axis=1, keepdims=True)
    arms = (of_units - along * units) / _norms(model.arms)
    return loss, (arms, projection, head)


def train_factorization(
    embeddings: Floats | NDArray[np.float32],
    winner: NDArray[np.int64],
    loser: NDArray[np.int64],
    k: int,
    *,
    dim: int = 128,
    epochs: int = 10,
    learning_rate: float = 3e-4,
    weight_decay: float = 1e-5,
    noise: float = 0.1,
    batch: int = 64,
    seed: int = 0,
) -> Factorization:
    """Trained with Adam on comparisons, ties left out, as in the paper. O(epochs·n·d·dim).

    embeddings: (n, d), the query of each comparison.
    winner, loser: (n,) indices of arms in [0, k), two different ones in each row.
    dim, epochs, learning_rate, weight_decay, batch: the paper's by default; the released code's
        example runs 100 epochs.
    noise: standard deviation of what is added to every component of an embedding again each time
        it is used; 0.1 is the code's, for 1536 components of a unit vector.
    seed: of the first values, the order of the rows and the noise.

    ValueError where a shape or an index is wrong. Equal arguments give equal results.
    """
    x = np.asarray(embeddings, dtype=np.float64)
    winner, loser = np.asarray(winner, np.int64), np.asarray(loser, np.int64)
    _check_rows(x, winner, loser, k)
    within("dim", dim, 1)
    within("epochs", epochs, 0)
    above("learning_rate", learning_rate, 0.0)
    within("weight_decay", weight_decay, 0.0)
    within("noise", noise, 0.0)
    within("batch", batch, 1)
    rng = np.random.default_rng(seed)
    model = drawn(k, x.shape[1], dim, rng)
    moments = Moments.of(model.parameters())
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x), batch):
            rows = order[start : start + batch]
            seen = x[rows]
            if noise:
                seen = seen + noise * rng.standard_normal(seen.shape)
            ones = np.ones(len(rows))
            _, slopes = gradients(model, seen, winner[rows], loser[rows], ones, ones)
            moments.step(model.parameters(), slopes, learning_rate, weight_decay)
    return model


def _check_rows(x: Floats, winner: NDArray[np.int64], loser: NDArray[np.int64], k: int) -> None:
    if x.ndim != 2 or not np.isfinite(x).all():
        raise ValueError(f"embeddings: must be finite and of shape (n, d), got shape {x.shape}")
    for name, arms in (("winner", winner), ("loser", loser)):
        if arms.shape != (len(x),):
            raise ValueError(f"{name}: must have shape ({len(x)},), got {arms.shape}")
        if arms.size and not (arms.min() >= 0 and arms.max() < k):
            raise ValueError(f"{name}: must be indices from 0 to {k - 1}")
    if (winner == loser).any():
        raise ValueError("loser: must be another arm than winner in every row")


def _norms(arms: Floats) -> Floats:
    # as torch's normalize, so that a vector of zeros does not divide by zero
    norms: Floats = np.maximum(np.linalg.norm(arms, axis=1, keepdims=True), 1e-12)
    return norms


def _unit(arms: Floats) -> Floats:
    units: Floats = arms / _norms(arms)
    return units
