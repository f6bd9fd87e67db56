from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from bandit_service.testing.indexes import DIM, Index, IndexSuite, clustered, recall_at
from store._protocols import Vector
from store.history import ExactIndex, HnswIndex, HybridIndex


class TestExactIndex(IndexSuite):
    exact = True

    def make(self, dim: int, capacity: int) -> Index:
        return ExactIndex(dim)


class TestHnswIndex(IndexSuite):
    def make(self, dim: int, capacity: int) -> Index:
        return HnswIndex(dim, capacity)


class TestHybridIndex(IndexSuite):
    """Its graph is made early, so that most of the suite meets the switch."""

    def make(self, dim: int, capacity: int) -> Index:
        return HybridIndex(dim, capacity, exact_below=64)

    def settle(self, index: Index) -> None:
        assert isinstance(index, HybridIndex)
        index.wait()


class TestSmallHybridIndex(IndexSuite):
    """As the service has it when it is young: exact."""

    exact = True

    def make(self, dim: int, capacity: int) -> Index:
        return HybridIndex(dim, capacity, exact_below=1_000_000)


@pytest.mark.parametrize("kind", [HnswIndex, HybridIndex])
def test_refuses_more_than_its_capacity(kind: type[HnswIndex] | type[HybridIndex]) -> None:
    index, vectors = kind(DIM, 10), clustered(11, 0)
    with pytest.raises(ValueError, match=r"^capacity: the index holds no more than 10"):
        index.load(np.arange(11), vectors)
    index.load(np.arange(10), vectors[:10])
    with pytest.raises(ValueError, match=r"^capacity: the index holds no more than 10"):
        index.add(10, vectors[10])
    index.remove(3)
    index.add(10, vectors[10])
    assert len(index) == 10


def test_slots_used_again_among_equals_leave_something_to_find() -> None:
    """The hardest on a graph: few places, many times the same vectors, as many as there are."""
    index, places, rng = HnswIndex(DIM, 400), clustered(3, 1), np.random.default_rng(2)
    for id in range(6000):
        if id >= 400:
            index.remove(id - 400)
        index.add(id, places[int(rng.integers(3))])
        if id % 50 == 0:
            found = index.recall(places[0], 400)
            assert len(found.ids) >= min(id, 1)
            assert (found.ids > id - 400).all()


class Held(HybridIndex):
    """Builds its graph when told to."""

    def __init__(self, dim: int, capacity: int, exact_below: int) -> None:
        super().__init__(dim, capacity, exact_below)
        self.go = threading.Event()

    def _build(self, ids: NDArray[np.int64], vectors: Vector) -> None:
        self.go.wait()
        super()._build(ids, vectors)


@pytest.fixture
def held() -> Iterator[Held]:
    index = Held(DIM, 2000, exact_below=500)
    yield index
    index.go.set()
    index.close()


def switch(held: Held) -> None:
    held.go.set()
    held.wait()
    assert held.approximate


@pytest.mark.parametrize("loaded", [False, True])
def test_the_hybrid_answers_exactly_until_its_graph_is_built(held: Held, loaded: bool) -> None:
    vectors, queries, oracle = clustered(1500, 3), clustered(60, 4), ExactIndex(DIM)
    oracle.load(np.arange(1000), vectors[:1000])
    if loaded:
        held.load(np.arange(1000), vectors[:1000])
    else:
        for id in range(1000):
            held.add(id, vectors[id])
    for id in range(1000, 1500):
        held.add(id, vectors[id])
        oracle.add(id, vectors[id])
    for id in [*range(100), *range(1000, 1100)]:
        held.remove(id)
        oracle.remove(id)
    held.add(5, vectors[1005])
    oracle.add(5, vectors[1005])
    assert not held.approximate
    for query in queries:
        assert held.recall(query, 20).ids.tolist() == oracle.recall(query, 20).ids.tolist()
    switch(held)
    assert len(held) == len(oracle) == 1301
    assert recall_at(held, oracle, queries) >= 0.95
    ids = set(held.recall(vectors[0], 1301).ids.tolist())
    assert ids == {5, *range(100, 1000), *range(1100, 1500)}
    held.remove(5)
    held.add(5, vectors[5])
    assert held.recall(vectors[5], 1).ids.tolist() == [5]
    assert held.approximate


def test_what_is_missed_is_not_changed_by_the_caller(held: Held) -> None:
    vectors = clustered(501, 5)
    held.load(np.arange(500), vectors[:500])
    given = vectors[500].copy()
    held.add(500, given)
    given[:] = 0
    switch(held)
    assert held.recall(vectors[500], 1).ids.tolist() == [500]


def test_the_hybrid_stays_exact_while_it_is_small() -> None:
    index = HybridIndex(DIM, 1000, exact_below=100)
    index.load(np.arange(99), clustered(99, 6))
    index.wait()
    before = index.approximate
    index.add(99, clustered(1, 7)[0])
    index.wait()
    assert (before, index.approximate) == (False, True)


@pytest.mark.parametrize("dim", [32, 384])
def test_equals_are_equally_near_in_every_row(dim: int) -> None:
    for n in range(3, 130):
        vector, query = clustered(2, n, dim)
        index = ExactIndex(dim)
        index.load(np.arange(n), np.tile(vector, (n, 1)))
        for k in (n // 2, n):
            assert index.recall(query, k).ids.tolist() == list(range(n))[::-1][:k]


class Torn:
    """A graph that reaches only so many of its slots, as hnswlib says it: with RuntimeError."""

    def __init__(self, reach: int, ef: int) -> None:
        self.reach, self.needs, self.ef = reach, ef, 0

    def set_ef(self, ef: int) -> None:
        self.ef = ef

    def knn_query(
        self, vector: Vector, k: int, num_threads: int
    ) -> tuple[NDArray[np.uint64], Vector]:
        if k > self.reach or self.ef < self.needs:
            raise RuntimeError("Cannot return the results in a contiguous 2D array.")
        return np.arange(k, dtype=np.uint64)[None], np.zeros((1, k), np.float32)


@pytest.mark.parametrize(
    ("reach", "ef", "found"), [(20, 40, 20), (20, 300, 20), (6, 40, 5), (1, 40, 1), (0, 40, 0)]
)
def test_a_graph_that_is_torn_gives_fewer(reach: int, ef: int, found: int) -> None:
    index = HnswIndex(DIM, 300)
    vectors = clustered(300, 1)
    index.load(np.arange(300), vectors)
    index._graph = Torn(reach, ef)
    assert len(index.recall(vectors[0], 20).ids) == found
