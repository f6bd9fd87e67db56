"""What so many decisions a second need: logs, processes, bytes and servers; measured in seconds.

Every decision is rewarded. Each log is shared by some replicas, its copies; a replica is a process
that uses one core, and applies every event of its log:

    busy = idle + decisions * (asked / copies + applied)       of a core, of each replica
    logs = the fewest for which that is at most --busy

The constants are measured on this machine, with servers of their own: loads on 1, 2 and 3 replicas,
and on one process on SQLite as the baseline. A replica that gets few events at once pays for them
nearly what it pays for many: `applied`, at the rates of this machine, is an upper bound. The lower
one is what events cost that are applied many at once, as in a recovery. So logs, processes and
their price are from one number to another.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from bandit_service.core.apply import uncollected
from bandit_service.core.vector_bytes import CODINGS, FLOAT32
from loadtest import engines
from loadtest.bench.fold import cpu_s, fold
from loadtest.bench.replica_load import (
    Clients,
    Measured,
    appended,
    log_of,
    read_whole,
    shared,
    started,
)
from loadtest.bench.tables import show
from loadtest.engines import Engine
from loadtest.sections import put_section

RATES = (1_000, 10_000, 100_000, 1_000_000)
_CLIENTS = 8
_WRITERS, _BATCH = 4, 16


@dataclass(frozen=True, slots=True)
class Constants:
    """alone: CPU seconds of a pair of one process on SQLite. asked, applied: of a pair at the
    replica that answers, and at every replica; folded: many at once. off: the largest
    share by which a load differs from that. idle: CPU of a replica without a request, of a second.
    bytes, events: of the log, for each pair. append, replay: events a second.
    """

    alone: float
    asked: float
    applied: float
    folded: float
    off: float
    idle: float
    bytes: float
    events: float
    append: float
    replay: float


@dataclass(frozen=True, slots=True)
class Prices:
    """USD: of an hour of a core, a month of a GB on disk, a GB from zone to zone."""

    core_hour: float
    gb_month: float
    gb_between: float


def logs_for(rate: float, found: Constants, copies: int, busy: float) -> tuple[int, int]:
    """At least so many, and at most.

    A replica does the same for a pair that it is asked for in both: only others' are cheaper.
    """
    asked, applied = found.asked, found.applied
    least, most = (
        rate * ((asked + applied - others) / copies + others) / (busy - found.idle)
        for others in (min(found.folded, applied), applied)
    )
    return math.ceil(least), math.ceil(most)


def sized(
    rate: float, found: Constants, copies: int, busy: float, prices: Prices
) -> dict[str, Any]:
    """What a rate of decisions needs."""
    least, most = logs_for(rate, found, copies, busy)
    usd = copies * prices.core_hour / 3600 / rate * 1e6
    gb = found.bytes / 1e3  # of a million pairs
    return {
        "decisions/s": rate,
        "logs": f"{least:,} to {most:,}",
        "processes of a core": f"{copies * least:,} to {copies * most:,}",
        "log MB/s": rate * found.bytes / 1e6,
        "log TB a day": rate * found.bytes * 86_400 / 1e12,
        "databases": math.ceil(rate * found.events / (busy * found.append)),
        "USD a million: CPU": f"{usd * least:.2f} to {usd * most:.2f}",
        "log": 2 * gb * prices.gb_month / 30,
        "between zones": copies * gb * prices.gb_between,
    }


def baseline(found: Constants, busy: float, prices: Prices) -> dict[str, Any]:
    """One process on SQLite, as fast as it may go."""
    rate = busy / found.alone
    return {
        "decisions/s": f"{rate:,.0f}: one process, SQLite (baseline)",
        "logs": 1,
        "processes of a core": 1,
        "log MB/s": rate * found.bytes / 1e6,
        "log TB a day": rate * found.bytes * 86_400 / 1e12,
        "databases": 0,
        "USD a million: CPU": f"{prices.core_hour / 3600 / rate * 1e6:.2f}",
    }


async def measured(
    directory: Path,
    models: Path,
    name: str,
    engine: Engine,
    settings: dict[str, str],
    seconds: float,
    counts: Sequence[int],
) -> Constants:
    """The constants, each in seconds and bytes. counts: so many replicas, one load each."""
    alone, _ = await _loaded(directory / "alone", models, settings, 1, seconds)
    loads, idles = [], []
    for count in counts:
        log = f"of-{count}"
        whole = settings | shared(engine, log)
        found = await _loaded(directory / log, models, whole, count, seconds)
        loads.append(found[0])
        idles.append(found[1])
    idle = statistics.median(idles)
    pairs = np.array([load.pairs for load in loads])
    terms = np.array([pairs, pairs * np.array(counts)]).T
    used = np.array(
        [load.cpu_s - n * idle * load.seconds for n, load in zip(counts, loads, strict=True)]
    )
    asked, applied = np.linalg.lstsq(terms, used, rcond=None)[0]
    log = f"of-{counts[0]}"
    events, size, took = await read_whole(log_of(name, engine.address, log))
    with uncollected():
        copy = directory / log / "r0" / "events.sqlite3"
        folded = cpu_s(partial(fold, copy, settings["BANDIT_POLICY_NAME"]))
    append, _ = await appended(
        partial(log_of, name, engine.address, "append"), _WRITERS, _BATCH, seconds
    )
    return Constants(
        alone=alone.cpu_s / alone.pairs,
        asked=max(0.0, float(asked)),
        applied=float(applied),
        folded=folded / loads[0].pairs,
        off=float(np.max(np.abs(terms @ (asked, applied) / used - 1))),
        idle=idle,
        bytes=size / loads[0].pairs,
        events=events / loads[0].pairs,
        append=append,
        replay=events / took,
    )


async def _loaded(
    directory: Path, models: Path, environ: dict[str, str], count: int, seconds: float
) -> tuple[Measured, float]:
    """So many replicas under load, and the CPU that one takes of a second without any."""
    await asyncio.to_thread(directory.mkdir)
    whole = os.environ | environ  # noqa: TID251 - passed on
    async with (
        started(directory, models, whole, count) as replicas,
        aiohttp.ClientSession() as session,
    ):
        clients = Clients(session, replicas)
        load = await clients.load(seconds, _CLIENTS)
        await asyncio.sleep(1.0)  # what it still had to do
        idle = await clients.rest(seconds / 2) / count
    return load, idle


def constants(found: Constants) -> list[dict[str, Any]]:
    """As a table."""
    return [
        {"measured": what, "": value}
        for what, value in (
            ("one process on SQLite (baseline), CPU ms a pair", 1e3 * found.alone),
            ("a replica, CPU ms: a pair asked and answered", 1e3 * found.asked),
            ("a pair applied, by each replica", 1e3 * found.applied),
            ("a pair applied among many at once", 1e3 * found.folded),
            ("a second without requests", 1e3 * found.idle),
            ("the loads differ from these by at most, %", 1e2 * found.off),
            ("events a pair", found.events),
            ("bytes a pair in the log", found.bytes),
            (f"appended by {_WRITERS} writers, events/s", found.append),
            ("read by one reader, events/s", found.replay),
        )
    ]


def main() -> int:
    """Measure and print; 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=engines.NAMES, default="postgres")
    parser.add_argument("--policy", default="nested")
    parser.add_argument(
        "--embeddings", choices=CODINGS, default=FLOAT32, help="log.embeddings of the replicas"
    )
    parser.add_argument("--copies", type=int, default=3, help="replicas of each log")
    parser.add_argument(
        "--busy", type=float, default=0.6, help="of a core, at most; and of a server"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument(
        "--replicas", type=int, nargs="+", default=[1, 2, 3], help="two numbers or more"
    )
    parser.add_argument("--usd-core-hour", type=float, default=0.04)
    parser.add_argument(
        "--usd-gb-month", type=float, default=0.10, help="a day's log is kept twice"
    )
    parser.add_argument(
        "--usd-gb-between", type=float, default=0.02, help="from zone to zone, once for each copy"
    )
    parser.add_argument("--models", type=Path, default=Path("var/models"))
    parser.add_argument("--markdown", type=Path, help="the document to write the tables into")
    args = parser.parse_args()
    if args.copies < 1 or not 0 < args.busy <= 1:
        parser.error("--copies is at least 1, --busy above 0 and at most 1")
    if len(set(args.replicas)) < 2 or min(args.replicas) < 1:
        parser.error("--replicas are at least two numbers from 1")
    if why := engines.missing(args.engine):
        print(why, file=sys.stderr)
        return 2
    with (
        engines.running(args.engine) as engine,
        tempfile.TemporaryDirectory(prefix="bandit-") as directory,
    ):
        found = asyncio.run(
            measured(
                Path(directory),
                args.models,
                args.engine,
                engine,
                {
                    "BANDIT_POLICY_NAME": args.policy,
                    "BANDIT_LOG_EMBEDDINGS": args.embeddings,
                },
                args.seconds,
                args.replicas,
            )
        )
    prices = Prices(args.usd_core_hour, args.usd_gb_month, args.usd_gb_between)
    rows = [sized(rate, found, args.copies, args.busy, prices) for rate in RATES]
    tables = {
        f"scale-constants-{args.engine}": show(constants(found)),
        f"scale-model-{args.engine}": show([baseline(found, args.busy, prices), *rows]),
    }
    for name, table in tables.items():
        print(f"\n{table}")
        if args.markdown is not None:
            put_section(args.markdown, name, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
