"""Replicas on one log as processes, clients that load them, and writers of the log alone."""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - who is asked, from a seed
import re
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil

from loadtest.engines import Engine
from loadtest.scale import DIM, Replica
from store import Entry, Offset, Record, SharedLog
from store.jetstream import JetStreamLog
from store.postgres import PostgresLog


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

    async def rest(self, seconds: float) -> float:
        """CPU seconds of all of them in each second without a request."""
        begun, cpu = time.monotonic(), self._cpu_s()
        await asyncio.sleep(seconds)
        return (self._cpu_s() - cpu) / (time.monotonic() - begun)

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
    replicas = [Replica(directory / f"r{i}", models, environ, forked=True) for i in range(count)]
    try:
        await asyncio.gather(*(each.begin() for each in replicas))
        yield replicas
    finally:
        for each in replicas:
            each.end(signal.SIGTERM)


def shared(engine: Engine, log: str) -> dict[str, str]:
    """The settings of a replica on a log of this name."""
    return engine.environ | {
        "BANDIT_LOG_NAME": log,
        "BANDIT_LOG_TIMEOUT_S": "20",  # the machine is full
        "BANDIT_LOG_REPLICA_TTL_S": "30",
    }


def log_of(engine: str, address: str, name: str) -> SharedLog:
    """The log itself, without a service."""
    made = PostgresLog if engine == "postgres" else JetStreamLog
    return made(address, name, timeout_s=20.0)


async def appended(
    log: Callable[[], SharedLog], writers: int, batch: int, seconds: float
) -> tuple[float, float]:
    """Events a second of so many writers, and the median of an append in ms; records of 1.9 kB."""
    logs = [log() for _ in range(writers)]
    took: list[float] = []

    async def write(i: int, last: float) -> None:
        n, body = 0, bytes(1900)
        while time.monotonic() < last:
            n, begun = n + 1, time.perf_counter()
            records = (Record(f"{i}-{n}-{k}", "decided", 1.0, body) for k in range(batch))
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


async def read_whole(log: SharedLog) -> tuple[int, int, float]:
    """How many events and bytes a log has, and how many seconds one reader takes for it."""
    await log.connect()
    begun, at, size = time.perf_counter(), Offset(0), 0
    while rows := await log.tail(at, 1000):
        at = rows[-1].offset
        size += sum(len(each.record.body) for each in rows)
    took = time.perf_counter() - begun
    await log.close()
    return int(at), size, took
