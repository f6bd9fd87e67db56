"""Decisions of one turn: prepared together, and each told of its own trouble alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.arm_record import ArmRecord
from bandit_service.core.decide import Lot, Pot, drawn
from bandit_service.core.experiments.assignment import Assigned
from bandit_service.core.exploration import Exploration
from bandit_service.core.query import Query, Recalled
from bandit_service.core.world import new_world
from bandit_service.runtime.deciding import Deciding
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.runtime.writer import Writer
from bandit_service.settings import HistorySettings, Settings
from bandit_service.telemetry.telemetry import Telemetry
from policies import ArmId, Arms, Contexts, Proposals
from policies.nested import Nested
from store import Neighbours
from store.history import ExactIndex
from store.memory import MemoryLog

DIM = 4


class _Index(ExactIndex):
    """Says how many it was asked for at once; a vector that begins with 9 is too much for it."""

    def __init__(self) -> None:
        super().__init__(DIM)
        self.asked: list[int] = []

    def recall(self, vector: Any, k: int) -> Neighbours:
        self.asked.append(1)
        if vector[0] == 9.0:
            raise RuntimeError("no such place")
        return super().recall(vector, k)

    def recall_many(self, vectors: Any, k: int) -> list[Neighbours]:
        self.asked.append(len(vectors))
        if (vectors[:, 0] == 9.0).any():
            raise RuntimeError("no such place")
        return super().recall_many(vectors, k)


class _Nested(Nested):
    """Says how many it was asked for at once."""

    def propose_many(self, state: Any, contexts: Contexts, arms: Arms) -> Proposals:
        ASKED.append(len(contexts))
        return super().propose_many(state, contexts, arms)


ASKED: list[int] = []


def _query(i: int, **more: Any) -> Query:
    vector = np.zeros(DIM, np.float32)
    vector[i % DIM] = 1.0
    return replace(Query(vector, 9, 0.1), **more)


def _deciding(log: MemoryLog) -> tuple[Deciding, Writer, _Index]:
    world = new_world({"nested": _Nested()}, "nested", 10)
    for arm in ("a", "b"):
        spec = ev.ArmSpec(id=ArmId(arm), usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
        world = apply(world, ev.ArmAdded(ts=1.0, arm=spec, source="api"))
    telemetry = Telemetry(pending=lambda: 0, remembered=lambda: 0)
    writer = Writer(world, log, telemetry, sync_interval_s=60.0, max_backlog=10)
    index = _Index()
    index.load(np.arange(3), np.eye(DIM, dtype=np.float32)[:3])
    ASKED.clear()
    rules = RouterRules.of(Settings(history=HistorySettings(neighbours=2)))
    return Deciding(writer, index, telemetry, rules, lambda _: []), writer, index


async def _all(deciding: Deciding, queries: Sequence[Query]) -> list[Any]:
    coming = (deciding.decide(query) for query in queries)
    return await asyncio.gather(*coming, return_exceptions=True)


async def test_decisions_of_a_turn_are_recalled_and_proposed_together() -> None:
    deciding, writer, index = _deciding(MemoryLog())
    made = await _all(deciding, [_query(i) for i in range(70)])
    assert [event.neighbours[0] for event in made[:3]] == [0, 1, 2]
    assert index.asked == ASKED == [64, 6]
    assert len(writer.world.pending.decisions) == 70
    await writer.close()


async def test_only_the_same_arms_are_proposed_together() -> None:
    deciding, writer, index = _deciding(MemoryLog())
    some = [_query(i, arms=(ArmId("a"),)) for i in range(3)]
    made = await _all(
        deciding, [*some, *(_query(i) for i in range(4)), _query(0, arms=(ArmId("b"),))]
    )
    assert [event.arms for event in made] == [("a",)] * 3 + [("a", "b")] * 4 + [("b",)]
    assert sorted(ASKED) == [1, 3, 4]  # who is alone is asked alone
    assert index.asked == [8]
    await writer.close()


@pytest.mark.parametrize("wrong", [9.0, np.nan])
async def test_what_goes_wrong_with_one_is_told_to_it_alone(wrong: float) -> None:
    deciding, writer, _ = _deciding(MemoryLog())
    bad = _query(1, embedding=np.array([wrong, 0, 0, 0], np.float32))
    queries = [_query(0), _query(1, arms=(ArmId("nobody"),)), bad, _query(2)]
    first, unknown, odd, last = await _all(deciding, queries)
    assert isinstance(first, ev.Decided)
    assert isinstance(last, ev.Decided)
    assert (first.fallback, last.fallback) == ("", "")
    assert str(unknown).startswith("arms: no arm 'nobody'")
    if wrong == 9.0:
        assert str(odd) == "no such place"
    else:
        assert odd.fallback == "propose: ValueError"
    again, _ = _deciding(MemoryLog())[:2]
    alone = await again.decide(_query(0))
    assert (first.scores, first.neighbours) == (alone.scores, alone.neighbours)
    await writer.close()


@pytest.mark.parametrize(
    ("query", "lot", "kept"),
    [
        ({"duel_of": "d"}, {}, {"duel_of": "d"}),
        ({"prompt": 7}, {}, {"prompt_tokens": 7}),
        ({"effort_asked": "low"}, {}, {"effort_asked": "low"}),
        ({"efforts": {"a": "low"}}, {}, {"effort": "low"}),
        ({"route": "r"}, {}, {"route": "r"}),
        ({"groups": ("g",)}, {}, {"groups": ("g",)}),
        ({"request_key": "k"}, {}, {"request_key": "k"}),
        ({"request_digest": "d"}, {}, {"request_digest": "d"}),
        ({"tags": ("t",), "unit": "u"}, {}, {"tags": ("t",), "unit": "u"}),
        ({}, {"steps": ("outside",)}, {"steps": ("outside",)}),
        ({}, {"excluded": {"b": "too dear"}}, {"excluded": {"b": "too dear"}}),
        ({}, {"switch_usd": (0.5,)}, {"switch_usd": (0.5,)}),
        (
            {},
            {"part": Assigned("e", "v", 0.5, "m")},
            {"experiment": "e", "variant": "v", "split": 0.5, "member": "m"},
        ),
    ],
)
def test_the_record_keeps_what_few_decisions_have(
    query: dict[str, Any], lot: dict[str, Any], kept: dict[str, Any]
) -> None:
    spec = ev.ArmSpec(id=ArmId("a"), usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
    pot = Pot([ArmRecord(spec, "api")], (spec.id,), [1.0], None, (), "nested", "")
    plain = Lot(_query(0), Recalled(), pot, b"", [1.0], [0.0], [0.1], None, None, "", None, (), {})
    usual = drawn(plain, "id", 1.0, Exploration())
    made = drawn(replace(plain, query=_query(0, **query), **lot), "id", 1.0, Exploration())
    assert made == replace(usual, **kept) != usual
