"""Fixed directions and quadratic forms of symmetric matrices."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from policies import ArmId, Arms, Context, Rewarded, _quadratic
from policies._directions import along, directions
from policies._quadratic import Quadratic
from policies.metallm import MetaLLM


@pytest.mark.parametrize("d", [12, 32, 384, 512, 768, 1024, 1536, 3072])
def test_directions_are_exactly_orthogonal(d: int) -> None:
    rows = directions(d, min(64, d - 1))
    assert set(np.unique(rows)) == {-1.0, 1.0}
    assert np.array_equal(rows @ rows.T, d * np.eye(len(rows)))


def test_directions_never_change() -> None:
    """What was learned along them would mean nothing along others."""
    digest = hashlib.sha256(directions(384, 64).astype(np.int8).tobytes()).hexdigest()
    assert digest == "338e59415e2754d0d5873ba60628b4385c0372f4a532807c115d9b5ba415dd1f"


def test_lengths_and_angles_are_kept_about() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 384)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.array([along(each, 64) for each in x])
    assert np.mean(np.sum(y * y, axis=1)) == pytest.approx(1.0, abs=0.03)
    error = (y @ y.T - x @ x.T)[np.triu_indices(200, 1)]
    assert np.sqrt(np.mean(error**2)) < 0.13  # 1/√64 = 0.125


def test_the_order_of_adding_does_not_matter() -> None:
    x = np.random.default_rng(1).normal(size=384).astype(np.float32)
    rounded = np.rint(x.astype(np.float64) * 2**14)
    other = np.array([sum((row * rounded)[::-1].tolist()) for row in directions(384, 64)])
    assert np.array_equal(along(x, 64), other * (1.0 / (2**14 * 8.0)))


@pytest.mark.parametrize("m", [384, 400])
def test_no_more_than_there_are(m: int) -> None:
    x = np.arange(384, dtype=np.float32)
    assert np.array_equal(along(x, m), x.astype(np.float64))


def test_metallm_keeps_matrices_of_its_directions_alone() -> None:
    policy = MetaLLM(directions=16)
    rng, arm = np.random.default_rng(2), ArmId("a")
    state = policy.init()
    for _ in range(300):
        x = rng.normal(size=384).astype(np.float32)
        x /= np.linalg.norm(x)
        context = Context(x, tokens=10, willingness_to_pay=0.1)
        won = float(directions(384, 16)[0] @ x > 0)
        event = Rewarded(context, arm, 0.5, 1.0, 0.0, quality=won, reward=won)
        policy.learn(state, event)
    assert state.A.shape == (1, 17, 17)
    along_it = (directions(384, 16)[0] / np.sqrt(384)).astype(np.float32)
    arms = Arms((arm,), np.zeros(1), np.ones(1))
    found = [
        policy.propose(state, Context(sign * along_it, 10, 0.1), arms).quality
        for sign in (1.0, -1.0)
    ]
    assert found[0] is not None
    assert found[1] is not None
    assert float(found[0][0]) > 0.6 > 0.4 > float(found[1][0])


@pytest.mark.parametrize("d", [1, 5, 96, 143, 145, 385])
def test_a_form_is_that_of_the_whole_matrix(d: int) -> None:
    rng = np.random.default_rng(d)
    matrices = rng.normal(size=(3, d, d))
    matrices += matrices.transpose(0, 2, 1)
    form, x = Quadratic(matrices), rng.normal(size=d).astype(np.float32)
    whole = np.einsum("i,kij,j->k", x, matrices, x)
    np.testing.assert_allclose(form.of(x[None])[0], whole, rtol=1e-4, atol=1e-4 * d)
    form.replace(1, 2.0 * matrices[1])
    whole[1] *= 2.0
    np.testing.assert_allclose(form.of(x[None])[0], whole, rtol=1e-4, atol=1e-4 * d)


@pytest.mark.parametrize("most", [1, 20_000, 60_000, 8 << 20])
def test_forms_of_many_are_each_alone(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """However many of the matrices are read at once."""
    monkeypatch.setattr(_quadratic, "_BYTES", most)
    rng = np.random.default_rng(3)
    matrices = rng.normal(size=(7, 200, 200))
    matrices += matrices.transpose(0, 2, 1)
    form, xs = Quadratic(matrices), rng.normal(size=(5, 200)).astype(np.float32)
    whole = np.einsum("bi,kij,bj->bk", xs, matrices, xs)
    np.testing.assert_allclose(form.of(xs), whole, rtol=1e-4, atol=2e-2)
    assert form.of(xs).tolist() == [form.of(x[None])[0].tolist() for x in xs]
