"""Decisions that wait to be counted together: each is counted, or refused in its own fold."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

import policies
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.calibrations import Calibrations
from bandit_service.core.resolved import Resolved
from bandit_service.core.world import World, new_world
from bandit_service.statistics.calibration import Calibration
from policies import ArmId

A, B = ArmId("a"), ArmId("b")


def _decided(id: str, **fields: Any) -> ev.Decided:
    event = ev.Decided(
        ts=1.0,
        id=id,
        embedding=np.eye(4, dtype=np.float32)[0].tobytes(),
        tokens=1,
        willingness_to_pay=0.1,
        arms=(A, B),
        propensities=(0.5, 0.5),
        scores=(0.0, 0.0),
        drawn=0,
        policy="p",
        key="k",
        list_cost_usd=0.01,
        price=1.0,
        expected_quality=0.8,
        expected_cost_usd=0.01,
    )
    return msgspec.structs.replace(event, **fields)


def _world() -> World:
    world = new_world({"uniform": policies.load("uniform")}, "uniform", 10)
    for id in (A, B):
        spec = ev.ArmSpec(id=id, usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
        apply(world, ev.ArmAdded(ts=0.0, arm=spec, source="api"))
    return world


@pytest.mark.parametrize("wrong", [{"propensities": (0.2, 0.3, 0.5)}, {"propensities": (1.0,)}])
def test_an_event_that_cannot_be_counted_takes_no_other_with_it(wrong: dict[str, Any]) -> None:
    world = _world()
    apply(world, _decided("before"))
    apply(world, _decided("wrong", **wrong))
    assert world.unapplied == 1, "it is this event that was stopped"
    apply(world, _decided("after"))
    assert world.calibrations.known()["p"].decisions == 2
    assert world.unapplied == 1


@pytest.mark.parametrize("drawn", [2, -3])
def test_nor_does_one_that_drew_an_arm_there_is_not(drawn: int) -> None:
    kept, what = Calibrations(), Resolved(_decided("any"), 1)
    kept._decided(_decided("before"), what)
    with pytest.raises(IndexError, match=f"arm {drawn} of 2"):
        kept._decided(_decided("wrong", drawn=drawn), what)
    kept._decided(_decided("after"), what)
    assert kept.known()["p"].decisions == 2


@pytest.mark.parametrize(
    ("arms", "rows"),
    [
        (("a", "b"), [[0.5, 0.5], [0.0, float("nan")], [0.4, 0.6]]),
        (("a", "b"), [[0.5, 0.5], [float("nan"), 0.5]]),
        (("a", "a"), [[0.5, 0.5], [0.3, 0.7]]),
    ],
    ids=["NaN beside 0", "NaN", "the same arm twice"],
)
def test_odd_ones_are_counted_together_as_one_by_one(
    arms: tuple[str, str], rows: list[list[float]]
) -> None:
    one_by_one, together = Calibration(), Calibration()
    for row in rows:
        one_by_one.add(zip(arms, row, strict=True), arms[1])
    together.add_many(arms, rows, [1] * len(rows))
    assert repr(together) == repr(one_by_one)
