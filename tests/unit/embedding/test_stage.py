"""The stage: nobody waits without need, nobody is harmed by another's leaving or failing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from bandit_service.embedding import (
    EmbeddingStage,
    Overloaded,
    check_embedding,
    check_embeddings,
    key_of,
    text_of_messages,
)
from bandit_service.embedding.backends import Matrix
from policies import Vector


class Gated:
    """A backend that holds each call until it is let go, and keeps what it was asked."""

    name, dim = "gated", 2

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.fails = False

    def encode(self, texts: Sequence[str]) -> Matrix:
        self.calls.append(list(texts))
        self.begun.set()
        assert self.gate.wait(30)
        if self.fails:
            raise RuntimeError("the model fell over")
        return np.array([[len(text), 1.0] for text in texts], np.float32)


async def _first_under_way(stage: EmbeddingStage, backend: Gated) -> asyncio.Task[Vector]:
    """A call that the backend holds, so that what comes next has to wait."""
    task = asyncio.create_task(stage.embed_one("first"))
    assert await asyncio.to_thread(backend.begun.wait, 30)
    return task


async def test_what_waits_goes_together_shortest_first_and_equal_texts_once() -> None:
    backend = Gated()
    sizes: list[int] = []
    stage = EmbeddingStage(backend, batch_size=3, on_batch=lambda n, _: sizes.append(n))
    first = await _first_under_way(stage, backend)
    texts = ["a long text", "tiny", "tiny", "middling", "last"]
    waiting = [asyncio.create_task(stage.embed_one(text)) for text in texts]
    await asyncio.sleep(0)
    backend.gate.set()
    vectors = await asyncio.gather(first, *waiting)
    assert [v[0] for v in vectors] == [5, 11, 4, 4, 8, 4]
    assert backend.calls == [["first"], ["tiny", "middling", "a long text"], ["last"]]
    assert sizes == [1, 3, 1]
    await stage.close()


async def test_the_cache_answers_and_forgets_the_oldest() -> None:
    backend = Gated()
    looked: list[str] = []
    backend.gate.set()
    stage = EmbeddingStage(backend, cache_size=2, on_cache=looked.append)
    for text in ("a", "b", "a", "c", "b"):
        await stage.embed_one(text)
    assert looked == ["miss", "miss", "hit", "miss", "miss"]
    assert backend.calls == [["a"], ["b"], ["c"], ["b"]]
    with pytest.raises(ValueError, match="read-only"):
        (await stage.embed_one("b"))[0] = 1.0
    await stage.close()


async def test_one_callers_leaving_does_not_take_the_text_from_another() -> None:
    backend = Gated()
    stage = EmbeddingStage(backend)
    first = await _first_under_way(stage, backend)
    leaves = asyncio.create_task(stage.embed_one("shared"))
    stays = asyncio.create_task(stage.embed_one("shared"))
    await asyncio.sleep(0)
    leaves.cancel()
    backend.gate.set()
    assert (await stays)[0] == 6
    await first
    with pytest.raises(asyncio.CancelledError):
        await leaves
    await stage.close()


async def test_a_failing_call_fails_its_own_texts_only() -> None:
    backend = Gated()
    stage = EmbeddingStage(backend, batch_size=1)
    backend.fails = True
    failing = await _first_under_way(stage, backend)
    backend.gate.set()
    with pytest.raises(RuntimeError, match="fell over"):
        await failing
    backend.fails = False
    assert (await stage.embed(["fine", "first"])).tolist() == [[4.0, 1.0], [5.0, 1.0]]
    await stage.close()


async def test_a_broken_answer_fails_its_batch_and_the_stage_goes_on() -> None:
    class Broken(Gated):
        def encode(self, texts: Sequence[str]) -> Matrix:
            return super().encode(texts)[: 0 if "bad" in texts else None]

    backend = Broken()
    backend.gate.set()
    stage = EmbeddingStage(backend)
    with pytest.raises(ValueError, match=r"1 texts with an array of shape \(0, 2\)"):
        await stage.embed_one("bad")
    assert (await stage.embed_one("fine"))[0] == 4
    await stage.close()


async def test_a_failing_observer_does_not_stop_the_stage() -> None:
    def observer(size: int, seconds: float) -> None:
        raise RuntimeError("no such series")

    backend = Gated()
    backend.gate.set()
    stage = EmbeddingStage(backend, on_batch=observer)
    for text in ("a", "b"):
        with pytest.raises(RuntimeError, match="no such series"):
            await stage.embed_one(text)
    await stage.close()


async def test_a_text_that_nobody_waits_for_any_more_is_not_embedded() -> None:
    backend = Gated()
    stage = EmbeddingStage(backend, queue_limit=1)
    first = await _first_under_way(stage, backend)
    leaves = asyncio.create_task(stage.embed_one("left"))
    await asyncio.sleep(0)
    leaves.cancel()
    await asyncio.gather(leaves, return_exceptions=True)
    stays = asyncio.create_task(stage.embed_one("stays"))  # its place in the queue is free
    await asyncio.sleep(0)
    backend.gate.set()
    assert (await stays)[0] == 5
    await first
    assert backend.calls == [["first"], ["stays"]]
    await stage.close()


async def test_too_many_waiting_are_refused() -> None:
    backend = Gated()
    stage = EmbeddingStage(backend, queue_limit=2)
    first = await _first_under_way(stage, backend)
    waiting = [asyncio.create_task(stage.embed_one(text)) for text in ("a", "b")]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="2 texts are waiting"):
        await stage.embed_one("c")
    backend.gate.set()
    await asyncio.gather(first, *waiting)
    await stage.close()


async def test_who_waits_too_long_is_told_so_and_the_others_wait_on() -> None:
    backend = Gated()
    stage = EmbeddingStage(backend)
    first = await _first_under_way(stage, backend)
    stays = asyncio.create_task(stage.embed_one("shared"))
    with pytest.raises(TimeoutError):
        await stage.embed_new(key_of("shared"), "shared", timeout_s=0.0)
    with pytest.raises(TimeoutError):
        await stage.embed_new(key_of("alone"), "alone", timeout_s=0.0)
    backend.gate.set()
    assert (await stays)[0] == 6
    await first
    assert backend.calls == [["first"], ["shared"]]
    await stage.close()


async def test_without_a_thread_its_callers_are_told_and_the_stage_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    backend = Gated()
    backend.gate.set()
    stage = EmbeddingStage(backend, batch_size=1)
    with monkeypatch.context() as system:
        system.setattr(threading.Thread, "start", none_left)
        for answer in await asyncio.gather(
            stage.embed_one("a"), stage.embed_one("b"), return_exceptions=True
        ):
            assert str(answer) == "can't start new thread"
    assert (await stage.embed_one("fine"))[0] == 4
    await stage.close()


async def test_closing_answers_what_is_under_way() -> None:
    backend = Gated()
    stage = EmbeddingStage(backend)
    first = await _first_under_way(stage, backend)
    closing = asyncio.create_task(stage.close())
    await asyncio.sleep(0)
    backend.gate.set()
    assert (await first)[0] == 5
    await closing
    with pytest.raises(Overloaded):
        await stage.embed_one("late")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], "must have 2 numbers, got 1"),
        ([[1.0, 0.0]], "must have 2 numbers, got 2"),
        ([float("nan"), 1.0], "must be finite"),
        ([float("inf"), 0.0], "must be finite"),
        ([0.0, 0.0], "must have norm 1 to within 0.01, got 0"),
        ([1.02, 0.0], "must have norm 1 to within 0.01, got 1.02"),
    ],
)
def test_an_embedding_that_is_none_is_refused(values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_embedding(values, 2)


@pytest.mark.parametrize("dim", [1, 7, 384])
def test_embeddings_together_are_the_same_bits_as_each_alone(dim: int) -> None:
    vectors = np.random.default_rng(1).normal(size=(33, dim))
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    vectors *= np.linspace(0.991, 1.009, 33)[:, None]
    packed = [each.astype("<f4").tobytes() for each in vectors]
    together = check_embeddings(packed, dim)
    alone = [check_embedding(np.frombuffer(each, "<f4"), dim) for each in packed]
    assert together is not None
    assert together.tobytes() == b"".join(each.tobytes() for each in alone)


@pytest.mark.parametrize("wrong", [[1.0], [float("nan"), 1.0], [0.0, 0.0], [1.02, 0.0]])
def test_together_with_a_wrong_one_there_are_none(wrong: list[float]) -> None:
    packed = [np.array(each, "<f4").tobytes() for each in ([1.0, 0.0], wrong)]
    assert check_embeddings(packed, 2) is None


def test_a_nearly_unit_embedding_is_made_one() -> None:
    made = check_embedding([1.009, 0.0], 2)
    assert made.tolist() == [1.0, 0.0]
    assert made.dtype == np.float32


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], "b\na"),
        ([{"role": "system", "content": "s"}, {"role": "user", "content": "a"}], "a"),
        ([{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url"},
                                       {"type": "text", "text": "y"}]}], "x\ny"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": None}], "a"),
    ],
)  # fmt: skip
def test_the_text_of_messages(messages: list[dict[str, object]], text: str) -> None:
    assert text_of_messages(messages) == text
