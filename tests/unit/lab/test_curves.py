"""Hulls and areas: values by hand, and what must hold of every curve."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_service.lab.curves import (
    WILLINGNESS,
    Hull,
    aiq,
    apgr,
    auc_linear,
    auc_log,
    calls,
    cpt,
    hull,
    log_wtp_auc,
)
from policies import Floats

COSTS: Floats = np.array([2.0, 4.0, 3.0, 5.0, 1.0])
QUALITIES: Floats = np.array([0.6, 0.8, 0.65, 0.7, 0.55])
# The pool costs 2 to 6 and its cheapest model has quality 0.5. The point at 1 moves to 2, where
# 0.6 is better; 3 lies below the chord from 2 to 4; 5 is dominated.


def _hull() -> Hull:
    return hull(COSTS, QUALITIES, low=2.0, floor=0.5)


def test_a_hull_by_hand() -> None:
    curve = _hull()
    assert curve.cost.tolist() == [2.0, 4.0]
    assert curve.quality.tolist() == [0.6, 0.8]
    assert np.allclose(curve.at(np.array([2.0, 3.0, 4.0, 9.0])), [0.6, 0.7, 0.8, 0.8])


def test_the_cheapest_model_is_always_on_offer() -> None:
    curve = hull(np.array([4.0]), np.array([0.9]), low=2.0, floor=0.5)
    assert curve.cost.tolist() == [2.0, 4.0]
    assert curve.quality.tolist() == [0.5, 0.9]


def test_areas_by_hand() -> None:
    curve = _hull()
    # [2, 4] has mean 0.7 and [4, 6] is 0.8
    assert auc_linear(curve, 2.0, 6.0) == pytest.approx(0.75, abs=1e-6)
    # mean over log c of 0.4 + c/10 on [2, 4] is 0.4 + 0.2/ln 2, and half of [2, 8] is 0.8
    assert auc_log(curve, 2.0, 8.0) == pytest.approx((0.4 + 0.2 / math.log(2) + 0.8) / 2, abs=1e-6)


def test_without_a_range_the_area_is_the_quality() -> None:
    curve = _hull()
    assert auc_linear(curve, 2.0, 2.0) == 0.6
    assert auc_log(curve, 2.0, 2.0) == 0.6
    assert math.isnan(auc_log(curve, 0.0, 2.0))


def test_aiq_by_hand() -> None:
    # from the null router (0, 0) the hull goes straight to (1, 0.55), then (2, 0.6) lies below
    # the chord to (4, 0.8), and so does (3, 0.65): 0.55 + (c − 1)/12
    left = (0.55 + 1 / 12 + 0.8) / 2
    assert aiq(COSTS, QUALITIES, 2.0, 6.0) == pytest.approx((left + 0.8) / 2, abs=1e-6)
    # one point dearer than the range's left end: a chord from the origin, then flat
    one = aiq(np.array([4.0]), np.array([0.8]), 2.0, 6.0)
    assert one == pytest.approx((0.6 + 0.8) / 2, abs=1e-6)


def test_cost_to_reach_a_quality() -> None:
    curve = _hull()
    assert curve.cost_of(0.7) == pytest.approx(3.0)
    assert curve.cost_of(0.3) == 2.0
    assert curve.cost_of(0.8) == 4.0
    assert math.isnan(curve.cost_of(0.81))


def test_log_wtp_auc_by_hand() -> None:
    # one setting: a plateau over all 15 decades
    assert log_wtp_auc(np.zeros(1), np.array([0.6])) == pytest.approx(9.0)
    # λ = 1e6 and 1e2: cheap up to WTP 1e-6, dear from 1e-2, a straight rise between
    prices, quality = np.array([0.0, 1e2, 1e6]), np.array([0.8, 0.8, 0.4])
    assert log_wtp_auc(prices, quality) == pytest.approx(0.4 * 4 + 0.6 * 4 + 0.8 * 7)
    # beyond the largest WTP of a positive λ it is the plateau's
    late = np.array([0.9, 0.8, 0.4])
    assert log_wtp_auc(prices, late) > log_wtp_auc(prices, quality)
    # off the axis
    off = log_wtp_auc(np.append(prices, np.nan), np.append(quality, 1.0))
    assert off == log_wtp_auc(prices, quality)
    assert math.isnan(log_wtp_auc(np.array([np.nan]), np.array([0.5])))


def test_log_wtp_auc_of_budgets_by_hand() -> None:
    # budgets 1e-8 and 1e-4; the grid is by decades there, so that the step is half a decade wide
    got = log_wtp_auc(np.array([np.inf, 1e-4, 1e-8]), np.array([0.9, 0.8, 0.4]), budget=True)
    assert got == pytest.approx(0.4 * 5.5 + 0.8 * 9.5)


def test_the_wtp_axis_is_the_stated_one() -> None:
    assert (WILLINGNESS[0], WILLINGNESS[-1]) == (1e-10, 1e5)
    assert (np.diff(WILLINGNESS) > 0).all()


def test_two_models_by_hand() -> None:
    # weak 0.5, strong 0.9
    curve = calls(np.array([1.0, 0.5, 0.5, 0.0]), np.array([0.9, 0.8, 0.84, 0.5]), 0.5, 0.9)
    assert curve is not None
    assert curve.share.tolist() == [0.0, 0.5, 1.0]
    assert curve.pgr.tolist() == pytest.approx([0.0, 0.8, 1.0])
    # 0.08, 0.24, 0.40, 0.56, 0.72 and 0.82, 0.86, 0.90, 0.94, 0.98
    assert apgr(curve) == pytest.approx((2.0 + 4.5) / 10)
    assert cpt(curve, 0.5) == pytest.approx(0.3125)
    assert cpt(curve, 0.8) == pytest.approx(0.5)
    assert cpt(curve, 0.9) == pytest.approx(0.75)
    assert cpt(curve, 0.0) == 0.0


def test_chance_has_an_apgr_of_a_half() -> None:
    curve = calls(np.zeros(0), np.zeros(0), 0.2, 0.6)
    assert curve is not None
    assert apgr(curve) == pytest.approx(0.5)
    assert cpt(curve, 0.8) == pytest.approx(0.8)


def test_no_gap_no_pgr() -> None:
    assert calls(np.array([0.5]), np.array([0.5]), 0.6, 0.6) is None


def test_what_is_no_point_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        hull(np.array([1.0]), np.array([np.nan]), 1.0, 0.5)
    with pytest.raises(ValueError, match="one length"):
        hull(np.array([1.0, 2.0]), np.array([0.5]), 1.0, 0.5)
    curve = calls(np.zeros(0), np.zeros(0), 0.2, 0.6)
    assert curve is not None
    with pytest.raises(ValueError, match="target"):
        cpt(curve, 1.5)


_UNIT = st.floats(0.0, 1.0, allow_subnormal=False)
_POINTS = st.lists(st.tuples(st.floats(0.1, 10.0), _UNIT), min_size=1, max_size=30)


@given(_POINTS, _UNIT)
def test_a_hull_is_concave_rises_and_lies_above_every_point(
    points: list[tuple[float, float]], floor: float
) -> None:
    cost, quality = np.array(points).T
    low, high = 1.0, 10.0
    curve = hull(cost, quality, low, floor)
    assert (np.diff(curve.cost) > 0).all()
    assert (np.diff(curve.quality) > 0).all()
    slopes = np.diff(curve.quality) / np.diff(curve.cost)
    assert (np.diff(slopes) <= 1e-9 * (1 + slopes[:-1])).all()
    assert (curve.at(np.maximum(cost, low)) >= quality - 1e-9).all()
    assert curve.cost[0] == low
    best = max(float(quality.max()), floor)
    for area in (auc_linear(curve, low, high), auc_log(curve, low, high)):
        assert floor - 1e-9 <= area <= best + 1e-9
    assert aiq(cost, quality, low, high) <= float(quality.max()) + 1e-9


@given(_POINTS, _POINTS)
def test_more_points_never_lower_a_curve(
    some: list[tuple[float, float]], more: list[tuple[float, float]]
) -> None:
    cost, quality = np.array(some).T
    both_cost, both_quality = np.array(some + more).T
    at = np.linspace(1.0, 10.0, 50)
    fewer = hull(cost, quality, 1.0, 0.0).at(at)
    assert (hull(both_cost, both_quality, 1.0, 0.0).at(at) >= fewer - 1e-9).all()
    assert aiq(both_cost, both_quality, 1.0, 10.0) >= aiq(cost, quality, 1.0, 10.0) - 1e-9
