from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bandit_service.core import codec
from bandit_service.core.history import History
from bandit_service.testing.indexes import DIM, Index, IndexSuite, clustered, recall_at
from policies import ArmId, Outcome
from store import _kernels
from store._kernels import Kernel, Numpy, native
from store._protocols import Vector
from store.history import ExactIndex, HybridIndex
from store.placed import Placed, read


class TestExactIndex(IndexSuite):
    exact = True

    def make(self, dim: int, capacity: int) -> Index:
        return ExactIndex(dim)


class Rows:
    """Vectors that are kept elsewhere: a number is its row."""

    def __init__(self, matrix: Vector) -> None:
        self.matrix = matrix

    def row(self, id: int) -> int:
        return id

    def rows_of(self, ids: NDArray[np.int64]) -> NDArray[np.int32]:
        return ids.astype(np.int32)


class Narrow(HybridIndex):
    """Looks at few vectors."""

    LEAST = 64


class TestHybridIndex(IndexSuite):
    """Its cells are made early, and few vectors looked at, so that most of the suite meets them."""

    kernel: Kernel | None = None

    def make(self, dim: int, capacity: int) -> Index:
        return Narrow(dim, capacity, 64, kernel=self.kernel)

    def settle(self, index: Index) -> None:
        assert isinstance(index, HybridIndex)
        index.wait()


class TestHybridIndexByNumpy(TestHybridIndex):
    kernel = Numpy()


class TestSmallHybridIndex(IndexSuite):
    """As the service has it when it is young: exact."""

    exact = True
    kernel: Kernel | None = None

    def make(self, dim: int, capacity: int) -> Index:
        return HybridIndex(dim, capacity, kernel=self.kernel)


class TestSmallHybridIndexByNumpy(TestSmallHybridIndex):
    kernel = Numpy()


@pytest.mark.parametrize("exact_below", [5, 1000])
def test_refuses_more_than_its_capacity(exact_below: int) -> None:
    index, vectors = HybridIndex(DIM, 10, exact_below), clustered(11, 0)
    with pytest.raises(ValueError, match=r"^capacity: the index holds no more than 10"):
        index.load(np.arange(11), vectors)
    index.load(np.arange(10), vectors[:10])
    with pytest.raises(ValueError, match=r"^capacity: the index holds no more than 10"):
        index.add(10, vectors[10])
    index.remove(3)
    index.add(10, vectors[10])
    assert len(index) == 10


class Held(Narrow):
    """Finds its cells when told to."""

    def __init__(
        self, dim: int, capacity: int, exact_below: int, rows: History | None = None
    ) -> None:
        super().__init__(dim, capacity, exact_below, rows)
        self.go = threading.Event()

    def _build(self, ids: NDArray[np.int64], rows: NDArray[np.int32], matrix: Vector) -> None:
        self.go.wait()
        super()._build(ids, rows, matrix)


@pytest.fixture
def held() -> Iterator[Held]:
    index = Held(DIM, 4000, exact_below=500)
    yield index
    index.go.set()
    index.close()


def test_what_the_history_let_go_of_while_cells_were_found_is_forgotten_when_it_is_told() -> None:
    """The history lets go of several queries before the index hears of the first one."""
    history, vectors = History(2000), clustered(900, 21)
    held = Held(DIM, 2000, 500, rows=history)

    def remember(vector: Vector, owner: str) -> None:
        history.remember(vector, Outcome(ArmId("a"), 1.0, 1.0), owner)

    def heard() -> None:
        added, removed = history.take_changes()
        for id in removed:
            held.remove(id)
        for id in added:
            held.add(id, history.vector(id))

    for i in range(800):  # the cells are found of the first 500
        remember(vectors[i], "gone" if i % 10 == 0 else "")
        heard()
    history.forget("gone")
    remember(vectors[800], "")  # in a row that was let go of
    switch(held)
    heard()
    assert len(held) == len(history.items) == 721
    newest = max(history.items)
    assert held.recall(vectors[800], 1).ids.tolist() == [newest]
    held.close()


