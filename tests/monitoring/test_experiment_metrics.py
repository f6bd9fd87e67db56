"""Which experiments have labels of their own, and which count as `other`."""

from __future__ import annotations

import re

from prometheus_client import CollectorRegistry, generate_latest

import policies
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.experiments.spec import Experiment, Variant
from bandit_service.core.world import World, new_world
from bandit_service.telemetry import metrics
from bandit_service.telemetry.experiment_metrics import ExperimentMetrics
from policies import ArmId


def _world() -> World:
    world = new_world({"uniform": policies.load("uniform")}, "uniform", 10)
    spec = ev.ArmSpec(id=ArmId("a"), usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
    return apply(world, ev.ArmAdded(ts=0.0, arm=spec, source="config"))


def _run(world: World, id: str, ts: float, variants: int = 2, status: str = "running") -> None:
    keyed = tuple(
        Variant(key=f"v{k}", weight=1.0 / variants, learning="shared") for k in range(variants)
    )
    spec = Experiment(id=id, variants=keyed)
    for each in ("draft", "running", status):
        apply(world, ev.ExperimentChanged(ts=ts, experiment=spec, status=each))


def _decided(world: World, id: str) -> ev.Decided:
    return ev.Decided(
        ts=world.ts,
        id=f"d-{world.events}",
        embedding=b"\0\0\0\0",
        tokens=1,
        willingness_to_pay=0.1,
        arms=(ArmId("a"),),
        propensities=(1.0,),
        scores=(0.0,),
        drawn=0,
        policy="uniform",
        key="",
        list_cost_usd=0.1,
        expected_cost_usd=0.1,
        price=0.5,
        experiment=id,
        variant="v0",
        split=0.5,
        member="m",
    )


def _labelled(registry: CollectorRegistry, name: str) -> set[str]:
    text = generate_latest(registry).decode()
    return set(re.findall(rf'^{name}{{.*?experiment="([^"]+)"', text, re.MULTILINE))


def test_running_ones_come_before_stopped_and_newer_before_older_within_the_bounds() -> None:
    world, registry = _world(), CollectorRegistry()
    found = ExperimentMetrics(metrics.Metrics(registry))
    for k in range(metrics.MAX_EXPERIMENTS + 2):
        _run(world, f"old-{k}", ts=float(k), status="stopped")
    _run(world, "now", ts=100.0)
    found.look(world)
    stopped = {f"old-{k}" for k in range(3, metrics.MAX_EXPERIMENTS + 2)}
    assert _labelled(registry, "bandit_experiment_units") == stopped | {"now"}
    for id in ("now", "old-0"):
        found.decided(id, _decided(world, id).variant)
    assert _labelled(registry, "bandit_experiment_decisions_total") == {"now", metrics.OTHER}


def test_the_variants_of_all_together_are_bounded_and_a_big_one_leaves_room_for_small_ones() -> (
    None
):
    world, registry = _world(), CollectorRegistry()
    _run(world, "small", ts=1.0)
    _run(world, "too-big", ts=2.0, variants=metrics.MAX_VARIANTS - 4)
    _run(world, "big", ts=3.0, variants=metrics.MAX_VARIANTS - 3)
    ExperimentMetrics(metrics.Metrics(registry)).look(world)
    assert _labelled(registry, "bandit_experiment_units") == {"big", "small"}


def test_what_is_deleted_is_gone_with_the_next_look() -> None:
    world, registry = _world(), CollectorRegistry()
    found = ExperimentMetrics(metrics.Metrics(registry))
    _run(world, "e", ts=1.0)
    found.admit(world)
    found.decided("e", _decided(world, "e").variant)
    found.look(world)
    names = ("decisions_total", "units", "weight", "srm_p_value", "guardrail_state")
    assert all(_labelled(registry, f"bandit_experiment_{name}") == {"e"} for name in names)
    apply(world, ev.ExperimentDeleted(ts=2.0, id="e"))
    found.look(world)
    assert all(_labelled(registry, f"bandit_experiment_{name}") == set() for name in names)
