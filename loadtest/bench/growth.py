"""How decide, learn, memory and start grow: with the past, arms, dimensions, experiments, units.

`python -m loadtest.bench.growth` prints a table of the default policy in which one thing grows at a
time, each with the exponent of its growth; `--whole` has a million past queries too, which take
minutes and gigabytes. Each row is measured in a process of its own, so that its memory is its own.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from tqdm import tqdm

from bandit_service.core import events as ev
from bandit_service.core import snapshot
from bandit_service.core.apply import fold, uncollected
from bandit_service.core.batch_deciding import weigh_many
from bandit_service.core.decide import Lot, drawn
from bandit_service.core.exploration import Exploration
from bandit_service.core.query import Query, Recalled
from bandit_service.core.resolve import resolve
from bandit_service.core.world import World
from bandit_service.settings import Settings
from loadtest.bench.experiments import an_experiment, run_experiment
from loadtest.bench.tables import show
from loadtest.bench.world import ARMS, DIM, NEIGHBOURS, PAST, filled_world, vectors
from loadtest.coverage.played import Played
from loadtest.sections import put_section
from policies import Vector
from store.history import HybridIndex

Row = dict[str, Any]
TOGETHER, TURNS, USERS = 32, 12, 500
_SIZES: dict[str, tuple[int, ...]] = {
    "past queries": (1_000, 10_000, 100_000, 1_000_000),
    "arms": (2, 11, 50, 200),
    "dimensions": (64, 384, 768, 1536),
    "experiments": (0, 1, 10, 50),
    "units": (1_000, 10_000, 100_000, 1_000_000),
}
"""What grows, to which sizes. All else stays as in `Cell`."""
_LARGE = 1_000_000
_BYTES_EACH = 12_000
"""Of memory for a remembered query or a unit, while a row of so many is made, amply."""
COLUMNS = ("decide alone us", "decide in 32 us", "learn us", "memory MB", "start ms")


@dataclass(frozen=True, slots=True)
class Cell:
    """One row: a world of these sizes. grows: which of them the row is about."""

    grows: str
    past: int = PAST
    arms: int = ARMS
    dim: int = DIM
    experiments: int = 0
    units: int = 0

    @property
    def size(self) -> int:
        """Of what grows."""
        return {
            "past queries": self.past,
            "arms": self.arms,
            "dimensions": self.dim,
            "experiments": self.experiments,
            "units": self.units,
        }[self.grows]

    @property
    def large(self) -> bool:
        """Whether it takes minutes and gigabytes."""
        return self.past >= _LARGE


def cells() -> list[Cell]:
    """All rows, in the order of the table. Units are those of one experiment."""
    fields = {"past queries": "past", "dimensions": "dim"}
    return [
        Cell(
            grows,
            **{fields.get(grows, grows): size} | ({"experiments": 1} if grows == "units" else {}),
        )
        for grows, sizes in _SIZES.items()
        for size in sizes
    ]


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """b of values ∝ sizes^b, by least squares of the logarithms; sizes of 0 are left out.

    >>> exponent([0, 1, 10, 100], [1.0, 2.0, 200.0, 20000.0])
    2.0
    """
    pairs = [
        (math.log(size), math.log(value))
        for size, value in zip(sizes, values, strict=True)
        if size > 0 and value > 0.0
    ]
    if len(pairs) < 2:
        return math.nan
    x, y = np.array(pairs).T
    x, y = x - x.mean(), y - y.mean()
    return round(float(x @ y / (x @ x)), 6)


def bench_growth(whole: bool = False) -> tuple[list[Row], list[str]]:
    """The rows, after each group one of the exponents; and what was not run, with why."""
    rows, left_out = list[Row](), list[str]()
    found: dict[str, list[Row]] = {}
    for cell in tqdm(cells(), desc="growth", disable=None, leave=False):
        why = _why_not(cell, whole)
        if not why:
            try:
                found.setdefault(cell.grows, []).append(_apart(cell))
                continue
            except (BrokenProcessPool, MemoryError) as error:
                why = f"its process ended ({type(error).__name__})"
        left_out.append(f"{cell.size:,} {cell.grows}: {why}")
    for grows, some in found.items():
        rows += [{"grows": grows} | row for row in some]
        sizes = [row["to"] for row in some]
        slope = {name: exponent(sizes, [row[name] for row in some]) for name in COLUMNS}
        rows.append({"grows": f"{grows}: exponent", "to": ""} | slope)
    return rows, left_out


def _why_not(cell: Cell, whole: bool) -> str:
    """Why a row is not run, "" if it is."""
    if cell.large and not whole:
        return "only with --whole"
    needed = _BYTES_EACH * max(cell.past, cell.units)
    there = psutil.virtual_memory().available
    if needed > there:
        return f"needs {needed / 1e9:.1f} GB of memory, {there / 1e9:.1f} are free"
    return ""


def _apart(cell: Cell) -> Row:
    """The row, measured in a process that has nothing else."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as process:
        return process.submit(measured, cell).result()


