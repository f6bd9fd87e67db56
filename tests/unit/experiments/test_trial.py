"""What an experiment counts, by hand: units, outcomes, corrections, and who is left out."""

from __future__ import annotations

import msgspec
import pytest

from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.experiments.spec import Experiment, Guardrail, Metric, Variant
from bandit_service.core.experiments.variant_stats import Sums
from bandit_service.core.world import World
from bandit_service.statistics import srm
from tests.unit.experiments.given import (
    a_world,
    asked,
    decided,
    put,
    rewarded,
    run,
    two_arms,
    variants,
)

UNITS = [f"u{i}" for i in range(40)]


def _of(world: World, variant: str, count: int = 1) -> list[str]:
    return [unit for unit, found in variants(world, UNITS).items() if found == variant][:count]


def test_the_mean_is_of_answers_and_its_variance_of_units() -> None:
    """Units (s, n) of (3, 3), (0, 1), (1, 2): mean 4/6; residuals s − mean·n are 1, −2/3, −1/3;
    Σ² = 14/9, over 2 is 7/9, over the mean n squared, 4, is 7/36."""
    sums = Sums()
    for s, n in ((3.0, 3.0), (0.0, 1.0), (1.0, 2.0)):
        sums.change((0.0, 0.0), (s, n))
    assert sums.units == 3
    assert sums.mean == pytest.approx(2 / 3)
    assert sums.variance == pytest.approx(7 / 36)
    sums.change((1.0, 2.0), (0.0, 0.0))
    assert (sums.units, sums.s, sums.n) == (2, 3.0, 4.0)


def test_units_decisions_and_outcomes_are_counted_once_each() -> None:
    world = a_world()
    run(world, two_arms())
    one, two = _of(world, "a", 2)
    events = [decided(world, asked(unit)) for unit in (one, one, two)]
    for event, reward in zip(events, (0.5, 1.0, 0.0), strict=True):
        rewarded(world, event, reward=reward, quality=reward, cost_usd=0.01)
    side = world.experiments.trials["e"].sides["a"]
    assert (side.units, side.decisions, side.rewards) == (2, 3, 3)
    assert side.sums["reward"] == Sums(2, 1.5, 3.0, 2.25, 3.0, 5.0)
    assert side.sums["cost_usd"].s == pytest.approx(0.03)
    assert world.experiments.trials["e"].epochs[-1].counts == [2, 0]


def test_a_correction_takes_the_old_values_place_and_counts_no_answer_more() -> None:
    world = a_world()
    run(world, two_arms())
    event = decided(world, asked(_of(world, "a")[0]))
    rewarded(world, event, reward=0.5, quality=0.5, cost_usd=0.02)
    rewarded(world, event, reward=0.9, quality=0.9, cost_usd=0.05, correction=True)
    side = world.experiments.trials["e"].sides["a"]
    assert side.rewards == 1
    for metric, s in (("reward", 0.9), ("quality", 0.9), ("cost_usd", 0.05)):
        assert side.sums[metric].s == pytest.approx(s)
        assert side.sums[metric].n == 1.0


def test_what_expires_counts_with_its_default_or_not_at_all() -> None:
    for default, rewards in ((None, 0), (-0.5, 1)):
        world = a_world()
        run(world, two_arms())
        event = decided(world, asked(_of(world, "a")[0]))
        apply(world, ev.DecisionsExpired(ts=9.0, ids=(event.id,), default_reward=default))
        side = world.experiments.trials["e"].sides["a"]
        assert side.rewards == rewards
        assert side.sums.get("reward", Sums()).s == (default or 0.0)


def test_a_users_own_metric_counts_where_the_experiment_has_it() -> None:
    world = a_world()
    run(world, two_arms(metrics=(Metric(name="thumbs"),)))
    event = decided(world, asked(_of(world, "b")[0]))
    rewarded(world, event, metrics={"thumbs": 1.0, "other": 5.0})
    sums = world.experiments.trials["e"].sides["b"].sums
    assert set(sums) == {"thumbs"}
    assert (sums["thumbs"].s, sums["thumbs"].n) == (1.0, 1.0)


def test_what_fell_back_counts_for_the_variant_it_was_assigned() -> None:
    world = a_world()
    run(
        world,
        Experiment(
            id="e",
            variants=(
                Variant(key="a", arm="cheap", weight=0.0),
                Variant(key="b", policy="eagle", weight=1.0),
            ),
        ),
    )
    event = decided(world, asked("u", fallback="embed: TimeoutError"))
    assert (event.variant, event.fallback) == ("b", "embed: TimeoutError")
    assert world.experiments.trials["e"].sides["b"].decisions == 1


def test_a_unit_that_met_two_variants_measures_neither() -> None:
    world = a_world()
    run(world, two_arms())
    unit = _of(world, "b")[0]
    rewarded(world, decided(world, asked(unit)), reward=1.0)
    spec = two_arms(weights=(1.0, 0.0))
    put(world, spec, ts=5.0)
    rewarded(world, decided(world, asked(unit)), reward=1.0)
    trial = world.experiments.trials["e"]
    assert trial.mixed == 1
    assert trial.sides["b"].sums["reward"] == Sums()
    assert "reward" not in trial.sides["a"].sums


