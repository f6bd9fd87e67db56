"""Several logs in one process: each call finds its tenant's log, by key, name or decision."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from bandit_service import settings
from bandit_service.app import service
from bandit_service.app.pools import reload
from bandit_service.clock import Ids, now
from bandit_service.core import events as ev
from bandit_service.core.pools import code_in, code_of
from bandit_service.core.world import World
from bandit_service.http.middleware import ROUTER
from bandit_service.http.pools import HOMES, Hold, names_and_pools
from store.sqlite import SqliteLog
from tests.service.keyring import Keyring
from tests.service.provider import HELLO, a_gateway
from tests.service.running import Client, Process, a_vector, prepare, serving

POOLS = [
    {"name": "acme", "tenants": ["acme", "acme-*"]},
    {"name": "globex", "tenants": ["globex"]},
]
WITH_POOLS = {"BANDIT_POOLS": json.dumps(POOLS)}


@asynccontextmanager
async def pools(
    data: Path, models: Path, **environ: str
) -> AsyncIterator[tuple[Client, Mapping[str, web.Application]]]:
    """A service with these pools, and the application of each."""
    prepare(data, models)
    given = {"BANDIT_DATA_DIR": str(data), "BANDIT_SERVER_PORT": "0", **WITH_POOLS, **environ}
    chosen = settings.read(None, given)
    async with service.serving(chosen) as (url, running), aiohttp.ClientSession() as session:
        yield Client(session, url), names_and_pools(running)


def _decided(apps: Mapping[str, web.Application]) -> dict[str, int]:
    return {name: app[ROUTER].world.decisions for name, app in apps.items()}


def _world(apps: Mapping[str, web.Application], name: str) -> World:
    return apps[name][ROUTER].world


async def answer_to(
    client: Client, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, Any, Mapping[str, str]]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()} | client.headers
    async with client.session.request(
        method, client.url + path, json=body, headers=sent
    ) as response:
        return response.status, await response.json(), response.headers


async def test_the_level_of_the_logs_is_that_of_the_default_pool(
    tmp_path: Path, models: Path
) -> None:
    def level() -> int:
        return logging.getLogger("bandit").level

    async with pools(tmp_path / "var", models) as (client, _):

        async def put(pool: str, value: str) -> int:
            body = {"settings": [{"name": "log_level", "value": value}]}
            sent = {"x-bandit-pool": pool, "If-Match": "*"}
            status, _, _ = await answer_to(client, "PUT", "/v1/configuration", body, **sent)
            return status

        before = level()
        assert await put("acme", "debug") == 400
        assert level() == before
        assert await put("main", "error") == 200
        assert level() == logging.ERROR
        assert await put("main", "info") == 200


async def test_a_call_finds_the_log_of_its_tenant(tmp_path: Path, models: Path) -> None:
    ring = Keyring(acme={"tenant": "acme-eu"}, any={}, root={"scopes": ["admin", "read"]})
    async with pools(tmp_path / "var", models, **ring.environ) as (client, apps):
        acme, anyone, root = (client.by(ring[name]) for name in ("acme", "any", "root"))

        # the key says the tenant, or the body does, or nobody: with an embedding and with a text
        first = await acme.decide()
        by_name = await anyone.decide(tenant="globex")
        by_text = await anyone.decide(tenant="globex", query="What is 17 * 23?")
        of_none = await anyone.decide()
        assert _decided(apps) == {"main": 1, "acme": 1, "globex": 2}
        for name, made in (("acme", first), ("globex", by_name), ("main", of_none)):
            assert code_in(made["decision_id"]) == code_of(name)
            assert made["decision_id"] in _world(apps, name).pending.decisions

        # an outcome finds its log by the decision alone, also in a list over all of them
        status, body = await anyone.post(
            "/v1/rewards",
            [
                {"decision_id": each["decision_id"], "quality": 0.5}
                for each in (first, by_name, of_none)
            ],
        )
        assert [each["status"] for each in body["results"]] == ["accepted"] * 3, (status, body)
        assert {name: _world(apps, name).rewards for name in apps} == dict.fromkeys(apps, 1)
        status, body = await anyone.get(f"/v1/decisions/{by_text['decision_id']}")
        assert (status, body["tenant"]) == (200, "globex")

        # one tenant learns nothing of another, whatever pool it names
        assert (await acme.get(f"/v1/decisions/{by_name['decision_id']}"))[0] == 404
        status, body, _ = await answer_to(acme, "GET", "/v1/decisions", x_bandit_pool="globex")
        assert (status, body["error"]["param"]) == (403, "x-bandit-pool")
        status, body = await acme.post("/v1/decide", {"embedding": a_vector(1), "tenant": "globex"})
        assert (status, body["error"]["param"]) == (403, "tenant")

        # who may see all names the pool
        for named in ({}, {"x_bandit_pool": "main"}):
            _, body, _ = await answer_to(anyone, "GET", "/v1/decisions", **named)
            assert [row["decision_id"] for row in body["decisions"]] == [of_none["decision_id"]]
        _, body, _ = await answer_to(anyone, "GET", "/v1/decisions", x_bandit_pool="acme")
        assert [row["decision_id"] for row in body["decisions"]] == [first["decision_id"]]
        status, body, _ = await answer_to(root, "GET", "/v1/arms", x_bandit_pool="acmee")
        assert status == 400
        assert body["error"]["message"] == (
            "x-bandit-pool: no pool 'acmee'; did you mean acme?; expected one of main, acme, globex"
        )

        # whoever may not see all of them learns no names
        for who, path, status in (
            (acme, "/v1/arms", 403),
            (acme, "/v1/no-such-path", 403),
            (Client(client.session, client.url), "/v1/arms", 401),
            (Client(client.session, client.url), "/v1/no-such-path", 404),
            (Client(client.session, client.url), "/v1/feedback/no-token", 400),
        ):
            told, body, _ = await answer_to(who, "GET", path, x_bandit_pool="globes")
            assert (told, "globex" in str(body)) == (status, False), (path, body)


async def test_a_stream_serves_every_pool(tmp_path: Path, models: Path) -> None:
    async with pools(tmp_path / "var", models) as (client, apps):
        path = f"{client.url}/v1/stream"
        vector = np.asarray(a_vector(0), "<f4").tobytes()
        async with client.session.ws_connect(path, protocols=("bandit.v1",)) as socket:
            await socket.receive_bytes()
            for tenant in ("acme", "globex", ""):
                told = {"op": "decide", "id": tenant, "embedding": vector, "tenant": tenant}
                await socket.send_bytes(msgspec.msgpack.encode(told))
            made = [msgspec.msgpack.decode(await socket.receive_bytes()) for _ in range(3)]
            for each in made:
                reward = {"op": "reward", "id": 1, "decision_id": each["decision_id"], "quality": 1}
                await socket.send_bytes(msgspec.msgpack.encode(reward))
            for _ in made:
                answer = msgspec.msgpack.decode(await socket.receive_bytes())
                assert answer["status"] == "accepted", answer
        for name, app in apps.items():
            assert (app[ROUTER].world.decisions, app[ROUTER].world.rewards) == (1, 1), name


@pytest.mark.parametrize("usual", [True, False])
async def test_the_gateway_finds_the_log_on_both_paths(
    usual: bool, tmp_path: Path, models: Path
) -> None:
    """usual: as the fast path takes it, else as aiohttp's server does."""
    ring = Keyring(acme={"tenant": "acme"}, any={})
    chat = {"model": "auto", "messages": HELLO}
    vector = [round(each, 9) for each in a_vector(1)]
    asked: list[tuple[str, Any, str, str, str]] = [
        ("/v1/chat/completions", chat, "acme", "", "acme"),
        ("/v1/chat/completions", chat, "any", "x-tenant: globex\r\n", "globex"),
        ("/v1/chat/completions", chat | {"model": "auto?tenant=acme-1"}, "any", "", "acme"),
        ("/v1/chat/completions", chat, "any", "", "main"),
        ("/v1/decide", {"embedding": vector, "tenant": "globex"}, "any", "", "globex"),
        ("/v1/decide", {"embedding": vector}, "acme", "", "acme"),
        ("/v1/decide", {"embedding": vector}, "any", "", "main"),
        ("/v1/decide", {"embedding": vector}, "any", "x-tenant: acme\r\n", "acme"),
    ]
    async with a_gateway(tmp_path, models, **WITH_POOLS, **ring.environ) as (client, provider):
        for path, body, key, more, pool in asked:
            raw = json.dumps(body).encode()
            slow = "" if usual else "X-Request-Timeout: 60\r\n"
            head = (
                f"POST {path} HTTP/1.1\r\nHost: [::1]\r\nAuthorization: Bearer {ring[key]}\r\n"
                f"{more}{slow}Content-Length: {len(raw)}\r\n\r\n"
            )
            status, headers = await _over(client, head.encode() + raw)
            assert status == 200, (path, key, pool)
            assert code_in(headers["x-decision-id"]) == code_of(pool), (path, key, pool)
        assert len(provider.seen) == 4


