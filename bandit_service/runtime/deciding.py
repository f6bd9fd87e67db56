"""Decides all queries of one turn of the loop together: one recall, one proposal, then a draw for
each.

Each decision is the same, bit for bit, as if it had been requested alone. An error of one is
reported only to its caller.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from msgspec.structs import replace

from bandit_service.core import events as ev
from bandit_service.core.batch_deciding import weigh_many
from bandit_service.core.decide import Lot, Weighed, drawn, lot_of, one_by_one, weigh
from bandit_service.core.query import Query, Recalled
from bandit_service.core.vector_bytes import FLOAT32, halves, of_halves
from bandit_service.runtime.group_commit import Done
from bandit_service.runtime.queries import Came
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.runtime.writer import Writer
from bandit_service.telemetry import tracing
from bandit_service.telemetry.telemetry import Telemetry
from policies import Vector
from store import HistoryIndex, Neighbours

_log = logging.getLogger("bandit.router")
MAX_TOGETHER = 64
"""The maximum number of decisions prepared together, which bounds their memory."""


class Asked(msgspec.Struct, gc=False):
    """A query to decide. look: gets what was weighed. drawn_at: the time of the draw."""

    query: Query
    look: Callable[[Weighed], None] | None = None
    span: tracing.Span | None = None
    drawn_at: float = 0.0


class Deciding:
    """Prepares the decisions of a turn for the writer. most: the maximum number at once.

    queries_of: the queries of requests that came with their embeddings.
    """

    def __init__(
        self,
        writer: Writer,
        index: HistoryIndex,
        telemetry: Telemetry,
        rules: RouterRules,
        queries_of: Callable[[Sequence[Came]], Sequence[Query | Exception]],
    ) -> None:
        self._queries_of = queries_of
        self.most = MAX_TOGETHER
        self._writer = writer
        self._index = index
        self._telemetry = telemetry
        self._rules = rules

    async def decide(
        self,
        query: Query,
        look: Callable[[Weighed], None] | None = None,
        patient: bool = False,
    ) -> ev.Decided:
        """Recall, propose, draw, append; `append` lasts until the whole batch is applied.

        patient: it may wait a little for others, to be decided together with them.
        """
        asked = Asked(query, look, tracing.current())
        done: asyncio.Future[ev.Decided] = asyncio.get_running_loop().create_future()
        self._writer.submit_among(self, asked, done, patient=patient)
        event = await done
        if asked.span is not None:
            asked.span.stage("append", asked.drawn_at, time.perf_counter())
            asked.span.set(tracing.decision(event))
        return event

    def submit(self, came: Came, done: Done, patient: bool = False) -> None:
        """`decide` on a request that is not read yet, without a span; calls `done`."""
        self._writer.submit_among(self, came, done, patient=patient)

    @property
    def alone(self) -> bool:
        """Whether each decision must be applied before the next is prepared."""
        return one_by_one(self._writer.world)

    def prepare(self, asked: Sequence[Asked | Came]) -> list[ev.AnyEvent | Exception]:
        """The decision on each, or the reason why there is none."""
        queries = iter(self._queries_of([one for one in asked if isinstance(one, Came)]))
        posed: list[Asked | Exception] = []
        for one in asked:
            query = next(queries) if isinstance(one, Came) else one
            posed.append(Asked(query) if isinstance(query, Query) else query)
        decided = iter(self._decided([one for one in posed if isinstance(one, Asked)]))
        return [one if isinstance(one, Exception) else next(decided) for one in posed]

    def _decided(self, asked: Sequence[Asked]) -> list[ev.AnyEvent | Exception]:
        if not asked:
            return []
        begun = time.perf_counter()
        near = self._recall_each(asked)
        recalled_at = time.perf_counter()
        weighed = self._weigh_each(asked, near)
        proposed_at = time.perf_counter()
        ts, seen = self._writer.now(), self._writer.seen
        made: list[ev.AnyEvent | Exception] = [
            lot if isinstance(lot, Exception) else self._drawn(lot, ts, seen) for lot in weighed
        ]
        drawn_at = time.perf_counter()
        decisions = 0
        for one, event in zip(asked, made, strict=True):
            if isinstance(event, Exception):
                continue
            decisions += 1
            one.drawn_at = drawn_at
            if one.span is not None:
                one.span.stage("recall", begun, recalled_at)
                one.span.stage("propose", recalled_at, proposed_at)
                one.span.stage("draw", proposed_at, drawn_at)
        n, stage = len(asked), self._telemetry.stage
        stage("recall", (recalled_at - begun) / n, decisions)
        stage("propose", (proposed_at - recalled_at) / n, decisions)
        stage("draw", (drawn_at - proposed_at) / n, decisions)
        return made

    def _weigh_each(
        self, asked: Sequence[Asked], near: Sequence[Recalled | Exception]
    ) -> list[Lot | Exception]:
        world, explore = self._writer.world, self._rules.explore
        pairs = [
            (one.query, found)
            for one, found in zip(asked, near, strict=True)
            if isinstance(found, Recalled) and one.look is None
        ]
        together = iter(weigh_many(world, pairs, explore))
        lots: list[Lot | Exception] = []
        for one, found in zip(asked, near, strict=True):
            if isinstance(found, Exception):
                lots.append(found)
            elif one.look is None:
                lots.append(next(together))
            else:
                try:
                    weighed = weigh(world, one.query, found, explore)
                    one.look(weighed)
                    lots.append(lot_of(one.query, found, weighed))
                except Exception as error:  # noqa: BLE001 - one query's trouble is not the others'
                    lots.append(error)
        return lots

    def _drawn(self, lot: Lot, ts: float, seen: int) -> ev.Decided | Exception:
        try:
            event = drawn(lot, self._writer.new_id(ts), ts, self._rules.explore)
            return replace(event, seen=seen) if seen else event
        except Exception as error:  # noqa: BLE001 - one query's trouble is not the others'
            return error

    def recall(self, embedding: Vector, coding: str = FLOAT32) -> Recalled:
        """The nearest past queries. coding: that of the event which will have them."""
        if not self._rules.neighbours or not len(self._index):
            return Recalled()
        return _recalled(self._index.recall(embedding, self._rules.neighbours), coding)

    def _recall_each(self, asked: Sequence[Asked]) -> list[Recalled | Exception]:
        if not self._rules.neighbours or not len(self._index):
            return [Recalled()] * len(asked)
        if len(asked) > 1:
            try:
                vectors = np.array([one.query.embedding for one in asked])
                recalled = self._index.recall_many(vectors, self._rules.neighbours)
                return [
                    _recalled(each, one.query.coding)
                    for one, each in zip(asked, recalled, strict=True)
                ]
            except Exception as error:  # noqa: BLE001 - whose fault it is shows one by one
                _log.warning("recalled one by one", extra={"why": type(error).__name__})
        found: list[Recalled | Exception] = []
        for one in asked:
            try:
                found.append(self.recall(one.query.embedding, one.query.coding))
            except Exception as error:  # noqa: BLE001 - one query's trouble is not the others'
                found.append(error)
        return found


def _recalled(found: Neighbours, coding: str) -> Recalled:
    near: tuple[float, ...] = tuple(found.similarities.tolist())
    if coding != FLOAT32:
        near = of_halves(halves(near))
    return Recalled(tuple(found.ids.tolist()), near)
