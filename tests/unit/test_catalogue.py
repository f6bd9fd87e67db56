"""The arms of a decision with what it costs on each: compiled once for all, the same as by hand."""

from __future__ import annotations

import msgspec
import numpy as np

from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.arm_record import relative_price
from bandit_service.core.arm_table import families
from bandit_service.core.world import World, new_world
from policies import ArmId, Arms, load


def _world() -> World:
    world = new_world({"uniform": load("uniform")}, "uniform", 1)
    for i, family in enumerate(("x", "x", "", "y")):
        spec = ev.ArmSpec(
            id=ArmId("dacb"[i]),
            usd_per_mtok_in=1.0 + i,
            usd_per_mtok_out=2.0 * i,
            family=family,
        )
        world = apply(world, ev.ArmAdded(ts=1.0, arm=spec, source="api"))
    return world


def _by_hand(world: World, costs: list[float]) -> Arms:
    records, dearest = world.offered(), world.catalogue.dearest_price()
    family, kin = families(records, (world.arms[id] for id in sorted(world.arms)), dearest)
    return Arms(
        ids=tuple(one.spec.id for one in records),
        cost_usd=np.array(costs),
        price=np.array([relative_price(one.spec, dearest) for one in records]),
        first_price=np.array([one.first_price for one in records]),
        family=family,
        kin=kin,
    )


def _told(arms: Arms) -> list[object]:
    assert arms.first_price is not None
    arrays = (arms.cost_usd, arms.price, arms.first_price)
    kin = None if arms.kin is None else _told(arms.kin)
    return [arms.ids, *(each.tolist() for each in arrays), arms.family, kin]


def test_all_of_them_are_as_by_hand_after_each_change() -> None:
    world = _world()
    cheaper = msgspec.structs.replace(world.arms[ArmId("b")].spec, usd_per_mtok_in=0.5)
    changes: list[ev.AnyEvent] = [
        ev.ArmUpdated(ts=2.0, arm=cheaper, source="api"),
        ev.ArmRetired(ts=3.0, id=ArmId("d"), source="api"),
    ]
    for change in (None, *changes):
        world = world if change is None else apply(world, change)
        costs = [0.25 * i for i in range(len(world.offered()))]
        arms = world.catalogue.costing(world.offered(), costs)
        assert _told(arms) == _told(_by_hand(world, costs))


def test_some_of_them_are_those() -> None:
    world = _world()
    some = world.offered()[:3]
    arms = world.catalogue.costing(some, [1.0, 2.0, 3.0])
    assert arms.ids == ("a", "b", "c")
    assert arms.cost_usd.tolist() == [1.0, 2.0, 3.0]
    others = [*world.offered()[1:], world.offered()[0]]
    assert world.catalogue.costing(others, [0.0] * 4).ids == ("b", "c", "d", "a")
