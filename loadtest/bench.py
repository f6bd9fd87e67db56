"""Speed and memory, each figure beside its baseline from the same run.

    python -m loadtest.bench [--only decide|experiments|recall|query|http|learn|memory|start|
                              snapshot|gateway|durable|metrics|evaluate]

Figures are medians and 99th percentiles of many repetitions; machines differ, so compare the
ratios. What each section measures is said in docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import psutil
from aiohttp import web
from tqdm import tqdm

import policies
from bandit_service import app, settings, wire
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.decide import Exploration, Query, Recalled, decide
from bandit_service.core.history import History
from bandit_service.core.outcomes import RewardRule
from bandit_service.core.world import World, new_world
from bandit_service.embedding import EmbeddingStage, open_backend
from bandit_service.monitoring.telemetry import Telemetry
from bandit_service.router import Router, RouterRules
from bandit_service.writer import Writer
from loadtest.bench_durable import bench_durable
from loadtest.bench_evaluate import bench_evaluate
from loadtest.bench_experiments import bench_experiments
from loadtest.bench_gateway import bench_gateway
from loadtest.bench_keeping import bench_snapshot
from loadtest.bench_metrics import bench_metrics
from loadtest.bench_results import bench_results
from policies import ArmId, Outcome, Vector
from store import EventLog, Record
from store.history import ExactIndex, HnswIndex, HybridIndex
from store.memory import MemoryLog
from store.sqlite import SqliteLog

DIM, ARMS, PAST, NEIGHBOURS = 384, 11, 10_000, 20
Row = dict[str, Any]


def vectors(n: int, seed: int = 0) -> Vector:
    """Unit vectors in a hundred clusters with 24 directions in each, about as real texts lie."""
    fixed = np.random.default_rng(0)
    centres, plane = fixed.normal(size=(100, DIM)), fixed.normal(size=(24, DIM))
    rng = np.random.default_rng(seed + 1)
    raw = centres[rng.integers(100, size=n)] + 0.3 * rng.normal(size=(n, 24)) @ plane
    unit: Vector = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
    return unit


def specs(n: int = ARMS) -> list[ev.ArmSpec]:
    """A pool whose prices span two orders of magnitude."""
    return [
        ev.ArmSpec(
            id=ArmId(f"arm-{i:02d}"),
            usd_per_mtok_in=0.1 * 1.5**i,
            usd_per_mtok_out=0.3 * 1.5**i,
        )
        for i in range(n)
    ]


def percentiles(seconds: Sequence[float], unit: float = 1e6) -> Row:
    """Median and 99th percentile, in 1/unit seconds."""
    p50, p99 = np.percentile(np.asarray(seconds) * unit, [50, 99])
    return {"p50": float(p50), "p99": float(p99)}


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


def filled_world(name: str, past: int, capacity: int | None = None) -> tuple[World, HybridIndex]:
    """A world in which `past` queries were decided and rewarded, and its index, built."""
    world = new_world({name: policies.load(name)}, name, capacity or max(past, 1))
    for spec in specs():
        apply(world, ev.ArmAdded(ts=0.0, arm=spec, source="config"))
    some = vectors(past)
    rng = np.random.default_rng(1)
    learned = min(past, 2000)
    for i in range(past):
        arm = specs()[int(rng.integers(ARMS))].id if i < learned else ArmId("arm-00")
        if i < learned:
            subject = ev.Subject(embedding=ev.pack(some[i]), tokens=25, willingness_to_pay=0.1)
            quality = float(rng.random())
            apply(world, ev.Rewarded(ts=0.0, subject=subject, arm=arm, quality=quality,
                                     cost_usd=0.001, reward=quality - 0.01))  # fmt: skip
        else:  # what is remembered beyond that needs no further learning to be looked up
            world.history.remember(some[i], Outcome(arm, 0.5, 0.5))
    index = HybridIndex(DIM, world.history.capacity)
    ids, stored = world.history.vectors()
    world.history.take_changes()
    index.load(np.array(ids, np.int64), stored)
    index.wait()
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
    telemetry = Telemetry(lambda: len(world.pending), lambda: len(world.history.items))
    router = Router(
        writer=Writer(world, log, index, telemetry, sync_interval_s=0.5, max_backlog=10_000),
        embedder=embedder,
        telemetry=telemetry,
        rules=RouterRules(Exploration(), RewardRule(), neighbours=NEIGHBOURS),
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


# --- sections -----------------------------------------------------------------------------------


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
                    for stage, seconds in zip(stages, (t1 - t0, t2 - t1, t3 - t2, t3 - t0),
                                              strict=True):  # fmt: skip
                        stages[stage].append(seconds)
        log.close()
        row: Row = {"policy": name}
        for stage, seconds_of in stages.items():
            row |= {f"{stage} {k} us": v for k, v in percentiles(seconds_of).items()}
        rows.append(row)
    baseline = next(row for row in rows if row["policy"] == "uniform")["whole p50 us"]
    for row in rows:
        row["x uniform"] = row["whole p50 us"] / baseline
    return rows


def bench_recall(_: Path) -> list[Row]:
    """Recalling 20 neighbours and remembering one: exact and graph, and how often they agree."""
    rows = []
    for n in (1000, 2000, 10_000, 50_000):
        stored, asked = vectors(n), vectors(300, seed=3)
        exact, graph = ExactIndex(DIM), HnswIndex(DIM, n + 300)
        exact.load(np.arange(n), stored)
        begun = time.perf_counter()
        graph.load(np.arange(n), stored)
        built = time.perf_counter() - begun
        exactly = timed(300, partial(_recall, exact, asked))
        about = timed(300, partial(_recall, graph, asked))
        same = [
            len(np.intersect1d(exact.recall(v, NEIGHBOURS).ids, graph.recall(v, NEIGHBOURS).ids))
            for v in asked
        ]
        added = [_seconds(partial(graph.add, n + i, v)) for i, v in enumerate(asked)]
        rows.append(
            {
                "past queries": n,
                "exact p50 us": percentiles(exactly)["p50"],
                "graph p50 us": percentiles(about)["p50"],
                "x exact": float(np.median(about) / np.median(exactly)),
                "recall@20": float(np.mean(same)) / NEIGHBOURS,
                "graph add p50 us": percentiles(added)["p50"],
                "graph build s": built,
            }
        )
    return rows


def _recall(index: ExactIndex | HnswIndex, asked: Vector, i: int) -> Any:
    return index.recall(asked[i], NEIGHBOURS)


def _seconds(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


WORDS = (
    "explain how a steam engine turns heat into motion and why its efficiency is bounded by the "
    "temperature of the boiler number"
)


async def bench_query(directory: Path) -> list[Row]:
    """Deciding on a text of 20 words at concurrency 1, beside the bare embedding call."""
    chosen = settings.Settings()
    backend = open_backend("onnx", chosen.embedding.model, Path("var/models"), 1)
    world, index = filled_world("metallm", PAST)
    log = SqliteLog(directory / "query.sqlite3")
    embedder = EmbeddingStage(backend, cache_size=0)
    bare: list[float] = []
    whole: list[float] = []
    texts = [f"{' '.join(WORDS.split()[:19])} {i}" for i in range(400)]
    async with routing(world, index, log, embedder) as router:
        with quiet_gc():
            for i, text in enumerate(tqdm(texts, desc="query", disable=None, leave=False)):
                bare_first = i % 2 == 0
                if bare_first:
                    bare.append(_seconds(partial(backend.encode, [text])))
                begun = time.perf_counter()
                await router.decide(wire.DecideRequest(query=text))
                whole.append(time.perf_counter() - begun)
                if not bare_first:
                    bare.append(_seconds(partial(backend.encode, [text])))
    await embedder.close()
    log.close()
    added = float(np.median(whole[50:]) - np.median(bare[50:])) * 1e3
    return [
        {"what": "bare embedding call (baseline)", **_ms(bare[50:]), "added at p50 ms": 0.0},
        {"what": "decide on the same text", **_ms(whole[50:]), "added at p50 ms": added},
    ]


def _ms(seconds: Sequence[float]) -> Row:
    return {f"{k} ms": v for k, v in percentiles(seconds, 1e3).items()}


async def bench_http(directory: Path, seconds: float = 6.0) -> list[Row]:
    """Decides per second at concurrency 32, beside a bare aiohttp echo of the same payload."""
    some = [ev.pack(v) for v in vectors(512, seed=5)]
    packed = [msgspec.json.encode({"embedding": v}) for v in some]
    frames = [msgspec.msgpack.encode({"op": "decide", "id": i, "embedding": v})
              for i, v in enumerate(some)]  # fmt: skip
    rows: list[Row] = []
    async with _in_process(directory) as url:
        echo, service = url["echo"], url["service"]
        rows.append(await _post_load("HTTP echo (baseline)", echo + "/echo", packed, seconds))
        rows.append(await _post_load("HTTP decide", service + "/v1/decide", packed, seconds))
        for what, at in (("stream echo (baseline)", echo + "/echo-stream"),
                         ("stream decide", service + "/v1/stream")):  # fmt: skip
            rows.append(await _stream_load(what, at, frames, seconds))
    for baseline, row in ((rows[0], rows[1]), (rows[2], rows[3])):
        baseline["x echo"], row["x echo"] = 1.0, row["per second"] / baseline["per second"]
    return rows


async def _post_load(what: str, url: str, bodies: Sequence[bytes], seconds: float) -> Row:
    taken: list[float] = []
    connector = aiohttp.TCPConnector(limit=32)
    async with aiohttp.ClientSession(connector=connector) as session:
        ends = time.perf_counter() + seconds

        async def one(worker: int) -> None:
            i = worker
            while time.perf_counter() < ends:
                begun = time.perf_counter()
                async with session.post(url, data=bodies[i % len(bodies)]) as response:
                    await response.read()
                    assert response.status == 200, response.status
                taken.append(time.perf_counter() - begun)
                i += 32

        await asyncio.gather(*(one(worker) for worker in range(32)))
    return {"what": what, "per second": len(taken) / seconds, **_ms(taken)}


async def _stream_load(what: str, url: str, frames: Sequence[bytes], seconds: float) -> Row:
    """32 requests in flight on one connection; the next goes out as an answer comes in."""
    taken: list[float] = []
    sent: dict[int, float] = {}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, protocols=("bandit.v1",)) as socket,
    ):
        await socket.receive_bytes()
        ends = time.perf_counter() + seconds
        for i in range(32):
            sent[i] = time.perf_counter()
            await socket.send_bytes(frames[i])
        following = 32
        while sent:
            answer = msgspec.msgpack.decode(await socket.receive_bytes())
            assert "error" not in answer, answer
            now = time.perf_counter()
            taken.append(now - sent.pop(answer["id"]))
            id = following % len(frames)
            if now < ends and id not in sent:
                sent[id] = now
                await socket.send_bytes(frames[id])
                following += 1
    return {"what": what, "per second": len(taken) / seconds, **_ms(taken)}


@contextlib.asynccontextmanager
async def _in_process(directory: Path) -> AsyncIterator[dict[str, str]]:
    """The server in a process of its own, as in production, so that the load is not in its way."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadtest.bench", "--serve", str(directory)
    )
    try:
        yield json.loads(await _appears(directory / "urls", process))
    finally:
        process.terminate()
        await process.wait()


