"""What an experiment counts: sums, scores, epochs and guards, worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_service.core import codec, snapshot
from bandit_service.core.experiments.spec import Experiment, Guardrail
from bandit_service.core.experiments.steering import breaches, guarded, stands
from bandit_service.core.experiments.trial import Trial
from bandit_service.core.experiments.variant_stats import Running, Sums, gap_of, mean_of
from bandit_service.statistics import srm
from loadtest.coverage.played import Played, limit, two
from tests.unit.experiments.given import a_world, asked, decided

import policies  # isort: skip


def _weigh(spec: Experiment, a: float) -> Experiment:
    pairs = zip(spec.variants, (a, 1.0 - a), strict=True)
    variants = tuple(msgspec.structs.replace(one, weight=w) for one, w in pairs)
    return msgspec.structs.replace(spec, variants=variants)


def _outcomes(
    played: Played, variant: str, values: Sequence[float], metric: str = "quality", begin: int = 0
) -> None:
    for i, value in enumerate(values, begin):
        played.value(played.decide(f"{variant}{i}", variant), value, metric)


def test_the_mean_of_answers_has_the_delta_methods_variance() -> None:
    """Units (s, n) = (1, 1), (1, 2), (3, 3): mean 5/6; deviations s − 5n/6 = 1/6, −4/6, 3/6;
    their squares sum to 26/36, so the variance is 26/36 / 2 / 2²."""
    sums = Sums()
    for after in ((1.0, 1), (1.0, 2), (3.0, 3)):
        sums.change((0.0, 0), after)
    assert sums.units == 3
    assert sums.mean == pytest.approx(5 / 6)
    assert sums.variance == pytest.approx(26 / 36 / 8)


@given(st.lists(st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=4), min_size=2, max_size=8),
       st.randoms())  # fmt: skip
def test_answers_in_any_order_give_the_sums_of_their_units(
    units: list[list[float]], random: object
) -> None:
    order = [(unit, y) for unit, answers in enumerate(units) for y in answers]
    random.shuffle(order)  # type: ignore[attr-defined]
    played = Played(two())
    for unit, y in order:
        played.value(played.decide(str(unit), "a"), y, "reward")
    found = played.trial.sides["a"].sums["reward"]
    s, n = np.array([sum(each) for each in units]), np.array([len(each) for each in units])
    expected = (len(units), s.sum(), n.sum(), (s * s).sum(), (s * n).sum(), (n * n).sum())
    assert (found.units, found.s, found.n, found.ss, found.sn, found.nn) == pytest.approx(expected)
    mean = s.sum() / n.sum()
    assert found.variance == pytest.approx(
        float(((s - mean * n) ** 2).sum() / (len(units) - 1) / n.mean() ** 2), abs=1e-9
    )


def test_running_is_numpys_mean_and_variance() -> None:
    running, numbers = Running(), [3.0, -1.0, 4.0, 1.0, 5.0]
    assert running.variance is None
    for x in numbers:
        running.add(x)
    assert (running.mean, running.variance) == pytest.approx((2.4, np.var(numbers, ddof=1)))


def test_one_made_up_unit_keeps_equal_values_from_being_certain() -> None:
    played = Played(two())
    _outcomes(played, "a", [1.0] * 10)
    _outcomes(played, "a", [2.0] * 10, "cost_usd", begin=20)
    side = played.trial.sides["a"]
    quality = mean_of(played.spec, side, "quality", moved=False)
    cost = mean_of(played.spec, side, "cost_usd", moved=False)
    assert quality is not None
    assert quality.variance == pytest.approx(0.5**2 / 10)
    assert cost is not None
    assert cost.variance == pytest.approx(2.0**2 / 10)
    assert mean_of(played.spec, side, "latency_s", moved=False) is None


def test_a_correction_takes_its_values_place() -> None:
    played = Played(two())
    event = played.decide("u", "a")
    played.value(event, 0.2)
    played.value(event, 0.8, before=0.2)
    sums = played.trial.sides["a"].sums["quality"]
    assert (sums.units, sums.n) == (1, 1.0)
    assert sums.s == pytest.approx(0.8)


def test_doubly_robust_scores_by_hand() -> None:
    """p = 0.8 and 0.2. First outcome 1 of a: m = 0, so a scores 0 + 1/0.8, b scores 0. Then ½ of b:
    a scores its m = 1, b scores 0 + ½/0.2. Then 0 of a: a scores 1 + (0 − 1)/0.8, b its m = ½."""
    played = Played(two((0.8, 0.2)))
    for member, variant, y in (("u", "a", 1.0), ("v", "b", 0.5), ("w", "a", 0.0)):
        played.value(played.decide(member, variant), y)
    a, b = (played.trial.sides[key].scores["quality"] for key in "ab")
    scores_a, scores_b = [1.25, 1.0, -0.25], [0.0, 2.5, 0.5]
    assert a.score.mean == pytest.approx(np.mean(scores_a))
    assert b.score.mean == pytest.approx(np.mean(scores_b))
    assert b.gap.variance == pytest.approx(np.var(np.subtract(scores_b, scores_a), ddof=1))
    assert (a.first.n, a.first.mean, b.first.n, b.first.mean) == (2, 0.5, 1, 0.5)
    played.value(played.decide("u", "a"), 0.0)
    assert (a.score.n, a.first.n) == (3, 2), "only the first outcome of a unit counts"


def test_scores_take_the_probability_under_which_the_unit_came() -> None:
    played = Played(two())
    event = played.decide("u", "b")
    played.change(_weigh(played.spec, 0.9))
    played.value(event, 1.0)
    assert played.trial.sides["b"].scores["quality"].score.mean == pytest.approx(1 / 0.5)


def test_means_are_those_of_scores_from_when_the_weights_moved() -> None:
    played = Played(two())
    _outcomes(played, "a", [0.0, 1.0])
    _outcomes(played, "b", [1.0, 1.0])
    assert not played.trial.adaptive(played.spec)
    played.change(msgspec.structs.replace(_weigh(played.spec, 0.5), share=0.5))
    played.decide("x", "a")
    assert not played.trial.adaptive(played.spec), "a ramp moves no weight"
    played.change(_weigh(played.spec, 0.9))
    assert not played.trial.adaptive(played.spec), "no unit came under the new weights yet"
    played.decide("y", "a")
    assert played.trial.adaptive(played.spec)
    assert Played(two(mode="champion")).trial.adaptive(two(mode="champion"))


def test_a_drift_is_no_difference_where_weights_moved() -> None:
    """Both get ½ first and 1 later; b has most units later, so plain means differ by far."""
    played = Played(two((0.9, 0.1), sticky=True))
    rng = np.random.default_rng(4)
    for weight, mean in ((0.9, 0.5), (0.1, 0.9)):
        played.change(_weigh(played.spec, weight))
        for _ in range(2_000):
            variant = "a" if rng.random() < weight else "b"
            played.value(played.decide(f"u{played.now}", variant), float(rng.random() < mean))
    sides = played.trial.sides
    plain = gap_of(played.spec, sides["a"], sides["b"], "quality", moved=False)
    robust = gap_of(played.spec, sides["a"], sides["b"], "quality", moved=True)
    assert plain is not None
    assert robust is not None
    assert plain.mean > 0.25
    assert abs(robust.mean) < 4.0 * math.sqrt(robust.variance / robust.n) < 0.25


def test_a_unit_that_met_two_variants_measures_neither_and_is_counted_once() -> None:
    played = Played(two())
    _outcomes(played, "a", [0.0, 1.0])
    played.decide("a0", "b")
    trial = played.trial
    sums = trial.sides["a"].sums["quality"]
    assert (sums.units, sums.s, trial.mixed, trial.sides["a"].mixed) == (1, 1.0, 1, 1)
    played.value(played.decide("a0", "a"), 1.0)
    played.value(played.decide("a0", "b"), 1.0)
    assert (sums.units, trial.sides["b"].sums) == (1, {})
    assert trial.epochs[-1].counts == [2, 0], "the split was fair when it came"
    assert trial.sides["a"].scores["quality"].first.n == 2, "a first outcome stays a fair score"


def test_units_that_come_while_their_variant_is_held_never_make_the_split_look_wrong() -> None:
    """Half of 3,000 regular units hash to b. They come while b is held and are given a; after the
    release only b's would be new."""
    played = Played(two())
    played.change(played.spec, held="b", held_until=1e9)
    for i in range(3_000):
        played.decide(f"u{i}", "a", split=1.0 if i % 2 == 0 else 0.0)
    played.change(played.spec, held="b")
    for i in range(3_000):
        played.value(played.decide(f"u{i}", "ab"[i % 2], split=0.5), 1.0)
    assert played.trial.split_p == 1.0
    assert (played.trial.sides["a"].units, played.trial.sides["b"].units) == (1_500, 0)
    assert played.trial.sides["b"].sums == {}


