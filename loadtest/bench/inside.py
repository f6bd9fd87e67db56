"""Inside the process: a decision, a recall, a text, a reward, a remembered query's memory."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from tqdm import tqdm

import policies
from bandit_service import settings, wire
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.decide import decide
from bandit_service.core.exploration import Exploration
from bandit_service.core.history import History
from bandit_service.core.query import Query, Recalled
from bandit_service.embedding import EmbeddingStage, open_backend
from loadtest.bench.world import (
    DIM,
    NEIGHBOURS,
    PAST,
    NoModel,
    Row,
    filled_world,
    in_ms,
    percentiles,
    quiet_gc,
    routing,
    seconds_of,
    vectors,
)
from policies import ArmId, Outcome
from store import EventLog, Record
from store._heap import give_back
from store.history import HybridIndex
from store.memory import MemoryLog
from store.sqlite import SqliteLog


def bench_decide(directory: Path) -> list[Row]:
    """Inside decide, with a client's embedding: each stage, and the whole, for every policy."""
    rows = []
    asked = vectors(2000, seed=2)
    for name in tqdm(policies.names(), desc="decide", disable=None, leave=False):
        world, index = filled_world(name, PAST)
        path = directory / f"decide-{name}.sqlite3"
        log = SqliteLog(path)
        explore = Exploration()
        stages: dict[str, list[float]] = {s: [] for s in ("recall", "propose", "append", "whole")}
        with quiet_gc():
            for i in range(1100):
                query = Query(asked[i], 25, 0.1)
                t0 = time.perf_counter()
                found = index.recall(query.embedding, NEIGHBOURS)
                recalled = Recalled(tuple(found.ids.tolist()), tuple(found.similarities.tolist()))
                t1 = time.perf_counter()
                event = decide(world, query, recalled, f"{name}-{i}", 0.0, explore)
                t2 = time.perf_counter()
                log.append([Record(event.id, "decided", 0.0, ev.encode(event))])
                world = apply(world, event)
                t3 = time.perf_counter()
                if i >= 100:
                    for stage, seconds in zip(
                        stages, (t1 - t0, t2 - t1, t3 - t2, t3 - t0), strict=True
                    ):
                        stages[stage].append(seconds)
        log.close()
        row: Row = {"policy": name}
        for stage, taken in stages.items():
            row |= {f"{stage} {k} us": v for k, v in percentiles(taken).items()}
        rows.append(row)
    baseline = next(row for row in rows if row["policy"] == "uniform")["whole p50 us"]
    for row in rows:
        row["x uniform"] = row["whole p50 us"] / baseline
    return rows


_AT_ONCE, _TURNS = 16, 40
"""So many rewards are sent together, so often."""
WORDS = (
    "explain how a steam engine turns heat into motion and why its efficiency is bounded by the "
    "temperature of the boiler number"
)


