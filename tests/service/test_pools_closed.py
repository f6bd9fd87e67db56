"""A pool whose log cannot be opened: its neighbours are served, and it joins by itself."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from bandit_service import settings
from bandit_service.app import service
from bandit_service.app.pools import reload
from bandit_service.http.middleware import ROUTER
from bandit_service.http.pools import names_and_pools
from bandit_service.settings import BadSettings
from loadtest.ports import free_port
from loadtest.postgres import Postgres
from loadtest.relay import Relay, through
from tests.service.keyring import Keyring
from tests.service.running import Client, a_vector, prepare
from tests.service.test_pools import answer_to, pools


async def _state(root: Client, pool: str, state: str) -> dict[str, Any]:
    """The row of a pool, once it is in this state."""
    async with asyncio.timeout(60):
        while True:
            _, told = await root.get("/v1/pools")
            row: dict[str, Any] = next(each for each in told["pools"] if each["name"] == pool)
            if row["state"] == state:
                return row
            await asyncio.sleep(0.02)


async def _up(root: Client) -> str:
    async with root.session.get(f"{root.url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return " ".join(line.split()[1] for line in lines if line.startswith("bandit_pool_up{"))


async def test_a_pool_is_served_as_long_as_its_database_is_there(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    ring = Keyring(acme={"tenant": "acme"}, globex={"tenant": "globex"}, root={})
    relay = Relay(postgres.port, free_port())
    found = [
        {"name": "acme", "tenants": ["acme"]},
        {"name": "globex", "tenants": ["globex"], "engine": "postgres", "dsn_env": "THE_DSN",
         "log": str(tmp_path)[-60:]},
    ]  # fmt: skip
    environ = ring.environ | {
        "BANDIT_POOLS": json.dumps(found),
        "THE_DSN": through(postgres.dsn, [relay], [postgres.port]),
    }
    async with pools(tmp_path / "var", models, **environ) as (client, _):
        acme, globex, root = (client.by(ring[name]) for name in ("acme", "globex", "root"))

        # its database is away at the start: the others are served
        decided = await acme.decide()
        assert await acme.reward(decided["decision_id"], quality=0.5) == "accepted"
        row = await _state(root, "globex", "not ready")
        assert (row["engine"], row["tenants"]) == ("", ["globex"])
        assert "the database did not do it" in row["why"]
        assert await _up(root) == "1.0 1.0 0.0"

        # its tenant is told, on every way; nobody learns where the database is
        vector = {"embedding": a_vector(1)}
        named = {"x_bandit_pool": "globex"}
        for who, path, body, headers in (
            (globex, "/v1/decide", vector, {}),
            (globex, "/v1/rewards", {"session": "s", "quality": 1.0}, {}),
            (root, "/v1/decide", vector | {"tenant": "globex"}, {}),
            (root, "/v1/decide", vector, named),
            (globex, "/v1/chat/completions", {"model": "auto", "messages": []}, {}),
        ):
            status, told, _ = await answer_to(who, "POST", path, body, **headers)
            said = told["error"]["message"]
            assert status == 503, told
            assert "the pool 'globex' is closed" in said, told
            assert "127.0.0.1" not in said
        for who, shown in ((acme, False), (client, False), (root, True)):
            status, told = await who.get("/readyz")
            assert (status, told["status"]) == (200, "degraded")
            assert ("globex" in str(told)) is shown, told
        assert (await acme.get("/v1/pools"))[0] == 403
        for path, body in (
            ("/v1/rewards", vector | {"arm": "a", "quality": 1.0}),
            ("/v1/comparisons", vector | {"winner": "a", "loser": "b"}),
            ("/v1/decide", vector),
        ):
            status, told = await acme.post(path, body | {"tenant": "globex"})
            assert (status, "pool" in str(told)) == (403, False), told

        # it joins by itself, and no other is bothered when its database goes again
        async with relay.listening():
            await _state(root, "globex", "ready")
            assert await _up(root) == "1.0 1.0 1.0"
            first, second = [await globex.decide() for _ in range(2)]
            assert await globex.reward(first["decision_id"], quality=0.5) == "accepted"
        assert "cannot be reached" in (await _state(root, "globex", "degraded"))["why"]
        third = await globex.decide()
        for each in (second, third):
            asked = {"decision_id": each["decision_id"], "quality": 0.5}
            assert (await globex.post("/v1/rewards", asked))[0] == 503
        decided = await acme.decide()
        assert await acme.reward(decided["decision_id"], quality=0.5) == "accepted"
        async with relay.listening():
            await _state(root, "globex", "ready")
            for each in (second, third):
                assert await globex.reward(each["decision_id"], quality=0.5) == "accepted"


async def test_a_damaged_log_keeps_no_neighbour_from_its_tenants(
    tmp_path: Path, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "var"
    async with pools(data, models) as (client, _):
        made = await client.decide(tenant="acme")
    log = data / "pools" / "acme" / "events.sqlite3"
    whole = log.read_bytes()
    log.write_bytes(os.urandom(len(whole)))
    async with pools(data, models) as (client, apps):
        await client.decide(tenant="globex")
        asked = {"decision_id": made["decision_id"], "quality": 1.0}
        status, told = await client.post("/v1/rewards", asked)
        assert (status, told["error"]["param"]) == (503, "decision_id"), told
        assert "acme" not in told["error"]["message"]
        row = await _state(client, "acme", "not ready")
        assert "damaged" in row["why"]
        assert caplog.text.count("a pool is closed") == 1

        log.write_bytes(whole)  # what was repaired is read again at once by a SIGHUP
        assert await reload(apps["main"])
        await _state(client, "acme", "ready")
        assert await client.reward(made["decision_id"], quality=1.0) == "accepted"
        assert list(apps) == ["main", "globex", "acme"]

        # one that breaks is opened anew, as by a start
        before = apps["acme"][ROUTER]
        before.writer.broken.set_result("planted")
        async with asyncio.timeout(60):
            while "acme" not in apps or apps["acme"][ROUTER] is before:
                await asyncio.sleep(0.01)
        assert await client.reward(made["decision_id"], quality=1.0) == "duplicate"
        assert not apps["main"][ROUTER].writer.broken.done()
        told = [each.message for each in caplog.records if getattr(each, "why", "") == "planted"]
        assert told.count("a pool is closed") == 1


async def test_a_file_that_is_read_while_a_pool_is_closed_is_in_force_in_it(
    tmp_path: Path, models: Path
) -> None:
    data, config = tmp_path / "var", tmp_path / "bandit.toml"
    prepare(data, models)
    pool = "[[pools]]\nname = 'acme'\ntenants = ['acme']\n"
    arm = "[[arms]]\nid = '{}'\nusd_per_mtok_in = 1\nusd_per_mtok_out = 1\n"
    text = f"data_dir = {str(data)!r}\n[server]\nport = 0\n{pool}"
    config.write_text(text + arm.format("one"))
    stands_in_the_way = data / "pools" / "acme" / "events.sqlite3"
    stands_in_the_way.mkdir(parents=True)
    async with service.serving(settings.read(config)) as (_, running):
        apps = names_and_pools(running)
        assert list(apps) == ["main"]
        config.write_text(text + arm.format("two"))
        stands_in_the_way.rmdir()
        assert await reload(running)
        async with asyncio.timeout(60):
            while "acme" not in apps:
                await asyncio.sleep(0.01)
        assert [arm.spec.id for arm in apps["acme"][ROUTER].world.offered()] == ["two"]


async def test_a_wrong_setting_of_a_pool_is_refused_at_the_start(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    """Two addresses of one server, and the same log in it."""
    name = str(tmp_path)[-60:]
    found = [
        {"name": each, "tenants": [each], "engine": "postgres", "dsn_env": dsn, "log": name}
        for each, dsn in (("acme", "ONE_DSN"), ("globex", "OTHER_DSN"))
    ]
    relay = Relay(postgres.port)
    async with relay.listening():
        environ = {
            "BANDIT_POOLS": json.dumps(found),
            "ONE_DSN": postgres.dsn,
            "OTHER_DSN": through(postgres.dsn, [relay], [postgres.port]),
        }
        with pytest.raises(BadSettings, match="'globex' and 'acme' have one log"):
            async with pools(tmp_path / "var", models, **environ):
                pass
