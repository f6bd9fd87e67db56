"""Bradley-Terry, by pencil: two arms at 3:1 are ln 3 apart."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies._bradley_terry import fit_bradley_terry, nearly_fit

_TINY = 1e-9


def test_three_wins_to_one_are_ln_3_apart() -> None:
    """σ(x) = 3/4 where x = ln 3; the mean is 0."""
    found = fit_bradley_terry(np.array([[0.0, 3.0], [1.0, 0.0]]), _TINY)
    assert found.tolist() == pytest.approx([log(3) / 2, -log(3) / 2], abs=1e-7)


def test_who_is_consistent_is_recovered() -> None:
    """Expected wins of strengths (ln 4, ln 2, 0), ten matches a pair, give them back."""
    strong = np.log([4.0, 2.0, 1.0])
    wins = 10.0 / (1.0 + np.exp(strong[None, :] - strong[:, None]))
    found = fit_bradley_terry(wins, _TINY)
    assert (found - found[2]).tolist() == pytest.approx(strong.tolist(), abs=1e-6)


def test_who_always_won_is_held_by_the_ridge() -> None:
    """Four wins to none, ridge 1: 4·(1 − σ(2x)) = x at x = 0.7407744."""
    found = fit_bradley_terry(np.array([[0.0, 4.0], [0.0, 0.0]]), 1.0)
    assert found.tolist() == pytest.approx([0.7407744, -0.7407744], abs=1e-7)


def test_a_tie_is_half_a_win_each_and_an_arm_never_compared_is_in_the_middle() -> None:
    found = fit_bradley_terry(np.array([[0.0, 0.5, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]]), 1.0)
    assert found.tolist() == pytest.approx([0.0, 0.0, 0.0])


def test_the_diagonal_says_nothing() -> None:
    wins = np.array([[9.0, 3.0], [1.0, 5.0]])
    bare = np.array([[0.0, 3.0], [1.0, 0.0]])
    assert fit_bradley_terry(wins, 1.0).tolist() == fit_bradley_terry(bare, 1.0).tolist()
    assert wins[0, 0] == 9.0


@given(st.integers(0, 10_000))
def test_the_slope_is_nothing_at_what_is_found(seed: int) -> None:
    """Σ_j wins_ij − N_ij·p_ij = ridge·ξ_i, whatever the wins; and few steps come as far."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 9))
    drawn = rng.poisson(rng.choice([0.3, 5.0, 500.0]), (k, k)) * (rng.random((k, k)) < 0.6)
    wins = drawn.astype(np.float64)
    np.fill_diagonal(wins, 0.0)
    found = fit_bradley_terry(wins, 1.0)
    p = 1.0 / (1.0 + np.exp(found[None, :] - found[:, None]))
    slope = (wins - (wins + wins.T) * p).sum(axis=1) - found
    assert np.abs(slope).max() <= 1e-8 * (1.0 + wins.sum())
    assert np.allclose(nearly_fit(wins, 1.0, 16), found, atol=1e-7)


@pytest.mark.parametrize(
    ("wins", "ridge", "named"),
    [
        (np.zeros((2, 3)), 1.0, "wins"),
        (np.array([[0.0, -1.0], [1.0, 0.0]]), 1.0, "wins"),
        (np.array([[0.0, np.nan], [1.0, 0.0]]), 1.0, "wins"),
        (np.zeros((2, 2)), 0.0, "ridge"),
    ],
)
def test_what_cannot_be_fitted_is_named(wins: np.ndarray, ridge: float, named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}: must "):
        fit_bradley_terry(wins, ridge)
