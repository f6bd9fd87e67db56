"""The online protocols: runs over seeds, worlds that change, and what they come to."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bandit_service.core import events as ev
from bandit_service.core.outcomes import RewardRule
from bandit_service.data.recordings import Recorded
from bandit_service.lab import output
from bandit_service.lab.change import DEARER_BY, SCENARIOS, WORSE, phases_of
from bandit_service.lab.data import Labelled
from bandit_service.lab.equal import equal_rows
from bandit_service.lab.online import Entrant, Passed, Protocol, run_online
from bandit_service.lab.summary import change_rows, interval, online_rows
from bandit_service.lab.tables import change_table, equal_table, online_table
from tests.tools import imported, needed
from tests.unit.data.recordings import planted, recording

needed("scipy")
needed("threadpoolctl")

NAN = math.nan
ENTRANTS = (Entrant("learner", "metallm"), Entrant("chance", "uniform"))


def _data(n: int = 300) -> Labelled:
    return Labelled(*planted(n))


def _passed(
    label: str,
    rewards: list[float],
    best: list[float],
    *,
    seed: int = 0,
    worth: float = 0.1,
    scenario: str = "steady",
    mean: tuple[float, float, float] = (0.5, 0.5, 0.001),
) -> Passed:
    """A run with these rewards at every query."""
    sums, steps = np.cumsum(rewards), np.arange(1.0, len(rewards) + 1)
    beside = {name: np.cumsum(best) for name in ("uniform", "best", "oracle")}
    means = {"policy": mean, "uniform": (0.2, 0.2, 0.002), "best": (0.6, 0.6, 0.004)}
    means["oracle"] = (0.9, 0.9, 0.003)
    return Passed(
        label,
        seed,
        worth,
        scenario,
        len(rewards),
        len(rewards),
        steps,
        sums,
        beside,
        means,
        float(np.mean(rewards[-max(1, len(rewards) // 3) :])),
        "arm0",
        0,
        0,
    )


def test_runs_do_not_depend_on_how_many_processes_make_them() -> None:
    protocol = Protocol(seeds=2, worths=(0.1, 0.01), scenarios=("steady", "retires"))

    def made(jobs: int) -> list[tuple[object, ...]]:
        runs = run_online(_data(120), ENTRANTS, protocol, jobs=jobs)
        return sorted(
            (run.label, run.scenario, run.worth, run.seed, run.rewards.tolist(), run.outcomes)
            for run in runs
        )

    alone = made(1)
    assert len(alone) == 2 * 2 * 2 * 2
    assert made(2) == alone


def test_a_learner_beats_chance_and_its_sums_are_its_rewards() -> None:
    runs = list(run_online(_data(), ENTRANTS, Protocol(seeds=2)))
    rows = {row.label: row for row in online_rows(runs)}
    assert rows["learner"].reward.mean > rows["chance"].reward.mean + 0.1
    assert rows["(oracle)"].reward.mean >= rows["learner"].reward.mean
    for run in runs:
        assert run.steps[-1] == run.queries == 300
        assert run.rewards[-1] / 300 == pytest.approx(run.means["policy"][0])
        assert run.beside["oracle"][-1] / 300 == pytest.approx(run.means["oracle"][0])


def test_an_unknown_scenario_is_refused_by_name() -> None:
    with pytest.raises(
        ValueError, match="scenario: unknown value 'flood'; expected one of steady, joins"
    ):
        list(run_online(_data(), ENTRANTS, Protocol(scenarios=("flood",))))


def test_queries_that_one_arm_answered_are_left_out_where_arms_come_and_go() -> None:
    recorded, vectors = planted(60)
    quality, cost = recorded.quality.copy(), recorded.cost.copy()
    quality[:7, 1:] = cost[:7, 1:] = NAN
    data = Labelled(replace(recorded, quality=quality, cost=cost), vectors)
    counts = {
        run.scenario: run.queries
        for run in run_online(data, ENTRANTS, Protocol(seeds=1, scenarios=("steady", "retires")))
    }
    assert counts == {"steady": 53, "retires": 53}
    (alone,) = {run.queries for run in run_online(data, ENTRANTS, Protocol(seeds=1))}
    assert alone == 60


# --- worlds that change ---------------------------------------------------------------------


def _two() -> Recorded:
    """arm0 is the best at any price that counts."""
    return recording([[1.0, 0.5]] * 4, [[0.002, 0.001]] * 4)


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_phases_begin_with_the_catalogue_and_change_half_way(scenario: str) -> None:
    phases = phases_of(scenario, _two(), RewardRule())
    assert phases[0].start == 0
    added = {event.arm.id for event in phases[0].events if isinstance(event, ev.ArmAdded)}
    assert added == ({"arm1"} if scenario == "joins" else {"arm0", "arm1"})
    assert [phase.start for phase in phases[1:]] == ([] if scenario == "steady" else [2])


def test_the_best_arm_is_the_one_to_which_it_happens() -> None:
    rule = RewardRule(0.10)
    (before, after) = phases_of("joins", _two(), rule)
    assert np.isnan(before.recorded.quality[:, 0]).all()
    assert not np.isnan(after.recorded.quality).any()
    (joined,) = after.events
    assert isinstance(joined, ev.ArmAdded)
    assert joined.arm.id == "arm0"

    (_, after) = phases_of("degrades", _two(), rule)
    assert after.recorded.quality.tolist() == [[WORSE, 0.5]] * 4
    assert after.events == ()

    (_, after) = phases_of("dearer", _two(), rule)
    extra = after.recorded.cost[0] - _two().cost[0]
    assert extra / rule.willingness_to_pay == pytest.approx([DEARER_BY, 0.0])
    (told,) = after.events
    assert isinstance(told, ev.ArmUpdated)
    assert told.arm.usd_per_mtok_in == pytest.approx(after.recorded.cost[0, 0] / 0.002)

    (_, after) = phases_of("price x60", _two(), rule)
    assert after.recorded.cost[0] == pytest.approx([0.12, 0.001])
    (told,) = after.events
    assert isinstance(told, ev.ArmUpdated)
    assert told.arm.usd_per_mtok_out == pytest.approx(60.0 * _two().arms[0].usd_per_mtok_out)

    (_, after) = phases_of("retires", _two(), rule)
    assert np.isnan(after.recorded.cost[:, 0]).all()
    assert isinstance(after.events[0], ev.ArmRetired)


# --- what runs come to ----------------------------------------------------------------------


def test_an_interval_is_that_of_students_t() -> None:
    found = interval([1.0, 2.0, 3.0])
    # t(0.975, 2) = 4.30265, s = 1, √3
    assert (found.mean, found.n) == (2.0, 3)
    assert found.half == pytest.approx(4.302653 / math.sqrt(3), abs=1e-6)
    assert math.isnan(interval([1.0]).half)


def test_rows_of_the_online_protocol_by_hand() -> None:
    rows = online_rows(
        [
            _passed("a", [0.0, 0.0, 1.0], [1.0, 1.0, 1.0], seed=0, mean=(1 / 3, 0.4, 0.002)),
            _passed("a", [0.0, 1.0, 1.0], [1.0, 1.0, 1.0], seed=1, mean=(2 / 3, 0.6, 0.004)),
            _passed("b", [1.0, 1.0, 1.0], [1.0, 1.0, 1.0], mean=(1.0, 1.0, 0.001)),
        ]
    )
    assert [row.label for row in rows] == [
        "b",
        "a",
        "(uniform)",
        "(best single: arm0)",
        "(oracle)",
    ]
    a = rows[1]
    assert a.reward.mean == pytest.approx(0.5)
    assert a.last_third == 1.0
    assert [a.quality, a.usd_per_1000] == pytest.approx([0.5, 3.0])
    assert a.regret_best is not None
    assert a.regret_best.mean == pytest.approx(1.5)
    text = online_table(rows, "made").text()
    assert "0.5000 ± 2.1177" in text  # 12.7062 · s / √2 with s = √2 / 6
    assert "| b | 1.0000 |" in online_table(rows, "made").markdown()


def test_recovery_is_counted_from_the_change() -> None:
    # 400 queries; the change at 200 costs 1 per query for 50 queries, nothing after it.
    rewards = [0.5] * 200 + [-0.5] * 50 + [0.5] * 150
    runs = [_passed("a", rewards, [0.5] * 400, scenario="degrades")]
    (row,) = change_rows(runs)
    assert row.before.mean == pytest.approx(0.0)
    assert row.first.mean == pytest.approx(-50 / 200)
    assert row.recovered == 50  # 0.98 of the window must lie past the bad stretch
    never = [_passed("a", [0.5] * 200 + [0.0] * 200, [0.5] * 400, scenario="degrades")]
    assert change_rows(never)[0].recovered is None
    assert "never" in change_table(change_rows(never), "made").text()


def test_the_quarters_after_a_change_and_what_reacting_gained_are_by_hand() -> None:
    best = [0.5] * 400
    reacts = [0.5] * 200 + [0.25] * 100 + [0.5] * 100
    not_at_all = [0.5] * 200 + [0.0] * 100 + [0.125] * 100
    runs = [
        *(_passed("a", reacts, best, seed=seed, scenario="degrades") for seed in (0, 1)),
        *(
            _passed("a, no reaction", not_at_all, best, seed=seed, scenario="degrades")
            for seed in (0, 1)
        ),
    ]
    first, second = change_rows(runs)
    assert (first.soon.mean, first.last.mean) == pytest.approx((0.25, 0.5))
    assert first.soon_gain is not None
    assert first.last_gain is not None
    assert (first.soon_gain.mean, first.last_gain.mean) == pytest.approx((0.25, 0.375))
    assert (second.label, second.soon_gain) == ("a, no reaction", None)
    text = change_table([first], "made").markdown()
    assert "| 0.250 ± 0.000 | 0.250 ± 0.000 | 0.500 ± 0.000 | 0.375 ± 0.000 |" in text


def test_in_a_silent_change_what_can_react_runs_both_ways() -> None:
    """By its own alarm or by the service's; until the change both are the same run."""
    n = 500
    data = Labelled(recording([[0.9, 0.6]] * n, [[0.001, 0.001]] * n), np.ones((n, 1), np.float32))
    entrants = [Entrant(name, name) for name in ("nested", "epsilon_greedy", "uniform")]
    protocol = Protocol(seeds=1, scenarios=("degrades",))
    found = {run.label: run for run in run_online(data, entrants, protocol)}
    assert set(found) == {
        "nested",
        "nested, no reaction",
        "epsilon_greedy",
        "epsilon_greedy, no reaction",
        "uniform",
    }
    for name in ("nested", "epsilon_greedy"):
        reacted, did_not = found[name], found[f"{name}, no reaction"]
        half = np.searchsorted(reacted.steps, n // 2)
        assert reacted.rewards[:half].tolist() == did_not.rewards[:half].tolist()
        assert reacted.rewards[-1] > did_not.rewards[-1] + 10.0
        assert (reacted.reacts, did_not.reacts) == (True, False)


def test_equal_cost_and_equal_quality_by_hand() -> None:
    data = Labelled(recording([[0.2, 0.6]] * 3, [[0.001, 0.005]] * 3), np.eye(3, dtype=np.float32))
    rows = equal_rows(
        [
            _passed("a", [1.0], [1.0], worth=0.01, mean=(0.0, 0.4, 0.002)),
            _passed("a", [1.0], [1.0], worth=0.10, mean=(0.0, 0.8, 0.004)),
        ],
        data,
    )
    a, zero = rows
    assert (a.label, zero.label) == ("a", "(zero router)")
    # knots (1, 0.2), (2, 0.4), (4, 0.8) in thousandths, flat to 5: all on one line but the end
    assert a.auc == pytest.approx((0.5 * 3 + 0.8) / 4, abs=1e-6)
    assert zero.auc == pytest.approx(0.4)
    assert a.quality_gain["best"] == pytest.approx(0.8 - 0.6)
    assert a.cost_share["best"] == pytest.approx(3 / 4)
    assert a.cost_share["uniform"] == pytest.approx(1 / 2)
    assert math.isnan(a.cost_share["oracle"])
    assert "–" in equal_table(rows, "made").text()


def test_records_hold_no_nan_and_curves_every_checkpoint(tmp_path: Path) -> None:
    pq = imported("pyarrow.parquet")
    runs = list(run_online(_data(90), ENTRANTS, Protocol(seeds=2)))
    output.write_json(tmp_path / "out" / "a.json", {"rows": online_rows(runs), "x": NAN})
    written = json.loads((tmp_path / "out" / "a.json").read_text())
    assert written["x"] is None
    assert {row["label"] for row in written["rows"]} >= {"learner", "chance", "(oracle)"}
    output.write_parquet(tmp_path / "out" / "a.parquet", output.regret_points("made", runs))
    table = pq.read_table(tmp_path / "out" / "a.parquet").to_pydict()
    assert len(table["reward"]) == 2 * 2 * 90
    last = [r for r, q in zip(table["reward"], table["queries"], strict=True) if q == 90]
    assert sorted(last) == pytest.approx(sorted(float(run.rewards[-1]) for run in runs))
    assert not list(tmp_path.rglob("*.partial"))


def test_a_change_without_a_query_is_reported_as_unknown() -> None:
    """Seen on e98ba34: with one model, "division by zero" after the work, and nothing written."""
    none = np.array([])
    run = replace(
        _passed("a", [0.5], [0.5], scenario="degrades"),
        queries=0,
        steps=none,
        rewards=none,
        beside=dict.fromkeys(("uniform", "best", "oracle"), none),
    )
    (row,) = change_rows([run])
    assert (row.after, row.recovered) == (0, None)
    for each in (row.before, row.first, row.rest, row.soon, row.last):
        assert math.isnan(each.mean)
    assert "a" in change_table([row], "made").text()
