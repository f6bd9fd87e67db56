"""Experiments, routes and the hold-out where several services share one log."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import policies
from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.core.world import World
from loadtest.postgres import Postgres
from tests.service.provider import until
from tests.service.running import Client, Process, a_vector
from tests.service.test_experiments import CHEAP, DEAR, PATH, arms_of
from tests.service.test_replicas import patiently, replicas, same, shared


async def _keeps(clients: list[Client]) -> int:
    """The place of the keeper among these."""
    found: list[int] = []

    async def there() -> bool:
        _, told = await clients[0].get("/v1/replicas")
        found[:] = [row["slot"] for row in told["replicas"] if "keeper" in row["roles"]]
        return bool(found)

    await until(there)
    for i, client in enumerate(clients):
        if (await client.get("/v1/replicas"))[1]["this"] in found:
            return i
    raise AssertionError(found)


async def _started(client: Client) -> None:
    status, told = await client.post(f"{PATH}/start", {"why": "now"})
    assert (status, told.get("status")) in ((200, "running"), (202, "starting")), told

    async def running() -> bool:
        return bool((await client.get(PATH))[1]["status"] == "running")

    await until(running)


async def test_an_experiment_is_one_for_all_replicas(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    async with replicas(3, tmp_path, models, postgres) as found:
        clients, worlds = [one for one, _ in found], [world for _, world in found]
        keeper = await _keeps(clients)
        other, third = clients[(keeper + 1) % 3], clients[(keeper + 2) % 3]
        status, told = await other.call("PUT", PATH, arms_of())
        assert status == 201, told
        await same(worlds)
        await _started(third)
        await same(worlds)
        seen: dict[str, set[str]] = {}
        for i in range(36):
            decided = await clients[i % 3].decide(embedding=a_vector(i), unit=f"u{i % 12}")
            seen.setdefault(f"u{i % 12}", set()).add(decided["variant"])
            assert decided["arm"] == {"a": CHEAP, "b": DEAR}[decided["variant"]]
            assert await patiently(clients[(i + 1) % 3], decided["decision_id"], 0.5) == "accepted"
        assert {len(variants) for variants in seen.values()} == {1}
        await same(worlds)
        assert [sum(world.experiments.trials["e"].traffic().values()) for world in worlds] == [
            36
        ] * 3
        status, told = await other.post(f"{PATH}/stop", {"why": "enough", "winner": "b"})
        assert (status, told["winner"]) == (200, "b")
        await same(worlds)
        status, told = await third.post(f"{PATH}/stop", {"why": "too"})
        assert (status, told["error"]["code"]) == (409, "conflict")


async def test_variants_that_learn_and_shadows_are_the_same_everywhere(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    variants = [
        {"key": "now", "weight": 0.5},
        {"key": "own", "policy": "knn", "learning": "isolated", "weight": 0.5},
        {"key": "shade", "policy": "eagle", "shadow": True},
    ]
    async with replicas(2, tmp_path, models, postgres) as found:
        clients, worlds = [one for one, _ in found], [world for _, world in found]
        for i in range(4):
            id = (await clients[0].decide(embedding=a_vector(i)))["decision_id"]
            assert await patiently(clients[1], id, 1.0) == "accepted"
        status, told = await clients[1].call("PUT", PATH, {"variants": variants})
        assert status == 201, told
        await same(worlds)
        await _started(clients[0])
        for i in range(20):
            id = (await clients[i % 2].decide(embedding=a_vector(i), unit=f"u{i}"))["decision_id"]
            assert await patiently(clients[(i + 1) % 2], id, 0.5) == "accepted"

        async def all_seen() -> bool:
            return all(_shadowed(world) == 20 for world in worlds)

        await until(all_seen)
        await same(worlds)
        assert {"e/own", "e/shade"} <= set(worlds[0].learners)
        assert worlds[0].learners["e/own"].own == "e/own"


def _shadowed(world: World) -> int:
    return int(world.experiments.trials["e"].shadows["shade"].decisions)


async def test_a_hold_out_and_routes_are_configured_on_all(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    environ = {
        "BANDIT_EXPERIMENT_RULES_HOLDOUT_SHARE": "0.5",
        "BANDIT_EXPERIMENT_RULES_HOLDOUT_ARM": CHEAP,
        "BANDIT_ROUTES": json.dumps([{"id": "bot", "arms": [CHEAP, DEAR], "policy": "eagle"}]),
    }
    async with replicas(2, tmp_path, models, postgres, **environ) as found:
        clients, worlds = [one for one, _ in found], [world for _, world in found]
        held: dict[str, set[bool]] = {}
        for i in range(40):
            decided = await clients[i % 2].decide(
                embedding=a_vector(i), unit=f"u{i // 2}", explain=True
            )
            held.setdefault(f"u{i // 2}", set()).add(decided.get("experiment") == "holdout")
        assert set(map(frozenset, held.values())) == {frozenset({True}), frozenset({False})}
        for i in range(6):
            decided = await clients[i % 2].decide(embedding=a_vector(i), route="bot")
            assert decided["arm"] in (CHEAP, DEAR)
            id = decided["decision_id"]
            assert await patiently(clients[(i + 1) % 2], id, 1.0) == "accepted"
        await same(worlds)
        learned = codec.dump(worlds[0].learners[ev.label_of_route("bot")].state)
        assert learned != codec.dump(policies.load("eagle").init())
        status, told = await clients[0].call(
            "PUT", "/v1/experiment-rules", {"stopped": True, "why": "now"}
        )
        assert status == 200, told
        await same(worlds)
        decided = await clients[1].decide(embedding=a_vector(3), unit="u1", explain=True)
        assert decided["steps"] == ["stopped"]


@pytest.mark.long
async def test_another_keeper_steers_on_where_the_first_is_killed(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    environ = shared(tmp_path, postgres) | {
        "BANDIT_LOG_REPLICA_TTL_S": "2",
        "BANDIT_LOG_LEASE_TTL_S": "2",
        "BANDIT_EXPERIMENT_RULES_STEER_S": "0.1",
    }
    started = [Process(tmp_path / f"r{i}", models, **environ) for i in range(2)]
    urls = [await each.url() for each in started]
    async with aiohttp.ClientSession() as session:
        clients = [Client(session, url) for url in urls]
        keeper = await _keeps(clients)
        steps: list[dict[str, Any]] = [{"share": 0.5, "units": 5}, {"share": 1.0}]
        status, told = await clients[keeper].call("PUT", PATH, arms_of(ramp=steps))
        assert status == 201, told
        await _started(clients[keeper])
        started[keeper].kill()
        left = clients[1 - keeper]
        units = iter(range(10**6))

        async def ramped() -> bool:
            for _ in range(20):
                await left.decide(embedding=a_vector(1), unit=f"u{next(units)}")
            found = (await left.get(PATH))[1]["experiment"]
            return bool(found.get("share", 1.0) == 1.0)

        await until(ramped)
    assert await asyncio.to_thread(started[1 - keeper].stop) == 0
