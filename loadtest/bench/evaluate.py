"""One pass of each policy over 10,000 queries and 11 arms, embeddings at hand: time and memory."""

from __future__ import annotations

import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import policies
from bandit_service.core.events import ArmSpec
from bandit_service.core.exploration import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.data.recordings import Recorded
from bandit_service.offline.simulate import simulate
from policies import ArmId, Floats, Vector

QUERIES, ARMS, DIM = 10_000, 11, 384


def bench_evaluate() -> list[dict[str, Any]]:
    """A row per policy, `uniform` first: it is what the stream costs without learning."""
    names = ["uniform", *(name for name in policies.names() if name not in ("uniform", "fixed"))]
    rows: list[dict[str, Any]] = []
    context = multiprocessing.get_context("spawn")
    for name in names:
        # A process of its own for each, since the peak of memory never falls again.
        with ProcessPoolExecutor(1, context) as pool:
            seconds, megabytes = pool.submit(_pass, name).result()
        first = rows[0]["s"] if rows else seconds
        rows.append(
            {
                "policy": name,
                "s": seconds,
                "x uniform": seconds / first,
                "us per query": 1e6 * seconds / QUERIES,
                "peak MB": megabytes,
            }
        )
    return rows


def _pass(name: str) -> tuple[float, float]:
    recorded, embeddings = _traffic()
    policy = policies.load(name)
    began = time.perf_counter()
    simulate(recorded, embeddings, policy, seed=0, explore=Exploration(), rule=RewardRule())
    seconds = time.perf_counter() - began
    return seconds, _peak_mb()


def _peak_mb() -> float:
    """The peak of this process; getrusage would tell its parent's where that was higher."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def _traffic() -> tuple[Recorded, Vector]:
    """Twenty topics; every arm is good at some of them."""
    rng = np.random.default_rng(0)
    topic = rng.integers(0, 20, QUERIES)
    vectors = rng.normal(size=(20, DIM))[topic] + rng.normal(size=(QUERIES, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    chance: Floats = rng.uniform(0.2, 0.9, (20, ARMS))[topic]
    price = np.geomspace(0.05, 5.0, ARMS)
    recorded = Recorded(
        name="bench",
        arms=tuple(
            ArmSpec(id=ArmId(f"arm{k:02}"), usd_per_mtok_in=float(usd), usd_per_mtok_out=float(usd))
            for k, usd in enumerate(price)
        ),
        ids=tuple(f"q{i}" for i in range(QUERIES)),
        texts=("",) * QUERIES,
        quality=(rng.uniform(size=chance.shape) < chance).astype(np.float64),
        cost=np.tile(price * 400e-6, (QUERIES, 1)),
        tokens=np.full(QUERIES, 100, np.int64),
        tasks=("",) * QUERIES,
    )
    return recorded, vectors.astype(np.float32)
