"""The offline split: rows by hand, reproducible, and the published references on real data."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest

from bandit_service.data.recordings import load
from bandit_service.lab.bench import Bench
from bandit_service.lab.data import Labelled
from bandit_service.lab.offline import (
    NUMBERS,
    OfflineRow,
    curve_points,
    evaluate_offline,
    parts,
    salt_of,
    spread,
    summarise,
    update_times,
)
from bandit_service.lab.routers import (
    KNN,
    BestSingle,
    HybridLLM,
    OfflineRouter,
    Oracle,
    Ridge,
    Uniform,
    ZeroRouter,
    eagle,
    trace,
)
from tests.shared_data import shared
from tests.unit.lab.labelled import labelled, topics

NAN = math.nan
FEW: dict[str, OfflineRouter] = {"zero router": ZeroRouter(), "kNN": KNN(9), "oracle": Oracle()}


def _timeless(rows: list[OfflineRow]) -> list[OfflineRow]:
    return [replace(row, fit_s=0.0, route_s=0.0) for row in rows]


def test_a_row_by_hand() -> None:
    # arm0 costs 1 and is right on two of four, arm1 costs 3 and is right on three
    test = labelled([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], [[1.0, 3.0]] * 4, np.eye(4))
    bench = Bench.of(test, test, 0, 0)
    assert (bench.low, bench.high, bench.floor) == (1.0, 3.0, 0.5)
    assert (bench.best, bench.uniform) == ((0.75, 3.0), (0.625, 2.0))
    row = bench.row("oracle", trace(Oracle().fit(test, 0), test), 0, 0.0, 0.0)
    # λ = 0 buys arm1 where it alone is right: quality 1 for 2; up from 0.5 for 1
    assert (row.quality, row.cost) == (1.0, 2.0)
    assert row.auc_linear == pytest.approx((0.75 + 1.0) / 2, abs=1e-6)
    # 0.75 is reached at 1.5 of 3
    assert row.match_cost == pytest.approx(0.5)
    assert (row.at_best_cost, row.at_uniform_cost) == (1.0, 1.0)
    # strong is arm1, at half of the calls PGR is (1 − 0.5)/0.25 = 2, and at all of them 1
    assert row.apgr == pytest.approx((0.2 + 0.6 + 1.0 + 1.4 + 1.8) * 0.1 + 0.75)
    assert (row.cpt50, row.cpt80) == pytest.approx((0.125, 0.2))
    # the zero router is the chord from (1, 0.5) to (3, 0.75)
    assert row.gain == pytest.approx(0.875 - 0.625, abs=1e-6)
    first = row.points[0]
    assert (first.setting, first.cost, first.quality, first.strong) == (0.0, 2.0, 1.0, 0.5)
    assert first.on_hull
    assert math.isnan(row.auc_low)


def test_a_run_is_reproducible_and_says_who_was_taught_what() -> None:
    data = topics(200, missing=0.1)
    calls: list[tuple[int, int, str]] = []
    rows = evaluate_offline(
        data, FEW, seeds=(0, 1), bootstrap=20, progress=lambda *call: calls.append(call)
    )
    assert [(row.router, row.seed) for row in rows] == [(n, s) for s in (0, 1) for n in FEW]
    assert [call[:2] for call in calls] == [(i, 6) for i in range(6)]
    again = evaluate_offline(data, FEW, seeds=(0, 1), bootstrap=20)
    np.testing.assert_equal(
        [_values(row) for row in _timeless(again)], [_values(row) for row in _timeless(rows)]
    )
    zero, knn, oracle = rows[:3]
    train, test = parts(data, 0.7, 0)
    assert (zero.seen, oracle.seen) == (int(train.answered.sum()), 0)
    assert (zero.train, zero.test) == (len(train), len(test))
    assert zero.gain == zero.gain_low == zero.gain_high == 0.0
    assert zero.auc_linear < knn.auc_linear < oracle.auc_linear
    for row in rows:
        assert row.auc_low <= row.auc_linear <= row.auc_high
        assert row.gain_low <= row.gain <= row.gain_high


def _values(row: OfflineRow) -> list[object]:
    return [
        [[getattr(point, f.name) for f in fields(point)] for point in row.points]
        if field.name == "points"
        else getattr(row, field.name)
        for field in fields(row)
    ]


def test_rows_that_have_no_such_number_say_nan() -> None:
    rows = evaluate_offline(topics(120), {"uniform": Uniform(), "hybrid": HybridLLM()}, bootstrap=0)
    uniform, hybrid = rows
    assert math.isnan(uniform.apgr)
    assert math.isnan(uniform.points[0].strong)
    assert math.isnan(hybrid.log_wtp_auc)
    assert math.isnan(uniform.auc_high)
    assert 0.0 < uniform.log_wtp_auc <= 15.0


def test_curve_points_are_those_of_the_rows() -> None:
    rows = evaluate_offline(topics(120), FEW, bootstrap=0)
    points = curve_points(rows)
    assert len(points) == sum(len(row.points) for row in rows)
    for row in rows:
        assert (row.points[0].cost, row.points[0].quality) == (row.cost, row.quality)
        knots = [point for point in row.points if point.on_hull]
        assert max(point.quality for point in row.points) in {point.quality for point in knots}


def test_a_summary_is_the_mean_over_seeds() -> None:
    rows = evaluate_offline(topics(150), FEW, seeds=(0, 1, 2), bootstrap=0)
    summaries = summarise(rows)
    assert [each.router for each in summaries] == list(FEW)
    assert summaries[0].seeds == (0, 1, 2)
    areas = [row.auc_linear for row in rows if row.router == "kNN"]
    assert summaries[1].numbers["auc_linear"].mean == pytest.approx(np.mean(areas))
    assert summaries[1].numbers["auc_linear"].sd == pytest.approx(np.std(areas, ddof=1))
    assert math.isnan(summaries[1].numbers["apgr"].mean)
    assert set(summaries[1].numbers) == set(NUMBERS)
    lone = spread([2.0, NAN])
    assert (lone.mean, lone.n) == (2.0, 1)
    assert math.isnan(lone.sd)


def test_a_seed_is_a_split() -> None:
    assert (salt_of(0), salt_of(2)) == ("dev-eval", "dev-eval-2")
    data = topics(100)
    first, second = parts(data, 0.7, 0), parts(data, 0.7, 1)
    assert set(first[0].recorded.ids) | set(first[1].recorded.ids) == set(data.recorded.ids)
    assert first[0].recorded.ids != second[0].recorded.ids


def test_later_queries_are_taken_in_alone_by_those_that_can() -> None:
    data = topics(300)
    rows = update_times(data, {"ridge": Ridge(1.0), "Eagle": eagle(1)})
    train, _ = parts(data, 0.7, 0)
    assert [(row.router, row.share) for row in rows] == [
        (router, share) for router in ("ridge", "Eagle") for share in (0.7, 0.85, 1.0)
    ]
    assert [row.incremental for row in rows] == [False, False, False, False, True, True]
    assert sum(row.added for row in rows[:3]) == len(train)
    # all of the training part, whichever way it came
    (whole,) = evaluate_offline(data, {"ridge": Ridge(1.0)}, bootstrap=0)
    assert rows[2].auc_linear == pytest.approx(whole.auc_linear)


@pytest.mark.parametrize("shares", [(), (0.5, 0.5), (0.9, 0.5), (0.0, 1.0), (0.5, 1.5)])
def test_shares_must_rise(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="shares"):
        update_times(topics(50), FEW, shares)


def test_a_step_that_adds_no_query_is_refused() -> None:
    with pytest.raises(ValueError, match="add none"):
        update_times(topics(60), FEW, (0.9, 0.9001))


def test_bad_arguments_are_refused_by_name() -> None:
    data = topics(20)
    with pytest.raises(ValueError, match="seeds"):
        evaluate_offline(data, FEW, seeds=())
    with pytest.raises(ValueError, match="share"):
        evaluate_offline(data, FEW, share=1.0)
    with pytest.raises(ValueError, match=r"leave \d to train and \d to test"):
        evaluate_offline(topics(1), FEW)
    with pytest.raises(ValueError, match="no query"):
        evaluate_offline(data.take(np.zeros(0, np.int64)), FEW)


# quality and USD per 1,000 at λ = 0, AUC linear, AUC log: the table beside the data
PUBLISHED = {
    "nvmix": {
        "uniform": (0.4486, 0.1183, 0.5689, 0.5689),
        "best single": (0.6444, 0.2522, 0.6066, 0.5938),
        "zero router": (0.6444, 0.2522, 0.6125, 0.6004),
        "oracle": (0.8191, 0.0506, 0.8142, 0.8037),
    },
    "zeroeval": {
        "uniform": (0.6984, 1.6012, 0.6912, 0.6345),
        "best single": (0.8628, 3.2143, 0.8319, 0.6919),
        "zero router": (0.8628, 3.2143, 0.8566, 0.8180),
        "oracle": (0.9622, 0.2040, 0.9621, 0.9586),
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_references_on_real_data_are_the_published_ones(name: str) -> None:
    recorded = load(shared("data", f"{name}.jsonl.gz"))
    data = Labelled(recorded, np.zeros((len(recorded), 1), np.float32))
    routers: dict[str, OfflineRouter] = {
        "uniform": Uniform(),
        "best single": BestSingle(),
        "zero router": ZeroRouter(),
        "oracle": Oracle(),
    }
    rows = evaluate_offline(data, routers, bootstrap=0)
    got = {
        row.router: tuple(
            round(value, 4) for value in (row.quality, row.cost * 1e3, row.auc_linear, row.auc_log)
        )
        for row in rows
    }
    assert got == PUBLISHED[name]
