"""Topics of the questions that are kept (docs/texts.md), made where somebody asks for them.

They are computed in a child process of low priority, and are in the memory of this process alone.
Forgetting a unit drops them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from bandit_service.core.errors import Unavailable
from bandit_service.core.events import pack
from bandit_service.core.history import ITEMS_PER_EVENT
from bandit_service.runtime import topic_words as words
from bandit_service.runtime.bounded_child import BoundedChild, NoAnswer
from bandit_service.runtime.text_store import KeptQuestion
from bandit_service.runtime.texts import Texts
from bandit_service.runtime.writer import Writer
from policies import Vector

MAX_QUESTIONS = 5_000
_CPU_S, _FRESH_S, _TRIES = 20.0, 60.0, 3
_PART = 500
"""Questions whose embeddings are looked up in one turn of the loop."""


@dataclass(frozen=True, slots=True)
class TopicsFound:
    """What there is. ts: when, UTC seconds. questions: that they were made of. topics: none where
    these were too few. centres: (k, d) of norm 1.
    """

    ts: float
    questions: int
    topics: tuple[words.Topic, ...]
    centres: Vector

    def of(self, embeddings: Sequence[bytes]) -> list[int | None]:
        """The topic of each embedding; None of one that is empty or zero, or if there are none."""
        if not self.topics:
            return [None] * len(embeddings)
        there = [i for i, each in enumerate(embeddings) if any(each)]
        if not there:
            return [None] * len(embeddings)
        vectors = np.frombuffer(b"".join(embeddings[i] for i in there), "<f4")
        nearest = np.argmax(vectors.reshape(len(there), -1) @ self.centres.T, axis=1)
        found: list[int | None] = [None] * len(embeddings)
        for i, topic in zip(there, nearest, strict=True):
            found[i] = int(topic)
        return found


NONE_YET = TopicsFound(0.0, 0, (), np.zeros((0, 0), np.float32))


class Topics:
    """Asks for them at most once a minute. people: how many must have used a word."""

    def __init__(self, writer: Writer, texts: Texts, people: int) -> None:
        self.people = people
        self._writer, self._texts = writer, texts
        self._child = BoundedChild("bandit_service.runtime.topic_words", _CPU_S)
        self._one = asyncio.Lock()
        self._known = NONE_YET
        self._dropped = 0
        texts.beside.append(self._drop)

    async def found(self) -> TopicsFound:
        """The topics as they were within the last minute. Raises Unavailable."""
        async with self._one:
            for _ in range(_TRIES):
                if self._writer.now() - self._known.ts < _FRESH_S:
                    break
                before = self._dropped
                made = await self._make()
                if before == self._dropped:  # else of somebody who is to be forgotten
                    self._known = made
                    break
            else:
                raise Unavailable("units are being erased; try again")
            return self._known

    def of(self, embeddings: Sequence[bytes]) -> list[int | None]:
        """Their topics, of those that were found last."""
        return self._known.of(embeddings)

    async def close(self) -> None:
        """End the child, whatever it does."""
        await self._child.close()

    def _drop(self) -> None:
        self._known = NONE_YET
        self._dropped += 1

    async def _make(self) -> TopicsFound:
        now = self._writer.now()
        kept = await self._texts.questions(MAX_QUESTIONS)
        rows = await self._embedded(kept)
        if len(rows) < words.FEWEST:
            return TopicsFound(now, len(rows), (), NONE_YET.centres)
        asked = words.Asked(
            b"".join(vector for vector, _ in rows),
            tuple(each.question[: words.MAX_CHARS] for _, each in rows),
            tuple(each.owner for _, each in rows),
            self.people,
            self._known.centres.tobytes(),
        )
        try:
            body = await asyncio.to_thread(msgspec.msgpack.encode, asked)
            found = msgspec.msgpack.decode(await self._child.ask(body), type=words.Found)
        except NoAnswer as none:
            raise Unavailable(f"the topics were not computed: {none}") from None
        finally:
            await self._child.close()  # it is needed once a minute at most, and is not small
        centres = np.frombuffer(found.centres, "<f4").reshape(len(found.topics), -1)
        return TopicsFound(now, len(rows), found.topics, centres)

    async def _embedded(self, kept: Sequence[KeptQuestion]) -> list[tuple[bytes, KeptQuestion]]:
        """Those whose embedding is still known: of the decision, or of the remembered query."""
        found = []
        for start in range(0, len(kept), _PART):
            world = self._writer.world
            for each in kept[start : start + _PART]:
                pending = world.pending.decisions.get(each.id)
                item = -1 if each.event is None else each.event * ITEMS_PER_EVENT
                if pending is not None:
                    vector = pending.decided.embedding
                elif item in world.history.items:
                    vector = pack(world.history.vector(item))
                else:
                    continue
                if any(vector):
                    found.append((vector, each))
            await asyncio.sleep(0)
        return found
