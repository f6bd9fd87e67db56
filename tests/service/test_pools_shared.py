"""Pools whose logs several processes share, in PostgreSQL and in NATS JetStream."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bandit_service import cli, settings
from bandit_service.app import log_move, service
from bandit_service.app import pools as app_pools
from bandit_service.app.assembly import open_snapshots
from bandit_service.app.sharing import begin_migration, end_migration, open_shared
from bandit_service.core.pools import code_in, code_of
from bandit_service.http.middleware import ROUTER
from bandit_service.http.pools import HOMES, names_and_pools
from bandit_service.runtime.shared import migrating
from loadtest.nats import NatsServers
from loadtest.postgres import Postgres
from store import StoreError, open_to_read
from tests.service.keyring import Keyring
from tests.service.provider import HELLO, a_provider
from tests.service.running import Client, Process, a_vector, prepare
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


_POOL = "[[pools]]\nname = 'acme'\ntenants = ['acme']\n"


def _files(
    tmp_path: Path, engine: Postgres | NatsServers, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, str, str]:
    """The service's file as it is before a move, its text, and the text of after it."""
    of_nats = isinstance(engine, NatsServers)
    monkeypatch.setenv("THE_DSN", shared(tmp_path, engine)["THE_DSN"])
    before = f"data_dir = {str(tmp_path / 'var')!r}\n[server]\nport = 0\n{_POOL}"
    kind = "'jetstream'\ninsecure_single = true" if of_nats else "'postgres'"
    name = _log_of(tmp_path)
    config = tmp_path / "bandit.toml"
    config.write_text(before)
    return config, before, f"{before}engine = {kind}\ndsn_env = 'THE_DSN'\nlog = {name!r}\n"


def _log_of(tmp_path: Path) -> str:
    """A name that both engines take, of this test."""
    return "".join(each if each.isalnum() else "-" for each in str(tmp_path)[-50:])


