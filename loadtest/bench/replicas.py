"""Replicas on one log in PostgreSQL and in JetStream, beside one process on SQLite in the same run.

Each pair is a decision at one replica and its reward at any of them, on real processes on loopback
with servers of their own. The clients, the servers and all replicas share the machine: so more
replicas than cores give no more pairs, and the CPU time of a pair says more than the rate.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

import policies
from bandit_service.cli import main as command
from bandit_service.core.exploration import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.data.recordings import PARETOBANDIT, embed_all, open_recording
from bandit_service.embedding import open_backend
from bandit_service.offline.simulate import order_of, simulate, stream
from bandit_service.settings import Settings
from loadtest import engines
from loadtest.bench.lean import learned_log
from loadtest.bench.replica_load import (
    Clients,
    Measured,
    appended,
    log_of,
    quantile,
    read_whole,
    shared,
    started,
)
from loadtest.bench.tables import show
from loadtest.engines import Engine
from loadtest.scale import Replica
from loadtest.sections import put_section
from store import _postgres_sql as sql
from store.postgres import PostgresLog

_ALONE = "one process, SQLite (baseline)"
_NAMES = {"postgres": "PostgreSQL", "jetstream": "JetStream"}
_DELAYS = (0, 2, 20, 100, 500)
_UNDER = "SET LOCAL synchronous_commit = off;"


# --- pairs ----------------------------------------------------------------------------------


async def bench_pairs(
    directory: Path,
    models: Path,
    on: Mapping[str, Engine],
    counts: Mapping[str, Sequence[int]],
    args: argparse.Namespace,
) -> list[dict[str, Any]]:
    """One process on SQLite, then each number of replicas, each as fast as it goes and calm."""
    rows, loads = [], list[tuple[int, Measured]]()
    for name, count in [("", 1), *((each, count) for each in on for count in counts[each])]:
        environ = dict(os.environ)  # noqa: TID251 - passed on
        environ |= {"BANDIT_POLICY_NAME": args.policy}
        environ |= shared(on[name], f"pairs-{count}") if name else {}
        at = directory / f"pairs-{name}-{count}"
        at.mkdir()
        async with (
            started(at, models, environ, count) as replicas,
            aiohttp.ClientSession() as session,
        ):
            clients = Clients(session, replicas)
            await clients.load(min(1.0, args.seconds), args.clients)  # warm
            fast = await clients.load(args.seconds, args.clients)
            calm = await clients.load(args.seconds, args.clients, per_s=args.calm)
        rows.append(_row(f"{count} on {_NAMES[name]}" if name else _ALONE, fast, calm))
        if name == "postgres":
            loads += [(count, fast), (count, calm)]
        print(show(rows[-1:]), flush=True)
    if len(counts["postgres"]) > 1:
        rows.append(_fit(loads))
    return rows


def _fit(loads: Sequence[tuple[int, Measured]]) -> dict[str, Any]:
    """What a replica costs while nothing comes, a pair where it is asked, and where it is folded.

    By least squares over all loads on PostgreSQL.
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


async def bench_appends(on: Mapping[str, Engine], seconds: float) -> list[dict[str, Any]]:
    """The log's own append, beside one that flushes while it holds the head, and JetStream's."""
    rows = []
    dsn = on["postgres"].address
    for writers, batch in ((1, 64), (4, 16), (8, 16)):
        name = f"a{writers}-{batch}"
        beside = await appended(partial(log_of, "postgres", dsn, name), writers, batch, seconds)
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
        under = await appended(
            partial(log_of, "postgres", under_dsn, name), writers, batch, seconds
        )
        row = {
            "writers x batch": f"{writers} x {batch}",
            "beside the head, events/s": beside[0],
            "p50 ms": beside[1],
            "under the head, events/s": under[0],
            "p50 ms ": under[1],
            "ratio": beside[0] / under[0],
        }
        if "jetstream" in on:
            asked = partial(log_of, "jetstream", on["jetstream"].address, name)
            there = await appended(asked, writers, batch, seconds)
            row |= {"JetStream, events/s": there[0], "p50 ms  ": there[1]}
        rows.append(row)
    return rows


# --- joining --------------------------------------------------------------------------------


async def bench_join(
    directory: Path, models: Path, on: Mapping[str, Engine], past: int, policy: str
) -> list[dict[str, Any]]:
    """A log of so many outcomes: read, folded by a first replica, and taken over by a second."""
    found = []
    for name, engine in on.items():
        source = directory / f"source-{name}"
        source.mkdir()
        await asyncio.to_thread(learned_log, source / "events.sqlite3", past)
        environ = dict(os.environ) | shared(engine, "join")  # noqa: TID251 - passed on
        migrating = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            command.__module__.rpartition(".")[0],
            "migrate",
            env=environ | {"BANDIT_DATA_DIR": str(source)},
        )
        if await migrating.wait():
            raise RuntimeError("migrate failed")
        events, _, seconds = await read_whole(log_of(name, engine.address, "join"))
        found.append(
            {
                "": f"the log read from {_NAMES[name]}, {events:,} events",
                "s": seconds,
                "events/s": events / seconds,
            }
        )
    environ = dict(os.environ) | shared(on["postgres"], "join")  # noqa: TID251 - passed on
    environ |= {"BANDIT_POLICY_NAME": policy, "BANDIT_LOG_LEVEL": "info"}
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
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4], help="on PostgreSQL")
    parser.add_argument("--jetstream", type=int, nargs="*", default=[2], help="on JetStream")
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
    wanted = [] if args.only_delay else ["postgres", *(["jetstream"] if args.jetstream else [])]
    for name in wanted:
        if why := engines.missing(name):
            print(why, file=sys.stderr)
            return 2
    tables = _measured(args, wanted) if wanted else {}
    if args.seeds:
        tables["replica-delay"] = bench_delay(args.data, args.queries, args.seeds, args.policy)
    for name, rows in tables.items():
        print(f"\n{show(rows)}")
        if args.markdown is not None:
            put_section(args.markdown, name, show(rows))
    return 0


def _measured(args: argparse.Namespace, wanted: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    with ExitStack() as stack:
        on = {name: stack.enter_context(engines.running(name)) for name in wanted}
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bandit-")))
        counts = {"postgres": args.replicas, "jetstream": args.jetstream}
        return {
            "replicas": asyncio.run(bench_pairs(directory, args.models, on, counts, args)),
            "replica-appends": asyncio.run(bench_appends(on, args.seconds / 2)),
            "replica-join": asyncio.run(
                bench_join(directory, args.models, on, args.past, args.policy)
            ),
        }


if __name__ == "__main__":
    sys.exit(main())
