"""`PUT /v1/policy` where several services share one log: all switch at one offset."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bandit_service.core.world import World
from bandit_service.runtime.shared.membership import SharedMembership
from loadtest.postgres import Postgres
from store import Replica
from tests.service.provider import until
from tests.service.running import Client, a_vector, opened
from tests.service.test_replicas import patiently, replicas, same, shared


async def _lived(clients: list[Client], first: int, last: int) -> None:
    n = len(clients)
    for i in range(first, last):
        id = (await clients[i % n].decide(embedding=a_vector(i)))["decision_id"]
        assert await patiently(clients[(i + 1) % n], id, i % 3 / 2) == "accepted"


async def _serve(worlds: list[World], name: str) -> None:
    async def there() -> bool:
        return all(world.serving == name for world in worlds)

    await until(there)


async def test_all_replicas_change_their_policy_at_one_offset(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    environ = {"BANDIT_LOG_DIGEST_EVERY": "1"}
    async with replicas(2, tmp_path, models, postgres, **environ) as found:
        clients, worlds = [one for one, _ in found], [world for _, world in found]
        await _lived(clients, 0, 8)
        wanted = {"name": "knn", "parameters": {"neighbours": 3}}
        status, told = await clients[0].call("PUT", "/v1/policy", wanted)
        assert status == 202, told
        status, told = await clients[0].call("PUT", "/v1/policy", {"name": "uniform"})
        assert (status, told["error"]["code"]) == (409, "conflict")
        i = 8
        while not all(world.serving == "knn" for world in worlds):
            await _lived(clients, i, i + 4)
            i += 4
        await _lived(clients, i, i + 4)
        digest = await same(worlds)
        assert {world.policy.name for world in worlds} == {"knn"}
        assert not worlds[0].building
        for client in clients:
            assert (await client.decide(embedding=a_vector(1)))["policy"] == "knn"
            assert {row["differs"] for row in await _rows(client)} <= {False, None}
            _, told = await client.get("/v1/policies")
            assert told["serving"]["name"] == "knn"
            assert "folding" not in told
        # one that joins now folds for it, though it is configured for another
        whole = shared(tmp_path, postgres) | environ
        async with opened(tmp_path / "late", models, **whole) as (late, world):
            assert world.serving == "knn"
            await same([*worlds, world])
            await _lived([*clients, late], 1000, 1006)
            assert await same([*worlds, world]) != digest


async def _rows(client: Client) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = (await client.get("/v1/replicas"))[1]["replicas"]
    return rows


async def test_a_replica_that_joins_while_it_is_folded_is_waited_for(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    async with replicas(1, tmp_path, models, postgres) as [(one, first)]:
        await _lived([one], 0, 6)
        status, told = await one.call("PUT", "/v1/policy", {"name": "eagle"})
        assert status == 202, told
        other_path = tmp_path / "other"
        async with opened(other_path, models, **shared(tmp_path, postgres)) as (other, second):
            await _serve([first, second], "eagle")
            await _lived([one, other], 6, 10)
            await same([first, second])


async def test_what_cannot_be_folded_changes_nothing(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    async with replicas(2, tmp_path, models, postgres) as found:
        (one, _), (other, _) = found
        for body, code in (
            ({"name": "nosuch"}, "invalid_value"),
            ({"name": "knn", "parameters": {"neighbours": -1}}, "invalid_value"),
        ):
            status, told = await other.call("PUT", "/v1/policy", body)
            assert (status, told["error"]["code"]) == (400, code), told
        await one.decide()
        await asyncio.wait_for(same([world for _, world in found]), 60)
        assert not any(world.building for _, world in found)


async def test_a_replica_that_has_not_got_it_goes_no_further_until_it_has(
    tmp_path: Path, models: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with replicas(2, tmp_path, models, postgres) as found:
        clients, worlds = [one for one, _ in found], [world for _, world in found]
        await _lived(clients, 0, 8)

        async def nobody(_: SharedMembership) -> list[Replica]:
            return []

        # so that the keeper switches as soon as it is announced
        monkeypatch.setattr(SharedMembership, "replicas", nobody)
        status, told = await clients[0].call("PUT", "/v1/policy", {"name": "eagle"})
        assert status == 202, told
        await _serve(worlds, "eagle")
        await _lived(clients, 8, 12)
        await same(worlds)
        assert {world.learners.serving_key for world in worlds} == {worlds[0].policy.key}
        for client in clients:
            assert (await client.get("/readyz"))[1]["status"] == "ready"