async def _moved(client: Client, *, ends: str = "moved") -> dict[str, Any]:
    """The pool's row once its move has ended."""
    async with asyncio.timeout(120):
        while True:
            row: dict[str, Any] = (await client.get("/v1/pools"))[1]["pools"][1]
            if row["moving"].startswith(("moved", "failed")):
                assert row["moving"].startswith(ends), row
                return row
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("engine", ["postgres", "nats"])
async def test_a_pool_moves_while_it_serves(
    engine: str,
    tmp_path: Path,
    models: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Calls go on: none is refused, and what was acknowledged is in the other log."""
    prepare(tmp_path / "var", models)
    config, _, after = _files(tmp_path, request.getfixturevalue(engine), monkeypatch)
    moved, made = asyncio.Event(), list[str]()

    async def calls(client: Client) -> None:
        while not moved.is_set():
            decided = await client.decide(tenant="acme")
            assert await client.reward(decided["decision_id"], quality=0.5) == "accepted"
            made.append(decided["decision_id"])

    async with (
        service.serving(settings.read(config)) as (url, running),
        aiohttp.ClientSession() as session,
    ):
        client = Client(session, url)
        for pool in ("acme", "main", "acmee"):  # the file has the log where it is
            status, told = await client.post(f"/v1/pools/{pool}/move", None)
            assert (status, told["error"]["param"]) == (400, "name"), told
        config.write_text(after)
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(calls(client))
            while len(made) < 20:
                await asyncio.sleep(0.01)
            status, told = await client.post("/v1/pools/acme/move", None)
            assert status == 202, told
            assert (await client.post("/v1/pools/acme/move", None))[0] == 409
            row = await _moved(client)
            moved.set()
        kind = "jetstream" if engine == "nats" else "postgres"
        assert (row["engine"], row["state"]) == (kind, "ready")
        for id in made:
            assert await client.reward(id, quality=0.5) == "duplicate"
        world = names_and_pools(running)["acme"][ROUTER].world
        assert (world.decisions, world.rewards) == (len(made), len(made))
        log = open_shared(settings.others_of(settings.read(config))[0])
        assert log is not None
        await log.connect()
        assert (await log.state()).head == world.events
        await log.close()
    assert not (tmp_path / "var" / "pools" / "acme" / "moving.json").exists()


async def test_a_move_that_fails_leaves_the_log_where_it_was(
    tmp_path: Path,
    models: Path,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prepare(tmp_path / "var", models)
    config, _, after = _files(tmp_path, postgres, monkeypatch)
    async with (
        service.serving(settings.read(config)) as (url, _),
        aiohttp.ClientSession() as session,
    ):
        client = Client(session, url)
        made = await client.decide(tenant="acme")
        config.write_text(after)

        async def breaks(*_: object) -> int:
            raise StoreError("the database went away")

        with monkeypatch.context() as patched:
            patched.setattr(app_pools, "end_migration", breaks)
            await client.post("/v1/pools/acme/move", None)
            row = await _moved(client, ends="failed: the database went away")
        assert (row["engine"], row["state"]) == ("sqlite", "ready")
        assert await client.reward(made["decision_id"], quality=0.5) == "accepted"
        told = await asyncio.to_thread(cli.main, ["pools", "--url", url, "--move", "acme"])
        assert (told, capsys.readouterr().out.split(";")[0]) == (0, "acme: moved")
        assert await asyncio.to_thread(cli.main, ["pools", "--url", url]) == 0
        table = capsys.readouterr().out
        assert re.search(r"^acme +ready +- +postgres:.* acme$", table, re.MULTILINE), table
        assert "acme: move: moved\n" in table
        assert await client.reward(made["decision_id"], quality=0.5) == "duplicate"


@pytest.mark.parametrize("closed", [False, True])
async def test_a_file_that_is_read_in_a_move_is_in_force_after_it(
    closed: bool,
    tmp_path: Path,
    models: Path,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    prepare(tmp_path / "var", models)
    config, _, after = _files(tmp_path, postgres, monkeypatch)
    begun, ended = begin_migration, end_migration
    arm = "[[arms]]\nid = '{}'\nusd_per_mtok_in = 1\nusd_per_mtok_out = 1\n"
    reloads = list[asyncio.Task[bool]]()
    async with (
        service.serving(settings.read(config)) as (url, running),
        aiohttp.ClientSession() as session,
    ):

        def offered() -> list[str]:
            app = names_and_pools(running)["acme"]
            return [arm.spec.id for arm in app[ROUTER].world.offered()]

        async def first(*args: Any) -> Any:  # while the pool serves
            if not closed:
                config.write_text(after + arm.format("one"))
                reloads.append(asyncio.create_task(app_pools.reload(running)))
                await reloads[0]
                assert offered() == ["one"]
            return await begun(*args)

        async def second(*args: Any) -> Any:  # while it is closed
            if closed:
                config.write_text(after + arm.format("one"))
                reloads.append(asyncio.create_task(app_pools.reload(running)))
            return await ended(*args)

        monkeypatch.setattr(app_pools, "begin_migration", first)
        monkeypatch.setattr(app_pools, "end_migration", second)
        config.write_text(after)
        client = Client(session, url)
        await client.post("/v1/pools/acme/move", None)
        await _moved(client)
        assert await reloads[0]
        assert offered() == ["one"]
        caplog.clear()
        assert await app_pools.reload(running)
        assert "these take a restart" not in caplog.text


async def test_a_pool_that_cannot_be_opened_after_a_move_is_closed_until_it_can(
    tmp_path: Path, models: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path / "var", models)
    config, _, after = _files(tmp_path, postgres, monkeypatch)
    async with (
        service.serving(settings.read(config)) as (url, _),
        aiohttp.ClientSession() as session,
    ):
        client = Client(session, url)
        made = await client.decide(tenant="acme")
        config.write_text(after)

        async def breaks(*_: object) -> None:
            raise StoreError("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(app_pools.OpenPools, "open", breaks)
            await client.post("/v1/pools/acme/move", None)
            async with asyncio.timeout(60):
                while (row := (await client.get("/v1/pools"))[1]["pools"][1])["engine"]:
                    await asyncio.sleep(0.01)
            assert (row["state"], row["why"]) == ("not ready", "the disk is full")
            status, told = await client.post("/v1/pools/acme/move", None)
            assert status == 409, told
            await client.decide(tenant="globex")
        async with asyncio.timeout(60):
            while (await client.get("/v1/pools"))[1]["pools"][1]["state"] != "ready":
                await asyncio.sleep(0.01)
        assert await client.reward(made["decision_id"], quality=0.5) == "accepted"


async def test_a_start_finishes_a_move_that_was_killed(
    tmp_path: Path, models: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process is killed in its copying, and the next one before it opened the log there."""
    data = tmp_path / "var"
    config, _, after = _files(tmp_path, postgres, monkeypatch)
    process = Process(data, models, config=str(config))
    async with aiohttp.ClientSession() as session:
        client = Client(session, await process.url())
        made = [await client.decide(tenant="acme") for _ in range(20)]
        for each in made[:10]:
            assert await client.reward(each["decision_id"], quality=0.5) == "accepted"
        config.write_text(after)
        assert (await client.post("/v1/pools/acme/move", None))[0] == 202
        process.kill()
        # the next one is killed when a part of it is there
        (wanted,) = settings.others_of(settings.read(config))
        log, shared = open_to_read(data / "pools" / "acme" / "events.sqlite3"), open_shared(wanted)
        assert shared is not None
        migration = await begin_migration(shared, log, open_snapshots(wanted), wanted)
        monkeypatch.setattr(migrating, "_AT_ONCE", 7)
        with pytest.raises(StoreError, match="planted"):
            await migration.copy(log, _fails)
        await shared.close()
        log.close()

        async with service.serving(settings.read(config)) as (url, running):
            client = Client(session, url)
            told = [await client.reward(each["decision_id"], quality=0.5) for each in made]
            assert told == ["duplicate"] * 10 + ["accepted"] * 10
            assert names_and_pools(running)["acme"][ROUTER].world.decisions == 20
    assert not (data / "pools" / "acme" / log_move.NOTE).exists()


def _fails(*_: object) -> None:
    raise StoreError("planted")


async def test_a_request_that_the_pool_has_already_keeps_it_until_its_end(
    tmp_path: Path, models: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a build of before, it waited for the move, and the move for it."""
    prepare(tmp_path / "var", models)
    config, before, after = _files(tmp_path, postgres, monkeypatch)
    ring = Keyring(acme={"tenant": "acme"}, root={"scopes": ["admin", "read"]})
    keys = "".join(
        f"[[keys]]\nid = {each['id']!r}\nhash = {each['hash']!r}\nscopes = {each['scopes']}\n"
        f"tenant = {each.get('tenant', '')!r}\n"
        for each in ring.tables
    )
    # its end would be waited for this long
    config.write_text(before.replace("port = 0\n", "port = 0\nshutdown_s = 600\n") + keys)
    async with (
        service.serving(settings.read(config)) as (url, running),
        aiohttp.ClientSession() as session,
    ):
        acme, root = (Client(session, url, ring[name]) for name in ("acme", "root"))
        reached, go = asyncio.Event(), asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            body = json.dumps({"embedding": a_vector(1)}).encode()
            yield body[:10]
            reached.set()
            await go.wait()
            yield body[10:]

        async def slow() -> int:
            path = f"{url}/v1/decide"
            async with session.post(path, data=slowly(), headers=acme.headers) as answer:
                return answer.status

        asked = asyncio.create_task(slow())
        await reached.wait()
        config.write_text(after.replace("port = 0\n", "port = 0\nshutdown_s = 600\n") + keys)
        assert (await root.post("/v1/pools/acme/move", None))[0] == 202
        homes = running[HOMES]
        async with asyncio.timeout(120):
            while not homes.held:
                await asyncio.sleep(0.01)
        late = asyncio.create_task(acme.decide())
        go.set()
        assert await asked == 200
        await _moved(root)
        await late
        world = names_and_pools(running)["acme"][ROUTER].world
        async with asyncio.timeout(60):
            while world.decisions < 2:  # the newest is on its way through the database
                await asyncio.sleep(0.01)


async def test_short_requests_are_answered_while_a_move_waits_for_a_provider(
    tmp_path: Path, models: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path / "var", models)
    config, before, after = _files(tmp_path, postgres, monkeypatch)
    async with a_provider() as provider:
        provider.behaviour["a"] = "endless"
        more = (
            f"[[upstreams]]\nid = 'p'\nbase_url = {provider.url!r}\n"
            "[[arms]]\nid = 'a'\nupstream = 'p'\nusd_per_mtok_in = 1\nusd_per_mtok_out = 1\n"
        )
        config.write_text(before.replace("port = 0\n", "port = 0\nshutdown_s = 600\n") + more)
        async with (
            service.serving(settings.read(config)) as (url, running),
            aiohttp.ClientSession() as session,
        ):
            client = Client(session, url)

            async def streamed() -> str:
                asked = {"model": "auto", "messages": HELLO, "stream": True}
                path, headers = f"{url}/v1/chat/completions", {"x-tenant": "acme"}
                async with session.post(path, json=asked, headers=headers) as answer:
                    return await answer.text()

            first = asyncio.create_task(streamed())
            await _until(lambda: len(provider.seen) == 1)
            config.write_text(after.replace("port = 0\n", "port = 0\nshutdown_s = 600\n") + more)
            assert (await client.post("/v1/pools/acme/move", None))[0] == 202
            await _until(lambda: bool(running[HOMES].held))
            late = asyncio.create_task(streamed())
            for i in range(3):
                decided = await client.decide(tenant="acme", embedding=a_vector(i))
                assert await client.reward(decided["decision_id"], quality=0.5) == "accepted"
            assert (first.done(), late.done(), len(provider.seen)) == (False, False, 1)
            provider.finish.set()
            assert "[DONE]" in await first
            await _moved(client)
            assert "[DONE]" in await late
            world = names_and_pools(running)["acme"][ROUTER].world
            await _until(lambda: world.decisions == 5)


async def _until(there: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not there():
            await asyncio.sleep(0.01)
