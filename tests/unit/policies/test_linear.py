"""The stack of ridge regressions: sums are the truth, the inverse is a cache."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from policies import ArmId, Floats
from policies._linear import RidgeStack
from tests.unit.policies.given import A, B, C

DIM, RIDGE = 12, 2.0


def _x(i: int) -> Floats:
    x: Floats = np.sin(1.3 * i + 0.7 * np.arange(DIM)) / np.sqrt(DIM)
    return x


def _learned(n: int, *, asked: bool) -> RidgeStack:
    """n observations, an arm more from the fiftieth on; `asked` keeps a cache up meanwhile."""
    stack = RidgeStack()
    for i in range(n):
        arm = (A, B, C)[i % (3 if i >= 50 else 2)]
        stack.observe(arm, _x(i), np.cos(0.9 * i), weight=0.5 if i % 7 == 0 else 1.0)
        if asked:
            stack.estimate([A, B], _x(i + 1), RIDGE)
    return stack


def test_learning_alone_builds_no_cache() -> None:
    stack = _learned(60, asked=False)
    assert stack._inverse is None
    assert stack._theta is None


def test_the_cache_kept_up_is_the_cache_built_anew() -> None:
    kept, anew = _learned(2000, asked=True), _learned(2000, asked=False)
    np.testing.assert_array_equal(kept.A, anew.A)
    np.testing.assert_array_equal(kept.b, anew.b)
    np.testing.assert_array_equal(kept.n, anew.n)
    for one, other in zip(
        kept.estimate([A, B, C], _x(9), RIDGE), anew.estimate([A, B, C], _x(9), RIDGE), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert kept._inverse is not None
    np.testing.assert_allclose(kept._inverse, np.linalg.inv(kept.A + RIDGE * np.eye(DIM)))


def test_estimates_are_those_of_the_normal_equations() -> None:
    stack, x = _learned(80, asked=True), _x(5)
    means, deviations = stack.estimate([C, A], x, RIDGE)
    for at, arm in enumerate((C, A)):
        row = stack.rows[arm]
        precision = stack.A[row] + RIDGE * np.eye(DIM)
        np.testing.assert_allclose(means[at], x @ np.linalg.solve(precision, stack.b[row]))
        spread = np.sqrt(x @ np.linalg.solve(precision, x))
        np.testing.assert_allclose(deviations[at], spread, rtol=1e-6)


def test_another_ridge_is_not_answered_from_the_cache() -> None:
    stack, x = _learned(40, asked=True), _x(5)
    (mean,), _ = stack.estimate([A], x, 100.0)
    theta = np.linalg.solve(stack.A[0] + 100.0 * np.eye(DIM), stack.b[0])
    np.testing.assert_allclose(mean, x @ theta)


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("arm", [A, ArmId("newcomer")])
@pytest.mark.parametrize(("size", "y"), [(1e30, 1e300), (1.0, 1e308)])
def test_what_overflows_is_refused_whole(asked: bool, arm: ArmId, size: float, y: float) -> None:
    """1e30·1e300 overflows in the product, 1e308 twice in the sum; the service raises on both."""
    stack, x = _learned(60, asked=asked), size * np.ones(DIM)
    refused = False
    for _ in range(3):
        before = copy.deepcopy(stack)
        try:
            with np.errstate(over="raise", invalid="raise", divide="raise"):
                stack.observe(arm, x, y)
        except FloatingPointError:
            refused = True
            assert stack.rows == before.rows
            np.testing.assert_equal(_parts(stack), _parts(before))
    assert refused


def _parts(stack: RidgeStack) -> dict[str, Any]:
    """All that it holds, the panels of the inverse among it."""
    narrow = stack._narrow
    return vars(stack) | {"_narrow": None if narrow is None else vars(narrow)}
