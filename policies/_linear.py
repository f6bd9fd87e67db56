"""One ridge regression per arm, stacked, so that scoring all arms is a single pass.

The folded state holds element-wise sums only (A = Σ w·x xᵀ without the ridge, b = Σ w·y·x):
they are the same bits on every machine. The inverse is a cache: kept up by Sherman-Morrison
once a proposal has asked for it, absent while a log is recovered, rebuilt when needed. The
deviations are scored from a float32 copy of its upper half (`_quadratic`), so that a decision reads
a third of it.

Measured after 30,000 updates of one arm at d = 385 against a fresh inverse: means within 1e-13,
deviations within 3e-7 of themselves; with one query learned 30,000 times 2e-11 and 6e-5. So the
inverse is never refreshed, which would cost 9 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from policies._checks import finite, within
from policies._quadratic import Quadratic
from policies._types import ArmId, Floats


def _none(*shape: int) -> Floats:
    return np.zeros(shape)


def _outer(a: Floats, b: Floats) -> Floats:
    """a bᵀ: one product per element, as exact as ufunc.outer and twice as fast."""
    product: Floats = np.dot(a[:, None], b[None])
    return product


@dataclass
class RidgeStack:
    """K arms seen so far, d features.

    rows: arm → its row. A: (K, d, d). b: (K, d). n: (K,) observations, by weight.
    """

    rows: dict[ArmId, int] = field(default_factory=dict)
    A: Floats = field(default_factory=lambda: _none(0, 0, 0))
    b: Floats = field(default_factory=lambda: _none(0, 0))
    n: Floats = field(default_factory=lambda: _none(0))
    _inverse: Floats | None = None
    _narrow: Quadratic | None = None
    _theta: Floats | None = None
    _ridge: float = 0.0

    def observe(self, arm: ArmId, x: Floats, y: float, weight: float = 1.0) -> None:
        """A ← A + w·x xᵀ, b ← b + w·y·x for one arm. O(d²); everything is computed first."""
        finite("reward", y)
        if not np.isfinite(x).all():
            raise ValueError("embedding: must be finite numbers")
        if self.rows and x.size != self.A.shape[1]:
            raise ValueError(f"embedding: must have {self.A.shape[1]} features, got {x.size}")
        row = self.rows.get(arm)
        outer = _outer(weight * x, x)
        b = (_none(x.size) if row is None else self.b[row]) + (weight * y) * x
        solved = None if self._inverse is None else self._stepped(self._inverse, row, x, b, weight)
        if row is None:
            row = self._append(arm, x.size)
        self.A[row] += outer
        self.b[row] = b
        self.n[row] += weight
        if solved is not None and self._inverse is not None:
            assert self._narrow is not None
            assert self._theta is not None
            inverse, theta = solved
            self._inverse[row], self._theta[row] = inverse, theta
            self._narrow.replace(row, inverse)

    def revise(self, arm: ArmId, x: Floats, change: float) -> None:
        """b ← b + change·x for one arm that observed x before: another y, the same A. O(d²)."""
        finite("reward", change)
        row = self.rows[arm]
        b = self.b[row] + change * x
        if self._theta is not None and self._inverse is not None:
            self._theta[row] = self._inverse[row] @ b
        self.b[row] = b

    def fade(self, arm: ArmId, keep: float) -> None:
        """A ← keep·A, b ← keep·b, n ← keep·n for one arm. O(d³) where the inverse is kept up."""
        within("keep", keep, 0.0, 1.0)
        row = self.rows.get(arm)
        if row is None:
            return
        A, b = keep * self.A[row], keep * self.b[row]
        if self._inverse is not None and self._theta is not None:
            assert self._narrow is not None
            inverse = np.linalg.inv(A + self._ridge * np.eye(b.size))
            self._inverse[row], self._theta[row] = inverse, inverse @ b
            self._narrow.replace(row, inverse)
        self.A[row], self.b[row] = A, b
        self.n[row] *= keep

    def estimate(self, arms: Sequence[ArmId], x: Floats, ridge: float) -> tuple[Floats, Floats]:
        """Mean xᵀθ and standard deviation √(xᵀ(A+λI)⁻¹x) for each arm, (K,) and (K,).

        An arm never seen has mean 0 and deviation ‖x‖/√λ. O(K·d²).
        """
        means = np.zeros(len(arms))
        variances = np.full(len(arms), float(x @ x) / ridge)
        rows = [self.rows.get(arm, -1) for arm in arms]
        seen = [i for i, row in enumerate(rows) if row >= 0]
        if not seen:
            return means, np.sqrt(variances)
        if x.size != self.A.shape[1]:
            raise ValueError(f"embedding: must have {self.A.shape[1]} features, got {x.size}")
        narrow, theta = self._solved(ridge)
        # Over all rows, also those not asked for, which is faster than picking some first.
        all_variances = narrow.of(x.astype(np.float32)).astype(np.float64)
        chosen = [rows[i] for i in seen]
        means[seen], variances[seen] = (theta @ x)[chosen], all_variances[chosen]
        return means, np.sqrt(np.maximum(variances, 0.0))

    def counts(self, arms: Sequence[ArmId]) -> Floats:
        """n of each arm, 0 for one never seen, (K,)."""
        rows = self.rows
        return np.array([self.n[rows[arm]] if arm in rows else 0.0 for arm in arms])

    def _stepped(
        self, inverses: Floats, row: int | None, x: Floats, b: Floats, weight: float
    ) -> tuple[Floats, Floats]:
        """One arm's inverse and θ after this observation, by Sherman-Morrison."""
        inverse = np.eye(x.size) / self._ridge if row is None else inverses[row]
        u = inverse @ x
        stepped = _outer(u * (weight / (1.0 + weight * float(x @ u))), u)
        np.subtract(inverse, stepped, out=stepped)
        return stepped, stepped @ b

    def _append(self, arm: ArmId, d: int) -> int:
        row = len(self.rows)
        if row == 0:
            self.A, self.b = _none(0, d, d), _none(0, d)
        self.A = np.concatenate([self.A, _none(1, d, d)])
        self.b = np.concatenate([self.b, _none(1, d)])
        self.n = np.concatenate([self.n, _none(1)])
        if self._inverse is not None and self._theta is not None:
            self._inverse = np.concatenate([self._inverse, np.eye(d)[None] / self._ridge])
            self._narrow = Quadratic(self._inverse)
            self._theta = np.concatenate([self._theta, _none(1, d)])
        self.rows[arm] = row
        return row

    def _solved(self, ridge: float) -> tuple[Quadratic, Floats]:
        narrow, theta = self._narrow, self._theta
        if narrow is None or theta is None or ridge != self._ridge:
            fresh: Floats = np.asarray(
                np.linalg.inv(self.A + ridge * np.eye(self.A.shape[1])), np.float64
            )
            solved: Floats = (fresh @ self.b[..., None])[..., 0]
            narrow, theta = Quadratic(fresh), solved
            self._inverse, self._narrow, self._theta, self._ridge = fresh, narrow, theta, ridge
        return narrow, theta
