"""Logistic regression on targets in [0, 1], by Newton's method."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policies import Floats

_STEPS = 50
_HALVINGS = 20
_DONE = 1e-8


def sigmoid(z: Floats) -> Floats:
    """1/(1 + exp(−z)), without overflow."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0.0, 1.0, e) / (1.0 + e)


@dataclass(frozen=True, slots=True)
class Logit:
    """p(x) = sigmoid(x·w + b)."""

    weights: Floats
    bias: float

    def chance(self, x: Floats) -> Floats:
        """(n, d) → (n,) in [0, 1]."""
        return sigmoid(x @ self.weights + self.bias)


def fit_logistic(x: Floats, y: Floats, strength: float) -> Logit:
    """argmin of ½‖w‖² + C·Σ −y·log p − (1 − y)·log(1 − p), the bias b not penalised.

    x: (n, d). y: (n,) in [0, 1], a soft label counting as y of a 1 and 1 − y of a 0. strength: C,
    as in scikit-learn's LogisticRegression, whose solution it is on labels 0 and 1. Where all
    labels are 0 or all are 1 the bias would run away: each side is given 1e-3 of an observation.
    """
    n, d = x.shape
    design = np.column_stack([x, np.ones(n)])
    penalty = np.full(d + 1, 1.0 / strength)
    penalty[-1] = 0.0
    theta = np.zeros(d + 1)
    total = float(y.sum()) + 1e-3
    theta[-1] = np.log(total / (n + 2e-3 - total))
    loss = _loss(design, y, theta, penalty)
    for _ in range(_STEPS):
        p = sigmoid(design @ theta)
        gradient = design.T @ (p - y) + penalty * theta
        gradient[-1] += 2e-3 * sigmoid(theta[-1:])[0] - 1e-3
        curvature = design.T * (p * (1.0 - p)) @ design
        curvature[np.diag_indices(d + 1)] += penalty + 1e-9
        step = np.linalg.solve(curvature, gradient)
        for _ in range(_HALVINGS):
            moved = theta - step
            lower = _loss(design, y, moved, penalty)
            if lower <= loss:
                break
            step = step / 2.0
        else:
            break
        theta, fell, loss = moved, loss - lower, lower
        if fell <= _DONE * max(1.0, abs(loss)):
            break
    return Logit(theta[:-1], float(theta[-1]))


def _loss(design: Floats, y: Floats, theta: Floats, penalty: Floats) -> float:
    z = design @ theta
    b = theta[-1]
    both = 2e-3 * np.logaddexp(0.0, b) - 1e-3 * b
    return float((np.logaddexp(0.0, z) - y * z).sum() + 0.5 * penalty @ theta**2 + both)
