"""The fold of a log, and a world to bytes and back, CPU time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import policies
from bandit_service.core import events as ev
from bandit_service.core import snapshot
from bandit_service.core.apply import apply, uncollected
from bandit_service.core.world import World, new_world
from loadtest.bench.start import PENDING, write_log
from loadtest.bench.world import Row
from store import open_log

FOLDED, ROUNDS, CAPACITY = 10_000, 5, 50_000
FOLDS = ("uniform", "nested", "metallm")


def bench_fold(directory: Path, past: int = PENDING) -> list[Row]:
    """Events of a log folded one after another; a world of so many pending decisions kept."""
    write_log(directory / "events.sqlite3", 2 * past)
    return [*_folds(directory / "events.sqlite3"), *_kept(directory / "events.sqlite3", past)]


@uncollected()
def _folds(path: Path) -> list[Row]:
    """By turns: only read and decoded, and folded for each policy."""
    ways: dict[str, Callable[[], Any]] = {
        "read, verified and decoded (baseline)": partial(fold, path, events=FOLDED)
    }
    ways |= {f"folded, {name}": partial(fold, path, name, FOLDED) for name in FOLDS}
    seconds: dict[str, list[float]] = {what: [] for what in ways}
    for _ in range(ROUNDS):
        for what, way in ways.items():
            seconds[what].append(cpu_s(way))
    least = {what: statistics.median(some) for what, some in seconds.items()}
    first = next(iter(least.values()))
    return [
        {
            "what": what,
            "CPU us an event": some / FOLDED * 1e6,
            "events per second": FOLDED / some,
            "x baseline": some / first,
        }
        for what, some in least.items()
    ]


def fold(path: Path, name: str = "", events: int | None = None) -> World | None:
    """The fold of a log, or of its first events; without a policy they are only decoded."""
    world = new_world({name: policies.load(name)}, name, CAPACITY) if name else None
    log = open_log(path)
    with world.in_blocks() if world is not None else nullcontext():
        for offset, body in log.replay():
            event = ev.decode(body)
            if world is not None:
                apply(world, event)
            if offset == events:
                break
    log.close()
    return world


def _kept(path: Path, past: int) -> list[Row]:
    """What is made of a world with `past` pending decisions, by turns."""
    with uncollected():
        world = fold(path, "uniform", 2 * past)
    assert world is not None
    state, by_label = snapshot.dump(world), {"uniform": policies.load("uniform")}

    def restored() -> World:
        return snapshot.restore(snapshot.read(state), by_label, "uniform")

    def decoded() -> None:
        again = restored()
        for id in again.pending.decisions:
            again.pending.decisions[id]

    lazy = restored()
    ways: dict[str, Callable[[], Any]] = {
        "a snapshot dumped, every decision decoded (baseline)": partial(snapshot.dump, world),
        "dumped as it was restored": partial(snapshot.dump, lazy),
        "digest, as it was restored": lazy.digest,
        "restored, and every decision decoded": decoded,
        "restored": restored,
    }
    seconds: dict[str, list[float]] = {what: [] for what in ways}
    with uncollected():
        for _ in range(ROUNDS):
            for what, way in ways.items():
                seconds[what].append(cpu_s(way))
    medians = {what: statistics.median(some) for what, some in seconds.items()}
    first = next(iter(medians.values()))
    return [
        {
            "what": f"{past:,} pending, {len(state) / 1e6:.0f} MB: {what}",
            "CPU ms": some * 1e3,
            "x baseline": some / first,
        }
        for what, some in medians.items()
    ]


def cpu_s(call: Callable[[], Any]) -> float:
    """The CPU time of this process that a call takes, without that of freeing what it returns."""
    begun = time.process_time()
    made = call()
    taken = time.process_time() - begun
    del made
    return taken
