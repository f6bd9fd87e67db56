"""Greedy, mix, floor and draw."""

from __future__ import annotations

import numpy as np
import pytest

from policies._explore import draw, floor, greedy, mix


def test_greedy_shares_between_exact_ties_only() -> None:
    assert greedy(np.array([0.1, 0.7, 0.3])).tolist() == [0.0, 1.0, 0.0]
    assert greedy(np.array([2.0, 2.0, 2.0 - 1e-9, 2.0])).tolist() == [1 / 3, 1 / 3, 0.0, 1 / 3]


def test_greedy_of_no_arm_is_refused() -> None:
    with pytest.raises(ValueError, match="no eligible arm"):
        greedy(np.array([]))


def test_mix_gives_everybody_a_share_of_epsilon() -> None:
    """0.8·(1, 0, 0, 0) + 0.2/4."""
    mixed = mix(np.array([1.0, 0.0, 0.0, 0.0]), 0.2)
    np.testing.assert_allclose(mixed, [0.85, 0.05, 0.05, 0.05], rtol=1e-12)


def test_the_floor_is_added_and_the_rest_shrinks() -> None:
    """f = 0.01, K = 4: 0.01 + 0.96·p."""
    floored = floor(np.array([0.5, 0.5, 0.0, 0.0]), 0.01)
    np.testing.assert_allclose(floored, [0.49, 0.49, 0.01, 0.01], rtol=1e-12)


def test_all_floors_together_take_at_most_their_share() -> None:
    """A hundred arms at 0.01 would take all; with a share of 0.1 each gets 0.001."""
    floored = floor(np.eye(100)[0], 0.01, share=0.1)
    assert floored.min() == pytest.approx(0.001)
    assert floored.max() == pytest.approx(0.001 + 0.9)
    assert floored.sum() == pytest.approx(1.0)


def test_the_floor_of_one_arm_does_not_depend_on_another() -> None:
    """Clip-and-renormalise would give the last arm less when the first two come closer."""
    apart, close = floor(np.array([0.9, 0.1, 0.0]), 0.05), floor(np.array([0.5, 0.5, 0.0]), 0.05)
    assert apart[2] == close[2]


@pytest.mark.parametrize(
    ("u", "index"), [(0.0, 0), (0.2499, 0), (0.25, 2), (0.8749, 2), (0.875, 3), (0.9999, 3)]
)
def test_draw_takes_the_arm_whose_interval_holds_u(u: float, index: int) -> None:
    """Intervals [0, 1/4), empty, [1/4, 7/8), [7/8, 1)."""
    assert draw(np.array([0.25, 0.0, 0.625, 0.125]), u) == index


def test_an_arm_of_propensity_zero_is_never_drawn() -> None:
    largest = float(np.nextafter(1.0, 0.0))
    assert draw(np.array([0.0, 1.0, 0.0]), 0.0) == 1
    assert draw(np.array([0.0, 1.0, 0.0]), largest) == 1
    assert draw(np.array([*[0.1] * 10, 0.0]), largest) == 9


def test_a_u_that_was_rounded_up_to_one_draws_the_last_arm_that_can_be_drawn() -> None:
    assert draw(np.array([0.5, 0.5, 0.0]), 1.0) == 1
