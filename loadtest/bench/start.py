"""Processes: how long a start takes, and what goes on beside serving.

`python -m loadtest.bench.start --beside DIR` compares a start from a snapshot with that of another
checkout, by turns on the same files; that one must read this version's log and snapshots.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import psutil
from tqdm import tqdm

import policies
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.decide import decide
from bandit_service.core.exploration import Exploration
from bandit_service.core.query import Query, Recalled
from bandit_service.core.world import new_world
from bandit_service.runtime.folding import handed
from loadtest.bench.keeping import bench_snapshot
from loadtest.bench.world import (
    Row,
    in_ms,
    specs,
    vectors,
)
from store import START, Record
from store.snapshots import FileSnapshots
from store.sqlite import SqliteLog

PENDING = 50_000
ENDS_S = 600
"""How long a service may take to end: without its last snapshot the next start would apply the
whole log."""


async def appears(path: Path, process: asyncio.subprocess.Process) -> str:
    """What is in a file as soon as the process has written it."""
    while True:
        assert process.returncode is None, "the service did not start"
        if await asyncio.to_thread(path.exists) and (
            text := await asyncio.to_thread(path.read_text)
        ):
            return text
        await asyncio.sleep(0.02)


def link_models(directory: Path) -> None:
    """The exported model, where the service in a directory looks for it."""
    if not (directory / "models").exists():
        (directory / "models").symlink_to(Path("var/models").resolve(), target_is_directory=True)


@contextlib.asynccontextmanager
async def _started(
    data: Path, verify: str = "background", checkout: Path | None = None
) -> AsyncIterator[tuple[str, Row]]:
    """A service on the log in `data`: its URL, and what its start took. checkout: whose service,
    by its whole path.
    """
    link_models(data)
    ready = data / "ready.json"
    await asyncio.to_thread(ready.unlink, True)
    applied = await asyncio.to_thread(_after_snapshot, data)
    begun = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        "/usr/bin/env",
        f"PYTHONPATH={checkout or Path.cwd()}",
        "PYTHONDONTWRITEBYTECODE=",  # as where it is installed, modules are compiled once
        f"PYTHONPYCACHEPREFIX={data.parent / 'bytecode'}",
        sys.executable,
        "-m",
        "bandit_service.cli",
        "serve",
        "--port",
        "0",
        "--config",
        str(_config(data, verify)),
        "--ready-file",
        str(ready),
        stderr=asyncio.subprocess.DEVNULL,
        cwd=checkout,
    )
    try:
        url = json.loads(await appears(ready, process))["url"]
        seconds = time.perf_counter() - begun
        used = psutil.Process(process.pid)
        times, rss = used.cpu_times(), used.memory_info().rss
        taken: Row = {"events applied": applied, "ready after s": seconds}
        taken["CPU s"] = times.user + times.system
        yield url, taken | {"resident MB": rss / 1e6}
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _after_snapshot(data: Path) -> int:
    """The number of events that a start has to apply: those after the newest snapshot."""
    path = data / "events.sqlite3"
    if not path.exists():
        return 0
    log = SqliteLog(path)
    last = log.last
    log.close()
    return last - FileSnapshots(data / "snapshots").newest(START)


async def bench_start(directory: Path, past: int = PENDING) -> list[Row]:
    """From process to ready: an empty log, one of `past` rewarded decisions that are all pending
    still, and with a snapshot of them; then without verifying, and all of it verified before."""
    rows: list[Row] = []
    empty, data = directory / "empty", directory / "start"
    await asyncio.to_thread(empty.mkdir)
    await asyncio.to_thread(data.mkdir)
    for _ in range(2):  # the first one finds nothing in the disk's cache
        async with _started(empty) as (_, row):
            first = row
    rows.append({"what": "empty log (baseline)", "pending": 0} | first)
    await asyncio.to_thread(write_log, data / "events.sqlite3", 2 * past)
    for what, verify in (
        (f"{2 * past:,} events", "background"),
        ("with a snapshot", "background"),  # the first one left it when it stopped
        ('with a snapshot, verify = "tail"', "tail"),
        ('with a snapshot, verify = "all"', "all"),
    ):
        async with _started(data, verify) as (_, row):
            rows.append({"what": what, "pending": past} | row)
    for row in rows:
        row["x empty"] = row["ready after s"] / rows[0]["ready after s"]
        row["x CPU of empty"] = row["CPU s"] / rows[0]["CPU s"]
    return rows


async def bench_starts(directory: Path, past: int, beside: Path, turns: int) -> list[Row]:
    """Medians of starts from one snapshot of `past` pending decisions, of this checkout and another
    by turns; the first turn does not count.
    """
    await asyncio.to_thread(write_log, directory / "events.sqlite3", 2 * past)
    ways = {"before": beside, "now": Path.cwd()}
    found: dict[str, list[Row]] = {what: [] for what in ways}
    for _ in range(turns + 1):
        for what, checkout in ways.items():
            async with _started(directory, checkout=checkout) as (_, row):
                found[what].append(row)
    rows: list[Row] = [
        {"what": what, "pending": past}
        | {name: float(np.median([row[name] for row in some[1:]])) for name in some[0]}
        for what, some in found.items()
    ]
    for row in rows:
        row["x CPU of before"] = row["CPU s"] / rows[0]["CPU s"]
    return rows


async def bench_beside(directory: Path) -> list[Row]:
    """Decisions at a steady rate while snapshots are made, and while a policy is folded."""
    data = directory / "beside"
    await asyncio.to_thread(data.mkdir)
    await asyncio.to_thread(write_log, data / "events.sqlite3", 10_000)
    async with _started(data) as (url, _):
        return await bench_snapshot(url, vectors(500, seed=9))


def bench_handed(directory: Path) -> list[Row]:
    """CPU time of each step in which the loop hands events to the child that makes a snapshot."""
    path = directory / "events.sqlite3"
    write_log(path, 20_000)
    log, taken = SqliteLog(path), list[float]()
    for _ in range(5):
        frames = handed(log, START, log.last)
        while True:
            begun = time.thread_time()
            if next(frames, None) is None:
                break
            taken.append(time.thread_time() - begun)
    log.close()
    return [{"what": "up to 64 events", **in_ms(taken), "longest ms": max(taken) * 1e3}]


def _config(data: Path, verify: str = "background") -> Path:
    path = data / "config.toml"
    arms = "".join(
        f'[[arms]]\nid = "{s.id}"\nusd_per_mtok_in = {s.usd_per_mtok_in}\n'
        f"usd_per_mtok_out = {s.usd_per_mtok_out}\n"
        for s in specs()
    )
    path.write_text(
        f'data_dir = "{data}"\n[log]\nverify = "{verify}"\n[history]\ncapacity = 50000\n'
        f"[server]\nshutdown_s = {ENDS_S}\n{arms}"
    )
    return path


def write_log(path: Path, events: int) -> None:
    """Decisions and their rewards, half and half, as the service would have written them.

    All of them are pending, since what was rewarded can be corrected for a day.
    """
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


def main(argv: Sequence[str] | None = None) -> int:
    """Starts of two checkouts by turns."""
    from loadtest.bench.tables import show

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--past", type=int, default=PENDING, help="pending decisions")
    parser.add_argument("--turns", type=int, default=5, help="starts of each that count")
    parser.add_argument(
        "--beside",
        type=lambda path: Path(path).resolve(),
        required=True,
        help="a checkout whose service is started too",
    )
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as directory:
        rows = asyncio.run(bench_starts(Path(directory), args.past, args.beside, args.turns))
    print(show(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
