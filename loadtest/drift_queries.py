"""Queries of a kind that was never asked before: how soon the watch says so, and how often not."""

from __future__ import annotations

import statistics
from collections import Counter

import numpy as np

from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.resolve import resolve
from bandit_service.core.world import new_world
from bandit_service.data.recall import recall_stream
from bandit_service.lab.data import Labelled
from bandit_service.lab.tables import Table
from bandit_service.runtime.detectors import DriftWatch
from policies import ArmId, Floats, load

BEFORE, AFTER = 1500, 300


def distances(data: Labelled, task: str, seed: int, share: float) -> Floats | None:
    """1 − mean similarity of the 20 nearest, of queries of other tasks and then `share` of `task`.

    With share 0 nothing changes. None where the recording has too few queries.
    """
    rng = np.random.default_rng(seed)
    tasks = np.array(data.recorded.tasks)
    known = rng.permutation(np.flatnonzero(tasks != task))
    new = rng.permutation(np.flatnonzero(tasks == task))
    many = int(share * AFTER)
    if len(known) < BEFORE + AFTER - many or len(new) < many:
        return None
    later = np.concatenate([new[:many], known[BEFORE : BEFORE + AFTER - many]])
    rows = np.concatenate([known[:BEFORE], rng.permutation(later)])
    similarities = recall_stream(data.embeddings[rows], 20, 20_000).similarities
    found: Floats = 1.0 - similarities[20:].mean(axis=1, dtype=np.float64)
    return found


def alarms(values: Floats) -> list[int]:
    """After how many of the values there was an alarm."""
    world, watch, found = new_world({"uniform": load("uniform")}, "uniform", 1), DriftWatch(), []
    for i, value in enumerate(values.tolist()):
        event = ev.Decided(
            ts=0.0,
            id=str(i),
            embedding=b"",
            tokens=1,
            willingness_to_pay=1.0,
            arms=(ArmId("a"),),
            propensities=(1.0,),
            scores=(0.0,),
            drawn=0,
            policy="",
            key="",
            list_cost_usd=0.0,
            expected_cost_usd=0.0,
            price=0.0,
            neighbours=(0,),
            similarities=(1.0 - value,),
        )
        world = apply(world, event)
        alarm = watch.happened(resolve(world, event), world)
        if alarm is not None:
            found.append(i + 1)
            watch.happened(resolve(world, alarm), apply(world, alarm))
    return found


def queries(data: Labelled, seeds: int) -> Table:
    """A row for each share of new queries, over the four most frequent tasks."""
    tasks = [task for task, _ in Counter(data.recorded.tasks).most_common(4)]
    rows, change = [], BEFORE - 20
    for share in (0.0, 0.25, 0.5, 1.0):
        runs, false, delays = 0, 0, []
        for task in tasks:
            for seed in range(seeds):
                values = distances(data, task, seed, share)
                if values is None:
                    continue
                told = alarms(values)
                runs += 1
                false += sum(at <= change for at in told)
                delays += [at - change for at in told if at > change][:1]
        if runs:
            delay = f"{statistics.median(delays):.0f}" if delays else "–"
            rows.append((f"{share:.0%}", str(false), f"{len(delays)} of {runs}", delay))
    return Table(
        f"{data.recorded.name}: queries of a task that was never asked before",
        (
            "their share",
            f"alarms in the {BEFORE} before",
            f"alarm in the {AFTER} after",
            "median delay, queries",
        ),
        tuple(rows),
        f"The four most frequent tasks, each kept back for {BEFORE} queries.",
    )
