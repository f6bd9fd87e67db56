"""What each variant's policy learns: its own, or everything; and what a shadow leaves untouched."""

from __future__ import annotations

import json

import numpy as np
import pytest

import policies
from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.decide import decide, weigh
from bandit_service.core.experiments.spec import Audience, Experiment, Variant
from bandit_service.core.exploration import Exploration
from bandit_service.core.query import Recalled
from bandit_service.core.world import World
from policies import ArmId
from tests.unit.experiments.given import (
    a_world,
    asked,
    decided,
    rewarded,
    run,
    shadows_of,
    two_arms,
    variants,
)

UNITS = [f"u{i}" for i in range(40)]


def _state(world: World, label: str) -> bytes:
    return codec.dump(world.learners[label].state)


def _two_policies(learning: str = "isolated") -> Experiment:
    return Experiment(
        id="e",
        variants=(
            Variant(key="a", policy="eagle", weight=0.5, learning=learning),
            Variant(key="b", policy="eagle", weight=0.5, learning=learning),
        ),
    )


def _unit(world: World, variant: str) -> str:
    return next(unit for unit, found in variants(world, UNITS).items() if found == variant)


@pytest.mark.parametrize("learning", ["isolated", "shared"])
def test_an_isolated_policy_learns_of_its_own_units_and_a_shared_one_of_all(learning: str) -> None:
    world = a_world()
    run(world, _two_policies(learning=learning))
    untouched = {label: _state(world, label) for label in ("e/a", "e/b")}
    event = decided(world, asked(_unit(world, "a")))
    assert (event.policy, event.variant) == ("eagle", "a")
    rewarded(world, event, reward=1.0, quality=1.0)
    winner, loser = ArmId("dear"), ArmId("cheap")
    apply(world, ev.Compared(ts=4.0, winner=winner, loser=loser, decision_id=event.id))
    assert _state(world, "e/a") != untouched["e/a"]
    assert (_state(world, "e/b") == untouched["e/b"]) is (learning == "isolated")


def test_an_isolated_policy_sees_the_history_up_to_its_start_and_its_own_since() -> None:
    world = a_world(serving="knn")
    before = decided(world, asked("u0", axis=0))
    rewarded(world, before, reward=0.5, quality=0.5)
    run(
        world,
        Experiment(
            id="e",
            variants=(
                Variant(key="a", policy="knn", weight=0.5),
                Variant(key="b", policy="knn", weight=0.5),
            ),
        ),
    )
    for key, axis in (("a", 1), ("b", 2)):
        rewarded(world, decided(world, asked(_unit(world, key), axis=axis)), reward=0.1, quality=1)
    ids = list(world.history.items)
    assert len(ids) == 3
    recalled = Recalled(tuple(ids), (0.9, 0.8, 0.7))
    seen = {
        key: [
            one.id
            for one in weigh(world, asked(_unit(world, key)), recalled, Exploration()).neighbours
        ]
        for key in ("a", "b")
    }
    assert seen == {"a": [ids[0], ids[1]], "b": [ids[0], ids[2]]}
    everything = weigh(world, asked(outside=True), recalled, Exploration()).neighbours
    assert [one.id for one in everything] == ids


def test_a_variants_policy_begins_with_the_state_that_was_frozen() -> None:
    world = a_world()
    learned = policies.load("eagle")
    state = learned.init()
    frozen = codec.dump(state)
    run(world, _two_policies())
    parameters = json.dumps({"unheard_of": 1}).encode()
    assert _state(world, "e/a") == frozen
    apply(
        world,
        ev.VariantSeeded(
            ts=2.0,
            experiment="e",
            variant="a",
            policy="eagle",
            parameters=parameters,
            upto=1,
        ),
    )
    assert world.learners["e/a"].seeded != 1, "what cannot be loaded changes nothing"
    assert decided(world, asked(_unit(world, "a"))).policy == "eagle"


def test_an_end_takes_the_policies_away_and_the_serving_one_goes_on() -> None:
    world = a_world()
    run(world, _two_policies())
    apply(world, ev.ExperimentChanged(ts=5.0, experiment=_two_policies(), status="stopped"))
    assert set(world.learners) == {"uniform"}
    assert decided(world, asked()).policy == "uniform"


