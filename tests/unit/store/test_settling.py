"""What is added beside a graph is found at once, and moves into the graph bit by bit."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from store._protocols import Vector
from store.history import ExactIndex, HnswIndex, HybridIndex

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


def test_a_worn_graph_is_replaced_by_a_new_one() -> None:
    """A window that moves four times over its capacity, with removals while it is rebuilt."""
    some, exact, index = _vectors(1000), ExactIndex(D), HybridIndex(D, 200, exact_below=50)
    index.load(np.arange(200), some[:200])
    exact.load(np.arange(200), some[:200])
    index.wait()
    graphs = set[int]()
    for i in range(200, 1000):
        for one in (index, exact):
            one.remove(i - 200)
            one.add(i, some[i])
        assert index.recall(some[i], 1).ids.tolist() == [i]
        if i % 20 == 0:
            index.settle(1000)
        if i % 60 == 0:  # some are removed while it builds, and some after
            index.wait()
            assert index.approximate
            graphs.add(id(index._base))
        assert len(index) == 200
    index.wait()
    index.settle(1000)
    assert len(graphs) > 1
    found = [set(index.recall(v, 10).ids) & set(exact.recall(v, 10).ids) for v in some[800:]]
    assert sum(map(len, found)) >= 0.95 * 10 * 200
    assert set(index.recall(some[0], 200).ids.tolist()) == set(range(800, 1000))


def test_a_graph_is_read_while_vectors_leave_it() -> None:
    some, graph = _vectors(600), HnswIndex(D, 600)
    graph.load(np.arange(600)[::-1], some[::-1])
    graph._graph.mark_deleted(3)  # as `remove` does when the reading has begun
    ids, vectors = graph.items()
    assert ids.tolist() == [i for i in range(600) if i != 596]
    assert vectors == pytest.approx(some[ids], abs=1e-6)


class Unbuildable(HybridIndex):
    """Has no memory for a graph, from when it is told so."""

    poor = True

    def _build(self, ids: NDArray[np.int64], vectors: Vector) -> None:
        if self.poor:
            raise MemoryError
        super()._build(ids, vectors)


@pytest.mark.parametrize("poor", [True, False])
def test_without_memory_for_a_graph_it_goes_on(monkeypatch: pytest.MonkeyPatch, poor: bool) -> None:
    told: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    some, index = _vectors(700), Unbuildable(D, 200, exact_below=50)
    index.poor = poor
    index.load(np.arange(200), some[:200])
    index.wait()
    assert index.approximate != poor
    index.poor = True
    for i in range(200, 700):
        index.remove(i - 200)
        index.add(i, some[i])
        with pytest.raises(ValueError, match="already in the index"):
            index.add(i, some[i])
        index.settle(10)
        index.wait()
        assert index.recall(some[i], 1).ids.tolist() == [i]
    assert len(told) == 1
    assert index.settle(1000) == 0
    assert set(index.recall(some[0], 200).ids.tolist()) == set(range(500, 700))


_ENDING = """
import sys
import numpy as np
from store.history import HybridIndex

index = HybridIndex(64, 20_000)
index.load(np.arange(3000), np.random.default_rng(1).normal(size=(3000, 64)).astype(np.float32))
if sys.argv[1] == "close":
    index.close()
    assert not index.approximate and len(index) == 3000
"""


@pytest.mark.parametrize("how", ["close", "leave"])
def test_a_process_can_end_while_a_graph_is_built(how: str) -> None:
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", _ENDING, how], cwd=root, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
