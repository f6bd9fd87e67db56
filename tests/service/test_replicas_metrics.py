"""Named metrics, sessions, routes and resent decides where several services share one log."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp

from bandit_service.core import events as ev
from bandit_service.core.world import World
from loadtest.postgres import Postgres
from store import open_log
from tests.service.provider import until
from tests.service.running import Client, Process, a_vector, opened
from tests.service.test_replicas import replicas, same, shared

STARS = {"name": "stars", "low": 1, "high": 5}
CSAT = {"name": "csat", "low": 1, "high": 5, "scope": "session"}


def _configured(weight: float, **route: Any) -> dict[str, str]:
    metrics = [STARS, {"name": "resolved", "kind": "boolean", "weight": weight}, CSAT]
    routes = [{"id": "bot", "policy": "eagle"} | route]
    return {"BANDIT_METRICS": json.dumps(metrics), "BANDIT_ROUTES": json.dumps(routes)}


async def _rewarded(client: Client, **fields: Any) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            status, told = await client.post("/v1/rewards", fields)
            if status == 200:
                found: dict[str, Any] = told["results"][0]
                return found
            assert status == 503, told
            await asyncio.sleep(0.05)


async def _weighed(worlds: list[World]) -> None:
    async def all_are() -> bool:
        return not any(world.named.stale for world in worlds)

    await until(all_are)


def _qualities(world: World) -> set[float | None]:
    return {each.signals.get("quality") for each in world.pending.decisions.values()}


async def test_other_weights_of_one_that_starts_are_taught_once_and_alike(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    environ = _configured(1.0)
    async with replicas(3, tmp_path, models, postgres, **environ) as found:
        clients, worlds = [one for one, _ in found], [world for _, world in found]
        await _weighed(worlds)
        for i in range(12):
            id = (await clients[i % 3].decide(embedding=a_vector(i)))["decision_id"]
            metrics = {"stars": 5, "resolved": False}
            told = await _rewarded(clients[(i + 1) % 3], decision_id=id, metrics=metrics)
            assert told["status"] == "accepted"
        await same(worlds)
        assert _qualities(worlds[0]) == {0.5}
        late = shared(tmp_path, postgres) | _configured(3.0)
        async with opened(tmp_path / "late", models, **late) as (_, world):
            worlds = [*worlds, world]
            await _weighed(worlds)
            await same(worlds)
            assert [_qualities(each) for each in worlds] == [{0.25}] * 4
    log = open_log(tmp_path / "r0" / "events.sqlite3")
    try:
        events = [ev.decode(body) for _, body in log.replay()]
    finally:
        log.close()
    anew = [each for each in events if isinstance(each, ev.Rewarded) and not each.metrics]
    assert len({each.decision_id for each in anew}) == len(anew) == 12
    for kind, count in ((ev.MetricsChanged, 2), (ev.MetricsWeighed, 2), (ev.RouteChanged, 1)):
        assert sum(isinstance(each, kind) for each in events) == count


async def test_a_session_over_three_is_rewarded_once_whoever_is_told(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    async with replicas(3, tmp_path, models, postgres, **_configured(1.0)) as found:
        clients, worlds = [one for one, _ in found], [world for _, world in found]
        for i in range(4):
            name = f"s{i}"
            for j in range(3):
                await clients[j].decide(embedding=a_vector(j), session=name)
            said = {"session": name, "metrics": {"csat": 4}}
            told = await asyncio.gather(*(_rewarded(each, **said) for each in clients))
            assert sorted(one["status"] for one in told) == ["accepted", *["duplicate"] * 2]
            assert {one["credited"] for one in told} == {3}
            status, refused = await clients[i % 3].post("/v1/rewards", said | {"quality": 2})
            assert status == 400, refused
        other = {"session": "s0", "metrics": {"csat": 2}}
        assert (await clients[1].post("/v1/rewards", other))[0] == 409
        await same(worlds)
        assert worlds[0].rewards == 12
        assert _qualities(worlds[2]) == {0.75}
        status, told = await clients[0].post("/v1/rewards", {"session": "none", "quality": 1})
        assert (status, told["error"]["param"]) == (404, "session")


async def test_a_decide_resent_to_another_gets_the_decision_that_it_has(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    async with replicas(2, tmp_path, models, postgres) as found:
        clients, worlds = [one for one, _ in found], [world for _, world in found]
        first = await clients[0].decide(embedding=a_vector(1), idempotency_key="k")
        await _rewarded(clients[1], decision_id=first["decision_id"], quality=1)  # it is there
        again = await clients[1].decide(embedding=a_vector(1), idempotency_key="k")
        assert again["decision_id"] == first["decision_id"]
        both = await asyncio.gather(
            *(each.decide(embedding=a_vector(2), idempotency_key="both") for each in clients)
        )
        for made in both:  # one or two, and all of them may be rewarded
            assert (await _rewarded(clients[0], decision_id=made["decision_id"], quality=1))[
                "status"
            ] in ("accepted", "duplicate")
        await same(worlds)
        later = [
            await each.decide(embedding=a_vector(2), idempotency_key="both") for each in clients
        ]
        assert len({made["decision_id"] for made in later}) == 1


async def test_three_processes_that_start_at_once_write_what_is_configured_once(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    environ = shared(tmp_path, postgres) | _configured(1.0)
    started = [Process(tmp_path / f"p{i}", models, **environ) for i in range(3)]
    try:
        urls = [await each.url() for each in started]
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(aiohttp.ClientSession())
            clients = [Client(session, url) for url in urls]
            for i, client in enumerate(clients):
                made = await client.decide(embedding=a_vector(i), session="s", route="bot")
                assert made["policy"]
            started[0].kill()
            told = await _rewarded(clients[1], session="s", metrics={"csat": 5})
            assert told["status"] == "accepted"
            assert (await _rewarded(clients[2], session="s", metrics={"csat": 5}))[
                "status"
            ] == "duplicate"
    finally:
        for each in started:
            each.stop()
    log = open_log(tmp_path / "p1" / "events.sqlite3")
    try:
        events = [ev.decode(body) for _, body in log.replay()]
    finally:
        log.close()
    for kind in (ev.MetricsChanged, ev.RouteChanged, ev.PolicyChanged):
        assert sum(isinstance(each, kind) for each in events) == 1, kind
    added = [each.arm.id for each in events if isinstance(each, ev.ArmAdded)]
    assert len(added) == len(set(added))
