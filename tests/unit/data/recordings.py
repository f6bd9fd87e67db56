"""Small recordings, written to disk or planted in memory."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bandit_service.core.events import ArmSpec
from bandit_service.data.recordings import Recorded
from policies import (
    ArmId,
    Arms,
    Compared,
    Context,
    Floats,
    Proposal,
    Rewarded,
    Vector,
)

META = {
    "models": ["b", "a"],
    "usd_per_million_tokens": {"a": {"input": 1, "output": 2}, "b": {"input": 3, "output": 4.5}},
}


def a_row(i: int, **changed: Any) -> dict[str, Any]:
    """A good row of the two models b and a."""
    row = {"query_id": f"q{i}", "text": f"question {i}", "quality": [1, 0.25], "cost": [0.002, 0]}
    return {**row, **changed}


def write(path: Path, rows: Sequence[Any], meta: Mapping[str, Any] | None = META) -> Path:
    """The rows as lines, those that are strings as they are, with the meta file beside them."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    body = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(body) if path.suffix == ".gz" else body)
    if meta is not None:
        name = path.name.removesuffix(".gz").removesuffix(".jsonl")
        path.with_name(f"{name}.meta.json").write_text(json.dumps(meta))
    return path


def recording(quality: Sequence[Sequence[float]], cost: Sequence[Sequence[float]]) -> Recorded:
    """A recording of arms arm0, arm1, … with these tables."""
    n, k = len(quality), len(quality[0])
    return Recorded(
        name="made",
        arms=tuple(
            ArmSpec(id=ArmId(f"arm{i}"), usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
            for i in range(k)
        ),
        ids=tuple(f"q{i}" for i in range(n)),
        texts=tuple(f"question {i}" for i in range(n)),
        quality=np.array(quality, float),
        cost=np.array(cost, float),
        tokens=np.full(n, 10, np.int64),
        tasks=("",) * n,
    )


def planted(n: int) -> tuple[Recorded, Vector]:
    """Two topics, far apart; arm0 is right on one of them, arm1 on the other, arm2 on neither."""
    rng = np.random.default_rng(3)
    topic = rng.integers(0, 2, n)
    vectors = np.eye(8)[topic] + 0.15 * rng.normal(size=(n, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    right: Floats = np.array([[0.9, 0.2, 0.1], [0.2, 0.9, 0.1]])
    quality = np.clip(right[topic] + 0.05 * rng.normal(size=(n, 3)), 0.0, 1.0)
    return recording(quality.tolist(), np.full((n, 3), 1e-5).tolist()), vectors.astype(np.float32)


class Looks:
    """Uniform, but keeps the surface, and the embedding's first number, of all it is shown."""

    def __init__(self) -> None:
        self.proposed: list[tuple[bytes, float]] = []
        self.learned: list[tuple[bytes, float]] = []

    def init(self) -> None:
        """Nothing."""

    def propose(self, _state: None, context: Context, arms: Arms, /) -> Proposal:
        """1/K each."""
        self.proposed.append((context.surface.tobytes(), float(context.embedding[0])))
        return Proposal(np.zeros(len(arms)), np.full(len(arms), 1.0 / len(arms)))

    def learn(self, _state: None, event: Rewarded | Compared, /) -> None:
        """Nothing."""
        context = event.context
        self.learned.append((context.surface.tobytes(), float(context.embedding[0])))
