"""Ways around a key's limits that must not be there."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from bandit_service import clock, settings
from bandit_service.app import service
from bandit_service.http import auth
from bandit_service.http.routes import SCOPES
from bandit_service.settings import keys
from tests.service.keyring import Keyring
from tests.service.running import Client, a_vector, serving

ALONE = {"embedding": a_vector(1), "arm": "gemini-2.5-pro", "quality": 1.0}


async def _raw(client: Client, headers: dict[str, str], method: str = "GET") -> tuple[int, str]:
    url = client.url + "/v1/arms"
    async with client.session.request(method, url, headers=headers) as response:
        return response.status, await response.text()


async def _say(socket: aiohttp.ClientWebSocketResponse, **message: Any) -> Any:
    await socket.send_bytes(msgspec.msgpack.encode(message))
    return msgspec.msgpack.decode(await socket.receive_bytes())


@pytest.mark.parametrize("many", [True, False], ids=["one list", "at once"])
async def test_a_share_holds_also_for_what_is_sent_at_once(
    tmp_path: Path, models: Path, many: bool
) -> None:
    ring = Keyring(greedy={"reward_share": 0.1}, other={})
    async with serving(tmp_path / "var", models, **ring.environ) as client:
        greedy = client.by(ring["greedy"])
        if many:
            _, body = await greedy.post("/v1/rewards", [ALONE] * 60)
            results = body["results"]
        else:
            answers = await asyncio.gather(*(greedy.post("/v1/rewards", ALONE) for _ in range(60)))
            results = [body["results"][0] if status == 200 else body for status, body in answers]
        codes = [each["error"]["code"] if "error" in each else "" for each in results]
        assert codes.count("") == auth.ALWAYS
        assert codes.count("reward_share") == 60 - auth.ALWAYS


async def test_one_key_alone_has_nobody_to_leave_a_share_to(tmp_path: Path, models: Path) -> None:
    ring = Keyring(alone={"reward_share": 0.1}, decider={"scopes": ["decide"]})
    async with serving(tmp_path / "var", models, **ring.environ) as client:
        _, body = await client.by(ring["alone"]).post("/v1/rewards", [ALONE] * 30)
    assert {each["status"] for each in body["results"]} == {"accepted"}


async def test_each_item_of_a_list_and_each_message_takes_from_the_rate(
    tmp_path: Path, models: Path
) -> None:
    ring = Keyring(slow={"rate_per_s": 0.001, "burst": 3}, again={"rate_per_s": 0.001, "burst": 3})
    async with serving(tmp_path / "var", models, **ring.environ) as client:
        _, body = await client.by(ring["slow"]).post("/v1/rewards", [ALONE] * 5)
        codes = [each.get("error", {}).get("code", "") for each in body["results"]]
        assert codes == ["", "", "", "rate_limited", "rate_limited"]
        async with client.session.ws_connect(
            client.url + "/v1/stream",
            headers=client.by(ring["again"]).headers,
            protocols=("bandit.v1",),
        ) as socket:
            await socket.receive_bytes()
            sent = [await _say(socket, op="decide", id=i, embedding=a_vector(0)) for i in range(3)]
    assert [each.get("error", {}).get("code", "") for each in sent] == ["", "", "rate_limited"]


@pytest.mark.parametrize(
    "authorization",
    ["Bearer ünknown", "Bearer \udcff", "Bearer " + "x" * 7000, "Bearer", "Basic x"],
)
async def test_a_strange_header_is_a_wrong_key(
    tmp_path: Path, models: Path, authorization: str
) -> None:
    async with serving(tmp_path / "var", models, **Keyring(app={}).environ) as client:
        host, port = client.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        raw = f"GET /v1/arms HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n\r\n"
        writer.write(raw.encode(errors="surrogateescape"))
        line = await reader.readline()
        writer.close()
        assert line.split()[1] == b"401", line


async def test_a_key_that_expires_ends_on_an_open_stream(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = Keyring(app={"expires": "2100-01-01"})
    async with (
        serving(tmp_path / "var", models, **ring.environ) as client,
        client.session.ws_connect(
            client.url + "/v1/stream",
            headers=client.by(ring["app"]).headers,
            protocols=("bandit.v1",),
        ) as socket,
    ):
        await socket.receive_bytes()
        assert (await _say(socket, op="decide", id=1, embedding=a_vector(0)))["arm"]
        monkeypatch.setattr(clock, "now", lambda: 4_200_000_000.0)
        answer = await _say(socket, op="decide", id=2, embedding=a_vector(0))
        assert answer["error"]["code"] == "unauthorized"


async def test_refusals_within_lists_and_streams_are_counted(tmp_path: Path, models: Path) -> None:
    ring = Keyring(
        bound={"self_contained": False},
        slow={"rate_per_s": 0.001, "burst": 1},
        reader={"scopes": ["read"]},
    )
    async with serving(tmp_path / "var", models, **ring.environ) as client:
        await client.by(ring["bound"]).post("/v1/rewards", [ALONE] * 2)
        await client.by(ring["slow"]).post("/v1/rewards", [ALONE] * 3)
        async with client.session.ws_connect(
            client.url + "/v1/stream",
            headers=client.by(ring["bound"]).headers,
            protocols=("bandit.v1",),
        ) as socket:
            await socket.receive_bytes()
            await _say(socket, op="decide", id=1, query="x", tenant="")
            await _say(socket, op="reward", id=2, **ALONE)
        async with client.session.get(client.url + "/metrics") as response:
            text = await response.text()
    found = dict(re.findall(r'^bandit_requests_denied_total\{reason="(\w+)"\} (\S+)$', text, re.M))
    assert (found["scope"], found["rate"]) == ("3.0", "2.0")


async def test_closed_metrics_are_not_for_a_tenant_and_health_answers_head(
    tmp_path: Path, models: Path
) -> None:
    ring = Keyring(of_a={"tenant": "a"}, of_all={})
    environ = ring.environ | {"BANDIT_SECURITY_OPEN_METRICS": "false"}
    async with serving(tmp_path / "var", models, **environ) as client:
        for id, expected in (("of_a", 403), ("of_all", 200)):
            headers = client.by(ring[id]).headers
            async with client.session.get(client.url + "/metrics", headers=headers) as response:
                assert response.status == expected
        async with client.session.head(client.url + "/healthz") as response:
            assert response.status == 200
        assert (await _raw(client, {}, "HEAD"))[0] == 401
        assert (await _raw(client, client.by(ring["of_a"]).headers, "HEAD"))[0] == 200


async def test_every_route_of_the_service_has_an_entry_and_every_entry_a_route(
    tmp_path: Path, models: Path
) -> None:
    data = tmp_path / "var"
    async with serving(data, models):
        pass  # makes the directory
    chosen = settings.read(None, {"BANDIT_DATA_DIR": str(data), "BANDIT_SERVER_PORT": "0"})
    async with service.serving(chosen) as (_, running):
        there = {
            (route.method, route.resource.canonical.rstrip("/") or "/")
            for route in running.router.routes()
            if route.resource is not None and route.method != "HEAD"
        }
    assert set(SCOPES) == there


def test_keys_come_from_a_file_too_and_no_secret_is_there_twice(tmp_path: Path) -> None:
    ring = Keyring(app={}, other={})
    lines = [
        f'[[keys]]\nid = "{each["id"]}"\nhash = "{each["hash"]}"\nscopes = ["read"]\n'
        for each in ring.tables
    ]
    (tmp_path / "keys.toml").write_text(lines[1])
    path = tmp_path / "bandit.toml"
    path.write_text('[security]\nkeys_file = "keys.toml"\n' + lines[0])
    assert [key.id for key in settings.read(path, {}).keys] == ["app", "other"]
    (tmp_path / "keys.toml").write_text(lines[0].replace('"app"', '"again"'))
    with pytest.raises(settings.BadSettings, match="hash: is that of 'app' too"):
        settings.read(path, {})
    (tmp_path / "keys.toml").unlink()
    with pytest.raises(settings.BadSettings, match=r"keys\.toml: cannot be read"):
        settings.read(path, {})


def test_a_secret_in_the_place_of_its_hash_is_not_repeated() -> None:
    secret, _ = keys.new_key()
    entry = {"id": "a", "hash": secret, "scopes": ["read"]}
    with pytest.raises(settings.BadSettings) as caught:
        settings.read(None, {"BANDIT_KEYS": json.dumps([entry])})
    assert secret not in str(caught.value)
