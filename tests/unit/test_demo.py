"""The arithmetic of the acts: prices, joins, degradation, fixed choices, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import policies
from bandit_service.core import events as ev
from bandit_service.core.outcomes import RewardRule
from bandit_service.data.recordings import Recorded
from bandit_service.offline.simulate import Phase, order_of
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.settings import Settings
from loadtest.demo import acts, offline, tell
from loadtest.demo.interval import Interval, interval, t_quantile
from loadtest.demo.plot import draw, moving
from policies import Vector
from tests.unit.data.recordings import planted, recording

RULE = RewardRule(0.1, 0.0)
BEST, SECOND, THIRD = 0, 1, 2


def _flat(n: int = 9) -> Recorded:
    """arm0 earns 0.9 - 0.01, arm1 0.8 - 0.01, arm2 0.7 - 0.01 on every query."""
    return recording([[0.9, 0.8, 0.7]] * n, [[0.001] * 3] * n)


def _stage(n: int = 9) -> tuple[acts.Stage, tuple[Phase, ...]]:
    stage = acts.stage_of(_flat(n), None, RULE)
    return stage, acts.phases_of(stage, dear=BEST, worse=THIRD)


def test_the_second_best_arm_is_held_back_until_act_three() -> None:
    stage, phases = _stage()
    assert stage.newcomer == SECOND
    assert stage.starts == (0, 3, 6)
    assert stage.there(0) == stage.there(1) == [BEST, THIRD]
    assert stage.there(2) == [BEST, SECOND, THIRD]
    for early in phases[:2]:
        assert np.isnan(early.recorded.quality[:, SECOND]).all()
        assert np.isnan(early.recorded.cost[:, SECOND]).all()
    assert phases[2].recorded.quality[:, SECOND].tolist() == [0.8] * 9


def test_the_price_rises_in_act_two_and_stays_and_the_service_is_told() -> None:
    stage, phases = _stage()
    assert phases[0].recorded.cost[0, BEST] == 0.001
    for late in phases[1:]:
        assert late.recorded.cost[:, BEST] == pytest.approx(0.06)
        assert late.recorded.cost[:, THIRD].tolist() == [0.001] * 9
    (told,) = phases[1].events
    assert isinstance(told, ev.ArmUpdated)
    assert (told.arm.id, told.arm.usd_per_mtok_in, told.arm.usd_per_mtok_out) == (
        "arm0",
        60.0,
        60.0,
    )
    assert phases[1].start == stage.starts[1]


def test_the_favourite_degrades_in_act_three_and_nobody_is_told_but_of_the_newcomer() -> None:
    _, phases = _stage()
    assert phases[1].recorded.quality[:, THIRD].tolist() == [0.7] * 9
    assert phases[2].recorded.quality[:, THIRD].tolist() == [0.35] * 9
    assert phases[2].recorded.quality[:, BEST].tolist() == [0.9] * 9
    (joined,) = phases[2].events
    assert isinstance(joined, ev.ArmAdded)
    assert joined.arm.id == "arm1"
    assert [event.arm.id for event in phases[0].events if isinstance(event, ev.ArmAdded)] == [
        "arm0",
        "arm2",
    ]


def test_the_same_arm_may_be_the_favourite_of_both_acts() -> None:
    stage, _ = _stage()
    phases = acts.phases_of(stage, dear=BEST, worse=BEST)
    assert phases[2].recorded.quality[:, BEST].tolist() == [0.45] * 9
    assert phases[2].recorded.cost[:, BEST] == pytest.approx(0.06)


def test_acts_are_known_no_sooner_than_they_begin() -> None:
    stage, phases = _stage()
    assert len(acts.phases_of(stage, None, None)) == 1
    assert len(acts.phases_of(stage, BEST, None)) == 2
    assert [phase.start for phase in phases] == [0, 3, 6]


def test_a_fixed_choice_has_every_arm_and_the_newcomer_from_when_it_joins() -> None:
    stage, phases = _stage()
    choices = acts.fixed_choices(stage, phases, RULE)
    assert [(each.name, each.columns) for each in choices] == [
        ("always arm0", (0, 0, 0)),
        ("always arm2", (2, 2, 2)),
        ("arm2, then arm1", (2, 2, 1)),  # 0.69 + 0.69 is more than 0.89 + 0.30
    ]
    rows = acts.split(stage, order_of(stage.recorded, 0))
    earned = [acts.follow(phases, rows, each, RULE) for each in choices]
    assert earned[0].reward == pytest.approx([0.89] * 3 + [0.3] * 6)
    assert earned[1].reward == pytest.approx([0.69] * 6 + [0.34] * 3)
    assert earned[2].reward == pytest.approx([0.69] * 6 + [0.79] * 3)
    assert earned[0].cost == pytest.approx([0.001] * 3 + [0.06] * 6)


def test_the_best_of_act_one_is_chosen_by_its_own_queries_and_never_changes() -> None:
    stage, phases = _stage()
    order = order_of(stage.recorded, 1)
    chosen = acts.first_choice(stage, phases, order, RULE)
    assert chosen.columns == (BEST,) * 3
    good = stage.recorded.quality.copy()
    good[order[:3], THIRD] = 1.0
    other = replace(stage, recorded=replace(stage.recorded, quality=good))
    again = acts.phases_of(other, BEST, THIRD)
    assert acts.first_choice(other, again, order, RULE).columns == (THIRD,) * 3


def test_chance_draws_evenly_among_those_that_are_there() -> None:
    stage, phases = _stage()
    found = acts.any_by_chance(stage, phases, order_of(stage.recorded, 0), RULE)
    early, dear = (0.89 + 0.69) / 2, (0.3 + 0.69) / 2
    assert found.reward == pytest.approx([early] * 3 + [dear] * 3 + [(0.3 + 0.79 + 0.34) / 3] * 3)


def test_an_arm_without_an_answer_is_stood_in_for_by_chance() -> None:
    recorded = _flat()
    quality, cost = recorded.quality.copy(), recorded.cost.copy()
    quality[0, BEST] = cost[0, BEST] = np.nan
    stage = acts.stage_of(replace(recorded, quality=quality, cost=cost), None, RULE)
    phases = acts.phases_of(stage, BEST, THIRD)
    row = stage.recorded.ids.index("q0")
    earned = acts.follow(phases[:1], [np.array([row])], acts.Choice("", (BEST,)), RULE)
    assert earned.reward == pytest.approx([0.69])


def test_a_query_that_only_the_newcomer_answered_is_left_out() -> None:
    recorded = _flat(12)
    quality, cost = recorded.quality.copy(), recorded.cost.copy()
    quality[4, [BEST, THIRD]] = cost[4, [BEST, THIRD]] = np.nan
    stage = acts.stage_of(replace(recorded, quality=quality, cost=cost), None, RULE)
    assert stage.newcomer == SECOND
    assert "q4" not in stage.recorded.ids
    assert len(stage.recorded) == 11


def test_two_arms_are_both_there_from_the_start() -> None:
    stage = acts.stage_of(recording([[0.9, 0.8]] * 6, [[0.001] * 2] * 6), None, RULE)
    phases = acts.phases_of(stage, dear=0, worse=1)
    assert stage.newcomer is None
    assert phases[2].events == ()
    names = [each.name for each in acts.fixed_choices(stage, phases, RULE)]
    assert names == ["always arm0", "always arm1"]


@pytest.mark.parametrize(
    ("recorded", "said"),
    [
        (_flat(8), "must have at least 9 queries for 3 acts of 3 models, got 8"),
        (recording([[0.9]] * 9, [[0.001]] * 9), "must have at least 2 models, got 1"),
    ],
)
def test_a_recording_that_is_too_small_is_refused(recorded: Recorded, said: str) -> None:
    with pytest.raises(acts.TooSmall, match=said):
        acts.stage_of(recorded, None, RULE)


def test_the_most_used_arm_is_one_that_is_there() -> None:
    stage, _ = _stage()
    assert acts.most_used(stage, 0, np.array([2, 2, 0])) == 2
    assert acts.most_used(stage, 0, np.array([1, 1, 0])) == 0


def test_the_interval_is_students() -> None:
    for freedom in (1, 2, 5, 9, 19, 200):
        assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-6)
    values = [0.1, 0.4, 0.2, 0.9]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    found = interval(values)
    assert (found.mean, found.low, found.high) == pytest.approx((0.4, low, high))
    assert found.seeds == 4
    assert np.isnan(interval([1.0]).low)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.03, "above"), (-0.01, 0.03, "not above"), (-0.03, -0.01, "below")],
)
def test_the_verdict_is_what_the_interval_allows(low: float, high: float, verdict: str) -> None:
    found = Interval((low + high) / 2, low, high, 5)
    assert tell.Difference(found, found).verdict == verdict


def test_a_moving_mean_never_looks_across_the_begin_of_an_act() -> None:
    values = np.array([[0.0] * 10 + [1.0] * 10 + [0.5] * 10])
    assert moving(values, (0, 10, 20)).tolist() == values[0].tolist()


def _played(limit: int, seeds: int) -> tuple[acts.Stage, Vector, offline.Results]:
    recorded, vectors = planted(limit)
    settings = Settings()
    stage = acts.stage_of(recorded, None, RouterRules.of(settings).reward)
    rows = [int(id.removeprefix("q")) for id in stage.recorded.ids]
    phases = acts.phases_of(stage, dear=0, worse=2)
    entrants = offline.entrants("epsilon_greedy", settings, every=False)
    told: list[tuple[str, int]] = []
    played = offline.play(
        stage,
        phases,
        vectors[rows],
        entrants,
        range(1, seeds + 1),
        settings,
        lambda name, seed: told.append((name, seed)),
    )
    assert len(told) == len(entrants) * seeds
    results = offline.results_of(stage, phases, played, "epsilon_greedy", settings, (0, 2))
    return stage, vectors[rows], results


def test_equal_seeds_give_equal_runs_and_the_same_policy_differs_by_nothing(
    tmp_path: Path,
) -> None:
    stage, _, results = _played(60, 2)
    _, _, again = _played(60, 2)
    for name, played in results.played.items():
        assert played.reward.shape == (2, len(stage.recorded))
        assert (played.reward == again.played[name].reward).all()
    found = tell.difference(results, offline.GREEDY)
    assert (found.reward.mean, found.usd.mean, found.verdict) == (0.0, 0.0, "not above")
    best = results.best_fixed
    assert best in results.fixed
    text = tell.markdown(results, None, RULE)
    assert f"the best fixed choice in hindsight ({best})" in text
    assert text.count("95 % intervals over 2 seeds") == 4
    draw(results, tmp_path / "demo.png")
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_the_fold_draws_again_what_ids_drew() -> None:
    settings, policy = Settings(), policies.load("epsilon_greedy")
    stage, vectors, _ = _played(60, 1)
    phases = acts.phases_of(stage, dear=0, worse=2)
    ids = [f"served-{step}" for step in range(len(stage.recorded))]
    own = offline.fold(stage, phases, vectors, policy, 0, settings)
    first = offline.fold(stage, phases, vectors, policy, 0, settings, ids=ids)
    again = offline.fold(stage, phases, vectors, policy, 0, settings, ids=ids)
    assert (first.arm == again.arm).all()
    assert (first.arm != own.arm).any()


def test_many_fixed_choices_are_counted_and_not_listed() -> None:
    _, _, results = _played(60, 1)
    low = replace(
        results.played[results.fixed[0]], reward=results.played[results.fixed[0]].reward - 1
    )
    more = {f"always other{i}": low for i in range(9)}
    many = replace(results, played={**results.played, **more}, fixed=(*results.fixed, *more))
    lines = tell.plain(tell.table(many))
    assert f"{len(many.fixed) - 6} other fixed choices, all lower" in lines
