"""Logistic regressions learned one label at a time, each step the exact maximum of a Laplace step.

A head believes its coefficients to be N(θ, diag(1/(λ + I))) around a level that is given, so that

    P[y = 1 | x] = σ(m),   m = logit(level) + θᵀx,   s = xᵀ diag(1/(λ + I)) x

A label y in [0, 1] of weight w adds w·BCE(y, σ(m)). The maximum of the posterior then lies on the
line θ + g·x/(λ + I), and g = w·(y − σ(m + s·g)) is one equation of one unknown, whose two sides
cross once; so there is no learning rate, and no step overshoots, however large s is. The curvature
there is what the label tells of the coefficients:  I ← I + w·p(1 − p)·x².

The diagonal instead of the whole matrix makes a step O(d) instead of O(d²); on recorded traffic
at d = 385 the whole matrix earned no more.

Source: Spiegelhalter & Lauritzen 1990, Networks 20(5), for the sequential Laplace step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from policies._checks import finite, within
from policies._sums import dot
from policies._types import ArmId, Floats, Rewarded, Vector

_HALVINGS = 60
_WIDEST = 500.0


def _none(*shape: int) -> Floats:
    return np.zeros(shape)


class Label(NamedTuple):
    """What one event says of one head: y in [0, 1], and the weight that it has, >= 0."""

    y: float
    weight: float = 1.0


class Step(NamedTuple):
    """Where a head goes: θ and I, (d,) and (d,), and its labels by weight."""

    theta: Floats
    information: Floats
    n: float


@dataclass(frozen=True, slots=True)
class Prior:
    """What a head believes before its first label: P[y = 1] = level, θ ~ N(0, 1/ridge)."""

    level: float
    ridge: float

    @property
    def logit(self) -> float:
        """log(level / (1 − level))."""
        return math.log(self.level / (1.0 - self.level))


@dataclass
class Heads:
    """K heads seen so far, d features; empty before the first label.

    rows: arm → its row. theta, information: θ and I, (K, d). n: (K,) labels, by weight.
    """

    rows: dict[ArmId, int] = field(default_factory=dict)
    theta: Floats = field(default_factory=lambda: _none(0, 0))
    information: Floats = field(default_factory=lambda: _none(0, 0))
    n: Floats = field(default_factory=lambda: _none(0))

    def estimate(self, arms: Sequence[ArmId], x: Floats, prior: Prior) -> tuple[Floats, Floats]:
        """The logit m and its standard deviation √s of each arm, (K,) and (K,). O(K·d)."""
        means = np.full(len(arms), prior.logit)
        variances = np.full(len(arms), float(x @ x) / prior.ridge)
        rows = [self.rows.get(arm, -1) for arm in arms]
        seen = [i for i, row in enumerate(rows) if row >= 0]
        if seen:
            self.check(x)
            chosen = [rows[i] for i in seen]
            # over all rows, so that an arm's figures do not depend on who else is asked for
            means[seen] += (self.theta @ x)[chosen]
            variances[seen] = ((1.0 / (self.information + prior.ridge)) @ (x * x))[chosen]
        return means, np.sqrt(variances)

    def counts(self, arms: Sequence[ArmId]) -> Floats:
        """n of each arm, 0 for one never seen, (K,)."""
        rows = self.rows
        return np.array([self.n[rows[arm]] if arm in rows else 0.0 for arm in arms])

    def steps(self, x: Floats, labels: Mapping[ArmId, Label], prior: Prior) -> dict[ArmId, Step]:
        """What `labels` at x make of their heads; nothing is written. O(d) each."""
        self.check(x)
        return {arm: self._step(arm, x, label, prior) for arm, label in labels.items()}

    def take(self, steps: Mapping[ArmId, Step]) -> None:
        """Write what `steps` found."""
        for arm, step in steps.items():
            row = self._row(arm, step.theta.size)
            self.theta[row], self.information[row], self.n[row] = step

    def fade(self, arm: ArmId, keep: float, prior: Prior) -> None:
        """What the labels of one head said, to the power `keep` (Ibrahim & Chen 2000). O(d).

        Their precision I and precision-weighted mean (λ + I)·θ both times `keep`, so that
        I' = keep·I and θ' = keep·(λ + I)/(λ + keep·I)·θ; at 0 the head is at its prior.
        """
        within("keep", keep, 0.0, 1.0)
        row = self.rows.get(arm)
        if row is not None:
            known = self.information[row]
            kept = keep * known
            self.theta[row] *= keep * ((known + prior.ridge) / (kept + prior.ridge))
            self.information[row] = kept
            self.n[row] *= keep

    def check(self, x: Floats) -> None:
        """ValueError unless x is finite and as long as those before."""
        if not np.isfinite(x).all():
            raise ValueError("embedding: must be finite numbers")
        if self.rows and x.size != self.theta.shape[1]:
            raise ValueError(f"embedding: must have {self.theta.shape[1]} features, got {x.size}")

    def _step(self, arm: ArmId, x: Floats, label: Label, prior: Prior) -> Step:
        row = self.rows.get(arm)
        zeros = _none(x.size)
        theta, known, n = (
            (zeros, zeros, 0.0)
            if row is None
            else (self.theta[row], self.information[row], float(self.n[row]))
        )
        reach = x / (known + prior.ridge)
        m, s = prior.logit + dot(theta, x), dot(reach, x)
        p = sigmoid(settled(m, s, label))
        gain = label.weight * (label.y - p)
        curvature = label.weight * p * (1.0 - p)
        return Step(theta + gain * reach, known + curvature * x * x, n + label.weight)

    def _row(self, arm: ArmId, d: int) -> int:
        row = self.rows.get(arm)
        if row is None:
            row = len(self.rows)
            if row == 0:
                self.theta, self.information = _none(0, d), _none(0, d)
            self.theta = np.concatenate([self.theta, _none(1, d)])
            self.information = np.concatenate([self.information, _none(1, d)])
            self.n = np.concatenate([self.n, _none(1)])
            self.rows[arm] = row
        return row


def settled(m: float, s: float, label: Label) -> float:
    """The logit z after a label: the one root of z = m + s·w·(y − σ(z)), by bisection.

    >>> z = settled(0.0, 1.0, Label(1.0))
    >>> round(z, 6), round(1.0 - sigmoid(z), 6)
    (0.401058, 0.401058)
    """
    reach = s * label.weight
    low, high = m + reach * (label.y - 1.0), m + reach * label.y
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if middle - m > reach * (label.y - sigmoid(middle)):
            high = middle
        else:
            low = middle
    return 0.5 * (low + high)


def sigmoid(z: float) -> float:
    """σ(z) = 1 / (1 + exp(−z)), whatever z.

    >>> sigmoid(0.0), sigmoid(-1e9), sigmoid(1e9)
    (0.5, 0.0, 1.0)
    """
    if z >= 0.0:
        return 1.0 / (1.0 + math.exp(-z))
    grown = math.exp(z)
    return grown / (1.0 + grown)


def sigmoids(z: Floats) -> Floats:
    """σ of each element."""
    found: Floats = 1.0 / (1.0 + np.exp(-np.clip(z, -_WIDEST, _WIDEST)))
    return found


def features(embedding: Vector) -> Floats:
    """[x, 1] as float64, (d + 1,)."""
    return np.append(embedding.astype(np.float64), 1.0)


def quality_of(event: Rewarded) -> float | None:
    """The quality that the event settles, in [0, 1]; None while there is no reward.

    Where no quality came, it is the one that explains the reward: reward + cost / willingness to
    pay. Cut to [0, 1]. ValueError when either is not finite.
    """
    if event.reward is None:
        return None
    reward, quality = finite("reward", event.reward), event.quality
    if quality is None:
        cost = event.expected_cost_usd if event.cost_usd is None else event.cost_usd
        quality = reward + cost / event.context.willingness_to_pay
    return min(1.0, max(0.0, finite("quality", quality)))
