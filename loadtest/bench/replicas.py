"""Replicas on one log in PostgreSQL, beside one process on SQLite in the same run.

Each pair is a decision at one replica and its reward at any of them, on real processes on loopback
with a PostgreSQL of their own. The clients, the database and all replicas share the machine: so
more replicas than cores give no more pairs, and the CPU time of a pair says more than the rate.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random  # noqa: TID251 - who is asked, from a seed
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil

import policies
from bandit_service.cli import main as command
from bandit_service.core.exploration import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.data.recordings import PARETOBANDIT, embed_all, open_recording
from bandit_service.embedding import open_backend
from bandit_service.offline.simulate import order_of, simulate, stream
from bandit_service.settings import Settings
from loadtest import postgres
from loadtest.bench.lean import learned_log
from loadtest.bench.tables import show
from loadtest.scale import DIM, Replica
from loadtest.sections import put_section
from store import Entry, Offset, Record
from store import _postgres_sql as sql
from store.postgres import PostgresLog

_ALONE = "one process, SQLite (baseline)"
_DELAYS = (0, 2, 20, 100, 500)
_UNDER = "SET LOCAL synchronous_commit = off;"


@dataclass
class Measured:
    """What one load gave. Times in seconds."""

    seconds: float = 0.0
    pairs: int = 0
    decide_s: list[float] = field(default_factory=list)
    reward_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    appends: float = 0.0
    events: float = 0.0
    lag: dict[float, float] = field(default_factory=dict)


class Metrics:
    """The sums over all replicas of what they say."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._lines = [line for text in texts for line in text.splitlines()]

    def of(self, name: str) -> float:
        """A counter, summed."""
        return sum(float(line.split()[-1]) for line in self._lines if line.startswith(name + " "))

    def buckets(self, name: str) -> dict[float, float]:
        """A histogram, by upper bound."""
        found: dict[float, float] = {}
        for line in self._lines:
            if match := re.match(rf'{name}_bucket\{{le="([^"]+)"\}} (\S+)', line):
                found[float(match[1])] = found.get(float(match[1]), 0.0) + float(match[2])
        return found


def quantile(share: float, buckets: dict[float, float]) -> float:
    """As Prometheus says it: by straight lines within the buckets.

    >>> quantile(0.5, {1.0: 10.0, 2.0: 20.0, float("inf"): 20.0})
    1.0
    """
    total, below, low = max(buckets.values(), default=0.0), 0.0, 0.0
    for bound, count in sorted(buckets.items()):
        if count >= share * total and count > below:
            if bound == float("inf"):
                return low
            return low + (bound - low) * (share * total - below) / (count - below)
        below, low = count, bound
    return float("nan")


class Clients:
    """Some that ask any of the replicas."""

    def __init__(self, session: aiohttp.ClientSession, replicas: Sequence[Replica]) -> None:
        self._session, self._replicas = session, replicas
        self._chance = random.Random(1)  # noqa: S311 - no secret
        self._vectors = np.random.default_rng(1)

    async def metrics(self) -> Metrics:
        """What all of them say now."""
        texts = []
        for each in self._replicas:
            async with self._session.get(each.url + "/metrics") as answer:
                texts.append(await answer.text())
        return Metrics(texts)

    def _cpu_s(self) -> float:
        times = [
            psutil.Process(each.process.pid).cpu_times()
            for each in self._replicas
            if each.process is not None
        ]
        return float(sum(one.user + one.system for one in times))

    async def load(self, seconds: float, clients: int, per_s: float = 0.0) -> Measured:
        """So many clients, each of which goes on when it is answered; or so many pairs a second."""
        found, before, cpu = Measured(), await self.metrics(), self._cpu_s()
        begun = time.monotonic()
        await asyncio.gather(
            *(
                self._client(found, begun + seconds, clients / per_s if per_s else 0.0)
                for _ in range(clients)
            )
        )
        found.seconds, found.cpu_s = time.monotonic() - begun, self._cpu_s() - cpu
        after = await self.metrics()
        name = "bandit_log_shared_append_seconds_count"
        found.appends = after.of(name) - before.of(name)
        found.events = 2.0 * found.pairs
        earlier = before.buckets("bandit_replica_lag_seconds")
        found.lag = {
            bound: count - earlier.get(bound, 0.0)
            for bound, count in after.buckets("bandit_replica_lag_seconds").items()
        }
        return found

    async def _client(self, found: Measured, last: float, every_s: float) -> None:
        await asyncio.sleep(every_s * self._chance.random())
        while (now := time.monotonic()) < last:
            vector = self._vectors.normal(size=DIM)
            body = {"embedding": [float(x) for x in vector / np.linalg.norm(vector)]}
            told, took = await self._post("/v1/decide", body)
            found.decide_s.append(took)
            outcome = {"decision_id": told["decision_id"], "quality": self._chance.random()}
            _, took = await self._post("/v1/rewards", outcome)
            found.reward_s.append(took)
            found.pairs += 1
            if every_s:
                await asyncio.sleep(max(0.0, now + every_s - time.monotonic()))

    async def _post(self, path: str, body: Any) -> tuple[Any, float]:
        while True:
            url, begun = self._chance.choice(self._replicas).url, time.perf_counter()
            async with self._session.post(url + path, json=body) as answer:
                told = await answer.json()
                if answer.status == 200:
                    return told, time.perf_counter() - begun
                if answer.status != 503:
                    raise RuntimeError(f"{path}: {answer.status} {told}")
            await asyncio.sleep(0.02)