def test_a_member_that_met_the_control_while_held_is_still_measured() -> None:
    played = Played(two())
    event = played.decide("u", "b")
    played.decide("u", "a", split=0.0)
    played.value(event, 1.0)
    assert (played.trial.mixed, played.trial.sides["b"].sums["quality"].units) == (0, 1)


def test_epochs_of_the_same_weights_are_one_sample_and_others_multiply() -> None:
    played = Played(two())
    for weight, counts in ((0.5, (40, 60)), (0.9, (80, 20)), (0.5, (30, 70))):
        played.change(_weigh(played.spec, weight))
        for variant, count in zip("ab", counts, strict=True):
            for i in range(count):
                played.decide(f"{weight}{variant}{played.now}{i}", variant)
    trial = played.trial
    epochs = [(one.weights, one.counts) for one in trial.epochs]
    by_hand = srm.log_factor([0.5, 0.5], [70, 130]) + srm.log_factor(
        trial.epochs[1].weights, [80, 20]
    )
    now = trial.split_log + srm.log_factor(trial.epochs[-1].weights, [70, 130])
    assert now == pytest.approx(by_hand)
    assert srm.sequential_p(epochs) == pytest.approx(srm.p_of(by_hand))
    assert trial.split_p <= srm.sequential_p(epochs)