def test_units_that_came_while_their_variant_was_held_are_no_flood_at_its_release() -> None:
    world = a_world()
    spec = two_arms()
    run(world, spec)
    put(world, spec, held="b", held_until=9.0, ts=5.0)
    for i in range(2000):
        decided(world, asked(f"x{i}"))
    put(world, spec, held="b", ts=10.0)
    trial = world.experiments.trials["e"]
    assert sum(one.out for one in trial.members.values()) + trial.sides["a"].units == 2000
    for i in range(2000):
        assert decided(world, asked(f"x{i}")).split == 0.5
    assert trial.sides["b"].units == 0
    assert srm.sequential_p((one.weights, one.counts) for one in trial.epochs) == 1.0
    event = decided(world, asked(_of(world, "b")[0]))
    rewarded(world, event, reward=1.0)
    assert (trial.sides["b"].units, trial.sides["b"].rewards) == (1, 1)


def test_another_share_or_weight_begins_an_epoch_of_its_own() -> None:
    world = a_world()
    spec = two_arms(share=0.5)
    put(world, spec, "draft", ts=1.0)
    run(world, spec, ts=50.0)
    (only,) = world.experiments.trials["e"].epochs
    assert only.ts == 50.0, "it begins when it runs, not when it was written"
    decided(world, asked(_of(world, "a")[0]), ts=51.0)
    put(world, spec, ts=60.0, why="nothing changed")
    put(world, msgspec.structs.replace(spec, share=0.9), ts=70.0)
    put(world, two_arms(share=0.9, weights=(0.3, 0.7)), ts=80.0)
    assert [(one.ts, one.share, one.weights) for one in world.experiments.trials["e"].epochs] == [
        (50.0, 0.5, [0.5, 0.5]),
        (80.0, 0.9, [0.3, 0.7]),
    ]


def test_an_experiment_of_an_old_name_hears_nothing_of_the_old_ones_decisions() -> None:
    world = a_world()
    run(world, two_arms())
    unit = _of(world, "a")[0]
    old = decided(world, asked(unit), ts=2.0)
    put(world, two_arms(), "stopped", ts=3.0)
    apply(world, ev.ExperimentDeleted(ts=4.0, id="e"))
    run(world, two_arms(), ts=5.0)
    new = decided(world, asked(unit), ts=6.0)
    rewarded(world, old, ts=7.0, reward=1.0)
    rewarded(world, new, ts=7.0, reward=0.25)
    assert world.experiments.trials["e"].sides["a"].sums["reward"].s == 0.25


def test_an_outcome_that_comes_after_the_end_still_counts() -> None:
    world = a_world()
    run(world, two_arms())
    event = decided(world, asked(_of(world, "a")[0]))
    put(world, two_arms(), "stopped", ts=8.0, winner="a")
    rewarded(world, event, ts=9.0, reward=1.0)
    trial = world.experiments.trials["e"]
    assert (trial.status, trial.ended, trial.winner) == ("stopped", 8.0, "a")
    assert trial.sides["a"].rewards == 1


def test_every_change_is_noted_with_who_and_why() -> None:
    world = a_world()
    put(world, two_arms(), "draft", ts=1.0, by="k1", why="to see")
    put(world, two_arms(share=0.1), "draft", ts=2.0, by="k2", why="carefully")
    notes = [(one.ts, one.status, one.by, one.why) for one in world.experiments.trials["e"].notes]
    assert notes == [(1.0, "draft", "k1", "to see"), (2.0, "draft", "k2", "carefully")]


def test_a_held_variant_that_had_all_the_weight_leaves_it_to_the_control() -> None:
    world = a_world()
    spec = two_arms(weights=(0.0, 1.0))
    run(world, spec)
    put(world, spec, held="b", held_until=99.0, ts=5.0)
    assert world.experiments.trials["e"].effective(spec) == [1.0, 0.0]
    event = decided(world, asked("new"))
    assert (event.variant, event.split) == ("a", 0.0)
    assert world.experiments.trials["e"].sides["a"].units == 0


def test_a_released_variant_is_judged_by_what_comes_from_then_on() -> None:
    world = a_world()
    spec = two_arms(guardrails=(Guardrail(metric="quality", min=0.5),))
    run(world, spec)
    unit = _of(world, "b")[0]
    for _ in range(3):
        rewarded(world, decided(world, asked(unit)), quality=0.0, reward=0.0)
    guards = world.experiments.trials["e"].sides
    assert guards["b"].guards[0].n == 3
    put(world, spec, held="b", held_until=99.0, ts=5.0)
    put(world, spec, held="b", ts=6.0)
    assert guards["b"].guards[0].n == 0
