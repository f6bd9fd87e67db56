"""Policies that learn beside the serving one, where several services share a log."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.learner import Learner, beside
from bandit_service.core.world import World, new_world
from bandit_service.runtime import standby
from loadtest.postgres import Postgres
from policies import load
from store.sqlite import SqliteLog
from tests.service.folding_here import fold_here
from tests.service.running import Client, a_vector, opened
from tests.service.test_replicas import patiently, same, shared

EAGLE = {"BANDIT_POLICIES": json.dumps([{"name": "eagle"}])}


async def _lived(clients: list[Client], first: int, last: int, policy: str = "") -> None:
    named = {"policy": policy} if policy else {}
    for i in range(first, last):
        decided = await clients[i % len(clients)].decide(embedding=a_vector(i), **named)
        assert decided["policy"] == (policy or "nested")
        id = decided["decision_id"]
        assert await patiently(clients[(i + 1) % len(clients)], id, i % 3 / 2) == "accepted"


async def _learns(worlds: list[World]) -> None:
    async with asyncio.timeout(60):
        while not all(beside("eagle") in world.learners for world in worlds):
            await asyncio.sleep(0.02)


def _sha256(learner: Learner) -> str:
    return codec.sha256(codec.dump(learner.state))


def _from_the_first(data: Path, upto: int) -> str:
    log, world = (
        SqliteLog(data / "events.sqlite3"),
        new_world({"eagle": load("eagle")}, "eagle", 99),
    )
    for at, body in log.replay():
        if at <= upto:
            world = apply(world, ev.decode(body))
    log.close()
    return _sha256(world.learners["eagle"])


async def test_all_replicas_have_the_policy_that_the_keeper_trained(
    tmp_path: Path, models: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold_here(monkeypatch)
    monkeypatch.setattr(standby, "_LOOK_S", 0.02)
    whole = shared(tmp_path, postgres)
    async with opened(tmp_path / "r0", models, **whole) as (one, _):
        await _lived([one], 0, 6)
    async with AsyncExitStack() as stack:
        found = [
            await stack.enter_async_context(opened(tmp_path / name, models, **(whole | EAGLE)))
            for name in ("r0", "r1")
        ]
        clients, worlds = [client for client, _ in found], [world for _, world in found]
        await _learns(worlds)
        await same(worlds)
        known, upto = _sha256(worlds[1].learners[beside("eagle")]), worlds[1].events
        await _lived(clients, 6, 10)
        await _lived(clients, 10, 14, "eagle")
        digest = await same(worlds)
        late = await stack.enter_async_context(opened(tmp_path / "late", models, **(whole | EAGLE)))
        assert late[1].digest() == digest
        await _lived([late[0], *clients], 14, 17, "eagle")
        await same([*worlds, late[1]])
        assert [each.counts for each in (*worlds,)] == [late[1].counts] * 2
    # nobody wrote meanwhile: it knew what a policy knows that was there from the first event
    assert known == _from_the_first(tmp_path / "r0", upto)
    # it leaves with the configuration, once; and comes again for all of them
    async with AsyncExitStack() as stack:
        _, first = await stack.enter_async_context(opened(tmp_path / "r0", models, **whole))
        assert beside("eagle") not in first.learners
        _, second = await stack.enter_async_context(
            opened(tmp_path / "r1", models, **(whole | EAGLE))
        )
        assert await same([first, second])