def test_a_history_that_was_emptied_while_cells_were_found_leaves_nothing() -> None:
    history, vectors = History(2000), clustered(700, 22)
    held = Held(DIM, 2000, 500, rows=history)
    for vector in vectors[:520]:  # the cells are found of the first 500
        history.remember(vector, Outcome(ArmId("a"), 1.0, 1.0), "me")
        for id in history.take_changes()[0]:
            held.add(id, history.vector(id))
    history.forget("me")
    held.go.set()
    held.wait()
    for id in history.take_changes()[1]:
        try:
            held.remove(id)
        except KeyError:  # was not taken over, since its vector is gone
            assert id not in held
    assert len(held) == len(history.items) == 0
    history.remember(vectors[600], Outcome(ArmId("a"), 1.0, 1.0), "")
    for id in history.take_changes()[0]:
        held.add(id, history.vector(id))
    assert held.recall(vectors[600], 20).ids.tolist() == [id]
    held.close()


def test_what_is_forgotten_while_cells_are_found_is_zero_in_the_copy_they_are_found_in() -> None:
    history, vectors = History(4000), clustered(1100, 23)
    held = Held(DIM, 4000, 500, rows=history)
    for i, vector in enumerate(vectors):  # the rows move to a larger matrix on the way
        history.remember(vector, Outcome(ArmId("a"), 1.0, 1.0), "me" if i < 10 else "")
        for id in history.take_changes()[0]:
            held.add(id, history.vector(id))
    beside = held._beside
    assert beside is not None
    assert beside is not history.matrix
    history.forget("me")
    for id in history.take_changes()[1]:
        held.remove(id)
    assert not beside[:10].any()
    assert beside[10:500].any(axis=1).all()
    assert held.settle(4) == 1
    held.go.set()
    held.wait()
    assert held.settle(4) == 0
    assert held.approximate
    held.close()


def test_a_query_of_zeros_looks_at_few_cells() -> None:
    index = Narrow(DIM, 2000, 500)
    index.load(np.arange(1500), clustered(1500, 24))
    assert index.approximate
    nothing = np.zeros(DIM, np.float32)
    which = index._where(index._cells, nothing[None], 20)
    assert which is not None
    assert len(which.cells) <= 1
    assert not len(index.recall(nothing, 20).ids)


def switch(held: Held) -> None:
    held.go.set()
    held.wait()
    assert held.approximate


def test_growing_over_the_bound_it_answers_exactly_until_its_cells_are_found(held: Held) -> None:
    vectors, queries, oracle = clustered(3500, 3), clustered(60, 4), ExactIndex(DIM)
    for id in range(3000):
        held.add(id, vectors[id])
        oracle.add(id, vectors[id])
    for id in [*range(100), *range(1000, 1100)]:  # before those in its snapshot, and after
        held.remove(id)
        oracle.remove(id)
    held.add(5, vectors[1005])
    oracle.add(5, vectors[1005])
    assert not held.approximate
    for query in queries:
        assert held.recall(query, 20).ids.tolist() == oracle.recall(query, 20).ids.tolist()
    switch(held)
    assert len(held) == len(oracle) == 2801
    assert recall_at(held, oracle, queries) >= 0.95
    ids = set(held.recall(vectors[0], 2801).ids.tolist())
    assert ids == {5, *range(100, 1000), *range(1100, 3000)}
    held.remove(5)
    held.add(5, vectors[5])
    assert held.recall(vectors[5], 1).ids.tolist() == [5]
    assert held.approximate


def test_the_bound_is_where_cells_begin() -> None:
    for n, approximate in ((99, False), (100, True)):
        loaded, grown = HybridIndex(DIM, 1000, 100), HybridIndex(DIM, 1000, 100)
        vectors = clustered(n, 6)
        loaded.load(np.arange(n), vectors)
        assert loaded.approximate == approximate  # at once: a start waits for its cells
        for id in range(n):
            grown.add(id, vectors[id])
        grown.wait()
        assert grown.approximate == approximate


@pytest.mark.parametrize("n", [2000, 5000])
def test_most_of_the_nearest_are_in_the_nearest_cells(n: int) -> None:
    """Every query has 0.99 of its nearest in the cells that it looks at, and both kernels agree."""
    vectors, queries = clustered(n, 8, clusters=200), clustered(100, 9, clusters=200)
    oracle, found = ExactIndex(DIM), []
    oracle.load(np.arange(n), vectors)
    for kernel in (Numpy(), _kernels.best()):
        index = Narrow(DIM, n, 1000, kernel=kernel)
        index.load(np.arange(n), vectors)
        assert index.approximate
        assert recall_at(index, oracle, queries) >= 0.99
        found.append([each.similarities.tobytes() for each in index.recall_many(queries, 20)])
    assert found[0] == found[1]


