"""What an experiment does by itself: holds, ramps, moves weights; and what it never does."""

from __future__ import annotations

import math
from statistics import NormalDist

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandit_service.core.experiments.conclusions import caveats, difference
from bandit_service.core.experiments.hashing import sha256_fraction
from bandit_service.core.experiments.spec import Experiment, Guardrail, Step, Variant
from bandit_service.core.experiments.steering import (
    Change,
    breaches,
    chances_of_being_best,
    steer,
)
from bandit_service.core.experiments.trial import Trial
from bandit_service.core.experiments.variant_stats import Running, Score
from bandit_service.core.world import World
from bandit_service.runtime.experiment_monitor import weighed
from tests.unit.experiments.given import a_world, asked, decided, put, rewarded, run, two_arms

HOUR = 3600.0


def _trial(world: World) -> Trial:
    return world.experiments.trials["e"]


def _answer(world: World, spec: Experiment, count: int, quality: dict[str, float]) -> None:
    """New units, each with one answer of its variant's quality."""
    begin = world.decisions
    for i in range(count):
        event = decided(world, asked(f"x{begin + i}"))
        if event.variant:
            value = quality[event.variant]
            rewarded(world, event, quality=value, reward=value)


# --- guardrails ---------------------------------------------------------------------------


def test_a_variant_that_surely_breaks_a_guardrail_is_to_be_held_and_the_control_never() -> None:
    spec = two_arms(guardrails=(Guardrail(metric="quality", min=0.5),))
    world = a_world()
    run(world, spec)
    _answer(world, spec, 6, {"a": 0.0, "b": 0.0})
    assert steer(spec, _trial(world), 10.0) == [], "six answers are no certainty"
    _answer(world, spec, 200, {"a": 0.0, "b": 0.0})
    (change,) = steer(spec, _trial(world), 10.0)
    assert change.hold == "b"
    assert change.why.startswith("b: quality is at most ")
    assert change.why.endswith("must be at least 0.5")


def test_a_held_variant_is_not_held_again_nor_let_back_in_by_itself() -> None:
    spec = two_arms(guardrails=(Guardrail(metric="quality", min=0.5),))
    world = a_world()
    run(world, spec)
    _answer(world, spec, 200, {"a": 0.0, "b": 0.0})
    put(world, spec, ts=5.0, held="b", held_until=6.0)
    assert _trial(world).effective(spec) == [1.0, 0.0]
    for now in (5.5, 7.0, 1e9):
        assert steer(spec, _trial(world), now) == []
        assert decided(world, asked("z"), ts=now).variant == "a"
    put(world, spec, ts=1e9 + 1, held="b")
    assert _trial(world).effective(spec) == [0.5, 0.5]
    assert steer(spec, _trial(world), 2e9) == [], "it is judged anew"


@pytest.mark.parametrize(
    ("guard", "quality", "broken"),
    [
        (Guardrail(metric="quality", max=0.5), {"a": 0.0, "b": 1.0}, True),
        (Guardrail(metric="quality", max=0.5), {"a": 1.0, "b": 0.0}, False),
        (Guardrail(metric="quality", max_regression=0.2), {"a": 1.0, "b": 0.0}, True),
        (Guardrail(metric="quality", max_regression=0.2), {"a": 0.0, "b": 0.0}, False),
        (Guardrail(metric="reward", max_regression=0.2), {"a": 0.9, "b": 0.1}, True),
        (Guardrail(metric="cost_usd", max=1.0, high=2.0), {"a": 0.0, "b": 0.0}, False),
    ],
)
def test_each_kind_of_guardrail(guard: Guardrail, quality: dict[str, float], broken: bool) -> None:
    spec = two_arms(guardrails=(guard,))
    world = a_world()
    run(world, spec)
    _answer(world, spec, 400, quality)
    assert [key for key, _ in breaches(spec, _trial(world))] == (["b"] if broken else [])


def test_a_cost_guardrail_counts_what_is_beyond_its_range_as_its_end() -> None:
    spec = two_arms(guardrails=(Guardrail(metric="cost_usd", max_regression=0.1, high=1.0),))
    world = a_world()
    run(world, spec)
    for i in range(300):
        event = decided(world, asked(f"y{i}"))
        rewarded(world, event, cost_usd=50.0 if event.variant == "b" else 0.0)
    ((key, why),) = breaches(spec, _trial(world))
    assert key == "b"
    assert "worse than the control's" in why