@asynccontextmanager
async def started(
    directory: Path, models: Path, environ: dict[str, str], count: int
) -> AsyncIterator[list[Replica]]:
    """So many services."""
    replicas = [Replica(directory / f"r{i}", models, environ) for i in range(count)]
    try:
        await asyncio.gather(*(each.begin() for each in replicas))
        yield replicas
    finally:
        for each in replicas:
            each.end(signal.SIGTERM)


def _shared(dsn: str, log: str) -> dict[str, str]:
    return {
        "BANDIT_LOG_ENGINE": "postgres",
        "BANDIT_LOG_DSN_ENV": "SCALE_DSN",
        "SCALE_DSN": dsn,
        "BANDIT_LOG_NAME": log,
        "BANDIT_LOG_TIMEOUT_S": "20",  # the machine is full
        "BANDIT_LOG_REPLICA_TTL_S": "30",
    }


# --- pairs ----------------------------------------------------------------------------------


async def bench_pairs(
    directory: Path, models: Path, dsn: str, counts: Sequence[int], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """One process on SQLite, then each number of replicas, each as fast as it goes and calm."""
    rows, loads = [], list[tuple[int, Measured]]()
    for count in (0, *counts):
        name = f"{count} on PostgreSQL" if count else _ALONE
        environ = dict(os.environ)  # noqa: TID251 - passed on
        environ |= {"BANDIT_POLICY_NAME": args.policy}
        environ |= _shared(dsn, f"pairs-{count}") if count else {}
        at = directory / f"pairs-{count}"
        at.mkdir()
        async with (
            started(at, models, environ, max(1, count)) as replicas,
            aiohttp.ClientSession() as session,
        ):
            clients = Clients(session, replicas)
            await clients.load(1.0, args.clients)  # warm
            fast = await clients.load(args.seconds, args.clients)
            calm = await clients.load(args.seconds, args.clients, per_s=args.calm)
        rows.append(_row(name, fast, calm))
        if count:
            loads += [(count, fast), (count, calm)]
        print(show(rows[-1:]), flush=True)
    if len(counts) > 1:
        rows.append(_fit(loads))
    return rows


def _fit(loads: Sequence[tuple[int, Measured]]) -> dict[str, Any]:
    """What a replica costs while nothing comes, a pair where it is asked, and where it is folded.

    By least squares over all loads.
    """
    terms = [(n * one.seconds, float(one.pairs), float(n * one.pairs)) for n, one in loads]
    used = [one.cpu_s for _, one in loads]
    idle, asked, folded = np.linalg.lstsq(np.array(terms), np.array(used), rcond=None)[0]
    return {
        "": f"fit for N replicas, each {1e3 * idle:.0f} ms of CPU a second for being there",
        "CPU ms a pair": f"{1e3 * asked:.2f} + {1e3 * folded:.2f} N",
    }


def _row(name: str, fast: Measured, calm: Measured) -> dict[str, Any]:
    def ms(values: list[float], share: float) -> float:
        return 1e3 * float(np.quantile(values, share)) if values else float("nan")

    def lag(share: float) -> float | str:
        return 1e3 * quantile(share, calm.lag) if calm.lag else ""

    return {
        "": name,
        "pairs/s": fast.pairs / fast.seconds,
        "CPU ms a pair": 1e3 * fast.cpu_s / fast.pairs,
        "appends/s": fast.appends / fast.seconds if fast.appends else "",
        "events an append": fast.events / fast.appends if fast.appends else "",
        "calm: decide p50 ms": ms(calm.decide_s, 0.5),
        "acknowledged p50 ms": ms(calm.reward_s, 0.5),
        "acknowledged p99 ms": ms(calm.reward_s, 0.99),
        "lag p50 ms": lag(0.5),
        "lag p99 ms": lag(0.99),
    }


# --- appends --------------------------------------------------------------------------------


async def bench_appends(dsn: str, seconds: float) -> list[dict[str, Any]]:
    """The log's own append, beside one that flushes while it holds the head."""
    rows = []
    for writers, batch in ((1, 64), (4, 16), (8, 16)):
        beside = await _appended(dsn, "public", f"a{writers}-{batch}", writers, batch, seconds)
        first = PostgresLog(dsn)
        await first.connect()
        await first._writing.execute("CREATE SCHEMA IF NOT EXISTS under")
        await first.close()
        under_dsn = f"{dsn}?options=-csearch_path%3Dunder"
        made = PostgresLog(under_dsn)
        await made.connect()
        flushed = sql.PUT.replace(_UNDER, "SET LOCAL synchronous_commit = on;", 1)
        await made._writing.execute(flushed.replace("CREATE PROC", "CREATE OR REPLACE PROC"))
        await made.close()
        under = await _appended(under_dsn, "under", f"u{writers}-{batch}", writers, batch, seconds)
        rows.append(
            {
                "writers x batch": f"{writers} x {batch}",
                "beside the head, events/s": beside[0],
                "p50 ms": beside[1],
                "under the head, events/s": under[0],
                "p50 ms ": under[1],
                "ratio": beside[0] / under[0],
            }
        )
    return rows


async def _appended(
    dsn: str, what: str, log: str, writers: int, batch: int, seconds: float
) -> tuple[float, float]:
    logs = [PostgresLog(dsn, log, timeout_s=20.0) for _ in range(writers)]
    took: list[float] = []

    async def write(i: int, last: float) -> None:
        n, body = 0, bytes(1900)
        while time.monotonic() < last:
            n, begun = n + 1, time.perf_counter()
            records = (Record(f"{what}-{i}-{n}-{k}", "decided", 1.0, body) for k in range(batch))
            await logs[i].append([Entry(each) for each in records], 0.0)
            took.append(time.perf_counter() - begun)

    for i, each in enumerate(logs):
        await each.connect()
        await each.join(f"w{i}", "bench")
    begun = time.monotonic()
    await asyncio.gather(*(write(i, begun + seconds) for i in range(writers)))
    ended = time.monotonic() - begun
    for each in logs:
        await each.close()
    return len(took) * batch / ended, 1e3 * float(np.median(took))


# --- joining --------------------------------------------------------------------------------


async def bench_join(
    directory: Path, models: Path, dsn: str, past: int, policy: str
) -> list[dict[str, Any]]:
    """A log of so many outcomes: read, folded by a first replica, and taken over by a second."""
    source = directory / "source"
    source.mkdir()
    await asyncio.to_thread(learned_log, source / "events.sqlite3", past)
    environ = dict(os.environ) | _shared(dsn, "join")  # noqa: TID251 - passed on
    environ |= {"BANDIT_POLICY_NAME": policy, "BANDIT_LOG_LEVEL": "info"}
    migrating = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        command.__module__.rpartition(".")[0],
        "migrate",
        env=environ | {"BANDIT_DATA_DIR": str(source)},
    )
    if await migrating.wait():
        raise RuntimeError("migrate failed")
    log, begun, at = PostgresLog(dsn, "join"), time.perf_counter(), Offset(0)
    await log.connect()
    while rows := await log.tail(at, 1000):
        at = rows[-1].offset
    replay_s = time.perf_counter() - begun
    await log.close()
    found = [{"": f"the log read, {int(at):,} events", "s": replay_s, "events/s": at / replay_s}]
    async with aiohttp.ClientSession() as session:
        first = Replica(directory / "first", models, environ)
        second = Replica(directory / "second", models, environ)
        try:
            found.append(_joined("a first replica: copies and folds all", await _begun(first)))
            while not await _is_keeper(session, first):  # noqa: ASYNC110 - another process says it
                await asyncio.sleep(0.1)
            async with session.post(first.url + "/v1/snapshots") as answer:
                size = (await answer.json())["bytes"]
            found.append(
                _joined(
                    f"a second one: from a snapshot of {size / 1e6:.1f} MB", await _begun(second)
                )
            )
        finally:
            first.end(signal.SIGTERM)
            second.end(signal.SIGTERM)
    return found