def test_the_splits_p_value_never_rises_again() -> None:
    played = Played(two())
    for i in range(6_000):
        played.decide(f"a{i}", "a")
    low = played.trial.split_p
    assert low < srm.ALPHA
    for i in range(6_000):
        played.decide(f"b{i}", "b")
    assert played.trial.split_p <= low
    epochs = [(one.weights, one.counts) for one in played.trial.epochs]
    assert srm.sequential_p(epochs) == 1.0


def test_limits_count_every_answer_and_comparisons_each_units_first() -> None:
    spec = two(guardrails=(limit(0.7), Guardrail(metric="quality", max_regression=0.1)))
    played = Played(spec)
    for _ in range(400):
        played.value(played.decide("one", "b"), 0.0)
    _outcomes(played, "a", [1.0] * 400)
    trial = played.trial
    assert [state.n for state in trial.sides["b"].guards] == [400, 1]
    assert stands(spec, trial, "b", 0)[0] == "broken"
    assert stands(spec, trial, "b", 1) == ("open", "")
    assert breaches(spec, trial)[0][1].startswith("b: quality is at most 0.")
    assert stands(spec, trial, "a", 0) == ("kept", "")
    _outcomes(played, "b", [0.0] * 400)
    assert stands(spec, trial, "b", 1)[0] == "broken"


def test_a_guardrail_without_a_value_says_nothing_and_its_range_is_cut_at_high() -> None:
    guards = (Guardrail(metric="latency_s", max=1.0, high=4.0),)
    played = Played(two(guardrails=guards))
    assert stands(played.spec, played.trial, "b", 0) == ("not enough data", "")
    _outcomes(played, "b", [100.0] * 300, "latency_s")
    at = guarded(played.spec, played.trial, "b", 0)
    assert at is not None
    assert 3.0 < at[0] < at[1] == pytest.approx(4.0)


def test_points_over_time_grow_with_the_logarithm_of_the_units() -> None:
    played = Played(two())
    sizes = []
    for i in range(20_000):
        played.value(played.decide(f"u{i}", "a"), float(i % 3 == 0))
        if i + 1 in (200, 2_000, 20_000):
            sizes.append(len(played.trial.sides["a"].points))
    assert sizes[2] < 120
    assert sizes[2] - sizes[1] == pytest.approx(sizes[1] - sizes[0], abs=5)
    last = played.trial.sides["a"].points[-1]
    assert last.n * 1.1 > 20_000 / 1.1
    assert last.mean == pytest.approx(1 / 3, abs=0.001)


def test_what_is_counted_goes_through_bytes_bit_for_bit() -> None:
    played = Played(two(guardrails=(limit(0.1),)))
    _outcomes(played, "a", [0.5, 0.25, 1.0])
    _outcomes(played, "b", [0.5, 0.25, 1.0])
    played.decide("a1", "b")
    dumped = codec.dump(played.trial)
    restored = codec.load(dumped, Trial)
    assert restored == played.trial
    assert codec.dump(restored) == dumped


def test_propensities_of_every_policy_are_held_against_the_draws_through_snapshots() -> None:
    world = a_world("cheap", "middle", "dear")
    for i in range(300):
        decided(world, asked(f"u{i}", i))
    told = world.calibrations.known()["uniform"]
    assert (told.decisions, told.impossible) == (300, 0)
    assert set(told.sums) == {"cheap", "middle", "dear"}
    assert told.p_value() > 0.05
    assert sum(s for s, _ in told.sums.values()) == pytest.approx(0.0, abs=1e-9)
    kept = snapshot.read(snapshot.dump(world))
    again = snapshot.restore(kept, {"uniform": policies.load("uniform")}, "uniform")
    assert again.calibrations.known() == world.calibrations.known()
    assert again.digest() == world.digest()
