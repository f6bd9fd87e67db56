"""The log: one row per batch beside one row per record, appended to and read by turns.

What counts is CPU time. The records are of a decision and a reward by turns, with ids as the
service makes them; an eighth of them belongs to a unit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bandit_service import clock
from loadtest.bench.world import Row, quiet_gc
from loadtest.old_log import OldWriter
from store import Record, open_to_read
from store.sqlite import SqliteLog

EVENTS, ROUNDS = 3200, 8
SIZES = (2000, 400)
"""Bytes of a decision and of a reward: on average those of a 384-dimensional embedding's world."""


def bench_log(directory: Path) -> list[Row]:
    """Microseconds of CPU for an event appended, and read with its CRC; bytes of the file."""
    rows: list[Row] = []
    for batch in (1, 8, 32):
        taken: dict[str, tuple[list[float], ...]] = {
            what: ([], [], []) for what in ("one row per record (baseline)", "per batch")
        }
        for turn in range(ROUNDS + 1):
            ids = clock.Ids(1e9)
            records = list(_records(ids, turn))
            with quiet_gc():
                for what, found in sorted(taken.items(), reverse=bool(turn % 2)):
                    path = directory / f"{batch}-{turn}-{what[-5]}.sqlite3"
                    measured = _measured(
                        path, OldWriter if "base" in what else SqliteLog, records, batch
                    )
                    if turn:  # the first one warms up
                        for kept, value in zip(found, measured, strict=True):
                            kept.append(value)
        base = taken["one row per record (baseline)"]
        for what, found in taken.items():
            append, read, size = (float(np.median(each)) for each in found)
            ratio = [
                np.median([a / b for a, b in zip(x, y, strict=True)])
                for x, y in zip(found, base, strict=True)
            ]
            rows.append(
                {
                    "log": what,
                    "events of an append": batch,
                    "append us": append,
                    "read us": read,
                    "bytes": size,
                    "x append": float(ratio[0]),
                    "x read": float(ratio[1]),
                    "x bytes": float(ratio[2]),
                }
            )
    return rows


def _records(ids: clock.Ids, seed: int) -> Iterator[Record]:
    chance = np.random.default_rng(seed)
    for i in range(EVENTS):
        size = int(SIZES[i % 2] * chance.uniform(0.8, 1.2))
        owner = f"unit {i % 97}" if i % 8 == 0 else ""
        ts = 1.7e9 + i / 100
        yield Record(ids.new(ts), ("decided", "rewarded")[i % 2], ts, chance.bytes(size), owner)


def _measured(
    path: Path, make: Callable[[Path], OldWriter | SqliteLog], records: list[Record], batch: int
) -> tuple[float, float, float]:
    log = make(path)
    batches = [records[i : i + batch] for i in range(0, len(records), batch)]
    begun = time.process_time()
    for each in batches:
        log.append(each)
    appended = time.process_time() - begun
    log.close()
    size = path.stat().st_size
    reading = open_to_read(path)
    begun = time.process_time()
    count = sum(1 for _ in reading.replay())
    read = time.process_time() - begun
    reading.close()
    path.unlink()
    return appended / count * 1e6, read / count * 1e6, size / count
