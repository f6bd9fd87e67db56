"""What `log.embeddings` saves and costs: bytes of the log, CPU time, and what the policy earns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import policies
from bandit_service.core import events as ev
from bandit_service.core.apply import apply, uncollected
from bandit_service.core.decide import decide
from bandit_service.core.exploration import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.core.query import Query, Recalled
from bandit_service.core.vector_bytes import CODINGS, FLOAT32, halves, of_halves, rounded
from bandit_service.core.world import World, new_world
from bandit_service.data.recordings import SPECIALISTS, embed_all, open_recording
from bandit_service.embedding import open_backend
from bandit_service.offline.simulate import simulate
from bandit_service.settings import Settings
from loadtest.bench.fold import cpu_s
from loadtest.bench.world import NEIGHBOURS, Row, filled_world, specs, vectors
from policies import Vector

POLICY, PAST, PAIRS, ROUNDS = "nested", 2_000, 2_000, 5
RATE, ORDERS = 1_000, 20


def bench_embeddings(directory: Path) -> list[Row]:
    """A row for each coding."""
    bodies = {coding: _log(coding) for coding in CODINGS}
    times = _times(bodies)
    rewards = _rewards(directory)
    rows: list[Row] = []
    for coding, log in bodies.items():
        decisions, pair = sum(map(len, log[::2])) / PAIRS, sum(map(len, log)) / PAIRS
        first = rows[0]["bytes a pair"] if rows else pair
        apart = rewards[coding] - rewards[FLOAT32]
        error = float(apart.std(ddof=1)) / ORDERS**0.5
        rows.append(
            {
                "log.embeddings": coding + (" (baseline)" if coding == FLOAT32 else ""),
                "bytes a decision": round(decisions),
                "bytes a pair": round(pair),
                "share": pair / first,
                f"log MB/s at {RATE:,} pairs/s": RATE * pair / 1e6,
                **{f"CPU us a pair: {what}": us for what, us in times[coding].items()},
                f"reward of {SPECIALISTS}": float(rewards[coding].mean()),
                "against the baseline": ""
                if coding == FLOAT32
                else f"{apart.mean():+.2f} ± {error:.2f}",
            }
        )
    return rows


def _log(coding: str) -> list[bytes]:
    """Decisions and their rewards by turns, as a log of this coding has them."""
    world, index = filled_world(POLICY, PAST)
    rng, bodies = np.random.default_rng(4), list[bytes]()
    for i, vector in enumerate(vectors(PAIRS, seed=4)):
        query = Query(rounded(vector, coding), 25, 0.1, coding=coding)
        found = index.recall(query.embedding, NEIGHBOURS)
        near = tuple(found.similarities.tolist())
        if coding != FLOAT32:
            near = of_halves(halves(near))
        recalled = Recalled(tuple(found.ids.tolist()), near)
        decided = decide(world, query, recalled, f"0HZ6GKNG{i:05}", 1.7e9 + i, Exploration())
        rewarded = ev.Rewarded(
            ts=1.7e9 + i,
            decision_id=decided.id,
            quality=float(rng.random()),
            cost_usd=1e-3,
            reward=float(rng.random()),
        )
        bodies += [ev.encode(decided, coding), ev.encode(rewarded)]
    return bodies


@uncollected()
def _times(bodies: dict[str, list[bytes]]) -> dict[str, dict[str, float]]:
    """CPU us a pair, medians, the codings by turns."""
    ways: dict[tuple[str, str], Callable[[], Any]] = {}
    for coding, log in bodies.items():
        events = [ev.decode(body) for body in log]
        ways[coding, "written"] = partial(_written, events, coding)
        ways[coding, "read"] = partial(_read, log)
        ways[coding, "read and learned"] = partial(_learned, log)
    seconds: dict[tuple[str, str], list[float]] = {each: [] for each in ways}
    for _ in range(ROUNDS):
        for each, way in ways.items():
            seconds[each].append(cpu_s(way))
    return {
        coding: {
            what: statistics.median(seconds[coding, what]) / PAIRS * 1e6
            for what in ("written", "read", "read and learned")
        }
        for coding in bodies
    }


def _written(events: Sequence[ev.AnyEvent], coding: str) -> None:
    for event in events:
        ev.encode(event, coding)


def _read(log: Sequence[bytes]) -> None:
    for body in log:
        ev.decode(body)


def _learned(log: Sequence[bytes]) -> World:
    world = new_world({POLICY: policies.load(POLICY)}, POLICY, PAIRS)
    for spec in specs():
        apply(world, ev.ArmAdded(ts=0.0, arm=spec, source="config"))
    with world.in_blocks():
        for body in log:
            apply(world, ev.decode(body))
            world.history.take_changes()
    return world


def _rewards(directory: Path) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """(ORDERS,) what the policy earned in each order of the recording."""
    recorded, chosen = open_recording(SPECIALISTS), Settings().embedding
    backend = open_backend(chosen.backend, chosen.model, Path("var/models"))
    embeddings = embed_all(recorded.texts, backend, chosen.model, directory)
    return {coding: _earned(recorded, embeddings, coding) for coding in CODINGS}


def _earned(recorded: Any, embeddings: Vector, coding: str) -> Any:
    near = np.array([rounded(row, coding) for row in embeddings])
    return np.array(
        [
            simulate(
                recorded,
                near,
                policies.load(POLICY),
                seed=seed,
                explore=Exploration(),
                rule=RewardRule(),
            ).track.reward.sum()
            for seed in range(ORDERS)
        ]
    )
