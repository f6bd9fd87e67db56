"""The choice by a threshold, and comparisons made of rewards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import Arms
from policies._duels import Conversion, Duel, chosen, proposed
from tests.unit.policies.given import A, B, C, neighbour, query, rewarded

_some = st.integers(1, 6).flatmap(
    lambda k: st.tuples(
        st.lists(st.integers(-30, 30), min_size=k, max_size=k, unique=True),
        st.lists(st.integers(0, 4), min_size=k, max_size=k),
    )
)


@pytest.mark.parametrize(
    ("threshold", "wanted"),
    [(0.0, 2), (0.4, 2), (0.5, 1), (0.72, 1), (0.74, 0), (0.9, 0), (1.0, 0)],
)
def test_the_cheapest_that_no_dearer_arm_beats(threshold: float, wanted: int) -> None:
    """Strengths 0, 1, 0.7 at costs 1, 2, 3. The second beats the first with σ(1) = 0.731.

    The third beats the first with σ(0.7) = 0.668 and the second with σ(−0.3) = 0.426.
    """
    found = chosen(np.array([0.0, 1.0, 0.7]), np.array([1.0, 2.0, 3.0]), threshold)
    assert found.tolist() == np.eye(3)[wanted].tolist()


def test_equal_costs_are_settled_by_strength_whatever_the_threshold() -> None:
    for threshold in (0.0, 0.5, 1.0):
        assert chosen(np.array([0.0, 0.1]), np.ones(2), threshold).tolist() == [0.0, 1.0]
        assert chosen(np.array([0.3, 0.3]), np.ones(2), threshold).tolist() == [1.0, 1.0]


def test_with_two_arms_it_is_routellms_rule() -> None:
    """Weak if P(strong wins) < α, else strong: on a tie at ½ the strong one."""
    for ahead in np.linspace(-3.0, 3.0, 25):
        p = 1.0 / (1.0 + np.exp(-ahead))
        for threshold in (0.11593, 0.5, 0.8):
            found = chosen(np.array([0.0, ahead]), np.array([1.0, 2.0]), threshold)
            assert found.tolist() == ([1.0, 0.0] if p < threshold else [0.0, 1.0])


@given(_some)
def test_at_a_half_it_is_the_strongest_and_at_one_the_cheapest(
    case: tuple[list[int], list[int]],
) -> None:
    strengths, cost = 0.1 * np.array(case[0]), np.array(case[1], dtype=np.float64)
    half = chosen(strengths, cost, 0.5)
    assert half.sum() == 1.0
    assert strengths[half.argmax()] == strengths.max()
    assert cost[chosen(strengths, cost, 1.0).argmax()] == cost.min()
    assert cost[chosen(strengths, cost, 0.0).argmax()] == cost.max()


@given(_some, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_higher_threshold_is_never_dearer(
    case: tuple[list[int], list[int]], one: float, other: float
) -> None:
    strengths, cost = 0.1 * np.array(case[0]), np.array(case[1], dtype=np.float64)
    low, high = sorted((one, other))
    cheaper, dearer = (cost[chosen(strengths, cost, at).argmax()] for at in (high, low))
    assert cheaper <= dearer


def test_scores_and_shares() -> None:
    """The chosen one and the one on trial share; the third would win with σ(−ln 3) = ¼."""
    three = Arms((A, B, C), np.array([1.0, 2.0, 3.0]), np.ones(3))
    strengths = np.array([np.log(3.0), -1.0, 0.0])
    proposal = proposed(strengths, three, 0.5, np.array([5.0, 4.0, 9.0]), trial=5)
    assert proposal.scores.tolist() == pytest.approx([1.0, 1.0, 0.125])
    assert proposal.propensities.tolist() == [0.5, 0.5, 0.0]
    assert proposal.count is not None
    assert proposal.count.tolist() == [5.0, 4.0, 9.0]


def _conversion(compare_on: str = "reward", neighbours: int = 20) -> Conversion:
    return Conversion(compare_on, 0.3, 0.05, 0.5, neighbours)


def test_a_reward_meets_those_of_other_arms_nearby() -> None:
    """Four met: on the same query with ¼, nearby with ½·¼; its own arm and a far one are not."""
    near = [
        neighbour(1, 1.0, (B, 0.5)),
        neighbour(2, 0.6, (C, 0.82), (B, 0.9)),
        neighbour(3, 0.9, (A, 0.1), (C, 0.3)),
        neighbour(4, 0.2, (B, 0.1)),
    ]
    event = rewarded(A, 0.8, context=query(near=near))
    assert _conversion().duels(event) == [
        Duel(A, B, 1.0, 0.25),
        Duel(A, C, 1.0, 0.125),
        Duel(A, C, 0.5, 0.125),
        Duel(A, B, 0.0, 0.125),
    ]
    assert _conversion(neighbours=1).duels(event) == [Duel(A, B, 1.0, 1.0)]
    assert _conversion("off").duels(event) == []
    assert _conversion("quality").duels(event) == []  # it came without one


def test_quality_and_reward_may_order_two_arms_differently() -> None:
    event = rewarded(A, 0.2, quality=0.7, context=query(near=[neighbour(1, 1.0, (B, 0.5))]))
    assert _conversion().duels(event) == [Duel(A, B, 0.0, 1.0)]
    assert _conversion("quality").duels(event) == [Duel(A, B, 1.0, 1.0)]
