"""Matrix factorization: the slopes are those of the loss, and what is there is found."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
import pytest

from policies import Floats
from policies._factorization import (
    Factorization,
    Moments,
    drawn,
    gradients,
    train_factorization,
)


def test_strengths_by_pencil() -> None:
    """W1ᵀq = (1, 2); u_a = (1, 0), u_b = (0.6, 0.8); w2 = (2, 1): δ = 2 and 1.2 + 1.6."""
    model = Factorization(
        arms=np.array([[5.0, 0.0], [3.0, 4.0]]),
        projection=np.array([[1.0, 0.0], [0.0, 2.0]]),
        head=np.array([2.0, 1.0]),
    )
    assert model.strengths(np.array([[1.0, 1.0]])).tolist() == [pytest.approx([2.0, 2.8])]


def test_loss_by_pencil() -> None:
    """A lead of 0.8 lost by the one ahead costs ln(1 + e^0.8), a tie ½ less of the lead."""
    model = Factorization(
        np.array([[1.0, 0.0], [0.6, 0.8]]), np.diag([1.0, 2.0]), np.array([2.0, 1.0])
    )
    x, a, b, one = np.array([[1.0, 1.0]]), np.array([0]), np.array([1]), np.ones(1)
    lost = log(1.0 + np.exp(0.8))
    assert gradients(model, x, a, b, one, one)[0] == pytest.approx(lost)
    assert gradients(model, x, b, a, one, one)[0] == pytest.approx(lost - 0.8)
    assert gradients(model, x, a, b, 0.5 * one, one)[0] == pytest.approx(lost - 0.4)
    assert gradients(model, x, a, b, one, 0.25 * one)[0] == pytest.approx(0.25 * lost)


@pytest.mark.parametrize("seed", range(3))
def test_slopes_are_those_of_the_loss(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = drawn(4, 3, 5, rng)
    x = rng.normal(size=(9, 3))
    winner = rng.integers(0, 4, 9)
    loser = (winner + rng.integers(1, 4, 9)) % 4
    score, weight = rng.choice([0.5, 1.0], 9), rng.random(9)

    def loss() -> float:
        return gradients(model, x, winner, loser, score, weight)[0]

    slopes = gradients(model, x, winner, loser, score, weight)[1]
    for parameter, slope in zip(model.parameters(), slopes, strict=True):
        for at in np.ndindex(parameter.shape):
            kept = parameter[at]
            parameter[at] = kept + 1e-6
            above = loss()
            parameter[at] = kept - 1e-6
            assert (above - loss()) / 2e-6 == pytest.approx(slope[at], abs=1e-8)
            parameter[at] = kept


def test_adam_by_pencil() -> None:
    """The first step is the rate, whatever the slope; so is the second with the same slope.

    Then slope −2 after 2, 2: m = 0.081·2 + 0.09·2 − 0.1·2 = 0.142 of 0.271, v = 4.
    """
    parameter = np.array([1.0])
    moments = Moments.of((parameter,))
    for wanted in (0.9, 0.8):
        moments.step((parameter,), (np.array([2.0]),), 0.1, 0.0)
        assert parameter[0] == pytest.approx(wanted)
    moments.step((parameter,), (np.array([-2.0]),), 0.1, 0.0)
    assert parameter[0] == pytest.approx(0.8 - 0.1 * (0.142 / 0.271) / 2.0)


def test_weight_decay_is_a_slope_towards_zero() -> None:
    parameter = np.array([3.0, -3.0])
    moments = Moments.of((parameter,))
    moments.step((parameter,), (np.zeros(2),), 0.1, 1e-3)
    assert parameter.tolist() == pytest.approx([2.9, -2.9], abs=1e-5)


def _made(n: int) -> tuple[Floats, Any, Any, Floats]:
    """Queries on a circle; arm 0 is best on the right, arm 1 on the left, arm 2 never."""
    rng = np.random.default_rng(5)
    angle = rng.uniform(0.0, 2.0 * np.pi, n)
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    true = np.stack([3.0 * x[:, 0], -3.0 * x[:, 0], np.full(n, -4.0)], axis=1)
    first = rng.integers(0, 3, n)
    second = (first + rng.integers(1, 3, n)) % 3
    rows = np.arange(n)
    ahead = true[rows, first] > true[rows, second]
    return x, np.where(ahead, first, second), np.where(ahead, second, first), true


def test_which_arm_suits_which_query_is_found() -> None:
    x, winner, loser, true = _made(400)
    model = train_factorization(x, winner, loser, 3, dim=8, epochs=60, learning_rate=0.01, noise=0)
    clear = np.abs(x[:, 0]) > 0.2
    right = model.strengths(x)[:, :2].argmax(axis=1) == true[:, :2].argmax(axis=1)
    assert right[clear].mean() > 0.97


def test_equal_seeds_are_equal_and_others_are_not() -> None:
    x, winner, loser, _ = _made(60)
    runs = [
        train_factorization(x, winner, loser, 3, dim=4, epochs=2, seed=seed).strengths(x)
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(runs[0], runs[1])
    assert not np.allclose(runs[0], runs[2])


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"winner": np.array([0, 3])}, "winner"),
        ({"loser": np.array([1])}, "loser"),
        ({"loser": np.array([0, 0])}, "loser"),
        ({"embeddings": np.full((2, 2), np.nan)}, "embeddings"),
        ({"dim": 0}, "dim"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"batch": 0}, "batch"),
    ],
)
def test_what_cannot_be_trained_on_is_named(changed: dict[str, Any], named: str) -> None:
    given = {"embeddings": np.eye(2), "winner": np.array([0, 1]), "loser": np.array([1, 0])}
    with pytest.raises(ValueError, match=f"^{named}: must "):
        train_factorization(**{**given, "k": 2, **changed})
