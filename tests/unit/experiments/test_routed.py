"""Experiments on a route: who takes part, which policy learns of what, and what they may see."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bandit_service.core import codec, snapshot
from bandit_service.core import events as ev
from bandit_service.core.apply import apply, fold
from bandit_service.core.decide import decide
from bandit_service.core.errors import Refused
from bandit_service.core.exclusions import why_excluded
from bandit_service.core.experiments.checks import check
from bandit_service.core.experiments.hashing import sha256_fraction
from bandit_service.core.experiments.spec import Experiment, Variant
from bandit_service.core.exploration import Exploration
from bandit_service.core.history import View
from bandit_service.core.query import Recalled
from bandit_service.core.resolve import resolve
from bandit_service.core.world import World
from bandit_service.runtime import folding
from policies import load
from tests.unit.experiments.given import (
    a_world,
    asked,
    decided,
    put,
    rewarded,
    rules,
    run,
    two_arms,
)

BOT, LABEL = "bot", "route:bot"


def _routed(world: World, **fields: Any) -> World:
    spec = ev.RouteSpec(id=BOT, policy="epsilon_greedy", **fields)
    apply(world, ev.RouteChanged(ts=world.ts, route=spec, key="k"))
    return world


def _policies(**fields: Any) -> Experiment:
    """The route's policy, one that learns for itself, one that learns of all, and a shadow."""
    variants = (
        Variant(key="usual", weight=0.4, learning="shared"),
        Variant(key="own", policy="epsilon_greedy", weight=0.3),
        Variant(key="all", policy="epsilon_greedy", weight=0.3, learning="shared"),
        Variant(key="shadow", policy="epsilon_greedy", shadow=True),
    )
    return Experiment(id="e", variants=variants, route=BOT, **fields)


def _learned(world: World) -> dict[str, bytes]:
    nothing = codec.dump(load("epsilon_greedy").init())
    states = {label: codec.dump(one.state) for label, one in world.learners.items()}
    return {label: state for label, state in states.items() if state != nothing}


def _steps(world: World, unit: str = "u", **fields: Any) -> tuple[str, tuple[str, ...]]:
    made = decide(world, asked(unit, **fields), Recalled(), "x", 9.0, Exploration())
    return made.variant, made.steps


def test_only_decisions_of_its_route_take_part() -> None:
    world = _routed(a_world(serving="epsilon_greedy"))
    run(world, two_arms(route=BOT))
    run(world, two_arms("f"))
    units = [f"u{i}" for i in range(20)]
    for route, experiment in ((BOT, "e"), ("", "f")):
        made = [decided(world, asked(unit, route=route)) for unit in units]
        assert {one.experiment for one in made} == {experiment}
        assert {one.variant for one in made} == {"a", "b"}
        assert {one.route for one in made} == {route}
    assert world.experiments.trials["e"].traffic() != {}
    sides = world.experiments.trials["e"].sides.values()
    assert sum(side.decisions for side in sides) == len(units)


def test_a_route_without_an_experiment_is_outside_as_it_was() -> None:
    world = _routed(a_world(serving="epsilon_greedy"))
    run(world, two_arms("f"))
    assert _steps(world, route=BOT) == ("", ("outside",))
    run(world, two_arms(route=BOT, share=1e-9))
    assert _steps(world, route=BOT) == ("", ())
    rules(world, stopped=True)
    assert _steps(world, route=BOT) == ("", ("stopped",))


def test_a_hold_out_is_of_one_route_and_measured_apart() -> None:
    world = _routed(a_world(serving="epsilon_greedy"), holdout_share=0.5, holdout_arm="cheap")
    run(world, two_arms(route=BOT))
    held = {f"u{i}" for i in range(40) if sha256_fraction("holdout:holdout", f"u{i}") < 0.5}
    for i in range(40):
        event, other = decided(world, asked(f"u{i}", route=BOT)), decided(world, asked(f"u{i}"))
        rewarded(world, event, reward=0.5, quality=0.5)
        assert other.experiment == "", "the hold-out of a route takes nobody of another one"
        if f"u{i}" in held:
            assert (event.experiment, event.steps) == ("holdout:bot", ("holdout",))
            assert event.arms[event.drawn] == "cheap"
        else:
            assert event.experiment == "e"
    trials = world.experiments.trials
    assert "holdout" not in trials
    sides = trials["holdout:bot"].sides
    assert (sides["holdout"].units, sides["routed"].units) == (len(held), 40 - len(held))
    assert sides["holdout"].rewards == len(held)
    assert world.experiments.specs["holdout:bot"].route == BOT
    state = world.learners[LABEL].state
    assert state.count["cheap"] >= len(held), "the route's policy learns of those that are held out"
    kept = snapshot.read(snapshot.dump(world))
    made = {"epsilon_greedy": load("epsilon_greedy")}
    assert snapshot.restore(kept, made, "epsilon_greedy").digest() == world.digest()


