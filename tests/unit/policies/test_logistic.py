"""The sequential Laplace step: by hand, by its equation, and against what it approximates."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import ArmId, Floats, Rewarded
from policies._logistic import (
    Heads,
    Label,
    Prior,
    features,
    quality_of,
    settled,
    sigmoid,
    sigmoids,
)
from tests.unit.policies.given import A, B, query, rewarded

FLAT = Prior(level=0.5, ridge=1.0)
logits = st.floats(-30.0, 30.0)
shares = st.floats(0.0, 1.0)


def learned(heads: Heads, x: Floats, labels: dict[ArmId, Label], prior: Prior = FLAT) -> Heads:
    heads.take(heads.steps(x, labels, prior))
    return heads


def test_one_label_by_hand() -> None:
    """g = 1 − σ(g) has the root 0.401058; there the curvature is 0.401058·0.598942."""
    heads = learned(Heads(), np.array([1.0]), {A: Label(1.0)})
    assert heads.theta[0] == pytest.approx([0.4010581375], abs=1e-9)
    assert heads.information[0] == pytest.approx([0.4010581375 * 0.5989418625], abs=1e-9)
    assert heads.n.tolist() == [1.0]
    mean, deviation = heads.estimate([A, B], np.array([1.0]), FLAT)
    assert mean == pytest.approx([0.4010581375, 0.0], abs=1e-9)
    # of an arm never seen it is 1/λ
    known = 0.4010581375 * 0.5989418625
    assert deviation**2 == pytest.approx([1.0 / (1.0 + known), 1.0], abs=1e-9)


def test_the_step_goes_along_what_is_least_known() -> None:
    """Known 0 and 3 with λ = 1: the first coordinate moves four times as far."""
    heads = Heads({A: 0}, np.zeros((1, 2)), np.array([[0.0, 3.0]]), np.ones(1))
    learned(heads, np.array([1.0, 1.0]), {A: Label(0.0)})
    assert heads.theta[0, 0] == pytest.approx(4.0 * heads.theta[0, 1])
    assert heads.theta[0, 0] < 0.0


def test_the_level_is_where_a_head_begins() -> None:
    mean, _ = Heads().estimate([A], np.array([1.0]), Prior(0.8, 2.0))
    assert mean.tolist() == pytest.approx([log(4.0)])
    assert sigmoids(mean).tolist() == pytest.approx([0.8])


def test_a_label_that_says_what_is_believed_moves_nothing_but_certainty() -> None:
    heads = learned(Heads(), np.array([1.0]), {A: Label(0.8)}, Prior(0.8, 1.0))
    assert heads.theta[0] == pytest.approx([0.0], abs=1e-12)
    assert heads.information[0] == pytest.approx([0.16])


def test_half_a_weight_moves_less() -> None:
    """g = ½·(1 − σ(g)): 0.2223 by hand, from 0.2223 + ½·0.5553 = ½."""
    heads = learned(Heads(), np.array([1.0]), {A: Label(1.0, 0.5)})
    g = float(heads.theta[0, 0])
    assert g == pytest.approx(0.2223, abs=1e-4)
    assert g + 0.5 * sigmoid(g) == pytest.approx(0.5, abs=1e-12)
    assert heads.n.tolist() == [0.5]


@given(logits, st.floats(0.0, 1e6), shares, shares)
def test_what_is_settled_on_solves_the_equation(m: float, s: float, y: float, w: float) -> None:
    z = settled(m, s, Label(y, w))
    reach = s * w
    assert z == pytest.approx(m + reach * (y - sigmoid(z)), abs=1e-9 * (1.0 + reach))


@given(logits, st.floats(0.0, 1e3), shares)
def test_no_step_overshoots_its_label(m: float, s: float, y: float) -> None:
    """What is believed afterwards lies between what was believed and the label."""
    before, after = sigmoid(m), sigmoid(settled(m, s, Label(y)))
    assert min(before, y) - 1e-9 <= after <= max(before, y) + 1e-9


def test_many_labels_find_what_made_them() -> None:
    """P[y] = σ(2·x₁ − 1): 5,000 labels of 0 and 1."""
    rng, heads = np.random.default_rng(5), Heads()
    for _ in range(5000):
        x = np.array([rng.normal(), 1.0])
        learned(heads, x, {A: Label(float(rng.uniform() < sigmoid(2.0 * x[0] - 1.0)))})
    assert heads.theta[0] == pytest.approx([2.0, -1.0], abs=0.15)


def test_nothing_is_written_until_it_is_taken() -> None:
    heads = Heads()
    steps = heads.steps(np.array([1.0]), {A: Label(1.0), B: Label(0.0)}, FLAT)
    assert heads.rows == {}
    heads.take(steps)
    assert heads.rows == {A: 0, B: 1}
    assert heads.theta[0, 0] == -heads.theta[1, 0]


def test_sigmoids_are_those_of_one_by_one() -> None:
    z = np.array([-2e9, -40.0, -1.5, 0.0, 1.5, 2e9])
    assert sigmoids(z).tolist() == pytest.approx([sigmoid(each) for each in z.tolist()], abs=1e-15)


def test_the_constant_comes_last() -> None:
    assert features(np.array([0.5, 0.25], np.float32)).tolist() == [0.5, 0.25, 1.0]


@pytest.mark.parametrize(
    ("event", "wanted"),
    [
        (rewarded(A, None, quality=0.4), None),
        (rewarded(A, 0.3, quality=0.4), 0.4),
        (rewarded(A, 0.3, quality=1.4), 1.0),
        (rewarded(A, 0.3, cost_usd=0.02, expected_cost_usd=0.05), 0.5),
        (rewarded(A, 0.3, expected_cost_usd=0.05), 0.8),
        (rewarded(A, -0.9, cost_usd=0.02), 0.0),
    ],
)
def test_the_quality_that_an_event_settles(event: Rewarded, wanted: float | None) -> None:
    found = quality_of(event)
    assert found is None if wanted is None else found == pytest.approx(wanted)


def test_what_cannot_be_learned_from_is_named() -> None:
    heads = learned(Heads(), np.array([1.0]), {A: Label(1.0)})
    with pytest.raises(ValueError, match=r"^embedding: must have 1 features, got 2"):
        heads.steps(np.array([1.0, 1.0]), {B: Label(1.0)}, FLAT)
    with pytest.raises(ValueError, match=r"^embedding: must be finite"):
        heads.estimate([A], np.array([np.nan]), FLAT)
    with pytest.raises(ValueError, match=r"^quality: must be a finite"):
        quality_of(rewarded(A, 0.5, quality=float("nan"), context=query()))


def test_what_fades_keeps_a_share_of_its_precision_and_of_its_weighted_mean() -> None:
    """λ = 1: I = 3 and θ = 2 say 4·2 = 8; half of both is I = 1.5 and θ = 4/2.5."""
    heads = Heads({A: 0, B: 1}, np.array([[2.0], [5.0]]), np.array([[3.0], [7.0]]), np.ones(2))
    heads.fade(A, 0.5, FLAT)
    assert heads.theta.tolist() == [[pytest.approx(1.6)], [5.0]]
    assert heads.information.tolist() == [[1.5], [7.0]]
    assert heads.n.tolist() == [0.5, 1.0]


def test_fading_is_about_as_if_only_a_share_of_the_labels_had_come() -> None:
    """Of labels that are all alike, 100 faded to a tenth are 10, up to the approximation."""
    prior = Prior(level=0.7, ridge=50.0)

    def taught(n: int) -> Heads:
        heads = Heads()
        for _ in range(n):
            learned(heads, np.array([1.0]), {A: Label(0.9)}, prior)
        return heads

    faded, few = taught(100), taught(10)
    faded.fade(A, 0.1, prior)
    assert faded.n.tolist() == pytest.approx(few.n.tolist())
    assert faded.information[0] == pytest.approx(few.information[0], rel=0.1)
    assert faded.theta[0] == pytest.approx(few.theta[0], rel=0.15)
