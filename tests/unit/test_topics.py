"""Topics of questions: the same every time, named by words of many, and gone with whoever is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bandit_service.core.errors import Unavailable
from bandit_service.core.events import pack
from bandit_service.core.history import ITEMS_PER_EVENT
from bandit_service.observe.topics import by_arm
from bandit_service.runtime import topic_words
from bandit_service.runtime.bounded_child import NoAnswer
from bandit_service.runtime.text_store import KeptQuestion, Text, TextStore
from bandit_service.runtime.topic_words import ANONYMOUS, Asked, clusters, found, words_in
from bandit_service.runtime.topics import NONE_YET, Topics

PEOPLE = 5


def _two(n: int, d: int = 8) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Vectors near one axis or near another, by turns."""
    rows = np.random.RandomState(7).normal(0.0, 0.05, (n, d)).astype(np.float32)
    rows[::2, 0] += 1.0
    rows[1::2, 1] += 1.0
    unit: np.ndarray[Any, np.dtype[np.float32]] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _asked(n: int = 60, **more: Any) -> Asked:
    texts = tuple(
        f"please refund invoice {i}" if i % 2 == 0 else f"please fix python function {i}"
        for i in range(n)
    )
    given: dict[str, Any] = {
        "texts": texts,
        "owners": tuple(f"u{i}" for i in range(n)),
        "people": PEOPLE,
    }
    return Asked(**({"vectors": _two(n).tobytes()} | given | more))


def test_what_is_asked_alike_is_a_topic_with_the_words_that_tell_it_apart() -> None:
    made = found(_asked())
    assert {(each.words, each.questions, each.units) for each in made.topics} == {
        (("invoice", "refund"), 30, 30),
        (("fix", "function", "python"), 30, 30),
    }
    assert found(_asked()) == made, "the same every time"
    again = found(_asked(centres=made.centres))
    assert [each.words for each in again.topics] == [each.words for each in made.topics]


@pytest.mark.parametrize(
    ("owners", "shown"),
    [
        ([f"u{i}" for i in range(PEOPLE)], True),
        ([f"u{i}" for i in range(PEOPLE - 1)] * 6, False),  # many questions of few
        ([""] * (PEOPLE * ANONYMOUS), True),
        ([""] * (PEOPLE * ANONYMOUS - 1), False),
        (["u0", "u1", "u2", "u3"] + [""] * ANONYMOUS, True),
    ],
)
def test_a_word_of_few_people_is_not_shown(owners: list[str], shown: bool) -> None:
    """Of the first topic: `owners` say brunhilde, and nobody else does."""
    n = 80  # two topics
    texts = ["python function"] * n
    whose = [f"other{i}" for i in range(n)]
    for i, owner in enumerate(owners):
        texts[2 * i], whose[2 * i] = "brunhilde", owner
    made = found(_asked(n, texts=tuple(texts), owners=tuple(whose)))
    assert any("brunhilde" in topic.words for topic in made.topics) == shown


def test_no_word_is_what_was_taken_out_or_a_number() -> None:
    assert words_in("system: Be kind\nuser: [email] 4711 [redacted] Grüße, [brackets]") == {
        "kind", "grüße", "brackets",
    }  # fmt: skip
    assert words_in("word " + "x" * topic_words.MAX_CHARS + " late") == {"word"}


def test_equal_questions_make_no_trouble() -> None:
    same = np.tile(np.array([[1.0, 0.0]], np.float32), (50, 1))
    centres, of = clusters(same, 3)
    assert np.isfinite(centres).all()
    assert set(of) <= {0, 1, 2}


# --- beside a service -----------------------------------------------------------------------
class _Kept:
    def __init__(self, questions: list[KeptQuestion]) -> None:
        self.kept, self.beside = questions, []  # type: ignore[var-annotated]

    async def questions(self, most: int) -> list[KeptQuestion]:
        return self.kept[-most:]