def test_nothing_is_steered_that_does_not_run() -> None:
    spec = two_arms(guardrails=(Guardrail(metric="quality", min=0.5),))
    world = a_world()
    run(world, spec)
    _answer(world, spec, 200, {"a": 0.0, "b": 0.0})
    for status in ("paused", "stopped"):
        put(world, spec, status)
        assert steer(spec, _trial(world), 10.0) == []


# --- ramps --------------------------------------------------------------------------------


def _ramped(*steps: Step, share: float) -> Experiment:
    return two_arms(share=share, ramp=steps)


def _sum(world: World) -> int:
    return sum(_trial(world).epochs[-1].counts)


def _enough(world: World, units: int) -> None:
    trial, i = _trial(world), 0
    while sum(trial.epochs[-1].counts) < units:
        decided(world, asked(f"r{i}"))
        i += 1


def test_a_step_ends_when_it_had_both_its_units_and_its_hours() -> None:
    spec = _ramped(Step(share=0.1, units=20, hours=2.0), Step(share=0.5), share=0.1)
    world = a_world()
    run(world, spec, ts=100.0)
    assert steer(spec, _trial(world), 100.0 + 3 * HOUR) == [], "no unit came"
    _enough(world, 20)
    assert steer(spec, _trial(world), 100.0 + 1.9 * HOUR) == []
    (change,) = steer(spec, _trial(world), 100.0 + 2 * HOUR)
    assert change == Change("step 1 had 20 units in 2.0 h; on to 0.5", share=0.5)


def test_the_last_step_stays_and_a_share_set_by_hand_ends_the_ramp() -> None:
    steps = (Step(share=0.1, units=1), Step(share=0.5))
    for share in (0.5, 0.3):
        world = a_world()
        spec = _ramped(*steps, share=share)
        run(world, spec)
        _enough(world, 5)
        assert steer(spec, _trial(world), 1e9) == []


def test_a_step_that_a_person_approves_waits_for_the_next_share_and_then_goes_on() -> None:
    steps = (Step(share=0.1, units=5, approve=True), Step(share=0.5, units=5), Step(share=1.0))
    world = a_world()
    spec = _ramped(*steps, share=0.1)
    run(world, spec)
    _enough(world, 5)
    assert steer(spec, _trial(world), 1e9) == []
    assert caveats(spec, _trial(world)) == [
        "Step 1 of the ramp waits for approval: set the share to 0.5 to continue."
    ]
    approved = _ramped(*steps, share=0.5)
    put(world, approved, ts=5.0)
    assert caveats(approved, _trial(world)) == []
    _enough(world, _sum(world) + 5)
    (change,) = steer(approved, _trial(world), 1e9)
    assert change.share == 1.0


def test_a_step_that_is_taken_again_begins_again() -> None:
    steps = (Step(share=0.1, units=5), Step(share=0.5, units=5), Step(share=1.0))
    world = a_world()
    spec = _ramped(*steps, share=0.1)
    run(world, spec)
    _enough(world, 5)
    put(world, _ramped(*steps, share=0.5), ts=5.0)
    _enough(world, 5)
    put(world, spec, ts=6.0)
    assert steer(spec, _trial(world), 1e9) == []


def test_no_step_is_taken_while_a_variant_is_held_or_the_split_is_wrong() -> None:
    spec = _ramped(Step(share=0.5, units=10), Step(share=1.0), share=0.5)
    world = a_world()
    run(world, spec)
    _enough(world, 400)
    assert len(steer(spec, _trial(world), 1e9)) == 1
    put(world, spec, ts=5.0, held="b", held_until=6.0)
    assert steer(spec, _trial(world), 1e9) == []
    put(world, spec, ts=7.0, held="b")
    assert len(steer(spec, _trial(world), 1e9)) == 1
    _trial(world).epochs[-1].counts[0] += 400  # as where requests of `b` are lost
    _enough(world, _sum(world) + 20)
    assert _trial(world).split_p < 0.001
    assert steer(spec, _trial(world), 1e9) == []


# --- champion -----------------------------------------------------------------------------