def test_a_shadow_changes_nothing_of_what_is_served_and_logs_what_it_would_have_done() -> None:
    """The same queries to a world with and without it: the same arms, propensities and scores."""
    plain, shadowed = a_world(), a_world()
    for world in (plain, shadowed):
        shadow = (Variant(key="s", policy="eagle", shadow=True),)
        spec = two_arms(share=0.5)
        more = shadow if world is shadowed else ()
        run(world, Experiment(id="e", variants=(*spec.variants, *more), share=0.5))
    for i in range(60):
        query = asked(f"u{i}", axis=i)
        served = [
            decide(world, query, Recalled(), f"q{i}", 5.0, Exploration())
            for world in (plain, shadowed)
        ]
        one, other = served
        assert (one.arm, one.propensities, one.scores) == (
            other.arm,
            other.propensities,
            other.scores,
        )
        assert (one.variant, one.split, one.policy) == (other.variant, other.split, other.policy)
        assert one.shadows == other.shadows == ()
        for world, event in zip((plain, shadowed), served, strict=True):
            apply(world, event)
            shadows = shadows_of(world, event)
            assert len(shadows) == (world is shadowed)
            for logged in shadows:
                assert sum(logged.propensities) == pytest.approx(1.0)
                assert min(logged.propensities) >= 0.01
            rewarded(world, event, reward=0.5, quality=0.5)
    assert shadowed.experiments.trials["e"].shadows["s"].decisions == 60
    assert shadowed.learners["e/s"].own == ""
    assert _state(plain, "uniform") == _state(shadowed, "uniform")


def test_a_shadows_estimate_counts_only_where_its_arms_could_have_been_drawn() -> None:
    """Outside the share the uniform policy serves, w = p/½; a fixed arm's outcome says nothing."""
    world = a_world()
    spec = two_arms(share=0.5)
    shadow = Variant(key="s", policy="uniform", shadow=True)
    run(world, Experiment(id="e", variants=(*spec.variants, shadow), share=0.5))
    outside = 0
    for i in range(60):
        event = decided(world, asked(f"u{i}"))
        outside += not event.experiment
        rewarded(world, event, reward=0.5, quality=0.5)
    side = world.experiments.trials["e"].shadows["s"]
    assert 0 < outside < 60
    assert (side.decisions, side.rewards) == (60, outside)
    assert side.w == pytest.approx(outside)
    assert side.wr == pytest.approx(0.5 * outside)


def test_no_shadow_decides_for_whom_the_audience_leaves_out_or_while_all_is_stopped() -> None:
    world = a_world()
    spec = two_arms(share=0.0)
    run(
        world,
        Experiment(
            id="e",
            share=0.0,
            variants=(*spec.variants, Variant(key="s", policy="eagle", shadow=True)),
            audience=Audience(tenants=("acme",)),
        ),
    )
    assert len(decided(world, asked(tenant="acme")).shadows) == 1
    assert decided(world, asked(tenant="other")).shadows == ()
    assert decided(world, asked(tenant="acme", duel_of="d")).shadows == ()


@pytest.mark.parametrize("fresh", [True, False])
def test_a_shared_policy_that_began_fresh_takes_back_nothing_of_before(fresh: bool) -> None:
    world = a_world(serving="knn")
    event = decided(world, asked("u0"))
    rewarded(world, event, reward=1.0, quality=1.0)
    shared = Variant(key="b", policy="knn", weight=0.5, learning="shared", begin="fresh")
    run(world, Experiment(id="e", variants=(Variant(key="a", arm="cheap", weight=0.5), shared)))
    seeded = ev.VariantSeeded(
        ts=4.0,
        experiment="e",
        variant="b",
        policy="knn",
        parameters=b"{}",
        state=b"" if fresh else codec.dump(world.learners["knn"].state),
        upto=world.events,
    )
    apply(world, seeded)
    other = decided(
        world, asked("u1", outside=True, arms=event.arms[event.drawn : event.drawn + 1])
    )
    rewarded(world, other, reward=0.5, quality=0.5)
    knew = {label: _state(world, label) for label in ("knn", "e/b")}
    rewarded(world, event, reward=0.0, quality=0.0, correction=True)
    assert _state(world, "knn") != knew["knn"]
    assert (_state(world, "e/b") == knew["e/b"]) is fresh
    assert world.learners["e/b"].uncorrected == fresh


def test_the_frozen_rows_of_a_policy_are_those_of_the_moment_whatever_comes_after() -> None:
    world = a_world(serving="metallm")
    event = decided(world, asked("u0"))
    rewarded(world, event, reward=1.0, quality=1.0)
    frozen = codec.dump(world.learners["metallm"].state)
    spec = Experiment(
        id="e",
        variants=(
            Variant(key="a", arm="cheap", weight=0.5),
            Variant(key="b", weight=0.5),
        ),
    )
    run(world, spec)
    apply(
        world,
        ev.VariantSeeded(
            ts=4.0,
            experiment="e",
            variant="b",
            policy="metallm",
            parameters=b"{}",
            state=frozen,
            upto=world.events,
        ),
    )
    outside = decided(world, asked("u1", outside=True))
    rewarded(world, outside, reward=-1.0, quality=0.0)
    assert _state(world, "e/b") == frozen
    assert _state(world, "metallm") != frozen
    assert np.isfinite(decided(world, asked(_unit(world, "b"))).propensity)
