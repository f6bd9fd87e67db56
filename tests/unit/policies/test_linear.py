"""The stack of ridge regressions: sums are the truth, the inverse is a cache."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from bandit_service.core import codec
from policies import ArmId, Floats
from policies._linear import RidgeStack
from tests.unit.policies.given import A, B, C

DIM, RIDGE = 12, 2.0


def _x(i: int) -> Floats:
    x: Floats = np.sin(1.3 * i + 0.7 * np.arange(DIM)) / np.sqrt(DIM)
    return x


def _learned(n: int, *, asked: int, at_once: bool = True) -> RidgeStack:
    """n observations, an arm more from the fiftieth on; `asked` uses a cache after so many."""
    stack = RidgeStack()
    for i in range(n):
        arm = (B, A, C)[i % (3 if i >= 50 else 2)]
        one = stack.observed(_x(i), np.cos(0.9 * i), weight=0.5 if i % 7 == 0 else 1.0)
        stack.observe(arm, one, at_once=at_once)
        if asked and i % asked == 0:
            stack.estimate([A, B], _x(i + 1)[None], RIDGE)
    return stack


def test_learning_alone_builds_no_cache() -> None:
    stack = _learned(60, asked=0)
    assert stack._inverse is None
    assert stack._theta is None


@pytest.mark.parametrize("asked", [1, 3, 9, 100])
@pytest.mark.parametrize("at_once", [True, False])
def test_the_cache_kept_up_is_the_cache_built_anew(asked: int, at_once: bool) -> None:
    """With each outcome, or with the next proposal: one at once, some, or so many that it is made
    afresh, which is from the fourth of an arm on, at 12 features."""
    kept, anew = _learned(1000, asked=asked, at_once=at_once), _learned(1000, asked=0)
    for one, other in zip(
        kept.estimate([A, B, C], _x(9)[None], RIDGE),
        anew.estimate([A, B, C], _x(9)[None], RIDGE),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert codec.dump(kept) == codec.dump(anew)
    assert kept._inverse is not None
    np.testing.assert_allclose(kept._inverse, np.linalg.inv(kept.A + RIDGE * np.eye(DIM)))


def test_estimates_are_those_of_the_normal_equations() -> None:
    stack, x = _learned(80, asked=1), _x(5)
    (means,), (deviations,) = stack.estimate([C, A], x[None], RIDGE)
    for at, arm in enumerate((C, A)):
        precision = stack.total(arm) + RIDGE * np.eye(DIM)
        np.testing.assert_allclose(means[at], x @ np.linalg.solve(precision, stack.total_b(arm)))
        spread = np.sqrt(x @ np.linalg.solve(precision, x))
        np.testing.assert_allclose(deviations[at], spread, rtol=1e-6)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_cache_takes_in_what_fades_and_what_is_corrected(at_once: bool) -> None:
    stack, x = _learned(80, asked=1), _x(5)
    stack.fade(A, 0.25)
    stack.revise(B, _x(4), 0.0, 0.75)
    for arm in (A, B):
        stack.observe(arm, stack.observed(_x(90), 0.5), at_once=at_once)
    restored = codec.load(codec.dump(stack), RidgeStack)
    for one, other in zip(
        stack.estimate([A, B, C], x[None], RIDGE),
        restored.estimate([A, B, C], x[None], RIDGE),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_another_ridge_is_not_answered_from_the_cache() -> None:
    stack, x = _learned(40, asked=1), _x(5)
    ((mean,),), _ = stack.estimate([A], x[None], 100.0)
    theta = np.linalg.solve(stack.total(A) + 100.0 * np.eye(DIM), stack.total_b(A))
    np.testing.assert_allclose(mean, x @ theta)


@pytest.mark.parametrize("asked", [0, 1])
@pytest.mark.parametrize("arm", [A, ArmId("newcomer")])
@pytest.mark.parametrize(("size", "said"), [(1e30, "a norm of at most 64"), (np.nan, "finite")])
def test_features_that_no_embedding_has_are_refused_whole(
    asked: int, arm: ArmId, size: float, said: str
) -> None:
    stack = _learned(60, asked=asked)
    before = copy.deepcopy(stack)
    with pytest.raises(ValueError, match=f"embedding: must .*{said}"):
        stack.observe(arm, stack.observed(size * np.ones(DIM), 1.0))
    np.testing.assert_equal(_parts(stack), _parts(before))


@pytest.mark.parametrize("y", [1e308, -1e308])
def test_a_target_beyond_all_measure_is_cut(y: float) -> None:
    stack = RidgeStack()
    for _ in range(3):
        stack.observe(A, stack.observed(np.ones(2), y))
    assert stack.total_b(A).tolist() == [np.sign(y) * 3 * 1024.0] * 2


def _parts(stack: RidgeStack) -> dict[str, Any]:
    """All that it holds, the panels of the inverse among it."""
    narrow = stack._narrow
    return vars(stack) | {"_narrow": None if narrow is None else vars(narrow)}
