"""Nearest past vectors by cosine: exact, hnswlib's graph, and the two of them together.

An index is a cache of vectors that the fold keeps. One thread calls `add`, `remove` and
`recall`; only the building of a graph happens on another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import hnswlib
import numpy as np
from numpy.typing import NDArray

from store._protocols import Neighbours, Vector

_NOTHING = Neighbours(np.zeros(0, np.int64), np.zeros(0, np.float32))
_M, _EF_CONSTRUCTION, _SEED = 16, 100, 100
_MOST_FRESH = 512
_SLICE = 256
_BLAS_ERROR = 1e-5
_BLOCK = 32
"""Queries whose products with all vectors are held at once."""


def _check(vector: Vector, dim: int) -> Vector:
    if vector.shape != (dim,):
        raise ValueError(f"vector: must have shape ({dim},), got {vector.shape}")
    return vector


def _check_load(
    ids: Sequence[int] | NDArray[np.int64], vectors: Vector, dim: int, loaded: int
) -> NDArray[np.int64]:
    if loaded:
        raise ValueError(f"index: must be empty to be loaded, holds {loaded} vectors")
    if vectors.shape != (len(ids), dim):
        raise ValueError(f"vectors: must have shape ({len(ids)}, {dim}), got {vectors.shape}")
    found = np.array(ids, np.int64)
    if len(np.unique(found)) != len(found):
        raise ValueError("ids: must be unique")
    return found


def _check_room(n: int, capacity: int) -> None:
    if n > capacity:
        raise ValueError(f"capacity: the index holds no more than {capacity} vectors")


def _check_many(vectors: Vector, dim: int) -> Vector:
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise ValueError(f"vectors: must have shape (n, {dim}), got {vectors.shape}")
    return vectors


def _ordered(ids: NDArray[np.int64], similarities: NDArray[np.float32], k: int) -> Neighbours:
    """The k most similar, nearest first; of two equally near the larger id first."""
    order = np.lexsort((-ids, -similarities))[:k]
    return Neighbours(ids[order], np.clip(similarities[order], -1.0, 1.0))


def _nearest_of(one: Neighbours, other: Neighbours, k: int) -> Neighbours:
    """The k nearest of both."""
    return _ordered(
        np.concatenate([one.ids, other.ids]),
        np.concatenate([one.similarities, other.similarities]),
        k,
    )


class ExactIndex:
    """A matrix product over all vectors: the oracle, and the fastest below a few thousand.

    Remembering and forgetting cost O(d), recalling O(n·d). A forgotten row is filled by the last.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._vectors = np.zeros((0, dim), np.float32)
        self._ids = np.zeros(0, np.int64)
        self._rows: dict[int, int] = {}

    def add(self, id: int, vector: Vector) -> None:
        """Remember; ValueError for an id that is there or a vector of another length."""
        _check(vector, self.dim)
        if id in self._rows:
            raise ValueError(f"id: {id} is already in the index")
        row = len(self._rows)
        if row == len(self._ids):
            more = max(row, 16)
            self._vectors = np.concatenate([self._vectors, np.zeros((more, self.dim), np.float32)])
            self._ids = np.concatenate([self._ids, np.zeros(more, np.int64)])
        self._vectors[row], self._ids[row] = vector, id
        self._rows[id] = row

    def load(self, ids: Sequence[int] | NDArray[np.int64], vectors: Vector) -> None:
        """Remember many at once, (n,) ids and (n, d) vectors, in an index that is empty."""
        self._ids = _check_load(ids, vectors, self.dim, len(self._rows))
        self._vectors = np.array(vectors, np.float32)
        self._rows = {int(id): row for row, id in enumerate(self._ids)}

    def remove(self, id: int) -> None:
        """Forget; KeyError when it is not there."""
        row = self._rows.pop(id)
        last = len(self._rows)
        if row != last:
            self._vectors[row] = self._vectors[last]
            moved = self._ids[row] = self._ids[last]
            self._rows[int(moved)] = row

    def recall(self, vector: Vector, k: int) -> Neighbours:
        """The k nearest; none for a zero vector, which is near nothing."""
        _check(vector, self.dim)
        n = len(self._rows)
        if not n or k < 1 or not vector.any():
            return _NOTHING
        return self._nearest(vector, self._vectors[:n] @ vector, k)

    def recall_many(self, vectors: Vector, k: int) -> list[Neighbours]:
        """`recall` of each row: one matrix product for a block of them."""
        _check_many(vectors, self.dim)
        n = len(self._rows)
        if not n or k < 1:
            return [_NOTHING] * len(vectors)
        found: list[Neighbours] = []
        for start in range(0, len(vectors), _BLOCK):
            block = vectors[start : start + _BLOCK]
            products = block @ self._vectors[:n].T
            found += [
                self._nearest(vector, similarities, k) if vector.any() else _NOTHING
                for vector, similarities in zip(block, products, strict=True)
            ]
        return found

    def _nearest(self, vector: Vector, similarities: NDArray[np.float32], k: int) -> Neighbours:
        """The k nearest to `vector`, told apart among those that a matrix product says are near."""
        n = len(self._rows)
        near = np.arange(n)
        if k < n:
            kth = np.partition(similarities, n - k)[n - k]
            near = np.flatnonzero(similarities >= kth - _BLAS_ERROR)
        # A matrix product may add up one row in another order than its neighbour. Added up alike,
        # equal vectors are equally near wherever they are kept, and ties are broken by id alone.
        return _ordered(self._ids[near], (self._vectors[near] * vector).sum(axis=1), k)

    def items(self) -> tuple[NDArray[np.int64], Vector]:
        """A copy of all ids and vectors, oldest id first."""
        n = len(self._rows)
        order = np.argsort(self._ids[:n])
        return self._ids[:n][order], self._vectors[:n][order]

    def oldest(self) -> tuple[int, Vector]:
        """The id that was added first of those that are left, and its vector."""
        id = next(iter(self._rows))
        return id, self._vectors[self._rows[id]].copy()

    def settle(self, most: int) -> int:
        """Nothing is put off here."""
        return 0

    def __contains__(self, id: int) -> bool:
        return id in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def close(self) -> None:
        """Nothing to let go of."""