def test_the_hold_out_of_a_route_changes_with_it() -> None:
    world = _routed(a_world(serving="epsilon_greedy"), holdout_share=0.5, holdout_arm="cheap")
    unit = next(u for u in map(str, range(99)) if sha256_fraction("holdout:holdout", u) < 0.3)
    trials = world.experiments.trials
    assert decided(world, asked(unit, route=BOT)).experiment == "holdout:bot"
    _routed(world, holdout_share=0.3, holdout_arm="cheap")
    assert decided(world, asked(unit, route=BOT)).experiment == "holdout:bot"
    assert trials["holdout:bot"].sides["holdout"].decisions == 2, "another share goes on"
    _routed(world, holdout_share=0.3, holdout_arm="dear")
    assert trials["holdout:bot"].sides["holdout"].decisions == 0, "another arm begins anew"
    rules(world, ts=7.0, salt="other")
    assert trials["holdout:bot"].begun == 7.0
    rules(world, stopped=True)
    assert _steps(world, route=BOT) == ("", ("stopped",))
    rules(world)
    _routed(world)
    assert decided(world, asked(unit, route=BOT)).experiment == ""
    _routed(world, holdout_share=0.5, holdout_arm="cheap")
    apply(world, ev.RouteRemoved(ts=world.ts, id=BOT))
    assert world.experiments.held == {}
    assert "holdout:bot" in trials, "what it measured can still be read"


def test_the_hold_out_of_auto_is_of_no_route() -> None:
    world = _routed(a_world(serving="epsilon_greedy"))
    run(world, two_arms(route=BOT))
    rules(world, holdout_share=0.5, holdout_arm="cheap")
    for i in range(20):
        assert decided(world, asked(f"u{i}", route=BOT)).experiment == "e"
    assert sum(side.decisions for side in world.experiments.trials["holdout"].sides.values()) == 0


@pytest.mark.parametrize(
    ("variant", "learn"),
    [
        ("usual", {LABEL, "e/all", "e/shadow"}),
        ("all", {LABEL, "e/all", "e/shadow"}),
        ("own", {LABEL, "e/own", "e/all", "e/shadow"}),
    ],
)
def test_the_routes_policy_learns_of_all_variants_and_one_of_its_own_alone(
    variant: str, learn: set[str]
) -> None:
    world = _routed(a_world(serving="epsilon_greedy"))
    run(world, _policies(overrides={"u": variant}))
    made = decided(world, asked("u", route=BOT))
    assert (made.variant, len(made.shadows)) == (variant, 1)
    rewarded(world, made, quality=1.0, reward=1.0)
    assert set(_learned(world)) == learn
    assert world.experiments.trials["e"].shadows["shadow"].decisions == 1


def test_what_comes_by_no_route_teaches_no_variant_of_one() -> None:
    world = _routed(a_world(serving="epsilon_greedy"))
    run(world, _policies())
    made = decided(world, asked("u"))
    rewarded(world, made, quality=1.0, reward=1.0)
    assert set(_learned(world)) == {"epsilon_greedy"}
    by_route = decide(world, asked("u", route=BOT), Recalled(), "z", 9.0, Exploration())
    assert by_route.experiment == "e"
    assert fold(world, resolve(world, by_route)) == []
    came = ev.Rewarded(ts=9.0, decision_id="z", quality=1.0, reward=1.0)
    assert fold(world, resolve(world, came)) == [], "a policy that is folded elsewhere learns it"


