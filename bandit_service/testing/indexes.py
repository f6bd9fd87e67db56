"""What every HistoryIndex must do. Subclass `IndexSuite`, say how to make one, and run it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from store import HistoryIndex, Vector
from store.history import ExactIndex

DIM = 32


class Index(HistoryIndex, Protocol):
    """A HistoryIndex as the suite needs it: loadable, and closed at the end."""

    def load(self, ids: NDArray[np.int64], vectors: Vector) -> None: ...

    def close(self) -> None: ...


def unit(vectors: NDArray[np.float64]) -> Vector:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    normed: Vector = (vectors / lengths).astype(np.float32)
    return normed


def clustered(n: int, seed: int, dim: int = DIM, clusters: int = 40, intrinsic: int = 8) -> Vector:
    """Unit vectors as sentences make them: clusters, in a subspace of few dimensions."""
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((intrinsic, dim))
    centres = rng.standard_normal((clusters, intrinsic))
    points = centres[rng.integers(clusters, size=n)] + 0.3 * rng.standard_normal((n, intrinsic))
    return unit(points @ basis + 0.01 * rng.standard_normal((n, dim)))


def recall_at(index: HistoryIndex, oracle: HistoryIndex, queries: Vector, k: int = 20) -> float:
    """The share of the k nearest that `index` finds."""
    found = 0
    for query in queries:
        nearest = set(oracle.recall(query, k).ids.tolist())
        found += len(nearest & set(index.recall(query, k).ids.tolist()))
    return found / (k * len(queries))


class IndexSuite:
    """Nearest by cosine; what is added is found at once, what is removed never again."""

    exact = False

    def make(self, dim: int, capacity: int) -> Index:
        """An empty index with room for `capacity` vectors."""
        raise NotImplementedError

    def settle(self, index: Index) -> None:
        """Wait for whatever `index` does on other threads."""

    @pytest.fixture
    def index(self) -> Iterator[Index]:
        index = self.make(DIM, 5000)
        yield index
        index.close()

    def test_finds_nothing_when_empty(self, index: Index) -> None:
        assert len(index) == 0
        found = index.recall(clustered(1, 0)[0], 5)
        assert found.ids.shape == found.similarities.shape == (0,)
        assert found.ids.dtype == np.int64
        assert found.similarities.dtype == np.float32

    def test_finds_what_was_added_at_once(self, index: Index) -> None:
        for id, vector in enumerate(clustered(1500, 1)):
            index.add(id, vector)
            found = index.recall(vector, 1)
            assert found.ids.tolist() == [id]
            assert found.similarities[0] == pytest.approx(1.0, abs=1e-5)
        assert len(index) == 1500

    def test_the_nearest_comes_first(self, index: Index) -> None:
        vectors = clustered(300, 2)
        index.load(np.arange(300), vectors)
        self.settle(index)
        for query in clustered(20, 3):
            found = index.recall(query, 10)
            assert found.ids.dtype == np.int64
            assert found.similarities.dtype == np.float32
            assert (np.diff(found.similarities) <= 0).all()
            assert found.similarities == pytest.approx(vectors[found.ids] @ query, abs=1e-5)

    @pytest.mark.parametrize("n", [500, 4000])
    def test_recall_at_20(self, index: Index, n: int) -> None:
        vectors, oracle = clustered(n, 4), ExactIndex(DIM)
        oracle.load(np.arange(n), vectors)
        for id, vector in enumerate(vectors):
            index.add(id, vector)
        self.settle(index)
        reached = recall_at(index, oracle, clustered(100, 5))
        assert reached == 1.0 if self.exact else reached >= 0.95

    @pytest.mark.parametrize("n", [1, 30, 1000, 4000])
    def test_many_recalled_together_are_those_of_one_by_one(self, index: Index, n: int) -> None:
        """Bit for bit, with vectors in both parts of an index that has two, and with equals."""
        vectors, queries = clustered(n, 27), clustered(150, 28)
        vectors[n // 2 :: 7] = vectors[n // 2]
        queries[[3, 70]] = 0.0
        queries[5] = vectors[n // 2]
        index.load(np.arange(n), vectors)
        self.settle(index)
        for i, vector in enumerate(clustered(40, 29)):
            index.add(n + i, vector)
        for id in range(0, n, 9):
            index.remove(id)
        self.settle(index)
        index.add(n + 40, queries[7])
        for k in (1, 20, 200):
            for asked in (queries[:0], queries[:1], queries[:32], queries):
                together = index.recall_many(asked, k)
                alone = [index.recall(query, k) for query in asked]
                assert [found.ids.tolist() for found in together] == [
                    found.ids.tolist() for found in alone
                ]
                assert [found.similarities.tobytes() for found in together] == [
                    found.similarities.tobytes() for found in alone
                ]
        assert all(len(found.ids) == 0 for found in index.recall_many(queries, 0))

    def test_recall_at_20_of_a_window_that_moves(self, index: Index) -> None:
        n, vectors, oracle = 1200, clustered(4800, 6), ExactIndex(DIM)
        for id, vector in enumerate(vectors):
            if id >= n:
                index.remove(id - n)
                oracle.remove(id - n)
            index.add(id, vector)
            oracle.add(id, vector)
        self.settle(index)
        assert len(index) == n
        reached = recall_at(index, oracle, clustered(100, 7))
        assert reached == 1.0 if self.exact else reached >= 0.95

    def test_never_finds_what_was_removed(self, index: Index) -> None:
        vectors = clustered(1200, 8)
        index.load(np.arange(1200), vectors)
        self.settle(index)
        for id in range(0, 1200, 2):
            index.remove(id)
        assert len(index) == 600
        for query in vectors[:50]:
            found = index.recall(query, 20)
            assert len(found.ids) == 20
            assert (found.ids % 2 == 1).all()

    def test_nothing_is_left_when_all_is_removed(self, index: Index) -> None:
        vectors = clustered(50, 9)
        for _ in range(3):
            for id, vector in enumerate(vectors):
                index.add(id, vector)
            for id in range(50):
                index.remove(id)
            assert len(index) == 0
            assert len(index.recall(vectors[0], 5).ids) == 0

    def test_an_id_can_come_back(self, index: Index) -> None:
        """With another vector, in any order, many times over: the ids stay those that live."""
        rng, live = np.random.default_rng(10), dict[int, Vector]()
        for vector in clustered(3000, 11):
            id = int(rng.integers(60))
            if id in live:
                index.remove(id)
                del live[id]
            else:
                index.add(id, vector)
                live[id] = vector
                assert index.recall(vector, 1).ids.tolist() == [id]
            assert len(index) == len(live)
        assert set(index.recall(vector, 60).ids.tolist()) == set(live)

    def test_slots_are_used_again_up_to_the_capacity(self) -> None:
        index = self.make(DIM, 100)
        for id, vector in enumerate(clustered(1000, 12)):
            if id >= 100:
                index.remove(id - 100)
            index.add(id, vector)
        self.settle(index)
        assert len(index) == 100
        assert set(index.recall(vector, 100).ids.tolist()) == set(range(900, 1000))
        index.close()

    @pytest.mark.parametrize("ids", [[0], [-5], [2**62], [2**62, -(2**62), 0]])
    def test_takes_any_id(self, index: Index, ids: list[int]) -> None:
        vectors = clustered(len(ids), 13)
        for id, vector in zip(ids, vectors, strict=True):
            index.add(id, vector)
        for id, vector in zip(ids, vectors, strict=True):
            assert index.recall(vector, 1).ids.tolist() == [id]
            index.remove(id)

    @pytest.mark.parametrize("n", [1, 3, 200])
    def test_fewer_when_fewer_are_there(self, index: Index, n: int) -> None:
        vectors = clustered(n, 14)
        index.load(np.arange(n), vectors)
        self.settle(index)
        for k in (n, n + 1, 10 * n):
            assert sorted(index.recall(vectors[0], k).ids.tolist()) == list(range(n))

    @pytest.mark.parametrize("k", [0, -1])
    def test_none_when_none_are_asked_for(self, index: Index, k: int) -> None:
        index.add(1, clustered(1, 15)[0])
        assert len(index.recall(clustered(1, 15)[0], k).ids) == 0

    def test_a_zero_vector_is_near_nothing(self, index: Index) -> None:
        index.load(np.arange(10), clustered(10, 16))
        self.settle(index)
        assert len(index.recall(np.zeros(DIM, np.float32), 5).ids) == 0

    @pytest.mark.parametrize("shape", [(DIM - 1,), (DIM + 1,), (1, DIM), ()])
    def test_refuses_a_vector_of_another_shape(self, index: Index, shape: tuple[int, ...]) -> None:
        index.add(1, clustered(1, 17)[0])
        with pytest.raises(ValueError, match=rf"^vector: must have shape \({DIM},\), got"):
            index.add(2, np.ones(shape, np.float32))
        with pytest.raises(ValueError, match=rf"^vector: must have shape \({DIM},\), got"):
            index.recall(np.ones(shape, np.float32), 1)
        with pytest.raises(ValueError, match=rf"^vectors: must have shape \(n, {DIM}\), got"):
            index.recall_many(np.ones((2, *shape), np.float32), 1)
        assert len(index) == 1

    def test_refuses_vectors_of_another_shape(self, index: Index) -> None:
        for n, shape in ((3, (3, DIM + 1)), (3, (2, DIM)), (3, (3 * DIM,))):
            with pytest.raises(ValueError, match=r"^vectors: must have shape \(3, 32\), got"):
                index.load(np.arange(n), np.ones(shape, np.float32))
        assert len(index) == 0

    def test_refuses_an_id_that_is_there(self, index: Index) -> None:
        first, second = clustered(2, 18)
        index.add(7, first)
        with pytest.raises(ValueError, match=r"^id: 7 is already in the index"):
            index.add(7, second)
        assert index.recall(first, 2).ids.tolist() == [7]
        with pytest.raises(ValueError, match=r"^index: must be empty"):
            index.load(np.arange(2), clustered(2, 18))

    def test_refuses_to_load_an_id_twice(self, index: Index) -> None:
        with pytest.raises(ValueError, match=r"^ids: must be unique"):
            index.load(np.array([1, 2, 1]), clustered(3, 19))
        assert len(index) == 0

    def test_loading_nothing_does_nothing(self, index: Index) -> None:
        index.load(np.zeros(0, np.int64), np.zeros((0, DIM), np.float32))
        assert len(index) == 0
        index.add(0, clustered(1, 20)[0])
        assert len(index) == 1

    def test_removing_what_is_not_there_is_a_key_error(self, index: Index) -> None:
        index.add(1, clustered(1, 21)[0])
        with pytest.raises(KeyError):
            index.remove(2)
        index.remove(1)
        with pytest.raises(KeyError):
            index.remove(1)

    def test_keeps_values_and_no_references(self, index: Index) -> None:
        vectors = clustered(100, 22)
        given = vectors.copy()
        index.load(np.arange(50), given[:50])
        for id in range(50, 100):
            index.add(id, given[id])
        given[:] = 0
        self.settle(index)
        for id in range(0, 100, 7):
            assert index.recall(vectors[id], 1).ids.tolist() == [id]

    def test_built_again_it_answers_the_same(self) -> None:
        vectors, queries = clustered(2500, 23), clustered(50, 24)
        answers = []
        for _ in range(2):
            index = self.make(DIM, 5000)
            index.load(np.arange(2000), vectors[:2000])
            self.settle(index)
            for id in range(2000, 2500):
                index.remove(id - 2000)
                index.add(id, vectors[id])
            found = [index.recall(query, 20) for query in queries]
            answers.append([(f.ids.tolist(), f.similarities.tolist()) for f in found])
            index.close()
        assert answers[0] == answers[1]

    def test_of_equals_the_newest_comes_first(self, index: Index) -> None:
        """Whatever rows they are in: a matrix product may add up differently at its end."""
        same, others = clustered(1, 25)[0], clustered(400, 26)
        for id in range(400):
            index.add(id, same if id % 7 == 3 else others[id])
        self.settle(index)
        for id in range(0, 400, 5):
            index.remove(id)
        equals = [id for id in reversed(range(400)) if id % 7 == 3 and id % 5]
        found = index.recall(same, 10).ids.tolist()
        if self.exact:
            for k in (1, 5, 10, len(equals)):
                assert index.recall(same, k).ids.tolist() == equals[:k]
        else:
            assert found == sorted(found, reverse=True)
