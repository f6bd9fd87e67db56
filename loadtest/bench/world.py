"""What is measured: a service that has a past, and how times are told."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import numpy as np

import policies
from bandit_service.core import events as ev
from bandit_service.core.apply import apply, skip
from bandit_service.core.world import World, new_world
from bandit_service.embedding import EmbeddingStage
from bandit_service.runtime.router import Router
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.runtime.writer import Writer
from bandit_service.settings import HistorySettings, Settings
from bandit_service.telemetry.telemetry import Telemetry
from policies import ArmId, Outcome, Vector
from store import EventLog
from store.history import HybridIndex

DIM, ARMS, PAST, NEIGHBOURS = 384, 11, 10_000, 20

Row = dict[str, Any]


def vectors(n: int, seed: int = 0, dim: int = DIM) -> Vector:
    """Unit vectors in a hundred clusters with 24 directions in each, about as real texts lie."""
    fixed = np.random.default_rng(0)
    centres, plane = fixed.normal(size=(100, dim)), fixed.normal(size=(24, dim))
    rng = np.random.default_rng(seed + 1)
    raw = centres[rng.integers(100, size=n)] + 0.3 * rng.normal(size=(n, 24)) @ plane
    unit: Vector = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
    return unit


def specs(n: int = ARMS) -> list[ev.ArmSpec]:
    """A pool whose prices span two orders of magnitude."""
    step = (ARMS - 1) / max(n - 1, 1)
    return [
        ev.ArmSpec(
            id=ArmId(f"arm-{i:02d}"),
            usd_per_mtok_in=0.1 * 1.5 ** (i * step),
            usd_per_mtok_out=0.3 * 1.5 ** (i * step),
        )
        for i in range(n)
    ]


def percentiles(seconds: Sequence[float], unit: float = 1e6) -> Row:
    """Median and 99th percentile, in 1/unit seconds."""
    p50, p99 = np.percentile(np.asarray(seconds) * unit, [50, 99])
    return {"p50": float(p50), "p99": float(p99)}


def in_ms(seconds: Sequence[float]) -> Row:
    """Median and 99th percentile in milliseconds, named so."""
    return {f"{k} ms": v for k, v in percentiles(seconds, 1e3).items()}


def timed(repeat: int, call: Callable[[int], Any]) -> list[float]:
    """Seconds of each of `repeat` calls, after a tenth of them to warm up."""
    for i in range(repeat // 10):
        call(i)
    seconds = []
    for i in range(repeat):
        begun = time.perf_counter()
        call(i)
        seconds.append(time.perf_counter() - begun)
    return seconds


def seconds_of(call: Callable[[], Any]) -> float:
    """How long one call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def filled_world(
    name: str, past: int, capacity: int | None = None, *, arms: int = ARMS, dim: int = DIM
) -> tuple[World, HybridIndex]:
    """A world in which `past` queries were decided and rewarded, and its index, built."""
    world = new_world({name: policies.load(name)}, name, capacity or max(past, 1))
    pool = specs(arms)
    for spec in pool:
        apply(world, ev.ArmAdded(ts=0.0, arm=spec, source="config"))
    some = vectors(past, dim=dim)
    rng = np.random.default_rng(1)
    learned = min(past, 2000)
    for i in range(past):
        arm = pool[int(rng.integers(arms))].id if i < learned else ArmId("arm-00")
        if i < learned:
            subject = ev.Subject(embedding=ev.pack(some[i]), tokens=25, willingness_to_pay=0.1)
            quality = float(rng.random())
            apply(
                world,
                ev.Rewarded(
                    ts=0.0,
                    subject=subject,
                    arm=arm,
                    quality=quality,
                    cost_usd=0.001,
                    reward=quality - 0.01,
                ),
            )
        else:  # what is remembered beyond that needs no further learning to be looked up
            skip(world)  # an event each, so that none of the numbers comes again
            world.history.remember(some[i], Outcome(arm, 0.5, 0.5))
    index = HybridIndex(dim, world.history.capacity, rows=world.history)
    ids, stored = world.history.vectors()
    world.history.take_changes()
    index.load(ids, stored)
    return world, index


@contextlib.contextmanager
def quiet_gc() -> Iterator[None]:
    """Collect before, as the service does at start: what is loaded then is never garbage."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.asynccontextmanager
async def routing(
    world: World, index: HybridIndex, log: EventLog, embedder: EmbeddingStage
) -> AsyncIterator[Router]:
    """A router around a world."""
    telemetry = Telemetry(lambda: len(world.pending.decisions), lambda: len(world.history.items))
    writer = Writer(world, log, telemetry, sync_interval_s=0.5, max_backlog=10_000)
    writer.listen(telemetry.heard)
    router = Router(
        writer=writer,
        index=index,
        embedder=embedder,
        telemetry=telemetry,
        rules=RouterRules.of(Settings(history=HistorySettings(neighbours=NEIGHBOURS))),
    )
    await router.start()
    try:
        yield router
    finally:
        await router.close()


class NoModel:
    """Stands where no text is embedded."""

    name, dim = "none", DIM

    def encode(self, texts: Sequence[str]) -> Any:
        """Refuse."""
        raise AssertionError(f"{len(texts)} texts were to be embedded")