def measured(cell: Cell) -> Row:
    """CPU time of a decision alone and in a turn with others, of an outcome, of the world's start
    from a snapshot without the process's own; and what of memory the world and its index take.
    """
    told = _Progress(cell)
    before = _resident()
    with uncollected():
        world, index = _filled(cell)
    megabytes = (_resident() - before) / 1e6
    told.did("filled, and its index built")
    gc.freeze()
    asked = vectors(TOGETHER * TURNS * 2, seed=2, dim=cell.dim)
    half = len(asked) // 2
    alone, decided = _decisions(world, index, asked[:half:4], 1)
    together, more = _decisions(world, index, asked[half:], TOGETHER)
    told.did("decided")
    learned = _outcomes(world, index, [*decided, *more])
    told.did("learned")
    start_s = _start(world, index, cell)
    told.did("started")
    figures = (1e6 * alone, 1e6 * together, 1e6 * learned, megabytes, 1e3 * start_s)
    return {"to": cell.size} | dict(zip(COLUMNS, figures, strict=True))


class _Progress:
    """Says on stderr how far a row is that takes minutes."""

    def __init__(self, cell: Cell) -> None:
        self._cell, self._begun = cell, time.monotonic()

    def did(self, what: str) -> None:
        """This is done now."""
        if self._cell.large:
            seconds = time.monotonic() - self._begun
            gigabytes = psutil.Process().memory_info().rss / 1e9
            row = f"{self._cell.size:,} {self._cell.grows}"
            print(f"{row}: {what} after {seconds:.0f} s, {gigabytes:.1f} GB", file=sys.stderr)


def _resident() -> int:
    """Bytes of memory that are in use; what is free in the heap goes back before, where it can."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def _filled(cell: Cell) -> tuple[World, HybridIndex]:
    name = Settings().policy.name
    world, index = filled_world(name, cell.past, arms=cell.arms, dim=cell.dim)
    for i in range(cell.experiments):
        run_experiment(world, an_experiment(i, cell.experiments, 0, "native"))
    if cell.units:
        played = Played(next(iter(world.experiments.specs.values())))
        played.trial = world.experiments.trials[played.spec.id]
        for i in range(cell.units):
            played.value(played.decide(f"member-{i}", "ab"[i % 2], ts=2.0), 0.5)
    return world, index


def _decisions(
    world: World, index: HybridIndex, asked: Vector, at_once: int
) -> tuple[float, list[ev.Decided]]:
    """Seconds of the median one: recalled, weighed, drawn and applied with others of its turn."""
    seconds: list[float] = []
    made: list[ev.Decided] = []
    for start in range(0, len(asked), at_once):
        some = enumerate(asked[start : start + at_once], start)
        queries = [Query(one, 25, 0.1, unit=f"user-{i % USERS}") for i, one in some]
        seconds.append(_took(partial(_decide, world, index, queries, made)))
    return median(seconds[len(seconds) // 8 :]) / at_once, made


def _decide(
    world: World, index: HybridIndex, queries: Sequence[Query], made: list[ev.Decided]
) -> None:
    """Decide on these together, and put what was decided to what was before."""
    near = [
        Recalled(tuple(found.ids.tolist()), tuple(found.similarities.tolist()))
        for found in index.recall_many(np.array([one.embedding for one in queries]), NEIGHBOURS)
    ]
    before = len(made)
    for lot in weigh_many(world, list(zip(queries, near, strict=True)), Exploration()):
        assert isinstance(lot, Lot), lot
        made.append(drawn(lot, f"d-{len(queries)}-{len(made)}", 2.0, Exploration()))
    for event in made[before:]:
        fold(world, resolve(world, event))


def _outcomes(world: World, index: HybridIndex, decided: Sequence[ev.Decided]) -> float:
    """Seconds of the median one: applied, learned, and remembered by the index."""
    seconds = []
    for i, one in enumerate(decided):
        event = ev.Rewarded(
            ts=3.0, decision_id=one.id, quality=(i % 7) / 6, cost_usd=1e-3, reward=0.4
        )
        seconds.append(_took(partial(_learn, world, index, event)))
    return median(seconds[len(seconds) // 8 :])


def _learn(world: World, index: HybridIndex, event: ev.Rewarded) -> None:
    fold(world, resolve(world, event))
    added, removed = world.history.take_changes()
    for id in removed:
        index.remove(id)
    for id in added:
        index.add(id, world.history.vector(id))


def _start(world: World, before: HybridIndex, cell: Cell) -> float:
    """Seconds of CPU from a snapshot's bytes and the cells to a world with its index, of all
    threads.
    """
    before.wait()
    kept, placed = snapshot.dump(world), before.placed()
    name = world.serving
    policy = world.learners[name].policy
    begun = time.process_time()
    with uncollected():
        restored = snapshot.restore(snapshot.read(kept), {name: policy}, name)
        index = HybridIndex(cell.dim, restored.history.capacity, rows=restored.history)
        ids, stored = restored.history.vectors()
        index.load(ids, stored, placed)
    taken = time.process_time() - begun
    index.close()
    return taken


def _took(call: Callable[[], object]) -> float:
    """Seconds of this thread's CPU."""
    begun = time.thread_time()
    call()
    return time.thread_time() - begun


def told(rows: Sequence[Row], left_out: Sequence[str]) -> str:
    """The table as it stands in the document."""
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    not_run = "; ".join(left_out)
    said = f"\n\nNot run: {not_run}." if left_out else ""
    return f"Load of the machine at the end: {load}.\n\n{show(rows)}{said}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, and put it into a document if that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--whole", action="store_true", help="a million past queries, too")
    parser.add_argument("--markdown", type=Path, help="put the table into this document")
    args = parser.parse_args(argv)
    text = told(*bench_growth(args.whole))
    print(text)
    if args.markdown is not None:
        put_section(args.markdown, "growth", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