def test_a_variant_of_a_route_sees_its_own_and_the_routes_past_alone() -> None:
    mine, other = "route:bot/e/own", "route:bot/e/all"
    origins = (
        (5, ""),
        (5, LABEL),
        (5, other),
        (5, "route:x"),
        (15, LABEL),
        (15, mine),
        (5, "e/own"),
    )
    assert [View(mine, 10).shows(origin) for origin in origins] == [
        False, True, True, False, False, True, False,
    ]  # fmt: skip
    assert [View(LABEL, 0).shows(origin) for origin in origins] == [
        False, True, True, False, True, True, False,
    ]  # fmt: skip


def test_it_survives_a_replay_and_a_snapshot() -> None:
    world = _routed(a_world(serving="epsilon_greedy"))
    run(world, _policies())
    for i in range(12):
        rewarded(world, decided(world, asked(f"u{i}", i % 3, route=BOT)), quality=1.0, reward=1.0)
    kept = snapshot.read(snapshot.dump(world))
    again = snapshot.restore(kept, {"epsilon_greedy": load("epsilon_greedy")}, "epsilon_greedy")
    assert again.digest() == world.digest()
    for one in (world, again):
        made = decide(one, asked("late", route=BOT), Recalled(), "q", 30.0, Exploration())
        apply(one, made)
        apply(one, ev.Rewarded(ts=31.0, decision_id="q", quality=0.0, reward=0.0))
    assert again.digest() == world.digest()


def test_the_decisions_of_an_experiment_say_something_of_the_routes_policy() -> None:
    world = _routed(a_world(serving="epsilon_greedy"))
    run(world, _policies())
    made = decided(world, asked("u", route=BOT))
    assert (why_excluded(made, BOT), why_excluded(made)) == ("", "route")


def test_an_experiment_of_a_removed_route_gets_no_more_decisions() -> None:
    world = _routed(a_world(serving="epsilon_greedy"))
    run(world, two_arms(route=BOT))
    apply(world, ev.RouteRemoved(ts=5.0, id=BOT))
    assert _steps(world)[0] == ""


def test_the_default_route_is_not_named() -> None:
    with pytest.raises(Refused, match="route: leave it out for the default route, 'auto'"):
        check(two_arms(route="auto"))


def test_an_experiment_without_a_route_is_written_as_it_was() -> None:
    assert b"route" not in msgspec.msgpack.encode(two_arms())
    world = a_world()
    put(world, two_arms())
    assert b"route" not in codec.dump(world)


def test_a_policy_that_is_trained_for_a_variant_learns_the_routes_past_alone(
    tmp_path: Path,
) -> None:
    """As the process beside the service does it, also of what came by another experiment of it."""
    events: list[ev.AnyEvent] = []
    world = a_world(serving="uniform")
    for id in world.arms:
        events.append(ev.ArmAdded(ts=0.0, arm=world.arms[id].spec, source="api"))
    spec = ev.RouteSpec(id=BOT, policy="epsilon_greedy")
    events.append(ev.RouteChanged(ts=0.0, route=spec, key="k"))
    apply(world, events[-1])
    run(world, two_arms(route=BOT))
    for i in range(8):
        made = decided(world, asked(f"u{i}", i, route=BOT if i % 2 else ""))
        came = ev.Rewarded(ts=9.0, decision_id=made.id, quality=i / 8, reward=i / 8)
        apply(world, came)
        events += [made, came]
    assert {one.experiment for one in events if isinstance(one, ev.Decided)} == {"e", ""}
    task = folding.Task(
        *("epsilon_greedy", {}, "key", 10, 10, str(tmp_path), 3),
        begin="fresh",
        save=False,
        route=LABEL,
    )
    records = [(i, ev.encode(event)) for i, event in enumerate(events, 1)]
    source = io.BytesIO(folding.framed(task) + folding.framed(records) + folding.framed([]))
    sink = io.BytesIO()
    folding.fold(source, sink)
    sink.seek(0)
    folding.read_frame(sink, folding.Begin)
    trained = folding.read_frame(sink, folding.Folded)
    learner = snapshot.load_learner(trained.learner, load("epsilon_greedy"))
    assert codec.dump(learner.state) == codec.dump(world.learners[LABEL].state)
    assert codec.dump(learner.state) != codec.dump(load("epsilon_greedy").init())
