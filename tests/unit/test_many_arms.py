"""200 arms: each keeps its floor, all are tried, and the best is found and kept in a snapshot."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import policies
from bandit_service.core import events as ev
from bandit_service.core import outcomes, snapshot
from bandit_service.core.apply import apply
from bandit_service.core.decide import decide
from bandit_service.core.exploration import Exploration
from bandit_service.core.outcomes import Reported, RewardRule, Signals
from bandit_service.core.query import Query, Recalled
from bandit_service.core.world import World, new_world
from policies import ArmId

ARMS, DIM, ROUNDS = 200, 4, 400
BEST = ArmId("arm-123")
EXPLORE = Exploration(seed=7, share=0.02)
RULE = RewardRule(willingness_to_pay=0.01)


def _decided(world: World, i: int) -> ev.Decided:
    vector = np.zeros(DIM, np.float32)
    vector[0] = 1.0
    query = Query(vector, tokens=100, willingness_to_pay=RULE.willingness_to_pay)
    return decide(world, query, Recalled(), f"{i:032x}", float(i), EXPLORE)


def _lived(name: str) -> tuple[World, Counter[ArmId]]:
    """The world after some rounds, and how often each arm was drawn."""
    drawn = Counter[ArmId]()
    world = new_world({name: policies.load(name)}, name, 1_000)
    for i in range(ARMS):
        arm = ev.ArmSpec(id=ArmId(f"arm-{i}"), usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
        apply(world, ev.ArmAdded(ts=0.0, arm=arm, source="api"))
    for i in range(1, ROUNDS + 1):
        made = _decided(world, i)
        assert len(made.propensities) == ARMS
        assert sum(made.propensities) == pytest.approx(1.0)
        assert min(made.propensities) >= EXPLORE.share / ARMS * (1 - 1e-9)
        apply(world, made)
        drawn[made.arm] += 1
        report = Reported(Signals(quality=1.0 if made.arm == BEST else 0.2))
        pending = world.pending.decisions[made.id]
        taught = outcomes.decision_rewarded(pending, made.id, report, RULE, float(i))
        assert taught is not None
        apply(world, taught)
    return world, drawn


@pytest.mark.parametrize("name", ["metallm", "knn", "epsilon_greedy"])
def test_each_of_200_arms_keeps_its_floor_and_the_state_is_kept(name: str) -> None:
    world, drawn = _lived(name)
    kept = snapshot.read(snapshot.dump(world))
    again = snapshot.restore(kept, {name: policies.load(name)}, name)
    assert again.digest() == world.digest()
    now, then = _decided(world, ROUNDS + 1), _decided(again, ROUNDS + 1)
    assert (now.arm, now.arms) == (then.arm, then.arms)
    assert now.propensities == pytest.approx(then.propensities)
    if name == "metallm":  # it tried all of them, and found the one that is better
        assert now.untried == ()
        assert drawn.most_common(1)[0][0] == BEST
