"""Small labelled data, planted so that what is to be learned is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bandit_service.lab.data import Labelled
from policies import Floats
from tests.unit.data.recordings import recording


def labelled(
    quality: Sequence[Sequence[float]] | Floats,
    cost: Sequence[Sequence[float]] | Floats,
    vectors: Sequence[Sequence[float]] | Floats,
    tasks: Sequence[str] = (),
) -> Labelled:
    """Queries q0, q1, … of arms arm0, arm1, … with these tables; vectors are brought to norm 1."""
    made = recording(np.asarray(quality).tolist(), np.asarray(cost).tolist())
    if tasks:
        made = replace(made, tasks=tuple(tasks))
    x = np.array(vectors, float)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return Labelled(made, x.astype(np.float32))


def topics(n: int, *, arms: int = 3, missing: float = 0.0, seed: int = 5) -> Labelled:
    """Two topics, far apart: arm0 is right on one and cheap, arm1 on the other and dear, arm2 on
    neither. Qualities are 0 or 1, right 9 times of 10; `missing` of the answers are absent.
    """
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, 2, n)
    vectors = np.eye(6)[topic] + 0.15 * rng.normal(size=(n, 6))
    chance = np.array([[0.9, 0.3, 0.1], [0.1, 0.9, 0.1]])[topic][:, :arms]
    quality = (rng.random((n, arms)) < chance).astype(float)
    cost = np.array([1e-5, 4e-5, 2e-5])[:arms] * (1.0 + 0.1 * rng.random((n, arms)))
    gone = rng.random((n, arms)) < missing
    gone[:, 0] &= ~gone.all(axis=1)
    quality[gone] = cost[gone] = np.nan
    return labelled(quality, cost, vectors, [f"topic {t}" for t in topic])
