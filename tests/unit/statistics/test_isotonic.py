"""Isotonic regression: by hand, by its definition, and beside scikit-learn's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_service.statistics.isotonic import interpolated, isotonic

POINTS = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 100)), min_size=1, max_size=30)


def test_values_by_hand() -> None:
    assert isotonic([1, 1, 1], [0.1, 0.2, 0.3]) == [0.1, 0.2, 0.3]
    assert isotonic([1, 3], [1.0, 0.0]) == [0.25, 0.25]
    assert isotonic([1, 1, 1], [0.9, 0.6, 0.0]) == pytest.approx([0.5, 0.5, 0.5])
    assert isotonic([], []) == []


@given(POINTS)
def test_it_is_that_of_scikit_learn(points: list[tuple[int, int]]) -> None:
    reference = pytest.importorskip("sklearn.isotonic").IsotonicRegression()
    weights, means = [float(w) for w, _ in points], [m / 100 for _, m in points]
    found = isotonic(weights, means)
    expected = reference.fit_transform(range(len(means)), means, sample_weight=weights)
    assert found == pytest.approx(list(expected), abs=1e-12)
    assert found == sorted(found)


def test_between_points_it_is_linear_and_beyond_them_level() -> None:
    xs, ys = [0.2, 0.6], [0.1, 0.5]
    values = [interpolated(xs, ys, x) for x in (0.0, 0.2, 0.4, 0.6, 1.0)]
    assert values == pytest.approx([0.1, 0.1, 0.3, 0.5, 0.5])
    assert interpolated([0.5], [0.3], 0.9) == 0.3