async def _over(client: Client, request: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers of the answer to a request that is sent in one piece."""
    host, port = client.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    async with asyncio.timeout(60):
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    writer.close()
    headers = (each.split(": ", 1) for each in lines)
    return int(first.split()[1]), {name.lower(): value for name, value in headers}


async def test_metrics_readiness_and_the_list_cover_all_pools(tmp_path: Path, models: Path) -> None:
    async with pools(tmp_path / "var", models) as (client, apps):
        await client.decide(tenant="acme-1")
        async with client.session.get(f"{client.url}/metrics") as response:
            families = {
                family.name: family
                for family in text_string_to_metric_families(await response.text())
            }
        pending = {s.labels["pool"]: s.value for s in families["bandit_pending_decisions"].samples}
        assert pending == {"main": 0.0, "acme": 1.0, "globex": 0.0}
        assert [s.labels for s in families["process_open_fds"].samples] == [{}]

        status, body = await client.get("/v1/pools")
        assert status == 200
        rows = {row["name"]: row for row in body["pools"]}
        assert list(rows) == ["main", "acme", "globex"]
        assert (rows["main"]["default"], rows["acme"]["default"]) == (True, False)
        assert rows["acme"]["tenants"] == ["acme", "acme-*"]
        assert {row["state"] for row in rows.values()} == {"ready"}
        assert rows["acme"]["last"] == rows["globex"]["last"] + 1

        globex = apps["globex"][ROUTER].writer
        globex.tasks.failed("a task", ValueError("planted"))
        status, body = await client.get("/readyz")
        assert (status, body["status"]) == (200, "degraded")
        assert body["why"] == "pool globex: a task: ValueError"
        assert (await client.get("/v1/pools"))[1]["pools"][2]["why"] == "a task: ValueError"
        apps["main"][ROUTER].writer.broken.set_result("planted")
        status, body = await client.get("/readyz")
        assert status == 503
        assert "pool main: planted" in body["error"]["message"]


async def test_requests_of_a_pool_that_moves_take_no_place_from_others(
    tmp_path: Path, models: Path
) -> None:
    few = {"BANDIT_SERVER_MAX_IN_FLIGHT": "2"}
    async with pools(tmp_path / "var", models, **few) as (client, apps):
        homes, ended = apps["main"][HOMES], asyncio.Event()
        homes.held["acme"] = Hold(ended, all=True)
        vector = {"embedding": a_vector(1), "tenant": "acme"}
        waiting = []
        for headers in ({}, {"x_tenant": "acme"}):  # by the body, and by the head
            task = answer_to(client, "POST", "/v1/decide", vector, **headers)
            waiting.append(asyncio.create_task(task))
            async with asyncio.timeout(60):
                while len(ended._waiters) < len(waiting):
                    assert not waiting[-1].done(), waiting[-1].result()
                    await asyncio.sleep(0.01)
        for _ in range(3):
            await client.decide(tenant="globex")
        del homes.held["acme"]
        ended.set()
        assert [(await each)[0] for each in waiting] == [200, 200]
        assert _decided(apps) == {"main": 0, "acme": 2, "globex": 3}


async def test_keys_are_those_of_the_default_pool(tmp_path: Path, models: Path) -> None:
    ring = Keyring(root={"scopes": ["admin", "read"]})
    config = tmp_path / "bandit.toml"
    config.write_text("".join(f"[[pools]]\nname = {p['name']!r}\ntenants = {p['tenants']}\n"
                              for p in POOLS))  # fmt: skip
    data = tmp_path / "var"
    prepare(data, models)
    environ = {"BANDIT_DATA_DIR": str(data), "BANDIT_SERVER_PORT": "0", **ring.environ}
    chosen = settings.read(config, environ)
    async with service.serving(chosen) as (url, running), aiohttp.ClientSession() as session:
        apps, root = names_and_pools(running), Client(session, url, ring["root"])
        asked = {"id": "acme", "scopes": ["decide"], "tenant": "acme"}
        status, body, _ = await answer_to(root, "POST", "/v1/keys", asked, x_bandit_pool="globex")
        assert status == 201, body
        await root.by(body["key"]).decide()
        assert _decided(apps) == {"main": 0, "acme": 1, "globex": 0}
        for name in apps:  # each log says whom its process admits
            known = _world(apps, name).configuration
            async with asyncio.timeout(60):
                while [key["id"] for key in known.sections.get("keys", ())] != ["root", "acme"]:
                    await asyncio.sleep(0.01)


async def test_ids_of_before_the_pools_are_found(tmp_path: Path, models: Path) -> None:
    data = tmp_path / "var"
    async with serving(data, models) as client:
        before = await client.decide()
        made = SqliteLog(data / "made.sqlite3")  # a log of this release has ids without a code
        made.close()
    async with pools(data, models) as (client, apps):
        assert await client.reward(before["decision_id"], quality=1.0) == "accepted"
        # one that has the code of a pool by chance
        id = Ids(code=code_of("acme")).new(now())
        world = _world(apps, "main")
        event = next(iter(world.pending.decisions.values())).decided
        twin = msgspec.structs.replace(event, id=id)
        apps["main"][ROUTER].writer.log.append([_record(twin)])
        apps["main"][ROUTER].writer.apply(twin)
        assert await client.reward(id, quality=1.0) == "accepted"
        unknown = Ids(code=code_of("acme")).new(now())
        status, body = await client.post("/v1/rewards", {"decision_id": unknown, "quality": 1.0})
        assert status == 404, body


def _record(event: ev.Decided) -> Any:
    from store import Record

    return Record(event.id, ev.kind(event), event.ts, ev.encode(event), "")


async def test_other_cells_are_told(tmp_path: Path, models: Path) -> None:
    cells = [
        {"name": "acme", "tenants": ["acme"], "cell": "eu"},
        {"name": "globex", "tenants": ["globex"], "cell": "us"},
    ]
    environ = {"BANDIT_POOLS": json.dumps(cells), "BANDIT_CELL": "eu"}
    async with pools(tmp_path / "var", models, **environ) as (client, apps):
        assert list(apps) == ["main", "acme"]
        await client.decide(tenant="acme")
        asked = {"embedding": a_vector(0), "tenant": "globex"}
        status, body, headers = await answer_to(client, "POST", "/v1/decide", asked)
        assert (status, headers["x-bandit-cell"]) == (421, "us")
        assert body["error"] == {
            "message": "tenant: the pool 'globex' is served in the cell 'us', and this is the cell "
            "'eu'; send it there",
            "type": "invalid_request_error",
            "param": "tenant",
            "code": "wrong_cell",
        }
        theirs = Ids(code=code_of("globex")).new(now())
        status, body = await client.post("/v1/rewards", {"decision_id": theirs, "quality": 1.0})
        assert (status, body["error"]["param"]) == (421, "decision_id")
        assert "globex" not in body["error"]["message"]  # whose tenant has nothing to do with it
        default = Ids(code=code_of("main", "us")).new(now())
        assert (await client.get(f"/v1/decisions/{default}"))[0] == 421
        status, body, _ = await answer_to(client, "GET", "/v1/arms", x_bandit_pool="globex")
        assert status == 421
        rows = (await client.get("/v1/pools"))[1]["pools"]
        assert [(row["name"], row["state"]) for row in rows][-1] == ("globex", "elsewhere")


async def test_a_killed_process_keeps_every_log(tmp_path: Path, models: Path) -> None:
    data = tmp_path / "var"
    process = Process(data, models, **WITH_POOLS)
    tenants = ("", "acme", "globex")
    async with aiohttp.ClientSession() as session:
        client = Client(session, await process.url())
        made = {tenant: await client.decide(tenant=tenant) for tenant in tenants}
        await client.reward(made["acme"]["decision_id"], quality=1.0)
        process.kill()
        process = Process(data, models, **WITH_POOLS)
        client = Client(session, await process.url())
        told = [await client.reward(made[tenant]["decision_id"], quality=1.0) for tenant in tenants]
        assert told == ["accepted", "duplicate", "accepted"]
    assert process.stop() == 0
    for name in ("acme", "globex"):
        assert (data / "pools" / name / "events.sqlite3").exists()


async def test_reload_reads_the_file_for_every_pool(tmp_path: Path, models: Path) -> None:
    config = tmp_path / "bandit.toml"
    data = tmp_path / "var"
    prepare(data, models)
    text = f"data_dir = {str(data)!r}\n[server]\nport = 0\n[[pools]]\nname = 'acme'\nshare = 1\n"
    config.write_text(text)
    async with service.serving(settings.read(config, {})) as (_, running):
        apps = names_and_pools(running)
        arms = "[[arms]]\nid = 'one'\nusd_per_mtok_in = 1\nusd_per_mtok_out = 1\n"
        config.write_text(f"{text}{arms}")
        assert await reload(running)
        for name, app in apps.items():
            assert [arm.spec.id for arm in app[ROUTER].world.offered()] == ["one"], name
