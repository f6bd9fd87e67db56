"""Keeps questions and answers of decisions where the configuration wants it (docs/texts.md).

Nothing waits for it: what is said is queued, redacted in a child process, encrypted and written
in a thread. What cannot be redacted is not kept.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeVar

from bandit_service.core import events as ev
from bandit_service.core.errors import Unavailable
from bandit_service.core.history import ITEMS_PER_EVENT
from bandit_service.core.resolved import Resolved
from bandit_service.core.world import World
from bandit_service.runtime.bounded_child import NoAnswer
from bandit_service.runtime.redaction import MAX_CHARS, Redaction
from bandit_service.runtime.supervisor import Kept
from bandit_service.runtime.text_store import KeepsTexts, KeptQuestion, OtherKey, Text
from bandit_service.runtime.writer import Writer
from bandit_service.settings import TextsSettings
from bandit_service.settings.texts import BOTH

_log = logging.getLogger("bandit.texts")
_MAX_WAITING = 1_000
_MAX_CHARS_WAITING = 20_000_000
_MAX_NOTED = 50_000
"""Decisions whose text this replica kept, of which it says by which event they were remembered."""
_YOUNG_S = 60.0
_TRIM_EVERY = 100
_TRIM_S = 60.0
_CLOSE_S, _READ_S = 5.0, 2.0
_CUT = "\n[...]\n"
T = TypeVar("T")


class Texts:
    """`note` and `heard` where things happen, `of` and `of_neighbours` to read.

    counted: how each text ended: stored, dropped (too many waited), timeout or failed (it could not
    be redacted or written), gone (the decision was forgotten before). beside: what drops that
    which was made of texts, where a unit is forgotten.
    """

    def __init__(
        self,
        writer: Writer,
        store: KeepsTexts,
        chosen: TextsSettings,
        counted: Callable[[str], None],
    ) -> None:
        self.answers = chosen.keep == BOTH
        self._writer, self._store, self._chosen, self._counted = writer, store, chosen, counted
        self._redaction = Redaction(chosen.redact, chosen.patterns, chosen.redact_s)
        self._thread = ThreadPoolExecutor(1, "texts")
        self._waiting: deque[Callable[[], Awaitable[None]]] = deque()
        self._more, self._step = asyncio.Event(), asyncio.Event()
        self._queued = self._done = 0
        self._chars_waiting = self._written = 0
        self._failing = False
        self._taught: OrderedDict[str, int] = OrderedDict()
        self._noted: OrderedDict[str, None] = OrderedDict()
        self._tasks: list[Kept] = []
        self.beside: list[Callable[[], None]] = []
        writer.listen(self.heard, ev.Forgotten, ev.Rewarded, ev.Compared)

    async def start(self) -> None:
        """Begin to write, without what was forgotten or has expired while nothing ran.

        Raises Unavailable where that cannot be deleted.
        """
        present = self._writer.world.pending.decisions
        # another replica's newest decisions may not be here yet
        before = self._writer.now() - _YOUNG_S if self._writer.shared else math.inf
        await self._run(partial(self._store.forget_unless, lambda id: id in present, before))
        await self._trim()
        self._queue(self._redaction.begin)  # so that the first text does not wait for it
        keep = self._writer.tasks.keep
        self._tasks = [keep("texts", self._work_forever), keep("old texts", self._trim_forever)]

    async def close(self) -> None:
        """Write what waits, for some seconds, and close the file."""
        await self._caught_up(_CLOSE_S)
        for task in self._tasks:
            await task.end()
        await self._redaction.close()
        await self.close_store()

    async def close_store(self) -> None:
        """Close the file alone, where nothing was begun."""
        await self._run(self._store.close)
        self._thread.shutdown()

    def note(self, decided: ev.Decided, question: str, answer: str | None = None) -> None:
        """Keep what was asked and answered."""
        whole = (question,) if answer is None or not self.answers else (question, answer)
        cut = any(len(text) > MAX_CHARS for text in whole)
        said = tuple(shortened(text, MAX_CHARS) for text in whole)
        chars = sum(map(len, said))
        if len(self._waiting) >= _MAX_WAITING or self._chars_waiting + chars > _MAX_CHARS_WAITING:
            self._counted("dropped")
            return
        self._chars_waiting += chars
        if self._writer.shared:
            self._noted[decided.id] = None
            if len(self._noted) > _MAX_NOTED:
                self._noted.popitem(last=False)
        self._queue(lambda: self._put(decided, said, cut))

    def heard(self, what: Resolved, world: World) -> None:
        """Note by which event a decision's query was remembered, and forget whom to forget."""
        event = what.event
        if isinstance(event, ev.Forgotten):
            self._drop()  # other texts may wait before it
            self._queue(lambda: self.forget(event.owner))
        elif (
            isinstance(event, ev.Rewarded | ev.Compared)
            and what.decided is not None
            and what.number * ITEMS_PER_EVENT in world.history.items
        ):
            id, number = what.decided.id, what.number
            self._taught[id] = number  # where its text comes later
            if len(self._taught) > _MAX_WAITING:
                self._taught.popitem(last=False)
            if self._writer.shared and id not in self._noted:
                return  # the replica that has the text says so
            if len(self._waiting) < 2 * _MAX_WAITING:  # else it is shown beside no other query
                self._queue(lambda: self._run(partial(self._store.remembered, id, number)))

    async def of(self, id: str) -> tuple[float, Text] | None:
        """The texts of a decision, and when they go; None if none are kept. Raises OtherKey."""
        await self._caught_up(_READ_S)
        found = await self._run(partial(self._store.get, id, self._since()))
        return None if found is None else (found[0] + self._chosen.ttl_s, found[1])

    async def has(self, id: str) -> bool:
        """Whether texts of a decision are kept, under a key that is there."""
        try:
            return await self.of(id) is not None
        except OtherKey:
            return False

    async def of_neighbours(self, ids: Sequence[int]) -> dict[int, Text]:
        """The texts of remembered queries, by their numbers in the history."""
        events = {id: id // ITEMS_PER_EVENT for id in ids}
        found = await self._run(
            partial(self._store.of_events, sorted(set(events.values())), self._since())
        )
        return {id: found[event] for id, event in events.items() if event in found}

    async def questions(self, most: int) -> list[KeptQuestion]:
        """The newest questions that are kept, oldest first."""
        await self._caught_up(_READ_S)
        return await self._run(partial(self._store.questions, most, self._since()))

    async def forget(self, owner: str) -> None:
        """Delete all texts of a unit, and what was made of them."""
        self._drop()
        await self._run(partial(self._store.forget, owner))

    def _drop(self) -> None:
        for drop in self.beside:
            drop()

    def _queue(self, work: Callable[[], Awaitable[None]]) -> None:
        self._waiting.append(work)
        self._queued += 1
        self._more.set()

    async def _caught_up(self, seconds: float) -> None:
        """Wait until all that was queued before is written, so long at most."""
        upto = self._queued
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._done < upto:
                    await self._step.wait()

    async def _work_forever(self) -> None:
        while True:
            while self._waiting:
                work = self._waiting.popleft()
                try:
                    await work()
                except Unavailable as error:
                    self._counted("failed")
                    if not self._failing:  # once, however long it lasts
                        _log.error("texts not written", extra={"why": error.message})
                    self._failing = True
                else:
                    self._failing = False
                finally:
                    self._done += 1
                    self._step.set()
                    self._step = asyncio.Event()
            self._more.clear()
            await self._more.wait()

    async def _trim_forever(self) -> None:
        """What is too old goes where nothing is asked any more, too."""
        while True:
            await asyncio.sleep(_TRIM_S)
            await self._trim()
            self._writer.tasks.well("old texts")

    async def _put(self, decided: ev.Decided, said: tuple[str, ...], cut: bool) -> None:
        self._chars_waiting -= sum(map(len, said))
        try:
            redacted = await self._redaction.of(*said)
        except NoAnswer as none:
            self._counted(str(none))
            return
        except ValueError:  # half a character
            self._counted("failed")
            return
        writer = self._writer
        under_way = writer.shared and writer.made_here(decided.id)  # not read back from the log yet
        if decided.id not in writer.world.pending.decisions and not under_way:
            self._counted("gone")
            return
        most = self._chosen.max_chars
        kept = [shortened(text, most) for text in redacted.texts]
        text = Text(
            question=kept[0],
            answer=kept[1] if len(kept) > 1 else None,
            redacted=redacted.places,
            cut=cut or any(len(text) > most for text in redacted.texts),
        )
        owner = ev.owner_of(decided.tenant, decided.unit)
        event = self._taught.get(decided.id)
        await self._run(partial(self._store.put, decided.id, decided.ts, owner, text, event))
        self._counted("stored")
        self._written += 1
        if self._written % _TRIM_EVERY == 0:
            await self._trim()

    async def _trim(self) -> None:
        await self._run(partial(self._store.trim, self._since(), self._chosen.max_rows))

    def _since(self) -> float:
        return self._writer.now() - self._chosen.ttl_s

    async def _run(self, work: Callable[[], T]) -> T:
        """Its result, from the thread. Raises Unavailable where the file does not let it."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"{self._store.name} cannot be used: {error}") from None


def shortened(text: str, most: int) -> str:
    """At most so many characters of it: its beginning and its end, where the last message is.

    >>> print(shortened("0123456789" * 2, 15))
    0123
    [...]
    6789
    """
    if len(text) <= most:
        return text
    end = max(0, most - len(_CUT)) // 2
    if not end:
        return text[:most]
    return text[: most - len(_CUT) - end] + _CUT + text[-end:]