async def _appears(path: Path, process: asyncio.subprocess.Process) -> str:
    """What is in a file as soon as the process has written it."""
    while True:
        assert process.returncode is None, "the service did not start"
        if await asyncio.to_thread(path.exists) and (
            text := await asyncio.to_thread(path.read_text)
        ):
            return text
        await asyncio.sleep(0.02)


def _link_models(directory: Path) -> None:
    if not (directory / "models").exists():
        (directory / "models").symlink_to(Path("var/models").resolve(), target_is_directory=True)


async def _serve_bench(directory: str) -> None:
    """The service with 11 arms, and beside it two echoes, until it is terminated."""
    chosen = settings.read(None, {
        "BANDIT_DATA_DIR": directory, "BANDIT_SERVER_PORT": "0", "BANDIT_LOG_LEVEL": "warning",
        "BANDIT_ARMS": json.dumps([msgspec.to_builtins(spec) for spec in specs()]),
    })  # fmt: skip
    _link_models(Path(directory))

    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def echo_stream(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("bandit.v1",))
        await socket.prepare(request)
        await socket.send_bytes(msgspec.msgpack.encode({"op": "hello"}))
        async for message in socket:
            await socket.send_bytes(message.data)
        return socket

    # the echo has no middleware of ours: it is what aiohttp alone does with the payload
    bare = web.Application()
    bare.add_routes([web.post("/echo", echo), web.get("/echo-stream", echo_stream)])
    runner = web.AppRunner(bare, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with app.serving(chosen) as (url, _):
        urls = {"service": url, "echo": f"http://127.0.0.1:{runner.addresses[0][1]}"}
        (Path(directory) / "urls").write_text(json.dumps(urls))
        await asyncio.Event().wait()


async def bench_learn(directory: Path) -> list[Row]:
    """From a reward received to applied and durable, and the update alone as the past grows."""
    rows: list[Row] = []
    for past in tqdm((1000, 10_000, 100_000), desc="learn", disable=None, leave=False):
        world, index = filled_world("metallm", past, capacity=past + 1000)
        asked = vectors(500, seed=7)
        log: EventLog = SqliteLog(directory / f"learn-{past}.sqlite3")
        embedder = EmbeddingStage(NoModel())
        acknowledged, applied = [], []
        async with routing(world, index, log, embedder) as router:
            with quiet_gc():
                for vector in asked:
                    ask = wire.DecideRequest(embedding=ev.pack(vector))
                    decided = await router.decide(ask)
                    request = wire.RewardRequest(decision_id=decided.id, quality=0.5, cost_usd=1e-3)
                    begun = time.perf_counter()
                    await router.reward(request)
                    acknowledged.append(time.perf_counter() - begun)
        log.close()
        log = MemoryLog()
        async with routing(world, index, log, embedder) as router:
            for i, vector in enumerate(vectors(300, seed=8)):
                subject = ev.Subject(embedding=ev.pack(vector), tokens=25, willingness_to_pay=0.1)
                event = ev.Rewarded(ts=0.0, subject=subject, arm=ArmId("arm-03"), quality=0.5,
                                    cost_usd=1e-3, reward=0.5, idempotency_key=f"{i}")  # fmt: skip
                applied.append(_seconds(partial(router.writer._apply, event)))
        await embedder.close()
        rows.append(
            {
                "past queries": past,
                "reward to applied p50 us": percentiles(applied)["p50"],
                "reward to durable p50 us": percentiles(acknowledged)["p50"],
                "reward to durable p99 us": percentiles(acknowledged)["p99"],
            }
        )
    for row in rows:
        row["x at 1,000"] = row["reward to applied p50 us"] / rows[0]["reward to applied p50 us"]
    return rows


def bench_memory(_: Path) -> list[Row]:
    """Resident memory for each remembered query, beside the bytes of its vector."""
    process = psutil.Process()
    n = 50_000
    some = vectors(n)
    gc.collect()
    before = process.memory_info().rss
    history = History(n)
    for i in range(n):
        history.remember(some[i], Outcome(ArmId("arm-00"), 0.5, float(i % 7)))
    folded = process.memory_info().rss
    index = HybridIndex(DIM, n)
    ids, stored = history.vectors()
    index.load(np.array(ids, np.int64), stored)
    del stored
    index.wait()
    len(index)  # the switch to the graph lets the exact copy go
    gc.collect()
    after = process.memory_info().rss
    vector = 4 * DIM
    return [
        {"what": "one vector (baseline)", "bytes": vector, "x vector": 1.0},
        {
            "what": "in the fold",
            "bytes": (folded - before) / n,
            "x vector": (folded - before) / n / vector,
        },
        {
            "what": "with the graph",
            "bytes": (after - before) / n,
            "x vector": (after - before) / n / vector,
        },
    ]


@contextlib.asynccontextmanager
async def _started(data: Path) -> AsyncIterator[tuple[str, Row]]:
    """A service on the log in `data`: its URL, and what its start took."""
    _link_models(data)
    ready = data / "ready.json"
    await asyncio.to_thread(ready.unlink, True)
    begun = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bandit_service.cli", "serve", "--port", "0",
        "--config", str(_config(data)), "--ready-file", str(ready),
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        url = json.loads(await _appears(ready, process))["url"]
        seconds = time.perf_counter() - begun
        rss = psutil.Process(process.pid).memory_info().rss
        yield url, {"ready after s": seconds, "resident MB": rss / 1e6}
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def bench_start(directory: Path) -> list[Row]:
    """From process to ready: an empty log, 100,000 events, and these with a snapshot of them."""
    rows: list[Row] = []
    empty, data = directory / "empty", directory / "start"
    await asyncio.to_thread(empty.mkdir)
    await asyncio.to_thread(data.mkdir)
    async with _started(empty) as (_, row):
        rows.append({"what": "empty log (baseline)", "events": 0} | row)
    await asyncio.to_thread(_write_log, data / "events.sqlite3", 100_000)
    async with _started(data) as (_, row):
        rows.append({"what": "100,000 events", "events": 100_000} | row)
    async with _started(data) as (_, row):  # the first one left a snapshot when it stopped
        rows.append({"what": "with a snapshot", "events": 100_000} | row)
    for row in rows:
        row["x empty"] = row["ready after s"] / rows[0]["ready after s"]
    return rows


async def bench_beside(directory: Path) -> list[Row]:
    """Decisions at a steady rate while snapshots are made, and while a policy is folded."""
    data = directory / "beside"
    await asyncio.to_thread(data.mkdir)
    await asyncio.to_thread(_write_log, data / "events.sqlite3", 10_000)
    async with _started(data) as (url, _):
        return await bench_snapshot(url, vectors(500, seed=9))


def _config(data: Path) -> Path:
    path = data / "config.toml"
    arms = "".join(
        f'[[arms]]\nid = "{s.id}"\nusd_per_mtok_in = {s.usd_per_mtok_in}\n'
        f"usd_per_mtok_out = {s.usd_per_mtok_out}\n"
        for s in specs()
    )
    path.write_text(f'data_dir = "{data}"\n[history]\ncapacity = 50000\n{arms}')
    return path


def _write_log(path: Path, events: int) -> None:
    """Decisions and their rewards, half and half, as the service would have written them."""
    log = SqliteLog(path)
    world = new_world({"uniform": policies.load("uniform")}, "uniform", 1)
    batch: list[Record] = []
    for i, spec in enumerate(specs()):
        event = ev.ArmAdded(ts=0.0, arm=spec, source="config")
        apply(world, event)
        batch.append(Record(f"arm-{i}", "arm_added", 0.0, ev.encode(event)))
    some = vectors(10_000)
    now = time.time()  # noqa: TID251 - decisions of today, which the sweep leaves alone
    for i in tqdm(range(events // 2), desc="writing a log", disable=None, leave=False):
        query = Query(some[i % len(some)], 25, 0.1)
        decided = decide(world, query, Recalled(), f"d-{i}", now, Exploration())
        rewarded = ev.Rewarded(
            ts=now, decision_id=decided.id, quality=0.5, cost_usd=1e-3, reward=0.4
        )
        batch.append(Record(decided.id, "decided", now, ev.encode(decided)))
        batch.append(Record(f"r-{i}", "rewarded", now, ev.encode(rewarded)))
        if len(batch) >= 1000:
            log.append(batch)
            batch = []
    log.append(batch)
    log.close()


SECTIONS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "decide": ("inside decide, client's embedding, 11 arms, 10,000 past queries", bench_decide),
    "experiments": (
        "what experiments cost a decision, metallm, 11 arms, 10,000 past queries",
        lambda _: bench_experiments(filled_world, vectors(2000, seed=2)),
    ),
    "recall": ("recall of 20 neighbours", bench_recall),
    "query": (
        "decide on a text of 20 words, concurrency 1, metallm, 10,000 past queries",
        bench_query,
    ),
    "http": ("throughput at concurrency 32, client's embedding, metallm, 11 arms", bench_http),
    "learn": ("learning from one reward, metallm, 11 arms", bench_learn),
    "memory": ("memory of one remembered query, 50,000 of them", bench_memory),
    "start": ("start-up", bench_start),
    "gateway": ("what each proxy adds, to the first byte and to the whole answer", bench_gateway),
    "snapshot": ("decisions, 100 a second, metallm, 11 arms, 10,000 events", bench_beside),
    "durable": ("rewards acknowledged as durable, uniform, the router without HTTP", bench_durable),
    "metrics": (
        "what the metrics cost: the router without HTTP, 11 arms; a scrape at 50 arms x 5 policies",
        lambda directory: bench_metrics(directory, filled_world, vectors(100, seed=3)),
    ),
    "results": (
        "an experiment: counting one value of one unit, and its results as JSON, CPU time",
        lambda _: bench_results(),
    ),
    "evaluate": (
        "one policy online over 10,000 recorded queries, 11 arms, embeddings at hand",
        lambda _: bench_evaluate(),
    ),
}


def show(rows: Sequence[Row]) -> str:
    """A table in Markdown; numbers to three significant digits."""

    def cell(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        return f"{value:,}" if isinstance(value, int) else str(value)

    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(cell(row.get(name, "")) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sections and print a table each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=SECTIONS, action="append", help="these sections only")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--serve", metavar="DIR", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve is not None:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_serve_bench(args.serve))
        return 0
    results = {}
    for name in args.only or SECTIONS:
        title, section = SECTIONS[name]
        with tempfile.TemporaryDirectory() as directory:
            found = section(Path(directory))
            rows = asyncio.run(found) if asyncio.iscoroutine(found) else found
        results[name] = {"title": title, "rows": rows}
        print(f"\n### {title}\n\n{show(rows)}", flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