def test_cells_are_found_anew_when_as_many_were_added_as_there_were() -> None:
    """A window that moves four times over its capacity, with removals while cells are found."""
    some, exact = clustered(5000, 10), ExactIndex(DIM)
    index = Narrow(DIM, 1000, 500)
    cells = set[int]()
    for i, vector in enumerate(some):
        for one in (index, exact):
            if i >= 1000:
                one.remove(i - 1000)
            one.add(i, vector)
        if i % 60 == 0:  # some are removed while they are found, and some after
            index.wait()
            assert index.recall(vector, 1).ids.tolist() == [i]
            cells.add(id(index._centres))
        assert len(index) == min(i + 1, 1000)
    index.wait()
    assert len(cells) > 3
    assert recall_at(index, exact, some[4000:4100], 10) >= 0.95
    assert set(index.recall(some[0], 1000).ids.tolist()) == set(range(4000, 5000))


@pytest.mark.parametrize("dim", [1, 2, 3, 32, 100, 384])
def test_equals_are_equally_near_in_every_row(dim: int) -> None:
    for n in range(3, 130, 7):
        vector, query = clustered(2, n, dim)
        for index in (ExactIndex(dim), HybridIndex(dim, n), HybridIndex(dim, n, kernel=Numpy())):
            index.load(np.arange(n), np.tile(vector, (n, 1)))
            for k in (n // 2, n):
                assert index.recall(query, k).ids.tolist() == list(range(n))[::-1][:k]


class Unbuildable(HybridIndex):
    """Has no memory for cells."""

    def _build(self, ids: NDArray[np.int64], rows: NDArray[np.int32], matrix: Vector) -> None:
        raise MemoryError


def test_without_memory_for_cells_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    some, index = clustered(700, 11), Unbuildable(DIM, 200, 50)
    for i, vector in enumerate(some):
        if i >= 200:
            index.remove(i - 200)
        index.add(i, vector)
        index.wait()
        assert index.recall(vector, 1).ids.tolist() == [i]
    assert len(told) == 1
    assert not index.approximate
    assert set(index.recall(some[0], 200).ids.tolist()) == set(range(500, 700))


def test_an_index_over_a_history_keeps_no_second_copy() -> None:
    """Rows are used again after those that were evicted and forgotten; what is left is found."""
    history, vectors = History(300), clustered(1000, 12, dim=384)
    index, told = HybridIndex(384, 300, rows=history), 0

    def tell() -> None:
        added, removed = history.take_changes()
        for id in removed:
            index.remove(id)
        for id in added:
            index.add(id, history.vector(id))

    for i, vector in enumerate(vectors):
        owner = "gone" if i % 3 == 0 else ""
        history.remember(vector, Outcome(ArmId("a"), 1.0, 1.0), owner)
        if i % 250 == 249:
            history.forget("gone")
        tell()
        told += len(history.items)
    oracle = ExactIndex(384)
    oracle.load(history.vectors()[0], history.vectors()[1])
    assert 200 < len(oracle) == len(index) == len(history.items)
    queries = clustered(50, 13, dim=384)
    for one, other in zip(
        index.recall_many(queries, 20), oracle.recall_many(queries, 20), strict=True
    ):
        assert one.ids.tolist() == other.ids.tolist()
        assert one.similarities.tobytes() == other.similarities.tobytes()
    history.forget("")
    tell()
    assert len(index) == 0
    assert len(index.recall(queries[0], 5).ids) == 0


def test_a_remembered_query_takes_little_more_than_its_vector() -> None:
    """All arrays, when they were loaded and when they have grown; with cells, and without."""
    n, d = 20_000, 384
    rows = Rows(np.random.default_rng(14).normal(size=(n, d)).astype(np.float32))
    for exact_below, loaded in ((30_000, n), (30_000, 0), (n, n)):
        index = HybridIndex(d, n, exact_below, rows=rows)
        index.load(np.arange(loaded), rows.matrix[:loaded])
        for id in range(loaded, n):
            index.add(id, rows.matrix[id])
        assert index.approximate == (exact_below == n)
        assert rows.matrix.nbytes + index.nbytes <= 1.4 * rows.matrix.nbytes


def test_without_the_compiled_scan_numpy_recalls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken, compiled = tmp_path / "_scan.so", _kernels.library()
    monkeypatch.setattr(_kernels, "library", lambda: broken)
    assert native() is None
    broken.write_text("not a library")
    assert native() is None
    if compiled.exists():  # of the source as it was
        shutil.copy(compiled, broken)
        (tmp_path / "_scan.c").write_text("another")
        assert native() is None
    _kernels.best.cache_clear()
    try:
        assert HybridIndex(DIM, 10).kernel == "numpy"
    finally:
        _kernels.best.cache_clear()


@pytest.mark.parametrize("n", [400, 700])
def test_a_start_from_a_snapshot_recalls_as_before_it(n: int) -> None:
    """On both sides of the bound, with rows that were evicted and forgotten before."""
    history, vectors, queries = History(n), clustered(n + 300, 15), clustered(40, 16)
    live = Narrow(DIM, n, 500, rows=history)
    for i, vector in enumerate(vectors):
        history.remember(vector, Outcome(ArmId("a"), 1.0, 1.0), "gone" if i % 10 == 0 else "")
        if i == n + 150:
            history.forget("gone")
        added, removed = history.take_changes()
        for id in removed:
            live.remove(id)
        for id in added:
            live.add(id, history.vector(id))
    live.wait()
    again = codec.load(codec.dump(history), History)
    started = Narrow(DIM, n, 500, rows=again)
    started.load(again.vectors()[0], again.vectors()[1])
    assert started.approximate == live.approximate == (n == 700)
    assert len(started) == len(live) == len(history.items)
    if started.approximate:  # at once; where the cells are differs
        oracle = ExactIndex(DIM)
        oracle.load(history.vectors()[0], history.vectors()[1])
        assert recall_at(started, oracle, queries) >= 0.95
        assert recall_at(live, oracle, queries) >= 0.95
    else:
        for one, other in zip(
            live.recall_many(queries, 20), started.recall_many(queries, 20), strict=True
        ):
            assert one.ids.tolist() == other.ids.tolist()
            assert one.similarities.tobytes() == other.similarities.tobytes()


class Resumed(Narrow):
    """Never computes cells."""

    def _build(self, ids: NDArray[np.int64], rows: NDArray[np.int32], matrix: Vector) -> None:
        raise AssertionError("cells were computed")


@pytest.mark.parametrize("kernel", [Numpy(), _kernels.best()])
def test_a_start_continues_with_the_cells_of_before(kernel: Kernel, tmp_path: Path) -> None:
    """Of those that are gone nothing is left; those that came later join the nearest cell."""
    vectors, queries = clustered(900, 17), clustered(40, 18)
    kept: list[Placed] = []
    before = Narrow(DIM, 1000, 500, kernel=kernel, built=kept.append)
    before.load(np.arange(600), vectors[:600])
    for id in range(600, 700):
        before.add(id, vectors[id])
    placed = before.placed()
    assert placed is not None
    assert (kept[0].built_of, kept[0].since, len(kept[0].ids)) == (600, 0, 600)
    assert (placed.built_of, placed.since, len(placed.ids)) == (600, 100, 700)
    placed.save(tmp_path / "cells")
    again = read(tmp_path / "cells")
    assert again is not None
    started, oracle = Resumed(DIM, 1000, 500, kernel=kernel), ExactIndex(DIM)
    for one in (started, oracle):
        one.load(np.arange(50, 900), vectors[50:], *([again] if one is started else []))
    assert started.approximate
    assert recall_at(started, oracle, queries) >= 0.95
    assert set(started.recall(queries[0], 1000).ids.tolist()) == set(range(50, 900))
    resumed = started.placed()
    assert resumed is not None
    assert (resumed.built_of, resumed.since) == (600, 300)  # 300 more, and they are computed again
    where = dict(zip(placed.ids.tolist(), placed.where.tolist(), strict=True))
    now = dict(zip(resumed.ids.tolist(), resumed.where.tolist(), strict=True))
    cells = {(where[id], now[id]) for id in range(50, 700)}
    assert len(cells) == len({cell for cell, _ in cells})  # whoever was together still is


def test_cells_of_too_few_are_computed_anew() -> None:
    vectors = clustered(900, 17)
    before = Narrow(DIM, 1000, 400)
    before.load(np.arange(440), vectors[:440])
    started = Resumed(DIM, 1000, 400)
    with pytest.raises(AssertionError, match="cells were computed"):
        started.load(np.arange(900), vectors, before.placed())


def test_a_damaged_file_of_cells_is_as_good_as_none(tmp_path: Path) -> None:
    path = tmp_path / "cells"
    assert read(path) is None
    Placed(2, 3, 0, np.arange(3), np.array([0, 1, 1], np.int32)).save(path)
    whole = path.read_bytes()
    assert read(path) is not None
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert read(path) is None
        path.write_bytes(whole[:at])
        assert read(path) is None