class HnswIndex:
    """hnswlib's graph (M = 16, ef_construction = 100, fixed seed): O(log n) to add and recall.

    Bounded by `capacity`; `spare` slots more are used first, then those of forgotten vectors
    again, which is eight times as dear, since the graph around each is mended. hnswlib's own
    reuse of slots loses an id that is forgotten and comes back, and its labels are unsigned: so
    its labels are slots here, and the ids are ours. `ef` is set at every recall, since hnswlib
    does not keep it with the graph.
    """

    def __init__(self, dim: int, capacity: int, spare: int = 0) -> None:
        self.dim, self.capacity = dim, capacity
        self._most, self._used = capacity + spare, 0
        self._graph = hnswlib.Index(space="cosine", dim=dim)
        self._room = min(capacity, 1024)
        self._graph.init_index(
            self._room, M=_M, ef_construction=_EF_CONSTRUCTION, random_seed=_SEED
        )
        self._ids = np.zeros(self._room, np.int64)
        self._slots: dict[int, int] = {}
        self._free: list[int] = []
        self._ef = 0

    def add(self, id: int, vector: Vector) -> None:
        """Remember; ValueError for an id that is there, or when `capacity` is reached."""
        _check(vector, self.dim)
        if id in self._slots:
            raise ValueError(f"id: {id} is already in the index")
        _check_room(len(self._slots) + 1, self.capacity)
        if self.worn:
            slot = self._free.pop()
        else:
            slot, self._used = self._used, self._used + 1
            self._reserve(self._used)
        self._graph.add_items(vector[None], [slot], num_threads=1)
        self._ids[slot] = id
        self._slots[id] = slot

    def load(
        self,
        ids: Sequence[int] | NDArray[np.int64],
        vectors: Vector,
        stop: threading.Event | None = None,
    ) -> None:
        """Remember many at once, in order, in an index that is empty; the same graph each time.

        Once `stop` is set it leaves off, and the index is of no use any more.
        """
        found = _check_load(ids, vectors, self.dim, len(self._slots))
        _check_room(len(found), self.capacity)
        self._reserve(len(found))
        for start in range(0, len(found), _SLICE):
            if stop is not None and stop.is_set():
                return
            slots = np.arange(start, min(start + _SLICE, len(found)))
            self._graph.add_items(vectors[slots], slots, num_threads=1)
        self._ids[: len(found)] = found
        self._slots = {int(id): slot for slot, id in enumerate(found)}
        self._used = len(found)

    @property
    def worn(self) -> bool:
        """Whether every slot has been used, so that the next `add` is a dear one."""
        return self._used == self._most

    def items(self) -> tuple[NDArray[np.int64], Vector]:
        """A copy of all ids and vectors, oldest id first.

        May be called from another thread than `recall` and `remove`; what is removed meanwhile
        may be in it or not.
        """
        live = self._slots.copy()
        ids = np.fromiter(live.keys(), np.int64, len(live))
        slots = np.fromiter(live.values(), np.int64, len(live))
        order = np.argsort(ids)
        ids, slots = ids[order], slots[order]
        kept, vectors = [np.zeros(0, np.int64)], [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(ids), _SLICE):
            end = start + _SLICE
            for some_ids, some in self._read(ids[start:end], slots[start:end]):
                kept.append(some_ids)
                vectors.append(some)
        return np.concatenate(kept), np.concatenate(vectors)

    def _read(
        self, ids: NDArray[np.int64], slots: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], Vector]]:
        try:
            vectors = np.asarray(self._graph.get_items(slots), np.float32)
        except RuntimeError:  # one of them was removed a moment ago
            half = len(ids) // 2
            if half:
                yield from self._read(ids[:half], slots[:half])
                yield from self._read(ids[half:], slots[half:])
            return
        yield ids, vectors

    def remove(self, id: int) -> None:
        """Forget; KeyError when it is not there."""
        slot = self._slots.pop(id)
        self._graph.mark_deleted(slot)
        self._free.append(slot)

    def recall(self, vector: Vector, k: int) -> Neighbours:
        """About the k nearest (recall is measured by `make bench`); none for a zero vector."""
        _check(vector, self.dim)
        k = min(k, len(self._slots))
        if k < 1 or not vector.any():
            return _NOTHING
        ef = max(40, 2 * k)
        while True:
            if ef != self._ef:
                self._graph.set_ef(ef)
                self._ef = ef
            try:
                slots, distances = self._graph.knn_query(vector, k, num_threads=1)
                break
            except RuntimeError:
                # slots used again can leave fewer than k in reach: look further, then take fewer
                if ef < len(self._slots):
                    ef = len(self._slots)
                elif k > 1:
                    k = (k + 1) // 2
                else:
                    return _NOTHING
        return self._of(slots[0], distances[0], k)

    def recall_many(self, vectors: Vector, k: int) -> list[Neighbours]:
        """`recall` of each row: one call of the graph."""
        _check_many(vectors, self.dim)
        k, asked = min(k, len(self._slots)), np.flatnonzero(vectors.any(axis=1))
        found = [_NOTHING] * len(vectors)
        if k < 1 or not len(asked):
            return found
        ef = max(40, 2 * k)
        if ef != self._ef:
            self._graph.set_ef(ef)
            self._ef = ef
        try:
            slots, distances = self._graph.knn_query(vectors[asked], k, num_threads=1)
        except RuntimeError:  # one of them reaches fewer than k: each is to look as far as it must
            return [self.recall(vector, k) for vector in vectors]
        for i, some, far in zip(asked.tolist(), slots, distances, strict=True):
            found[i] = self._of(some, far, k)
        return found

    def _of(self, slots: NDArray[np.uint64], distances: NDArray[np.float32], k: int) -> Neighbours:
        """What the graph found, by our ids."""
        similarities = (1.0 - distances).astype(np.float32)
        return _ordered(self._ids[slots.astype(np.int64)], similarities, k)

    def _reserve(self, n: int) -> None:
        if n > self._room:
            room = min(self._most, max(2 * self._room, n))
            self._graph.resize_index(room)
            self._ids = np.concatenate([self._ids, np.zeros(room - self._room, np.int64)])
            self._room = room

    def settle(self, most: int) -> int:
        """Nothing is put off here."""
        return 0

    def __contains__(self, id: int) -> bool:
        return id in self._slots

    def __len__(self) -> int:
        return len(self._slots)

    def close(self) -> None:
        """Nothing to let go of."""


