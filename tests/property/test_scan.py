"""Every kernel finds what comparing all vectors finds: the same ids, the same bits, with ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store._cells import Cells
from store._exact import similarities
from store._kernels import LEVELS, Kernel, Numpy, native
from store._protocols import Neighbours, Vector
from store.history import ExactIndex, HybridIndex


class Narrow(HybridIndex):
    """Looks at so few vectors that it misses some."""

    LEAST, BY_K = 50, 2


KERNELS: list[Kernel] = [Numpy()]
KERNELS += [each for level in range(len(LEVELS)) if (each := native(level)) is not None]


def _vectors(rng: np.random.Generator, n: int, dim: int, kind: str) -> Vector:
    raw = rng.standard_normal((n, dim))
    if kind == "near":  # so near each other that int8 copies of many are the same
        raw = rng.standard_normal(dim) + 0.01 * raw
    elif kind == "sparse":
        raw *= rng.random((n, dim)) < 0.1
    elif kind == "few":  # the same ones many times, and copies but for the last bit
        raw = raw[rng.integers(max(n // 8, 1), size=n)]
        raw[::3] *= 1 + 2**-23
    elif kind == "spiked":  # one number so large that the steps of the copy hide the others
        raw[:, 0] = 100.0
    lengths = np.linalg.norm(raw, axis=1, keepdims=True)
    unit: Vector = (raw / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
    return unit


def _brute(ids: list[int], vectors: Vector, query: Vector, k: int) -> list[tuple[int, float]]:
    """Every product, sorted: no index, no copy, no matrix product."""
    if not query.any():
        return []
    near = similarities(vectors, query).tolist()
    best = sorted(zip(ids, near, strict=True), key=lambda one: (-one[1], -one[0]))[:k]
    return [(id, min(1.0, max(-1.0, similarity))) for id, similarity in best]


def _pairs(found: Neighbours) -> list[tuple[int, float]]:
    return list(zip(found.ids.tolist(), found.similarities.tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 400),
    dim=st.sampled_from([1, 2, 5, 16, 33, 100, 384]),
    k=st.integers(1, 60),
    kind=st.sampled_from(["any", "near", "sparse", "few", "spiked"]),
    scale=st.sampled_from([1.0, 1e-3, 30.0]),
)
def test_what_is_found_is_what_comparing_all_finds(
    seed: int, n: int, dim: int, k: int, kind: str, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    vectors = _vectors(rng, n, dim, kind)
    queries = np.concatenate([_vectors(rng, 12, dim, kind), vectors[:2], np.zeros((1, dim))])
    queries = (queries * scale).astype(np.float32)
    ids = rng.permutation(10 * n)[:n]
    gone, kept = ids[: n // 3].tolist(), ids[n // 3 :].tolist()
    wanted = [_brute(kept, vectors[n // 3 :], query, k) for query in queries]
    for kernel in KERNELS:
        index = HybridIndex(dim, n, kernel=kernel)
        index.load(ids[: n // 2], vectors[: n // 2])
        for id, vector in zip(ids[n // 2 :].tolist(), vectors[n // 2 :], strict=True):
            index.add(id, vector)
        for id in gone:
            index.remove(id)
        assert [_pairs(found) for found in index.recall_many(queries, k)] == wanted, kernel.name
        assert [_pairs(index.recall(query, k)) for query in queries] == wanted, kernel.name


@pytest.mark.parametrize("apart", [0.0, 1e-4])
def test_more_candidates_than_there_is_room_for_are_all_told_apart(apart: float) -> None:
    rng = np.random.default_rng(1)
    raw = rng.standard_normal(33) + apart * rng.standard_normal((900, 33))
    vectors = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
    ids = rng.permutation(900)
    queries = vectors[:15]  # tiles of 8, 4, 2 and 1
    wanted = [_brute(ids.tolist(), vectors, query, 7) for query in queries]
    for kernel in KERNELS:
        index = HybridIndex(33, 900, kernel=kernel)
        index.load(ids, vectors)
        assert [_pairs(found) for found in index.recall_many(queries, 7)] == wanted, kernel.name


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(5, 30))
def test_every_kernel_looks_at_the_same_cells(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, queries = _vectors(rng, 700, 24, "any"), _vectors(rng, 40, 24, "any")
    found = []
    for kernel in KERNELS:
        index = Narrow(24, 800, 300, kernel=kernel)
        index.load(np.arange(600), vectors[:600])
        assert index.approximate
        for id in range(600, 630):
            index.remove(id - 600)
            index.add(id, vectors[id])
        together = index.recall_many(queries, k)
        assert [_pairs(index.recall(query, k)) for query in queries] == [*map(_pairs, together)]
        found.append([_pairs(each) for each in together])
    assert all(each == found[0] for each in found)
    exact = ExactIndex(24)
    exact.load(np.arange(30, 630), vectors[30:630])
    assert found[0] != [_pairs(exact.recall(query, k)) for query in queries]


@pytest.mark.skipif(len(KERNELS) == 1, reason="the scan is not compiled here")
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    dim=st.sampled_from([1, 5, 16, 33, 384]),
    kind=st.sampled_from(["near", "sparse", "spiked"]),
)
def test_copies_are_the_same_bits_with_any_instructions(seed: int, dim: int, kind: str) -> None:
    made = set()
    for kernel in KERNELS[1:]:
        vectors = _vectors(np.random.default_rng(seed), 40, dim, kind)
        cells = Cells(dim, 1, copied=True)
        cells.point_at(vectors)
        rows = np.arange(40, dtype=np.int32)
        kernel.put(cells, cells.put_many(np.arange(40), rows, np.zeros(40, np.int32)))
        parts = cells.blocks, cells.scale, cells.length, cells.error
        made.add(b"".join(part.tobytes() for part in parts))
    assert len(made) <= 1


def test_a_scan_takes_the_levels_that_this_processor_has() -> None:
    assert [each.name for each in KERNELS[1:]] == list(LEVELS[: len(KERNELS) - 1])
