"""What watching costs: microseconds per event."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

import policies
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.drift import Drift
from bandit_service.core.resolve import resolve
from bandit_service.core.world import new_world
from bandit_service.lab.tables import Table
from bandit_service.runtime.detectors import DriftWatch
from policies import ArmId

EVENTS = 20_000


def cost() -> list[Table]:
    """The table of times."""
    return [_times()]


def _events() -> Iterator[ev.AnyEvent]:
    """Decisions of ten arms, each followed by its reward."""
    rng = np.random.default_rng(0)
    arms = tuple(ArmId(f"arm-{i}") for i in range(10))
    near = tuple(rng.uniform(0.3, 0.7, 20).tolist())
    for i in range(EVENTS):
        yield ev.Decided(
            ts=0.0,
            id=str(i),
            embedding=b"",
            tokens=1,
            willingness_to_pay=1.0,
            arms=arms,
            propensities=(0.1,) * 10,
            scores=(0.0,) * 10,
            drawn=i % 10,
            policy="",
            key="",
            list_cost_usd=0.0,
            expected_cost_usd=0.0,
            price=0.0,
            expected_quality=0.7,
            neighbours=tuple(range(20)),
            similarities=near,
        )
        yield ev.Rewarded(ts=0.0, decision_id=str(i), quality=1.0, reward=float(rng.random() < 0.7))


def _times() -> Table:
    events = list(_events())
    decided = [event for event in events if isinstance(event, ev.Decided)]
    rewarded = [event for event in events if isinstance(event, ev.Rewarded)]
    folded = Drift()
    begun = time.perf_counter()
    for i, event in enumerate(decided):
        folded.decided(event, i)
    fold_decided = time.perf_counter() - begun
    begun = time.perf_counter()
    for i, (event, reward) in enumerate(zip(decided, rewarded, strict=True)):
        folded.settled(event, reward.reward or 0.0, i)
    fold_settled = time.perf_counter() - begun
    world, watch = new_world({"uniform": policies.load("uniform")}, "uniform", 1), DriftWatch()
    spent = {ev.Decided: 0.0, ev.Rewarded: 0.0}
    for each in events:
        if isinstance(each, ev.Decided):
            world.pending.decisions.clear()
        world = apply(world, each)
        begun = time.perf_counter()
        watch.happened(resolve(world, each), world)
        spent[type(each)] += time.perf_counter() - begun
    rows = (
        ("decision", fold_decided, spent[ev.Decided]),
        ("reward", fold_settled, spent[ev.Rewarded]),
    )
    micro = 1e6 / EVENTS
    return Table(
        f"cost, microseconds, mean of {EVENTS}",
        ("of each", "folded, with or without detection", "detectors"),
        tuple((name, f"{micro * fold:.2f}", f"{micro * fed:.2f}") for name, fold, fed in rows),
    )
