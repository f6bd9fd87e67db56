"""The nearest past queries of a stream: the same that an exact index recalls step by step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandit_service.core.history import History
from bandit_service.data.recall import recall_stream
from policies import ArmId, Outcome, Vector
from store.history import ExactIndex


def _step_by_step(stream: Vector, k: int, capacity: int) -> list[tuple[list[int], list[float]]]:
    history, index = History(capacity), ExactIndex(stream.shape[1])
    found = []
    for vector in stream:
        near = index.recall(vector, k)
        found.append((near.ids.tolist(), near.similarities.tolist()))
        history.remember(vector, Outcome(ArmId("a"), 1.0, 1.0))
        added, removed = history.take_changes()
        for id in removed:
            index.remove(id)
        for id in added:
            index.add(id, history.vector(id))
    return found


def _stream(n: int, seed: int, again: float) -> Vector:
    """Unit vectors, some of which come back, and some of which are zero."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for i in range(1, n):
        if rng.uniform() < again:
            vectors[i] = vectors[rng.integers(0, i)]
        elif rng.uniform() < 0.05:
            vectors[i] = 0.0
    return np.asarray(vectors, np.float32)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 600),
    seed=st.integers(0, 99),
    again=st.sampled_from([0.0, 0.1, 0.6]),
    k=st.sampled_from([0, 1, 5, 20]),
    capacity=st.sampled_from([1, 7, 100, 10_000]),
)
def test_a_whole_stream_recalls_what_an_index_recalls_step_by_step(
    n: int, seed: int, again: float, k: int, capacity: int
) -> None:
    stream = _stream(n, seed, again)
    recall = recall_stream(stream, k, capacity)
    for step, (ids, similarities) in enumerate(_step_by_step(stream, k, capacity)):
        found_ids, found = recall.at(step)
        assert list(found_ids) == ids
        assert list(found) == pytest.approx(similarities, abs=1e-6)


def test_own_is_the_item_in_which_a_query_is_remembered() -> None:
    a, b = np.eye(2, dtype=np.float32)
    zero = np.zeros(2, np.float32)
    stream = np.array([a, zero, b, a, b, a])
    assert recall_stream(stream, 2, 10).own.tolist() == [1, 0, 2, 1, 2, 1]
    # With room for one item, each that comes back is a new one.
    assert recall_stream(stream, 2, 1).own.tolist() == [1, 0, 2, 3, 4, 5]
