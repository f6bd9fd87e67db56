"""Events, arms and contexts for the laws: values by fixed formulas, arrays read-only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from policies import (
    SURFACE,
    ArmId,
    Arms,
    Compared,
    Comparison,
    Context,
    Floats,
    Neighbour,
    Outcome,
    Rewarded,
    Vector,
)

DIM = 8
IDS = tuple(ArmId(name) for name in ("a", "b", "c", "d", "e"))
Event = Rewarded | Compared


def fixed(values: Sequence[float] | Floats) -> Floats:
    """A float64 array that nobody can write into."""
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


def vector(number: int, dim: int = DIM) -> Vector:
    """The unit vector with this number; number 0 is all zeros, as when embedding failed."""
    drawn = np.random.default_rng(number).normal(size=dim) if number else np.zeros(dim)
    unit = (drawn / max(float(np.linalg.norm(drawn)), 1e-12)).astype(np.float32)
    unit.setflags(write=False)
    return unit


def arms_of(ids: Sequence[ArmId]) -> Arms:
    """These arms in this order, each with a cost and a price of its own."""
    price = [(1 + sum(arm.encode()) % 7) / 7 for arm in ids]
    return Arms(tuple(ids), fixed([0.004 * p for p in price]), fixed(price))


def alike(ids: Sequence[ArmId]) -> Arms:
    """These arms, none dearer than another."""
    return Arms(tuple(ids), fixed([0.001] * len(ids)), fixed([0.5] * len(ids)))


def neighbours_of(number: int) -> tuple[Neighbour, ...]:
    """None to four past queries with what came back for them."""
    rng = np.random.default_rng([7, number])
    found = []
    for i in range(int(rng.integers(0, 5))):
        first, second, third = (IDS[j] for j in rng.permutation(len(IDS))[:3])
        quality = float(rng.uniform())
        outcomes = (
            Outcome(first, quality, quality - 0.1),
            Outcome(second, None, float(rng.uniform(-1.0, 1.0))),
        )
        comparisons = (Comparison(second, third, bool(rng.integers(0, 2))),)
        similarity = 1.0 if i == 3 else float(rng.uniform(-0.2, 0.99))
        found.append(
            Neighbour(10 * number + i + 1, similarity, outcomes, comparisons if i % 2 else ())
        )
    return tuple(found)


def surface_of(number: int) -> Vector:
    """The surface features of the query with this number; every third has no text."""
    drawn = np.random.default_rng([5, number]).uniform(-0.6, 0.6, SURFACE)
    features = (drawn if number % 3 else np.zeros(SURFACE)).astype(np.float32)
    features.setflags(write=False)
    return features


@lru_cache(maxsize=4096)
def context_of(number: int, dim: int = DIM) -> Context:
    """The query with this number."""
    return Context(
        embedding=vector(number, dim),
        tokens=10 + number % 90,
        willingness_to_pay=(0.01, 0.1, 1.0)[number % 3],
        neighbours=neighbours_of(number),
        surface=surface_of(number),
    )


def rewarded(
    context: Context,
    arm: ArmId,
    quality: float | None,
    cost_usd: float | None,
    latency_s: float | None,
    reward: float | None,
    propensity: float = 0.4,
) -> Rewarded:
    """A pointwise outcome; the arm costs what `arms_of` says."""
    one = arms_of([arm])
    return Rewarded(
        context=context,
        arm=arm,
        propensity=propensity,
        price=float(one.price[0]),
        expected_cost_usd=float(one.cost_usd[0]),
        quality=quality,
        cost_usd=cost_usd,
        latency_s=latency_s,
        reward=reward,
    )


class Step(NamedTuple):
    """One event in brief, which hypothesis can shrink."""

    kind: str
    arm: int
    other: int
    query: int
    level: float


KINDS = ("all", "quality", "reward", "cost", "latency", "nothing", "compared", "tie")


def event_of(step: Step) -> Event:
    """The event that a step stands for."""
    context = context_of(step.query)
    arm = IDS[step.arm]
    other = IDS[(step.arm + step.other) % len(IDS)]
    level = step.level
    match step.kind:
        case "all":
            return rewarded(context, arm, level, 0.01 * level, 3.0 * level, 2.0 * level - 1.0)
        case "quality":
            return rewarded(context, arm, level, None, None, level)
        case "reward":
            return rewarded(context, arm, None, None, None, 2.0 * level - 1.0)
        case "cost":
            return rewarded(context, arm, None, 0.01 * level, None, None)
        case "latency":
            return rewarded(context, arm, None, 0.01 * level, 3.0 * level, None)
        case "nothing":
            return rewarded(context, arm, None, None, None, None)
        case "compared":
            return Compared(context, arm, other)
        case _:
            return Compared(context, arm, other, tie=True)


steps = st.builds(
    Step,
    kind=st.sampled_from(KINDS),
    arm=st.integers(0, len(IDS) - 1),
    other=st.integers(1, len(IDS) - 1),
    query=st.integers(0, 9),
    level=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
)
histories = st.lists(steps.map(event_of), max_size=20)
queries = st.integers(0, 40).map(context_of)
subsets = st.lists(st.sampled_from(IDS), unique=True, min_size=1)


def history(length: int, seed: int = 1, queries: int = 1_000_000) -> list[Event]:
    """The same events of every kind wherever it is asked for them."""
    return list(_history(length, seed, queries))


@cache
def _history(length: int, seed: int, queries: int) -> tuple[Event, ...]:
    """Made once, since nobody can write into an event, and most of a law's time went into this."""
    rng = np.random.default_rng([length, seed])
    found = []
    for _ in range(length):
        step = Step(
            kind=KINDS[int(rng.integers(0, len(KINDS)))],
            arm=int(rng.integers(0, len(IDS))),
            other=int(rng.integers(1, len(IDS))),
            query=int(rng.integers(0, queries)),
            level=float(rng.uniform()),
        )
        found.append(event_of(step))
    return tuple(found)
