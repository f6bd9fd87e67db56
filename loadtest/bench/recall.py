"""Recalling the nearest past queries: the service's index beside a graph and other scans.

CPU time of the thread, alone and in batches, each way by turns in the same run, so that a noisy
machine is noisy for all of them. The graph is hnswlib's, which the service had before; the wheel
is numkong, a library of kernels. Both are left out where they are not installed
(`pip install '.[bench]'`).
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from loadtest.bench.world import DIM, NEIGHBOURS, Row, quiet_gc, vectors
from store._exact import similarities
from store._kernels import Kernel, Numpy, native
from store._protocols import Vector
from store.history import HybridIndex

PAST = (1_000, 10_000, 30_000, 100_000)
_ROUNDS, _ALONE, _BATCH, _PART = 15, 16, 32, 50_000
_MAX_IN_GRAPH = 100_000
"""A graph of more takes hours to build, and cells by numpy minutes."""
_EVERYTHING = 1 << 40

Ids = list[NDArray[np.int64]]


class Rows:
    """Vectors as the fold has them: a query's number is its row."""

    def __init__(self, matrix: Vector) -> None:
        self.matrix = matrix

    def row(self, id: int) -> int:
        """The row of an id."""
        return id

    def rows_of(self, ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """The rows of many ids."""
        return ids.astype(np.int32)


class Index:
    """The service's index with one kernel, and cells from so many queries on."""

    def __init__(self, stored: Vector, n: int, kernel: Kernel, exact_below: int) -> None:
        self._stored = stored
        self._index = HybridIndex(DIM, len(stored), exact_below, Rows(stored), kernel)
        self._index.load(np.arange(n), stored[:n])
        self.bytes = self._index.nbytes / n

    def many(self, asked: Vector) -> Ids:
        """The nearest of each."""
        return [found.ids for found in self._index.recall_many(asked, NEIGHBOURS)]

    def add(self, row: int) -> None:
        """Remember one more."""
        self._index.add(row, self._stored[row])


class Graph:
    """hnswlib's, as the service had it: M = 16, ef_construction = 100, ef = 40."""

    def __init__(self, stored: Vector, n: int, hnswlib: Any) -> None:
        self._stored, self._graph = stored, hnswlib.Index(space="cosine", dim=DIM)
        self._graph.init_index(len(stored), M=16, ef_construction=100, random_seed=100)
        self._graph.add_items(stored[:n], np.arange(n), num_threads=1)
        self._graph.set_ef(2 * NEIGHBOURS)
        self.bytes = self._graph.index_file_size() / n

    def many(self, asked: Vector) -> Ids:
        """The nearest of each."""
        return list(self._graph.knn_query(asked, NEIGHBOURS, num_threads=1)[0].astype(np.int64))

    def add(self, row: int) -> None:
        """Remember one more."""
        self._graph.add_items(self._stored[row][None], [row], num_threads=1)


class Wheel:
    """int8 rows multiplied by numkong, the likeliest chosen by numpy and told apart in float32."""

    add = None

    def __init__(self, stored: Vector, n: int, numkong: Any) -> None:
        self._stored, self._numkong = stored[:n], numkong
        self._copies = self._copied(self._stored)
        self.bytes = float(DIM)

    def _copied(self, some: Vector) -> NDArray[np.int8]:
        steps = np.float32(127 * DIM**0.5 / 5)  # five deviations of a component
        copied: NDArray[np.int8] = np.clip(np.rint(some * steps), -127, 127).astype(np.int8)
        return copied

    def many(self, asked: Vector) -> Ids:
        """The nearest of each, of the likeliest: about 2.5 times as many, told by a sample."""
        packed = self._numkong.dots_pack(self._copied(asked))
        about = np.ascontiguousarray(np.asarray(self._numkong.dots_packed(self._copies, packed)).T)
        n, kept = about.shape[1], NEIGHBOURS + 12
        step = max(1, n // 640)
        at = 4 * NEIGHBOURS // step + 4
        least = np.partition(about[:, ::step], -at, axis=1)[:, -at]
        found = []
        for query, each, bound in zip(asked, about, least, strict=True):
            likely = np.flatnonzero(each >= bound)
            if len(likely) < kept:
                likely = np.argpartition(each, n - kept)[n - kept :]
            near = similarities(self._stored[likely], query)
            found.append(likely[np.argsort(-near, kind="stable")[:NEIGHBOURS]])
        return found


def bench_recall(_: Path, past: Sequence[int] = PAST) -> list[Row]:
    """CPU time of a query, alone and in a batch, what it finds, memory, and building."""
    rows: list[Row] = []
    for n in past:
        stored, asked = _stored(n + _ROUNDS), vectors(320, seed=3)
        ways: dict[str, Any] = {}
        built: dict[str, float] = {}
        for name, make in _makers(n).items():
            begun = time.process_time()
            ways[name] = make(stored, n)
            built[name] = time.process_time() - begun
        found = {name: way.many(asked) for name, way in ways.items()}
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        with quiet_gc():
            for turn in tqdm(range(_ROUNDS), desc=f"recall {n:,}", disable=None, leave=False):
                some = np.roll(asked, turn * _BATCH, axis=0)
                for name in sorted(ways, reverse=bool(turn % 2)):
                    many = ways[name].many
                    alone = _cpu_us(partial(_each, many, some[:_ALONE])) / _ALONE
                    taken[name].append((alone, _cpu_us(partial(many, some[:_BATCH])) / _BATCH))
        for name, way in ways.items():
            alone, batch = np.median(np.array(taken[name]), axis=0)
            pairs = zip(found[_NUMPY], found[name], strict=True)
            hits = sum(len(np.intersect1d(*pair)) for pair in pairs)
            row = {"past queries": n, "how": name, "alone us": alone, "in 32 us": batch}
            row["recall@20"] = hits / NEIGHBOURS / len(asked)
            row["bytes"] = round(way.bytes)
            row["x vector"] = 1 + way.bytes / (4 * DIM)
            if way.add is not None:
                added = [_cpu_us(partial(way.add, n + i)) for i in range(_ROUNDS)]
                row["add us"] = float(np.median(added))
            rows.append(row | {"build s": built[name]})
    return rows


_NUMPY = "all, numpy (baseline)"


def _makers(n: int) -> dict[str, Callable[[Vector, int], Any]]:
    """How each way is made, of those that there are here and for so many queries."""
    made: dict[str, Callable[[Vector, int], Any]] = {
        _NUMPY: partial(Index, kernel=Numpy(), exact_below=_EVERYTHING)
    }
    with suppress(ImportError):
        made["all, wheel"] = partial(Wheel, numkong=importlib.import_module("numkong"))
    scans = {each.name: each for level in range(3) if (each := native(level)) is not None}
    for name, scan in scans.items():
        made[f"all, {name}"] = partial(Index, kernel=scan, exact_below=_EVERYTHING)
    kernels: list[Kernel] = [Numpy(), *list(scans.values())[-1:]]
    for kernel in kernels:
        if n >= 2 * HybridIndex.LEAST and (kernel.copied or n <= _MAX_IN_GRAPH):
            made[f"cells, {kernel.name}"] = partial(Index, kernel=kernel, exact_below=n)
    if n <= _MAX_IN_GRAPH:
        with suppress(ImportError):
            made["graph"] = partial(Graph, hnswlib=importlib.import_module("hnswlib"))
    return made


def _stored(n: int) -> Vector:
    parts = [
        vectors(min(_PART, n - start), seed=10 + start // _PART) for start in range(0, n, _PART)
    ]
    return np.concatenate(parts)


def _each(many: Callable[[Vector], Ids], asked: Vector) -> None:
    for query in asked:
        many(query[None])


def _cpu_us(call: Callable[[], Any]) -> float:
    begun = time.thread_time()
    call()
    return (time.thread_time() - begun) * 1e6