def _topics(kept: list[KeptQuestion], n: int = 60) -> tuple[Topics, Any]:
    """Even questions are of decisions, odd ones were remembered and their decision is gone."""
    vectors = _two(n)
    pending = {
        f"d{i}": SimpleNamespace(decided=SimpleNamespace(embedding=pack(vectors[i])))
        for i in range(0, n, 2)
    }
    history = SimpleNamespace(
        items={(i + 1) * ITEMS_PER_EVENT: None for i in range(1, n, 2)},
        vector=lambda id: vectors[id // ITEMS_PER_EVENT - 1],
    )
    world = SimpleNamespace(pending=SimpleNamespace(decisions=pending), history=history)
    clock = SimpleNamespace(now=1_000.0)
    writer: Any = SimpleNamespace(world=world, now=lambda: clock.now)
    texts: Any = _Kept(kept)
    return Topics(writer, texts, PEOPLE), clock


def _questions(n: int = 60) -> list[KeptQuestion]:
    texts = _asked(n).texts
    return [
        KeptQuestion(f"d{i}", f"u{i}", i + 1 if i % 2 else None, text)
        for i, text in enumerate(texts)
    ]


async def test_they_are_made_in_a_child_once_a_minute_and_dropped_with_a_unit() -> None:
    topics, clock = _topics(_questions())
    first = await topics.found()
    assert [each.questions for each in first.topics] == [30, 30]
    zero = pack(np.zeros(8, np.float32))
    one, other, *rest = first.of([pack(row) for row in _two(4)] + [b"", zero])
    assert ({one, other}, rest) == ({0, 1}, [one, other, None, None])
    assert await topics.found() is first
    clock.now += 61.0
    assert await topics.found() is not first
    for drop in topics._texts.beside:
        drop()
    assert topics._known is NONE_YET
    await topics.close()


async def test_what_is_made_while_a_unit_is_forgotten_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topics, _ = _topics(_questions())
    make, tries = topics._make, 0

    async def interrupted() -> Any:
        nonlocal tries
        made = await make()
        tries += 1
        if tries == 1:
            topics._texts.kept = topics._texts.kept[:50]  # type: ignore[attr-defined]
            topics._drop()
        return made

    monkeypatch.setattr(topics, "_make", interrupted)
    assert ((await topics.found()).questions, tries) == (50, 2)


async def test_too_few_questions_are_told_and_a_child_that_fails_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topics, _ = _topics(_questions()[:39])
    few = await topics.found()
    assert (few.questions, few.topics, few.of([pack(_two(1)[0])])) == (39, (), [None])
    topics, _ = _topics(_questions())

    async def no_answer(_: bytes) -> bytes:
        await asyncio.sleep(0)
        raise NoAnswer("timeout")

    monkeypatch.setattr(topics._child, "ask", no_answer)
    with pytest.raises(Unavailable, match="the topics were not computed: timeout"):
        await topics.found()


def test_the_file_gives_the_newest_questions_under_a_key_that_is_there(tmp_path: Path) -> None:
    path, one, two = tmp_path / "texts.sqlite3", bytes(32), bytes([1] * 32)
    store = TextStore(path, (two,))
    store.put("other key", 9.0, "", Text(question="hidden"))
    store.close()
    store = TextStore(path, (one,))
    for i in range(4):
        store.put(f"d{i}", float(i), f"u{i}", Text(question=f"q{i}", answer="a"), i)
    asked = store.questions(3, 2.0)
    store.close()
    assert asked == [KeptQuestion(f"d{i}", f"u{i}", i, f"q{i}") for i in (2, 3)]


def test_sums_are_by_topic_and_arm() -> None:
    def decision(arm: str, reward: float | None, **signals: float) -> Any:
        return SimpleNamespace(arm=arm, reward=reward, signals=signals)

    some = [
        decision("a", 0.5, cost_usd=0.25), decision("a", None), decision("a", 1.0, cost_usd=0.75),
        decision("b", 0.0), decision("b", 1.0),
    ]  # fmt: skip
    sums = by_arm(some, [1, 1, 1, 0, None])
    one = sums[1]["a"]  # type: ignore[index]
    assert (one.decisions, one.reward.n, one.reward.mean) == (3, 2, 0.75)
    assert (one.cost_usd.n, one.cost_usd.mean) == (2, 0.5)
    assert {topic: list(arms) for topic, arms in sums.items()} == {1: ["a"], 0: ["b"]}