async def _begun(replica: Replica) -> tuple[float, float]:
    """Seconds until it was ready, and those of copying and recovery that it says."""
    begun = time.perf_counter()
    await replica.begin()
    whole = time.perf_counter() - begun
    for line in (replica.directory / "log").read_text().splitlines():
        if '"recovered"' in line:
            return whole, float(json.loads(line)["seconds"])
    raise RuntimeError("it did not say how long it recovered")


def _joined(name: str, took: tuple[float, float]) -> dict[str, Any]:
    return {"": name, "s": took[0], "of these, copy and recovery s": took[1]}


async def _is_keeper(session: aiohttp.ClientSession, replica: Replica) -> bool:
    async with session.get(replica.url + "/v1/replicas") as answer:
        return any("keeper" in each["roles"] for each in (await answer.json())["replicas"])


# --- delay ----------------------------------------------------------------------------------


def bench_delay(name: str, queries: int, seeds: int, policy: str) -> list[dict[str, Any]]:
    """Recorded traffic whose outcomes are shown so many decisions late, by the service's fold.

    Regret is against the best arm of each query; what is added to it is by pairs of equal seeds.
    """
    chosen, recorded = Settings(), open_recording(name)
    rows = order_of(recorded, 0)[:queries]
    recorded = recorded.take(rows)
    model, directory = chosen.embedding.model, Path(chosen.data_dir)
    backend = open_backend(chosen.embedding.backend, model, directory / "models")
    vectors = embed_all(recorded.texts, backend, model, directory / "embeddings")
    regret = {delay: np.zeros(seeds) for delay in _DELAYS}
    for seed in range(seeds):
        recall = stream(recorded, vectors, seed=seed, neighbours=20, capacity=20_000)
        for delay in _DELAYS:
            run = simulate(
                recorded,
                vectors,
                policies.load(policy),
                seed=seed,
                explore=Exploration(),
                rule=RewardRule(0.10),
                recall=recall,
                delay=delay,
            )
            regret[delay][seed] = run.regret(run.baselines.oracle)[-1]
    found = []
    for delay, each in regret.items():
        more = each - regret[0]
        error = float(np.std(more, ddof=1)) / seeds**0.5 if seeds > 1 else float("nan")
        found.append(
            {
                "decisions late": delay,
                "regret": float(each.mean()),
                "added": f"{more.mean():+.1f} ± {error:.1f}" if delay else "",
            }
        )
    return found


