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
from bandit_service.core.arm_record import ArmRecord
from bandit_service.core.budget_leases import BudgetLeases
from bandit_service.core.calibrations import Calibrations
from bandit_service.core.catalogue import Catalogue
from bandit_service.core.chosen_policy import ChosenPolicy
from bandit_service.core.configuration import Configuration, Revision
from bandit_service.core.conversations import Conversations, Talk, Visit
from bandit_service.core.counts import Counts
from bandit_service.core.decisions import Decisions
from bandit_service.core.drift import QUERIES, Allowance, Drift, Track
from bandit_service.core.erasures import Erasures
from bandit_service.core.experiments.records import ExperimentRecords
from bandit_service.core.experiments.spec import Experiment, Rules, Variant
from bandit_service.core.experiments.trial import Trial
from bandit_service.core.history import History
from bandit_service.core.judge_grades import Agreement, JudgeGrades, Scored
from bandit_service.core.learner import Learner
from bandit_service.core.learners import Learners
from bandit_service.core.metric_spec import NamedMetric
from bandit_service.core.named_metrics import NamedMetrics, Tally
from bandit_service.core.pending import PendingDecisions
from bandit_service.core.policy_building import PolicyBuilding
from bandit_service.core.resolved import Pending
from bandit_service.core.retention import Retention
from bandit_service.core.routes import Routes
from bandit_service.core.sessions import Sessions, Told
from bandit_service.core.spend import Spend
from bandit_service.core.world import TAKERS, World, new_world
from bandit_service.statistics.calibration import Calibrating, Calibration
from policies import ArmId

UNIFORM = policies.load("uniform")
FEATURES = sorted({name for taken in TAKERS.values() for name, _ in taken})
CARRIED = [each.name for each in fields(World) if not each.name.startswith("_")]
IF_ANY = {each.name for each in fields(World) if each.metadata == codec.IF_ANY}


def _world() -> World:
    return new_world({"uniform": UNIFORM}, "uniform", 10)


def _others() -> dict[str, Any]:
    """Another value of each field than a new world has."""
    learner = Learner(UNIFORM, UNIFORM.init(), 1, 2, "uniform", "key", b"{}", "e/v", 3, (4, 5))
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
    alarm = ev.DriftDetected(
        ts=1.0, arm=ArmId("a"), detector="d", direction="up", before=0.0, after=1.0, seen=1, begun=1
    )
    return {
        "learners": Learners({"uniform": Learner(UNIFORM, UNIFORM.init()), "other": learner}),
        "history": History(10, next_id=7, faded={ArmId("a"): 3}),
        "counts": Counts(1, 2, 3),
        "policy": ChosenPolicy("knn", "key", b"{1}", "other"),
        "catalogue": Catalogue(
            {ArmId("a"): ArmRecord(spec, "api", True, 1.0, 2.0, 3, 4.0, 5, 6.0, 7.0, 8, 9.0, 1.5)},
            {ArmId("a"): spec},
        ),
        "pending": PendingDecisions(
            Decisions(
                {
                    "d": Pending(
                        decided,
                        {"x": 1.0},
                        {"k": "h"},
                        {"y": 2.0},
                        True,
                        3.0,
                        {"b": (1.0, True)},
                        ArmId("b"),
                        "east",
                        7,
                    )
                }.items()
            ),
            OrderedDict(k="h"),
            {"key": "d"},
        ),
        "erasures": Erasures({"owner": None}),
        "conversations": Conversations(
            OrderedDict(talk=Talk((Visit(ArmId("a"), 1.0, 2),), "owner")),
            {ArmId("a"): [(1.0, 2.0)] * 5},
            1,
            2,
        ),
        "experiments": ExperimentRecords(
            {"e": experiment},
            {"e": Trial(status="running", mixed=1)},
            {"e": experiment},
            Rules(stopped=True),
            Rules(stopped=True),
            {"bot": (0.1, "a")},
        ),
        "calibrations": Calibrations(
            {"uniform": Calibrating(Calibration(1, 2, [3.0, 4.0], {"a": [5.0, 6.0]}))}
        ),
        "spend": Spend({"hour": {"w": {"service": 1.0}}}),
        "building": PolicyBuilding("knn", "knn:1", b"{1}", "api", {1: 2}, 3),
        "retention": Retention(4),
        "leases": BudgetLeases({"hour": {"w": {"service": {1: 0.5}}}}),
        "routes": Routes({"bot": ev.RouteSpec(id="bot", policy="knn")}, ["old"]),
        "named": NamedMetrics(
            {"solved": NamedMetric(name="solved")},
            True,
            {"solved": {ArmId("a"): Tally(1.0, 2.0)}},
            {"bot": {"solved": 2.0}},
        ),
        "configuration": Configuration(
            1,
            {"budgets": [{"scope": "service", "per": "day", "usd": 1.0}]},
            {"budgets": {"service * day": "00"}},
            [Revision(1, 2.0, "ops", "why", "api", ["budgets"], {"budgets": []})],
            ["ab"],
        ),
        "judging": JudgeGrades(
            {"d": Scored("j", "00", "bot", "owner", 7_000, 5_000)},
            {"00 j": {"bot": Agreement(1, 2, 3, 4, 5, 6, 7, {70: [1, 2, 3]})}},
            {"j": "00"},
        ),
        "sessions": Sessions(
            {"g": ["d"]},
            {"g": Told({"quality": 1.0}, 1)},
            {"d": "owner"},
            ["csat"],
            {"csat": {ArmId("a"): Tally(1.0, 2.0)}},
        ),
        "drift": Drift({QUERIES: Track(1)}, {QUERIES: Allowance(0.1, 2)}, [alarm]),
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
    assert list(encoded) == [name for name in CARRIED if name not in IF_ANY]
    assert {
        "building",
        "configuration",
        "judging",
        "leases",
        "routes",
        "named",
        "sessions",
        "retention",
    } == IF_ANY, "of which a world that has none is written as it was before"


def test_what_is_chosen_or_only_told_is_not_folded() -> None:
    world = _world()
    world.learners.serving_key = "another"
    told = replace(world, _why_unapplied="somewhere")
    assert told.digest() == _world().digest()


@pytest.mark.parametrize("name", FEATURES)
def test_each_field_of_a_feature_is_in_the_digest_and_comes_back(name: str) -> None:
    """A field that is added to a feature needs no other place."""
    other = _others()[name]
    if name in ("learners", "history"):
        return  # not their fields are written, but what `folded` gives; see above
    new = getattr(_world(), name)
    for each in (one for one in fields(other) if not one.name.startswith("_")):
        changed, alone = _world(), replace(new, **{each.name: getattr(other, each.name)})
        setattr(changed, name, alone)
        assert changed.digest() != _world().digest(), f"the digest does not see {each.name}"
        assert getattr(_through_a_snapshot(changed), name) == alone


def test_every_other_field_is_no_feature() -> None:
    assert sorted(set(CARRIED) - set(FEATURES)) == ["events", "ts", "unapplied"]