def test_two_normal_means_have_the_textbooks_chances() -> None:
    """P(X > Y) = Φ((μ − ν)/sqrt(σ² + τ²)); and any of four alike is the best in a quarter."""
    exact = NormalDist().cdf((0.3 - 0.1) / math.hypot(0.2, 0.1))
    found = chances_of_being_best([0.3, 0.1], [0.2, 0.1])
    assert found == pytest.approx([exact, 1.0 - exact], abs=1e-6)
    assert chances_of_being_best([0.5] * 4, [0.1] * 4) == pytest.approx([0.25] * 4)
    assert chances_of_being_best([0.0, 1.0], [0.0, 0.0]) == pytest.approx([0.0, 1.0], abs=1e-9)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 0.5)), min_size=2, max_size=5),
       st.sampled_from([0.01, 0.05, 0.1, 0.15]), st.booleans())  # fmt: skip
def test_a_champion_moves_no_weight_below_the_floor_and_they_sum_to_one(
    sides: list[tuple[float, float]], floor: float, cheaper: bool
) -> None:
    count = len(sides)
    served = tuple(Variant(key=f"v{i}", arm="cheap", weight=1 / count) for i in range(count))
    spec = Experiment(
        id="e",
        variants=served,
        mode="champion",
        floor=floor,
        primary="cost_usd" if cheaper else "reward",
    )
    world = a_world()
    run(world, spec)
    trial = _trial(world)
    trial.epochs[-1].counts = [100] * count
    for one, (mean, spread) in zip(served, sides, strict=True):
        first, score = Running(100, mean, spread), Running(100 * count, mean, spread)
        trial.sides[one.key].scores[spec.primary] = Score(first, score)
    for change in steer(spec, trial, 10.0):
        assert change.weights is not None
        assert min(change.weights) >= floor - 1e-6
        assert math.fsum(change.weights) == pytest.approx(1.0, abs=1e-9)
        means = [mean for mean, _ in sides]
        best = means.index(min(means) if cheaper else max(means))
        widest = max(spread for _, spread in sides)  # a wider one may be the best more often
        if means.count(means[best]) == 1 and sides[best][1] == widest:
            assert change.weights[best] >= 1 / count - 1e-6


def test_a_champion_moves_towards_what_is_better_and_not_before_enough_new_units() -> None:
    spec = two_arms(mode="champion", floor=0.1)
    world = a_world()
    run(world, spec)
    _answer(world, spec, 40, {"a": 0.2, "b": 0.8})
    assert steer(spec, _trial(world), 10.0) == []
    _answer(world, spec, 60, {"a": 0.2, "b": 0.8})
    (change,) = steer(spec, _trial(world), 10.0)
    assert change.weights is not None
    assert change.weights[1] > 0.85
    assert change.weights[0] >= 0.1
    assert change.why.startswith("chance of being the best: a ")
    moved = msgspec.structs.replace(
        spec,
        variants=tuple(
            msgspec.structs.replace(one, weight=weight)
            for one, weight in zip(spec.variants, change.weights, strict=True)
        ),
    )
    put(world, moved, ts=11.0)
    assert steer(moved, _trial(world), 12.0) == [], "no new unit came since"


def test_a_champion_through_the_fold_moves_to_the_better_arm_and_flips_no_unit() -> None:
    """Means 0.4 and 0.6 (Bernoulli by the unit's hash): the weights follow, floor 0.1 stays."""
    spec = two_arms(mode="champion", floor=0.1)
    world = a_world()
    run(world, spec)
    chances = {"a": 0.4, "b": 0.6}
    seen: dict[str, str] = {}
    weights = [spec.weights]
    for i in range(1500):
        unit = f"x{i}"
        event = decided(world, asked(unit))
        good = sha256_fraction("likes", unit) < chances[event.variant]
        rewarded(world, event, quality=float(good), reward=float(good))
        seen[unit] = event.variant
        if i % 50 == 49:
            for change in steer(spec, _trial(world), float(i)):
                assert change.weights is not None
                spec = weighed(spec, dict(zip(("a", "b"), change.weights, strict=True)))
                put(world, spec, ts=world.ts)
                weights.append(spec.weights)
    assert len(weights) > 3
    assert weights[-1][1] > 0.85
    assert min(min(pair) for pair in weights) >= 0.1 - 1e-6
    assert all(decided(world, asked(unit)).variant == variant for unit, variant in seen.items())
    assert _trial(world).mixed == 0
    gap = difference(spec, _trial(world), spec.variants[1], "reward")
    assert gap is not None
    assert 0.0 < gap.low < 0.2 < gap.high