def main() -> int:
    """Measure, print, and write it down where that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--calm", type=float, default=20.0, help="pairs per second, calm")
    parser.add_argument("--past", type=int, default=50_000, help="outcomes of the log to join")
    parser.add_argument("--policy", default="nested")
    parser.add_argument("--data", default=PARETOBANDIT, help="the recording for the delay")
    parser.add_argument("--queries", type=int, default=2000, help="so many of it")
    parser.add_argument("--seeds", type=int, default=5, help="0 leaves the delay out")
    parser.add_argument("--models", type=Path, default=Path("var/models"))
    parser.add_argument("--only-delay", action="store_true", help="no processes, no database")
    parser.add_argument("--markdown", type=Path, help="the document to write the tables into")
    args = parser.parse_args()
    if postgres.programs() is None and not args.only_delay:
        print(postgres.INSTALL, file=sys.stderr)
        return 2
    tables = {} if args.only_delay else _measured(args)
    if args.seeds:
        tables["replica-delay"] = bench_delay(args.data, args.queries, args.seeds, args.policy)
    for name, rows in tables.items():
        print(f"\n{show(rows)}")
        if args.markdown is not None:
            put_section(args.markdown, name, show(rows))
    return 0


def _measured(args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    with postgres.running() as server, tempfile.TemporaryDirectory(prefix="bandit-") as found:
        directory = Path(found)
        dsn = server.dsn
        return {
            "replicas": asyncio.run(bench_pairs(directory, args.models, dsn, args.replicas, args)),
            "replica-appends": asyncio.run(bench_appends(dsn, args.seconds / 2)),
            "replica-join": asyncio.run(
                bench_join(directory, args.models, dsn, args.past, args.policy)
            ),
        }


if __name__ == "__main__":
    sys.exit(main())
