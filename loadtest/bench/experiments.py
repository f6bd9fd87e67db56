"""What experiments cost a decision: assignment, shadows, counting; beside the world without them.

`python -m loadtest.bench.experiments --repeat 100` is a look at it; `make bench` has it too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import numpy as np

from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.batch_deciding import weigh_many
from bandit_service.core.decide import Lot, drawn
from bandit_service.core.experiments.assignment import assigned
from bandit_service.core.experiments.spec import Audience, Experiment, Variant
from bandit_service.core.exploration import Exploration
from bandit_service.core.query import Query, Recalled
from bandit_service.core.resolved import Pending
from bandit_service.core.shadows import cast
from bandit_service.core.world import World
from bandit_service.runtime.shadows import AT_ONCE
from bandit_service.settings import Settings
from loadtest.bench.world import seconds_of
from policies import Vector
from store.history import HybridIndex

NEIGHBOURS, USERS = 20, 500
Row = dict[str, Any]
Filled = Callable[[str, int], tuple[World, HybridIndex]]

CASES: dict[str, tuple[int, int, str]] = {
    # experiments, shadows of each, scheme
    "no experiment": (0, 0, "native"),
    "1 experiment": (1, 0, "native"),
    "1 experiment, scheme growthbook_v2": (1, 0, "growthbook_v2"),
    "10 experiments, the last one takes the unit": (10, 0, "native"),
    "1 experiment with 1 shadow": (1, 1, "native"),
    "1 experiment with 3 shadows": (1, 3, "native"),
}


def an_experiment(i: int, of: int, shadows: int, scheme: str) -> Experiment:
    """Two isolated copies of the serving policy; each but the last takes no unit."""
    shades = tuple(Variant(key=f"shade{k}", shadow=True) for k in range(shadows))
    return Experiment(
        id=f"e{i}",
        variants=(Variant(key="a", weight=0.5), Variant(key="b", weight=0.5), *shades),
        share=1.0 if i == of - 1 else 0.0,
        audience=Audience(min_tokens=1),
        scheme=scheme,
    )


def run_experiment(world: World, spec: Experiment) -> None:
    """The experiment, its policies beginning with what the serving one knows."""
    state = codec.dump(world.learners[world.serving].state)
    apply(world, ev.ExperimentChanged(ts=1.0, experiment=spec, status="starting"))
    for one in spec.variants:
        apply(
            world,
            ev.VariantSeeded(
                ts=1.0,
                experiment=spec.id,
                variant=one.key,
                policy=world.serving,
                parameters=msgspec.json.encode({}),
                state=state,
                upto=world.events,
            ),
        )
    apply(world, ev.ExperimentChanged(ts=1.0, experiment=spec, status="running"))


class _Case:
    """A world with its experiments, and what its decisions took, in seconds by stage."""

    def __init__(self, filled: Filled, past: int, name: str) -> None:
        count, shadows, scheme = CASES[name]
        self.name = name
        self.world, self.index = filled(Settings().policy.name, past)
        for i in range(count):
            run_experiment(self.world, an_experiment(i, count, shadows, scheme))
        self.stages: dict[str, list[float]] = {one: [] for one in ("assign", "decide", "apply")}
        self.later: list[float] = []
        self._waiting: list[Pending] = []

    def decide(self, i: int, vector: Vector) -> None:
        """Decision i, applied; its shadows together with those of others."""
        query = Query(vector, 25, 0.1, unit=f"user-{i % USERS}")
        found = self.index.recall(query.embedding, NEIGHBOURS)
        recalled = Recalled(tuple(found.ids.tolist()), tuple(found.similarities.tolist()))
        t0 = time.perf_counter()
        assigned(self.world, query)
        t1 = time.perf_counter()
        (lot,) = weigh_many(self.world, [(query, recalled)], Exploration())
        assert isinstance(lot, Lot)
        event = drawn(lot, f"{self.name}-{i}", 2.0, Exploration())
        t2 = time.perf_counter()
        self.world = apply(self.world, event)
        t3 = time.perf_counter()
        self._waiting.append(self.world.pending.decisions[event.id])
        for stage, seconds in zip(self.stages, (t1 - t0, t2 - t1, t3 - t2), strict=True):
            self.stages[stage].append(seconds)
        if len(self._waiting) == AT_ONCE:
            later = seconds_of(partial(cast, self.world, self._waiting, Exploration()))
            self.later.append(later / AT_ONCE)
            self._waiting = []

    def row(self, after: int) -> Row:
        """Medians in microseconds, without the first `after` decisions."""
        row: Row = {"experiments": self.name}
        for stage, values in self.stages.items():
            row[f"{stage} p50 us"] = float(np.median(values[after:])) * 1e6
        row["decide + apply p50 us"] = row["decide p50 us"] + row["apply p50 us"]
        row["after the answer p50 us"] = float(np.median(self.later)) * 1e6
        return row


def bench_experiments(
    filled: Filled, asked: Vector, past: int = 10_000, repeat: int = 1000
) -> list[Row]:
    """Microseconds of the median decision: assign alone, decide, apply, the whole; and shadows.

    The worlds decide by turns, so that what else the machine does is the same for all.
    """
    cases = [_Case(filled, past, name) for name in CASES]
    for i in range(repeat + repeat // 10):
        for case in cases:
            case.decide(i, asked[i % len(asked)])
    rows = [case.row(repeat // 10) for case in cases]
    for row in rows:
        row["x none"] = row["decide + apply p50 us"] / rows[0]["decide + apply p50 us"]
    return rows


def main() -> None:
    """Print the table."""
    from loadtest.bench.tables import show
    from loadtest.bench.world import filled_world, vectors

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=1000, help="decisions of each row")
    parser.add_argument("--past", type=int, default=10_000, help="remembered queries")
    args = parser.parse_args()
    asked = vectors(2000, seed=2)
    print(show(bench_experiments(filled_world, asked, args.past, args.repeat)))


if __name__ == "__main__":
    main()
