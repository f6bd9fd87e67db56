"""A price that changes acts with the next decision, and says nothing of an arm's skill."""

from __future__ import annotations

import numpy as np
import pytest

import policies
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.decide import decide
from bandit_service.core.exploration import Exploration
from bandit_service.core.query import Query, Recalled
from bandit_service.core.world import World, new_world
from policies import ArmId, Context, Floats

A, B, NEW = ArmId("a"), ArmId("b"), ArmId("new")
QUERY = np.eye(4, dtype=np.float32)[0]
NO_FLOOR = Exploration(share=0.0)


def _arm(id: ArmId, usd: float) -> ev.ArmSpec:
    return ev.ArmSpec(id=id, usd_per_mtok_in=usd, usd_per_mtok_out=usd)


def _world(name: str, usd: dict[ArmId, float]) -> World:
    world = new_world({name: policies.load(name)}, name, 100)
    for id, price in usd.items():
        apply(world, ev.ArmAdded(ts=0.0, arm=_arm(id, price), source="api"))
    return world


def _propensities(world: World, id: str) -> tuple[ev.Decided, dict[ArmId, float]]:
    query = Query(embedding=QUERY, tokens=100, willingness_to_pay=0.1)
    decided = decide(world, query, Recalled([], []), id, 1.0, NO_FLOOR)
    return decided, dict(zip(decided.arms, decided.propensities, strict=True))


def _teach(world: World, quality: dict[ArmId, float], n: int) -> None:
    for i in range(n):
        decided, _ = _propensities(world, f"d{i}")
        apply(world, decided)
        earned = quality[decided.arm]
        apply(world, ev.Rewarded(ts=1.0, decision_id=decided.id, quality=earned, reward=earned))


@pytest.mark.parametrize("name", ["nested", "metallm"])
def test_the_very_next_decision_leaves_an_arm_whose_price_rises_sixtyfold(name: str) -> None:
    """400 tokens at 5 $ per million are 0.002 $ or 0.02 of quality; at 300 $ they are 1.2 of it."""
    world = _world(name, {A: 5.0, B: 5.0})
    _teach(world, {A: 0.9, B: 0.5}, 40)
    _, before = _propensities(world, "before")
    assert before[A] > 0.99
    apply(world, ev.ArmUpdated(ts=2.0, arm=_arm(A, 300.0), source="api"))
    _, after = _propensities(world, "after")
    assert after[A] < 0.01
    apply(world, ev.ArmUpdated(ts=3.0, arm=_arm(A, 5.0), source="api"))
    assert _propensities(world, "again")[1] == before


def _quality(world: World) -> dict[ArmId, float]:
    arms = world.catalogue.priced(world.offered(), 100)
    learner = world.learners["nested"]
    context = Context(QUERY, tokens=100, willingness_to_pay=0.1)
    found: Floats | None = learner.policy.propose(learner.state, context, arms).quality
    assert found is not None
    return dict(zip(arms.ids, found.tolist(), strict=True))


@pytest.mark.parametrize("arm", [A, NEW])
def test_a_promotion_is_no_belief_about_skill_of_an_arm_tried_or_not(arm: ArmId) -> None:
    world = _world("nested", {A: 5.0, B: 1.0})
    _teach(world, {A: 0.9, B: 0.5}, 40)
    apply(world, ev.ArmAdded(ts=1.5, arm=_arm(NEW, 20.0), source="api"))
    before = _quality(world)
    apply(
        world,
        ev.ArmUpdated(
            ts=2.0, arm=_arm(arm, world.arms[arm].spec.usd_per_mtok_in / 10), source="api"
        ),
    )
    assert _quality(world) == before
    # while the price at which an arm joins does say something
    apply(world, ev.ArmAdded(ts=3.0, arm=_arm(ArmId("cheap"), 0.1), source="api"))
    told = _quality(world)
    assert told[ArmId("cheap")] < told[NEW]
