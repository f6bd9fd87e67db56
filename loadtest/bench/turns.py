"""Decisions of one turn of the loop together, beside the same service that takes them one by one.

Two services on the same log, each in a process of its own, and a bare echo, asked by turns. What
counts is the CPU time of the server, so the load may come from the same machine.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import numpy as np
import psutil

from bandit_service.core import events as ev
from loadtest.bench.lean import ended, idle, learned_log, stream_load
from loadtest.bench.start import appears
from loadtest.bench.world import PAST, Row, vectors

ROUNDS, EACH, ECHOED, IN_FLIGHT = 12, 1500, 30_000, 32
"""An echo is so short that more of them are needed."""


async def bench_turns(directory: Path, past: int = PAST) -> list[Row]:
    """CPU of the server for a decide on a stream: echo, one by one, together."""
    log = directory / "events.sqlite3"
    await asyncio.to_thread(learned_log, log, past)
    asked = [
        msgspec.msgpack.encode({"op": "decide", "id": i, "embedding": ev.pack(vector)})
        for i, vector in enumerate(vectors(512, seed=5))
    ]
    taken: dict[str, list[float]] = {"echo (baseline)": [], "one by one": [], "together": []}
    async with AsyncExitStack() as stack:
        ways: dict[str, tuple[psutil.Process, str]] = {}
        for how in ("together", "one by one"):
            data = directory / how.replace(" ", "-")
            await asyncio.to_thread(data.mkdir)
            await asyncio.to_thread(shutil.copy, log, data / log.name)
            flags = ("--one-by-one",) if how == "one by one" else ()
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "loadtest.bench", "--serve", str(data), *flags
            )
            stack.push_async_callback(ended, process)
            urls = json.loads(await appears(data / "urls", process))
            watched = psutil.Process(process.pid)
            await idle(watched)
            ways[how] = watched, urls["service"] + "/v1/stream"
            ways["echo (baseline)"] = watched, urls["echo"] + "/echo-stream"
        for turn in range(ROUNDS + 1):
            for what, (watched, url) in sorted(ways.items(), reverse=bool(turn % 2)):
                each = ECHOED if what.startswith("echo") else EACH
                loaded = await stream_load(watched, url, asked, each, IN_FLIGHT)
                if turn:  # the first one warms up
                    taken[what].append(loaded.cpu_us)
    rows: list[Row] = []
    for what, found in taken.items():
        low, middle, high = np.percentile(found, [25, 50, 75])
        rows.append({"stream": what, "CPU us p25": low, "p50": middle, "p75": high})
    alone = taken["one by one"]
    for row, found in zip(rows, taken.values(), strict=True):
        pairs = [one / other for one, other in zip(found, alone, strict=True)]
        row["x one by one"] = statistics.median(pairs)
    return rows
