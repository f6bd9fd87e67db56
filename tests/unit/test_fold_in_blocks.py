"""What a fold puts off, to learn it at once, and what becomes of it where the machine fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.decide import decide
from bandit_service.core.exploration import Exploration
from bandit_service.core.query import Query, Recalled
from bandit_service.core.world import World, new_world
from bandit_service.runtime import recovery
from bandit_service.settings import PolicySettings
from policies import ArmId, Compared, Rewarded
from policies.epsilon_greedy import EpsilonGreedy
from store import Record
from store.memory import MemoryLog


@dataclass(frozen=True)
class Starved(EpsilonGreedy):
    """Learns many at once, for which there is no memory."""

    def learn_many(self, state: Any, events: Sequence[Rewarded | Compared]) -> Any:
        raise MemoryError


def _world() -> World:
    return new_world({"own": Starved()}, "own", 10)


def _events() -> list[ev.AnyEvent]:
    """Two arms, and one decision with its outcome."""
    specs = [ev.ArmSpec(id=ArmId(id), usd_per_mtok_in=1.0, usd_per_mtok_out=1.0) for id in "ab"]
    arms = [ev.ArmAdded(ts=0.0, arm=spec, source="api") for spec in specs]
    world = _world()
    for arm in arms:
        apply(world, arm)
    query = Query(np.eye(4, dtype=np.float32)[0], 25, 0.1)
    decided = decide(world, query, Recalled(), "d", 1.0, Exploration())
    return [*arms, decided, ev.Rewarded(ts=2.0, decision_id="d", quality=0.5, reward=0.5)]


def test_no_memory_for_the_last_lessons_is_told_as_for_any_other() -> None:
    log = MemoryLog()
    for i, event in enumerate(_events()):
        log.append([Record(f"{i:026d}", ev.kind(event), event.ts, ev.encode(event))])
    start = recovery.Recovered(_world(), PolicySettings("own"))
    with pytest.raises(recovery.NotApplied, match=r"events up to offset 4 .*MemoryError.*memory"):
        recovery._folded(log, start, None)


def test_an_error_that_ends_a_fold_is_not_hidden_by_what_waited() -> None:
    def broken(world: World) -> None:
        with world.in_blocks():
            for event in _events():
                apply(world, event)
            raise ValueError("the cause")

    with pytest.raises(ValueError, match="the cause"):
        broken(_world())
