"""Sums on a grid: the same bytes in any order and in any batches, exact for ever."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from bandit_service.core import codec
from policies import ArmId, Floats
from policies._grid import FEATURE, carry, faded, faded_parts, gridded, weight_of
from policies._products import Observed, Products
from tests.unit.policies.given import A, B, C

DIM, SPAN = 3, 2.0**20


def _terms(n: int, size: float) -> list[tuple[ArmId, Observed]]:
    """Observations of features of this norm."""
    rng, empty = np.random.default_rng(3), Products()
    found = []
    for i in range(n):
        x = rng.normal(size=DIM)
        one = empty.observed(
            size * x / np.linalg.norm(x), float(rng.normal(0.0, 0.3)), (1.0, 0.5, 0.0625)[i % 3]
        )
        found.append(((C, A, B)[i % 3 if i % 5 else 0], one))
    return found


def _summed(terms: list[tuple[ArmId, Observed]]) -> Products:
    stack = Products()
    for arm, one in terms:
        stack.add(arm, one)
    return stack


@pytest.mark.parametrize(("n", "size", "spans"), [(500, 1.0, False), (4000, 63.0, True)])
def test_any_order_gives_the_same_bytes_and_the_exact_sums(
    n: int, size: float, spans: bool
) -> None:
    """Squares of 63² fill what float64 adds exactly after some hundred outcomes of an arm; then
    whole spans are put aside."""
    terms = _terms(n, size)
    straight = _summed(terms)
    kept = codec.dump(straight)
    assert bool(straight.high) == spans
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(n).tolist()
        other = Products()
        for i, at in enumerate(order):
            other.add(*terms[at])
            if i % 1000 == 500:  # a snapshot, and a restart
                other = codec.load(codec.dump(other), Products)
        assert codec.dump(other) == kept
    for arm in (A, B, C):
        its = [one for each, one in terms if each == arm]
        for i, j in ((0, 0), (0, 2)):
            exact = sum(
                Fraction(one.weight) * Fraction(float(one.x[i])) * Fraction(float(one.x[j]))
                for one in its
            )
            high = straight.high[arm].A[i, j] if arm in straight.high else 0.0
            assert Fraction(float(high)) + Fraction(
                float(straight.A[straight.rows[arm]][i, j])
            ) == (exact)


def test_what_fades_beyond_the_span_is_rounded_once() -> None:
    stack = _summed(_terms(4000, 63.0))
    before, b = stack.total(A), stack.total_b(A)
    stack.fade(A, 0.7)
    np.testing.assert_allclose(stack.total(A), 0.7 * before, rtol=1e-12)
    np.testing.assert_allclose(stack.total_b(A), 0.7 * b, rtol=1e-9)
    assert codec.dump(codec.load(codec.dump(stack), Products)) == codec.dump(stack)
    stack.fade(A, 1e-6)
    assert A not in stack.high
    assert not (stack.A[stack.rows[A]] * FEATURE * FEATURE * 16.0 % 1.0).any()
    stack.fade(A, 0.0)
    assert not stack.total(A).any()


def test_outcomes_may_change_places_between_what_fades() -> None:
    terms = _terms(60, 1.0)
    kept = set()
    for first in (terms[:30], terms[:30][::-1]):
        for second in (terms[30:], terms[30:][::-1]):
            stack = _summed(first)
            stack.fade(A, 0.3)
            for each in second:
                stack.add(*each)
            stack.fade(A, 0.9)
            kept.add(codec.dump(stack))
    assert len(kept) == 1


def test_sums_of_before_the_grid_are_read_and_rounded() -> None:
    """A log may hold the state of a policy, which an older version wrote."""
    rng = np.random.default_rng(1)
    A_, b = rng.normal(size=(2, DIM, DIM)), rng.normal(size=(2, DIM))
    old = {"rows": {"z": 0, "a": 1}, "A": A_, "b": b, "n": np.array([3.0, 0.3])}
    stack = codec.load(codec.dump(old), Products)
    assert stack.rows == {ArmId("a"): 0, ArmId("z"): 1}
    np.testing.assert_allclose(stack.A, A_[::-1], atol=2.0**-33)
    np.testing.assert_allclose(stack.b, b[::-1], atol=2.0**-35)
    assert codec.dump(codec.load(codec.dump(stack), Products)) == codec.dump(stack)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": {}},
        {"total": {}, "count": {}},
        {"rows": {"a": 5}, "A": np.zeros((1, 2, 2)), "b": np.zeros((1, 2)), "n": np.zeros(1)},
        {"rows": {"a": 0}, "A": np.zeros((1, 2, 3)), "b": np.zeros((1, 2)), "n": np.zeros(1)},
        {"rows": 3, "A": 1, "b": 2, "n": 3},
    ],
)
def test_what_is_no_such_state_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not the sums of regressions"):
        codec.load(codec.dump(wrong), Products)


def test_parts_follow_from_the_sum_alone() -> None:
    """Also where the rest is half a span to the last bit."""
    rng = np.random.default_rng(2)
    whole = np.append(rng.integers(-8, 9, 50) / 2.0, [0.5, -0.5, 1.5]) * SPAN
    found = set()
    for shift in (0.0, 1.0, -1.0):
        low: Floats = whole - shift * SPAN
        high = np.full_like(whole, shift * SPAN)
        carry(low, high, SPAN)
        assert (low > -SPAN / 2).all()
        assert (low <= SPAN / 2).all()
        found.add((low.tobytes(), (high + 0.0).tobytes()))
    assert len(found) == 1


def test_faded_rounds_to_the_grid_without_a_negative_nought() -> None:
    kept = faded(np.array([-0.3, 5.0, -5.0]), 0.5, 2.0)
    assert kept.tolist() == [0.0, 2.5, -2.5]
    assert not np.signbit(kept[0])
    low, high = faded_parts(np.array([1.0]), np.array([8.0]), 0.5, 2.0, 4.0)
    assert (low.tolist(), high.tolist()) == ([0.5], [4.0])


def test_features_and_weights_on_the_grid() -> None:
    x = gridded(np.array([0.3, -0.7]))
    assert (x * FEATURE % 1.0).tolist() == [0.0, 0.0]
    np.testing.assert_allclose(x, [0.3, -0.7], atol=0.5 / FEATURE)
    assert [weight_of(share) for share in (0.0, 0.02, 0.04, 0.5, 1.0)] == [0, 0, 0.0625, 0.5, 1]
