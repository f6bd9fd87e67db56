"""Pools whose logs several processes share, in PostgreSQL and in NATS JetStream."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from bandit_service import cli
from bandit_service.core.pools import code_in, code_of
from bandit_service.http.frame import ROUTER
from loadtest.nats import NatsServers
from loadtest.postgres import Postgres
from tests.service.test_pools import pools
from tests.service.test_replicas import same, shared


async def test_two_replicas_share_the_logs_of_two_engines(
    tmp_path: Path, models: Path, postgres: Postgres, nats: NatsServers
) -> None:
    name = tmp_path.parent.name[-20:].replace("_", "-") + tmp_path.name[-20:].replace("_", "-")
    found = [
        {"name": "acme", "tenants": ["acme"], "log": f"acme {name}"},
        {
            "name": "globex",
            "tenants": ["globex"],
            "engine": "jetstream",
            "dsn_env": "NATS",
            "log": f"globex-{name}",
            "insecure_single": True,
        },
    ]
    environ = shared(tmp_path, postgres) | {
        "BANDIT_POOLS": json.dumps(found),
        "NATS": nats.address,
    }
    async with AsyncExitStack() as stack:
        (one, first), (other, second) = [
            await stack.enter_async_context(pools(tmp_path / f"r{i}", models, **environ))
            for i in range(2)
        ]
        for tenant in ("acme", "globex", ""):
            made = await one.decide(tenant=tenant)
            assert await other.reward(made["decision_id"], quality=0.5) == "accepted"
            assert await one.reward(made["decision_id"], quality=0.5) == "duplicate"
        for app in first:
            worlds = [apps[app][ROUTER].world for apps in (first, second)]
            await same(worlds)
            assert (worlds[0].decisions, worlds[0].rewards) == (1, 1)


async def test_the_log_of_a_pool_is_migrated(
    tmp_path: Path, models: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, pool = tmp_path / "var", {"name": "acme", "tenants": ["acme"]}
    monkeypatch.setenv("BANDIT_POOLS", json.dumps([pool]))
    async with pools(data, models, BANDIT_POOLS=json.dumps([pool])) as (client, apps):
        made = [await client.decide(tenant=tenant) for tenant in ("acme", "acme", "")]
        assert await client.reward(made[0]["decision_id"], quality=1.0) == "accepted"
        digest = apps["acme"][ROUTER].world.digest()
    moved = {**pool, "engine": "postgres", "dsn_env": "THE_DSN", "log": f"acme {tmp_path}"[-60:]}
    environ = {"THE_DSN": postgres.dsn, "BANDIT_POOLS": json.dumps([moved])}
    for name, value in (environ | {"BANDIT_DATA_DIR": str(data)}).items():
        monkeypatch.setenv(name, value)
    assert await asyncio.to_thread(cli.main, ["migrate", "--pool", "acme"]) == 0
    async with pools(data, models, **environ) as (client, apps):
        assert apps["acme"][ROUTER].world.digest() == digest
        told = [await client.reward(each["decision_id"], quality=1.0) for each in made]
        assert told == ["duplicate", "accepted", "accepted"]
        again = await client.decide(tenant="acme")
        assert code_in(again["decision_id"]) == code_of("acme")
