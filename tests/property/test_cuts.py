"""Wherever a fold is looked at, kept and gone on from, it comes to the same world, bit for bit.

Decisions that wait to be counted together, and those that stay encoded, must not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from bandit_service.core import events as ev
from bandit_service.core import snapshot
from bandit_service.core.apply import apply
from bandit_service.core.decide import decide
from bandit_service.core.exploration import Exploration
from bandit_service.core.query import Query, Recalled
from bandit_service.core.world import World, new_world
from policies import ArmId, Compared, Rewarded
from policies.epsilon_greedy import EpsilonGreedy

N = 60


@dataclass(frozen=True)
class InBlocks(EpsilonGreedy):
    """Learns many at once, but for a block with an outcome below 0.05, which it refuses."""

    blocks: ClassVar[list[int]] = []

    def learn_many(self, state: Any, events: Sequence[Rewarded | Compared]) -> Any:
        self.blocks.append(len(events))
        if any(isinstance(one, Rewarded) and (one.reward or 1.0) < 0.05 for one in events):
            raise ValueError("reward: too small")
        for event in events:
            state = self.learn(state, event)
        return state


POLICIES = {name: policies.load(name) for name in ("nested", "uniform", "epsilon_greedy")}


def _new(name: str) -> World:
    return new_world({name: POLICIES[name]}, name, 8)


def _events(name: str, seed: int) -> list[ev.AnyEvent]:
    """Arms that come and go, decisions of two units, and what may come back for them."""
    rng, world = np.random.default_rng(seed), _new(name)
    made: list[ev.AnyEvent] = []

    def put(event: ev.AnyEvent) -> None:
        made.append(event)
        apply(world, event)

    for id in "abc":
        spec = ev.ArmSpec(id=ArmId(id), usd_per_mtok_in=1.0, usd_per_mtok_out=2.0)
        put(ev.ArmAdded(ts=0.0, arm=spec, source="api"))
    for i in range(N):
        vector = np.eye(5, dtype=np.float32)[rng.integers(5)]
        query = Query(vector, 25, 0.1, unit=f"u{i % 2}")
        decided = decide(world, query, Recalled(), f"d{i:02d}", float(i), Exploration())
        put(decided)
        of = f"d{int(rng.integers(i + 1)):02d}"
        match int(rng.integers(8)):
            case 0:
                put(ev.ArmRetired(ts=float(i), id=ArmId("c"), source="api"))
            case 1:
                put(ev.DecisionsExpired(ts=float(i), ids=(of,), default_reward=0.0))
            case 2:
                put(ev.Compared(ts=float(i), decision_id=of, winner=ArmId("a"), loser=ArmId("b")))
            case 3 if i > N // 2:
                put(ev.Forgotten(ts=float(i), owner=ev.owner_of("", "u1")))
            case _:
                quality = float(rng.random())
                put(ev.Rewarded(ts=float(i), decision_id=of, quality=quality, reward=quality))
    return made


@pytest.mark.parametrize("name", sorted(POLICIES))
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.lists(st.tuples(st.integers(0, 2 * N), st.booleans()), max_size=6))
def test_cuts_leave_no_trace(name: str, seed: int, cuts: list[tuple[int, bool]]) -> None:
    events, at = _events(name, seed), dict(cuts)
    whole, cut = _new(name), _new(name)
    for i, event in enumerate(events):
        apply(whole, event)
        apply(cut, ev.decode(ev.encode(event)))
        if i not in at:
            continue
        if at[i]:
            kept = snapshot.read(snapshot.dump(cut))
            cut = snapshot.restore(kept, {name: POLICIES[name]}, name)
        else:
            cut.digest()
    assert cut.digest() == whole.digest()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(0, 2 * N), max_size=6))
def test_what_is_learned_in_blocks_is_what_is_learned_one_by_one(
    seed: int, cuts: list[int]
) -> None:
    events, name = _events("epsilon_greedy", seed), "epsilon_greedy"
    whole, cut = _new(name), new_world({name: InBlocks()}, name, 8)
    InBlocks.blocks.clear()
    with cut.in_blocks():
        for i, event in enumerate(events):
            apply(whole, event)
            apply(cut, event)
            if i in cuts:
                assert cut.digest() == whole.digest()
    assert cut.digest() == whole.digest()
    assert sum(InBlocks.blocks) > len(InBlocks.blocks), "nothing was learned together"