class HybridIndex:
    """Exact below `exact_below` vectors, the graph above; the one that the service uses.

    The graph is built on another thread (hnswlib lets go of the interpreter's lock), once there
    are enough vectors or after `load`; until it is there exact search answers. What is added
    from then on stands in a small exact index beside the graph, so that it costs the same
    however large the graph is and is visible at once; `settle` moves it into the graph, which
    the caller asks for when it has time. So neither start-up nor growth holds up a decision.

    A graph has half as many slots again as `capacity`. When all have been used, a new one is
    built in the background from the vectors that are left, and takes its place in the same way.
    A build that fails (it may want for memory) is not tried again: all stays right, and slower.
    """

    def __init__(self, dim: int, capacity: int, exact_below: int = 2000) -> None:
        self.dim, self.capacity, self.exact_below = dim, capacity, exact_below
        self._base: ExactIndex | HnswIndex = ExactIndex(dim)
        self._fresh = ExactIndex(dim)
        self._graph: HnswIndex | None = None
        self._building: threading.Thread | None = None
        self._gone: list[int] = []
        self._failed = False
        self._stop = threading.Event()

    def add(self, id: int, vector: Vector) -> None:
        """Remember; ValueError for an id that is there, or when `capacity` is reached. O(d)."""
        base = self._answering()
        if id in self:
            raise ValueError(f"id: {id} is already in the index")
        _check_room(len(self) + 1, self.capacity)
        if isinstance(base, ExactIndex) and self._building is None:
            base.add(id, vector)
            self._build_if_large()
            return
        self._fresh.add(id, vector)
        if len(self._fresh) > _MOST_FRESH:
            self.settle(2)

    def load(self, ids: Sequence[int] | NDArray[np.int64], vectors: Vector) -> None:
        """Remember many at once, in an index that is empty; answers exactly until built."""
        _check_room(len(ids), self.capacity)
        base = self._answering()
        _check_load(ids, vectors, self.dim, len(self))
        base.load(ids, vectors)
        self._build_if_large()

    def remove(self, id: int) -> None:
        """Forget; KeyError when it is not there."""
        base = self._answering()
        if id in self._fresh:
            self._fresh.remove(id)
            return
        base.remove(id)
        if self._building is not None:
            self._gone.append(id)

    def recall(self, vector: Vector, k: int) -> Neighbours:
        """The k nearest: exactly while there are few or the graph is being built."""
        near = self._answering().recall(vector, k)
        if not len(self._fresh):
            return near
        return _nearest_of(near, self._fresh.recall(vector, k), k)

    def recall_many(self, vectors: Vector, k: int) -> list[Neighbours]:
        """`recall` of each row, all of them together."""
        near = self._answering().recall_many(vectors, k)
        if not len(self._fresh):
            return near
        fresh = self._fresh.recall_many(vectors, k)
        return [_nearest_of(*both, k) for both in zip(near, fresh, strict=True)]

    def settle(self, most: int) -> int:
        """Move up to `most` vectors into the graph, O(log n) each; how many are left to move.

        0 also while a graph is being built, since none can be moved then.
        """
        base = self._answering()
        if self._building is not None:
            return 0
        for _ in range(min(most, len(self._fresh))):
            if self._build_if_worn():
                return 0
            id, vector = self._fresh.oldest()
            base.add(id, vector)
            self._fresh.remove(id)
        return len(self._fresh)

    @property
    def approximate(self) -> bool:
        """Whether the graph answers by now."""
        return isinstance(self._answering(), HnswIndex)

    def wait(self) -> None:
        """Until the graph that is being built, if one is, answers."""
        if self._building is not None:
            self._building.join()

    def __len__(self) -> int:
        return len(self._base) + len(self._fresh)

    def __contains__(self, id: int) -> bool:
        return id in self._fresh or id in self._answering()

    def close(self) -> None:
        """Stop building; waits for the slice under way, tens of milliseconds."""
        self._stop.set()
        self.wait()

    def _answering(self) -> ExactIndex | HnswIndex:
        """What answers now: the graph from the first call after it was built."""
        if self._building is not None and not self._building.is_alive():
            self._building, gone, self._gone = None, self._gone, []
            if self._graph is None:
                self._failed = True
            else:
                self._base, self._graph = self._graph, None
                for id in gone:
                    if id in self._base:
                        self._base.remove(id)
        return self._base

    def _build_if_large(self) -> None:
        base = self._base
        if isinstance(base, ExactIndex) and len(base) >= self.exact_below and not self._failed:
            self._start(self._build, *base.items())

    def _build_if_worn(self) -> bool:
        base = self._base
        if not isinstance(base, HnswIndex) or not base.worn or self._failed:
            return False
        self._start(self._rebuild, base)
        return True

    def _start(self, target: Callable[..., None], *given: object) -> None:
        # No daemon: an interpreter that ends while one is inside hnswlib aborts.
        self._building = threading.Thread(target=target, args=given, name="hnsw")
        self._building.start()

    def _rebuild(self, worn: HnswIndex) -> None:
        self._build(*worn.items())

    def _build(self, ids: NDArray[np.int64], vectors: Vector) -> None:
        graph = HnswIndex(self.dim, self.capacity, spare=self.capacity // 2)
        graph.load(ids, vectors, self._stop)
        if not self._stop.is_set():
            self._graph = graph