@dataclass
class _Took:
    """Seconds of each call, on the wall and of all threads on the processor."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @contextmanager
    def one(self) -> Iterator[None]:
        """What is done within is one call."""
        begun, used = time.perf_counter(), time.process_time()
        yield
        self.wall.append(time.perf_counter() - begun)
        self.cpu.append(time.process_time() - used)

    def row(self, what: str, over: _Took) -> Row:
        """After a warm-up, beside another."""
        wall_ms, cpu_ms = (np.median(each[50:]) * 1e3 for each in (self.wall, self.cpu))
        over_ms, over_cpu_ms = (np.median(each[50:]) * 1e3 for each in (over.wall, over.cpu))
        return {
            "what": what,
            **in_ms(self.wall[50:]),
            "added at p50 ms": float(wall_ms - over_ms),
            "CPU p50 ms": float(cpu_ms),
            "added CPU ms": float(cpu_ms - over_cpu_ms),
        }


async def bench_query(directory: Path, past: int = PAST) -> list[Row]:
    """Deciding on a text of 20 words at concurrency 1, beside the bare embedding call."""
    chosen = settings.Settings()
    backend = open_backend("onnx", chosen.embedding.model, Path("var/models"), 1)
    world, index = filled_world(chosen.policy.name, past)
    log = SqliteLog(directory / "query.sqlite3")
    embedder = EmbeddingStage(backend, cache_size=0)
    bare, embedded, whole = _Took(), _Took(), _Took()
    texts = [f"{' '.join(WORDS.split()[:19])} {i}" for i in range(400)]
    async with routing(world, index, log, embedder) as router:
        with quiet_gc():
            for i, text in enumerate(tqdm(texts, desc="query", disable=None, leave=False)):
                for way in range(i, i + 3):  # by turns, each first as often
                    if way % 3 == 0:
                        with bare.one():
                            backend.encode([text])
                    elif way % 3 == 1:
                        with embedded.one():
                            await embedder.embed_one(text)
                    else:
                        with whole.one():
                            await router.decide(wire.DecideRequest(query=text))
    await embedder.close()
    log.close()
    return [
        bare.row("bare embedding call (baseline)", bare),
        embedded.row("the same on its thread", bare),
        whole.row("decide on the same text", bare),
    ]


async def bench_learn(directory: Path) -> list[Row]:
    """From a reward received to applied and durable, and the update alone as the past grows.

    CPU is that of the loop's thread; an fsync is waited for on another.
    """
    rows: list[Row] = []
    policy = settings.Settings().policy.name
    for past in tqdm((1000, 10_000, 100_000), desc="learn", disable=None, leave=False):
        world, index = filled_world(policy, past, capacity=past + 1000)
        asked = vectors(500, seed=7)
        log: EventLog = SqliteLog(directory / f"learn-{past}.sqlite3")
        embedder = EmbeddingStage(NoModel())
        acknowledged, applied, used, used_each = [], [], [], []
        async with routing(world, index, log, embedder) as router:
            with quiet_gc():
                for vector in asked:
                    ask = wire.DecideRequest(embedding=ev.pack(vector))
                    decided = await router.decide(ask)
                    request = wire.RewardRequest(decision_id=decided.id, quality=0.5, cost_usd=1e-3)
                    begun, before = time.perf_counter(), time.thread_time()
                    await router.reward(request)
                    used.append(time.thread_time() - before)
                    acknowledged.append(time.perf_counter() - begun)
                for _ in range(_TURNS):
                    asks = [wire.DecideRequest(embedding=ev.pack(one)) for one in asked[:_AT_ONCE]]
                    made = [await router.decide(one) for one in asks]
                    told = [
                        wire.RewardRequest(decision_id=one.id, quality=0.5, cost_usd=1e-3)
                        for one in made
                    ]
                    before = time.thread_time()
                    await asyncio.gather(*map(router.reward, told))
                    used_each.append((time.thread_time() - before) / _AT_ONCE)
        log.close()
        log = MemoryLog()
        async with routing(world, index, log, embedder) as router:
            for i, vector in enumerate(vectors(300, seed=8)):
                subject = ev.Subject(embedding=ev.pack(vector), tokens=25, willingness_to_pay=0.1)
                event = ev.Rewarded(
                    ts=0.0,
                    subject=subject,
                    arm=ArmId("arm-03"),
                    quality=0.5,
                    cost_usd=1e-3,
                    reward=0.5,
                    idempotency_key=f"{i}",
                )
                applied.append(seconds_of(partial(router.writer.apply, event)))
        await embedder.close()
        rows.append(
            {
                "past queries": past,
                "reward to applied p50 us": percentiles(applied)["p50"],
                "reward to durable p50 us": percentiles(acknowledged)["p50"],
                "reward to durable p99 us": percentiles(acknowledged)["p99"],
                "to durable, CPU p50 us": percentiles(used)["p50"],
                "16 at a time, CPU p50 us": percentiles(used_each)["p50"],
            }
        )
    for row in rows:
        row["x at 1,000"] = row["reward to applied p50 us"] / rows[0]["reward to applied p50 us"]
    return rows


def bench_memory(_: Path) -> list[Row]:
    """Resident memory for each remembered query, beside the bytes of its vector."""
    vector = 4 * DIM
    rows: list[Row] = [{"what": "one vector (baseline)", "bytes": vector}]
    _memory_of(1000)  # what is loaded with the first one belongs to none
    for n in (20_000, 50_000, 100_000):
        folded, whole = _memory_of(n)
        rows.append({"what": f"{n:,} in the fold", "bytes": folded / n})
        rows.append({"what": f"{n:,} with the index", "bytes": whole / n})
    for row in rows:
        row["x vector"] = row["bytes"] / vector
    return rows


def _memory_of(n: int) -> tuple[int, int]:
    """Bytes that so many remembered queries make a process larger, and the same with the index."""
    some, process = vectors(n), psutil.Process()
    gc.collect()
    give_back()
    before = process.memory_info().rss
    history = History(n)
    for i in range(n):
        history.number(i + 1)
        history.remember(some[i], Outcome(ArmId("arm-00"), 0.5, float(i % 7)), "", (i + 1, ""))
        history.take_changes()  # as after each event
    give_back()
    folded = process.memory_info().rss - before
    index = HybridIndex(DIM, n, rows=history)
    ids, stored = history.vectors()
    index.load(ids, stored)
    del ids, stored
    gc.collect()
    whole = process.memory_info().rss - before
    index.close()
    return folded, whole
