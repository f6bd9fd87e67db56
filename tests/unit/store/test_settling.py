"""What is added beside a graph is found at once, and moves into the graph bit by bit."""

from __future__ import annotations

import numpy as np
import pytest

from store._protocols import Vector
from store.history import ExactIndex, HybridIndex

D = 8


def _vectors(n: int) -> Vector:
    raw = np.random.default_rng(0).normal(size=(n, D)).astype(np.float32)
    unit: Vector = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    return unit


@pytest.fixture
def index() -> HybridIndex:
    """A hundred vectors in a graph, and room for a thousand."""
    made = HybridIndex(D, 1000, exact_below=50)
    made.load(np.arange(100), _vectors(100))
    made.wait()
    assert made.approximate
    return made


def test_fresh_vectors_are_found_before_and_after_they_settle(index: HybridIndex) -> None:
    some, exact = _vectors(140), ExactIndex(D)
    exact.load(np.arange(140), some)
    for i in range(100, 140):
        index.add(i, some[i])
        assert index.recall(some[i], 1).ids.tolist() == [i]
    assert len(index) == 140
    before = [index.recall(vector, 5) for vector in some]
    assert index.settle(15) == 25
    assert index.settle(1000) == 0
    for vector, found in zip(some, before, strict=True):
        assert set(found.ids) == set(exact.recall(vector, 5).ids)
        assert set(index.recall(vector, 5).ids) == set(found.ids)
    assert len(index) == 140


def test_a_fresh_vector_can_be_forgotten_and_come_back(index: HybridIndex) -> None:
    some = _vectors(103)
    for i in (100, 101, 102):
        index.add(i, some[i])
    index.remove(101)
    index.settle(1)
    index.remove(100)  # by now in the graph
    assert sorted(index.recall(some[101], 200).ids.tolist()) == [*range(100), 102]
    index.add(101, some[101])
    with pytest.raises(ValueError, match="already in the index"):
        index.add(5, some[5])
    with pytest.raises(KeyError):
        index.remove(100)
    assert index.settle(10) == 0
    assert index.recall(some[101], 1).ids.tolist() == [101]


def test_what_is_put_off_stays_bounded_without_anyone_asking(index: HybridIndex) -> None:
    some = _vectors(1000)
    for i in range(100, 1000):
        index.add(i, some[i])
    assert index.settle(0) <= 513
    with pytest.raises(ValueError, match="capacity"):
        index.add(1000, some[0])
