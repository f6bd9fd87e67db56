"""Worlds with experiments, made event by event as the service makes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np

import policies
from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.decide import decide
from bandit_service.core.experiments.spec import Experiment, Rules, Variant
from bandit_service.core.exploration import Exploration
from bandit_service.core.query import Query, Recalled
from bandit_service.core.shadows import cast, seen
from bandit_service.core.world import World, new_world
from policies import ArmId, Vector

D = 4


def a_unit_vector(i: int) -> Vector:
    """The i-th axis."""
    vector = np.zeros(D, np.float32)
    vector[i % D] = 1.0
    return vector


def a_world(*arms: str, serving: str = "uniform", capacity: int = 50) -> World:
    """A world that offers these arms, each dearer than the one before."""
    world = new_world({serving: policies.load(serving)}, serving, capacity)
    for price, id in enumerate(arms or ("cheap", "dear"), 1):
        usd = float(price)
        spec = ev.ArmSpec(id=ArmId(id), usd_per_mtok_in=usd, usd_per_mtok_out=usd)
        apply(world, ev.ArmAdded(ts=0.0, arm=spec, source="api"))
    return world


def two_arms(id: str = "e", weights: tuple[float, float] = (0.5, 0.5), **fields: Any) -> Experiment:
    """An experiment of two fixed arms: `a` is the cheap one and the control, `b` the dear one."""
    variants = (
        Variant(key="a", arm="cheap", weight=weights[0]),
        Variant(key="b", arm="dear", weight=weights[1]),
    )
    return Experiment(**{"id": id, "variants": variants, **fields})


def put(
    world: World, spec: Experiment, status: str = "running", ts: float = 1.0, **fields: Any
) -> None:
    """The experiment as it now stands."""
    apply(world, ev.ExperimentChanged(ts=ts, experiment=spec, status=status, **fields))


def run(world: World, spec: Experiment, ts: float = 1.0) -> None:
    """Seed its policies with nothing learned, and let it run."""
    put(world, spec, "starting", ts)
    for one in spec.variants:
        if not one.arm and (one.policy or one.shadow or one.learning == "isolated"):
            name = one.policy or world.serving
            state = codec.dump(policies.load(name, **one.parameters).init())
            seeded = ev.VariantSeeded(
                ts=ts,
                experiment=spec.id,
                variant=one.key,
                policy=name,
                state=state,
                parameters=msgspec.json.encode(one.parameters),
                upto=world.events,
            )
            apply(world, seeded)
    put(world, spec, "running", ts)


def rules(world: World, ts: float = 1.0, **fields: Any) -> None:
    """Rules for all experiments."""
    apply(world, ev.RulesChanged(ts=ts, rules=Rules(**fields)))


def asked(unit: str = "u", axis: int = 0, **fields: Any) -> Query:
    """A query of this user."""
    embedding = a_unit_vector(axis)
    given = {"embedding": embedding, "tokens": 10, "willingness_to_pay": 0.1, "unit": unit}
    return Query(**{**given, **fields})


def decided(world: World, query: Query, ts: float = 2.0) -> ev.Decided:
    """The decision on it, applied, with what shadows would have done."""
    event = decide(
        world, query, Recalled(), f"d{world.events:06d}", max(ts, world.ts), Exploration()
    )
    apply(world, event)
    shadows_of(world, event)
    return world.pending.decisions[event.id].decided


def shadows_of(world: World, event: ev.Decided) -> tuple[ev.Shadow, ...]:
    """What shadows would do with a decision that was applied; applied, too."""
    if not seen(world, event):
        return ()
    (shadows,) = cast(world, [world.pending.decisions[event.id]], Exploration())
    apply(world, ev.Shadowed(ts=world.ts, decision_id=event.id, shadows=shadows))
    return shadows


def rewarded(world: World, event: ev.Decided, ts: float = 3.0, **signals: Any) -> None:
    """What came back for it, applied."""
    apply(world, ev.Rewarded(ts=max(ts, world.ts), decision_id=event.id, **signals))


def variants(world: World, units: Iterable[str]) -> dict[str, str]:
    """The variant that a new decision of each unit gets, "" for none; nothing is applied."""
    return {
        unit: decide(world, asked(unit), Recalled(), "x", 9.0, Exploration()).variant
        for unit in units
    }
