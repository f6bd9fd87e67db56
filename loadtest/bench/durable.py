"""Rewards acknowledged as durable: one fsync for all under way, one for each, and none.

Through the router and its SQLite log, without HTTP, whose cost would hide the log's. Nothing is
acknowledged before the fsync that covers it, but in the row without one.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import policies
from bandit_service import wire
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.world import new_world
from bandit_service.embedding import EmbeddingStage
from bandit_service.runtime.group_commit import GroupCommit
from bandit_service.runtime.router import Router
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.runtime.writer import Writer
from bandit_service.settings import Settings
from bandit_service.telemetry.telemetry import Telemetry
from policies import ArmId
from store import Offset
from store.history import HybridIndex
from store.sqlite import SqliteLog

DIM, CONNECTIONS, REPEATS = 384, (1, 16, 64, 256), 5
EACH, EACH_ALONE = 2000, 500


class OneFsyncAtATime(GroupCommit):
    """Outcomes are made durable one after another."""

    async def sync(self) -> None:
        """As many fsyncs as outcomes wait."""
        if not self.waiting:
            await super().sync()
            return
        pending = deque(self.waiting)
        while pending:
            self.waiting = [pending.popleft()]
            await super().sync()
            pending.extend(self.waiting)  # what came meanwhile
            self.waiting = []


class OneFsyncEach(Writer):
    """A writer that shares no fsync."""

    group_commit = OneFsyncAtATime


class NoFsync(SqliteLog):
    """A log that says of everything in the kernel's hands that it is durable."""

    def sync(self) -> Offset:
        """Do nothing."""
        return self.last


KINDS: dict[str, tuple[type[SqliteLog], type[Writer]]] = {
    "no fsync": (NoFsync, Writer),
    "an fsync for each": (SqliteLog, OneFsyncEach),
    "group commit": (SqliteLog, Writer),
}


class _NoModel:
    name, dim = "none", DIM

    def encode(self, texts: Any) -> Any:
        """Refuse."""
        raise AssertionError(f"{len(texts)} texts were to be embedded")


async def bench_durable(_: Path) -> list[dict[str, Any]]:
    """Each kind at each number of connections, by turns; medians over the turns."""
    turns: dict[tuple[int, str], list[tuple[float, list[float]]]] = {}
    cells = [(n, kind) for _ in range(REPEATS) for n in CONNECTIONS for kind in KINDS]
    # beside the service's own data: what a temporary directory is on may be memory
    with tempfile.TemporaryDirectory(dir="var") as directory:
        for i, (connections, kind) in enumerate(
            tqdm(cells, desc="durable", disable=None, leave=False)
        ):
            path = Path(directory) / f"{i}.sqlite3"
            turns.setdefault((connections, kind), []).append(await _turn(path, connections, kind))
    rows = []
    for connections in CONNECTIONS:
        alone = _rate(turns[connections, "an fsync for each"])
        for kind in KINDS:
            found = turns[connections, kind]
            p50, p99 = np.percentile([each for _, taken in found for each in taken], [50, 99])
            rows.append(
                {
                    "connections": connections,
                    "what": kind,
                    "rewards per second": _rate(found),
                    "p50 ms": float(p50) * 1e3,
                    "p99 ms": float(p99) * 1e3,
                    "x an fsync for each": _rate(found) / alone,
                }
            )
    return rows


def _rate(turns: list[tuple[float, list[float]]]) -> float:
    return float(np.median([rate for rate, _ in turns]))


async def _turn(path: Path, connections: int, kind: str) -> tuple[float, list[float]]:
    """Acknowledged rewards per second, and the seconds that each took."""
    world = new_world({"uniform": policies.load("uniform")}, "uniform", 100)
    for i in range(3):
        arm = ev.ArmSpec(id=ArmId(f"arm-{i}"), usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
        apply(world, ev.ArmAdded(ts=0.0, arm=arm, source="config"))
    log_kind, writer_kind = KINDS[kind]
    log, index = log_kind(path), HybridIndex(DIM, 100)
    telemetry = Telemetry(lambda: len(world.pending.decisions), lambda: len(world.history.items))
    writer = writer_kind(world, log, telemetry, sync_interval_s=0.5, max_backlog=1)
    writer.listen(telemetry.heard)
    embedder = EmbeddingStage(_NoModel())
    rules = RouterRules.of(Settings())
    router = Router(writer=writer, index=index, embedder=embedder, telemetry=telemetry, rules=rules)
    await router.start()
    try:
        vector = np.random.default_rng(0).normal(size=DIM).astype(np.float32)
        ask = wire.DecideRequest(embedding=ev.pack(vector / np.linalg.norm(vector)))
        ids = [
            (await router.decide(ask)).id for _ in range(EACH if connections > 1 else EACH_ALONE)
        ]
        return await _rewarded(router, ids, connections)
    finally:
        await router.close()
        await embedder.close()
        index.close()
        log.close()


async def _rewarded(router: Router, ids: list[str], connections: int) -> tuple[float, list[float]]:
    """Every connection sends its next reward when the last one is acknowledged."""
    left, taken = iter(ids), []

    async def connection() -> None:
        for id in left:
            begun = time.perf_counter()
            status = await router.reward(
                wire.RewardRequest(decision_id=id, quality=0.5, cost_usd=1e-3)
            )
            assert status == "accepted", status
            taken.append(time.perf_counter() - begun)

    gc.collect()
    begun = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(connections)))
    return len(ids) / (time.perf_counter() - begun), taken
