"""No folded field is forgotten: each is in the digest, in the snapshot, and back from it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import fields, replace
from typing import Any

import msgspec
import pytest

import policies
from bandit_service.core import codec, snapshot
from bandit_service.core import events as ev
from bandit_service.core.drift import QUERIES, Allowance, Drift
from bandit_service.core.experiments.spec import Experiment, Rules, Variant
from bandit_service.core.experiments.trial import Trial
from bandit_service.core.history import History
from bandit_service.core.learner import Learner, Learners
from bandit_service.core.spend import Spend
from bandit_service.core.world import ArmRecord, Pending, World, new_world
from bandit_service.statistics.calibration import Calibration
from policies import ArmId

UNIFORM = policies.load("uniform")
CARRIED = [each.name for each in fields(World) if not each.name.startswith("_")]


def _world() -> World:
    return new_world({"uniform": UNIFORM}, "uniform", 10)


def _others() -> dict[str, Any]:
    """Another value of each field than a new world has."""
    learner = Learner(UNIFORM, UNIFORM.init(), 1, 2, None, "uniform", "key", b"{}", "e/v", 3)
    spec = ev.ArmSpec(id=ArmId("a"), usd_per_mtok_in=1.0, usd_per_mtok_out=2.0)
    experiment = Experiment(id="e", variants=(Variant(key="now"), Variant(key="v", policy="knn")))
    decided = ev.Decided(
        ts=1.0,
        id="d",
        embedding=b"1234",
        tokens=1,
        willingness_to_pay=0.1,
        arms=(ArmId("a"),),
        propensities=(1.0,),
        scores=(0.0,),
        drawn=0,
        policy="uniform",
        key="key",
        list_cost_usd=0.1,
        expected_cost_usd=0.1,
        price=0.1,
    )
    return {
        "learners": Learners({"uniform": Learner(UNIFORM, UNIFORM.init()), "other": learner}),
        "history": History(10, next_id=7, faded={ArmId("a"): 3}),
        "arms": {"a": ArmRecord(spec, "api", True, 1.0, 2.0, 3, 4.0, 5, 6.0, 7.0, 8)},
        "configured": {"a": spec},
        "pending": OrderedDict(
            d=Pending(decided, {"x": 1.0}, {"k": "h"}, {"y": 2.0}, True, 3.0, {"b": (1.0, True)})
        ),
        "keys": OrderedDict(k="h"),
        "erasing": {"owner": None},
        "experiments": {"e": experiment},
        "configured_experiments": {"e": experiment},
        "trials": {"e": Trial(status="running", mixed=1)},
        "rules": Rules(stopped=True),
        "configured_rules": Rules(stopped=True),
        "calibration": {"uniform": Calibration(1, 2, [3.0, 4.0], {"a": [5.0, 6.0]})},
        "spend": Spend({"hour": {"w": {"service": 1.0}}}),
        "drift": Drift(allowances={QUERIES: Allowance(0.1, 2)}),
    }


def _with_another(name: str) -> World:
    world = _world()
    new = {str: "other", bytes: b"other", int: 3, float: 2.5}
    before = getattr(world, name)
    setattr(world, name, _others()[name] if name in _others() else new[type(before)])
    return world


def _through_a_snapshot(world: World) -> World:
    kept = snapshot.read(snapshot.dump(world))
    return snapshot.restore(kept, {"uniform": UNIFORM}, "uniform")


@pytest.mark.parametrize("name", CARRIED)
def test_each_field_is_in_the_digest_and_comes_back_from_a_snapshot(name: str) -> None:
    changed = _with_another(name)
    assert changed.digest() != _world().digest(), "the digest does not see it"
    again = _through_a_snapshot(changed)
    assert codec.dump(again) == codec.dump(changed), "a snapshot loses it"
    assert type(getattr(again, name)) is type(getattr(changed, name))


def test_a_field_that_is_added_needs_no_other_place() -> None:
    """The codec reads the fields: there is no list of them to forget one in."""
    encoded = msgspec.msgpack.decode(codec.dump(_world()), type=dict[str, msgspec.Raw])
    assert list(encoded) == CARRIED


def test_what_is_chosen_or_only_told_is_not_folded() -> None:
    world = _world()
    world.learners.serving_key = "another"
    told = replace(world, _why_unapplied="somewhere")
    assert told.digest() == _world().digest()


def test_a_learner_that_is_folded_elsewhere_is_not_kept() -> None:
    world = _world()
    world.learners["being folded"] = Learner(UNIFORM, UNIFORM.init(), queue=[])
    assert world.digest() == _world().digest()
    assert list(_through_a_snapshot(world).learners) == ["uniform"]
