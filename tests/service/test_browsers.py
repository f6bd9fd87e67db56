"""What a browser can be made to send: by a foreign page, or by a name that leads here.

At commit 5a5a85b each refusal here was none: only `Sec-Fetch-Site` was looked at, which browsers
leave out, and `Host` was not looked at. A handshake with a foreign `Origin` got 101 and its decides
were answered; a DELETE with a foreign `Host` retired the arm.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bandit_service import settings
from bandit_service.http.routes import SCOPES
from tests.service.keyring import Keyring
from tests.service.running import Client, a_vector, serving

HOST, ORIGIN = "Host: {at}", "Origin: http://{at}"
FOREIGN = {
    "a foreign origin": ([HOST, "Origin: http://evil.example"], "Origin"),
    "a null origin": ([HOST, "Origin: null"], "Origin"),
    "the same host, another port": ([HOST, "Origin: http://127.0.0.1:1"], "Origin"),
    "the same host, another scheme": ([HOST, "Origin: https://{at}"], "Origin"),
    "another name of this machine": ([HOST, "Origin: http://localhost:{port}"], "Origin"),
    "two origins in one": ([HOST, ORIGIN + " http://evil.example"], "Origin"),
    "two origins": ([HOST, ORIGIN, "Origin: http://evil.example"], "Origin"),
    "an empty origin": ([HOST, "Origin:"], "Origin"),
    "an origin, and another name": (["Host: localhost:{port}", ORIGIN], "Origin"),
    "a name that leads here": (["Host: evil.example:{port}"], "Host"),
    "such a name, its own origin": (
        ["Host: evil.example:{port}", "Origin: http://evil.example:{port}"], "Host",
    ),
    "such a name in capitals, with a dot": (["Host: EVIL.Example.:{port}"], "Host"),
    "a name that begins like ours": (["Host: localhost.evil.example"], "Host"),
    "every address": (["Host: 0.0.0.0:{port}", "Origin: http://0.0.0.0:{port}"], "Host"),
    "every address of version 6": (["Host: [::]:{port}"], "Host"),
    "an address that is not loopback": (["Host: 169.254.169.254"], "Host"),
    "an empty host": (["Host:"], "Host"),
    "no authority": (["Host: http://localhost"], "Host"),
}  # fmt: skip
OURS = {
    "no origin": [HOST],
    "its own origin": [HOST, ORIGIN],
    "localhost": ["Host: localhost:{port}", "Origin: http://localhost:{port}"],
    "capitals": ["Host: LOCALHOST:{port}", "Origin: http://localhost:{port}"],
    "a dot at its end": ["Host: localhost.:{port}", "Origin: http://localhost.:{port}"],
    "version 6": ["Host: [::1]:{port}", "Origin: http://[::1]:{port}"],
    "version 6 in full": ["Host: [0:0:0:0:0:0:0:1]", "Origin: http://[::1]"],
    "another port, of a tunnel": ["Host: localhost:9999", "Origin: http://localhost:9999"],
}
SOCKET = (
    "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol: bandit.v1",
)  # fmt: skip


async def _sent(
    client: Client, line: str, headers: list[str], body: bytes = b"", version: str = "1.1"
) -> tuple[int, Any]:
    """Status and JSON of the answer to a request of exactly these headers."""
    at = client.url.removeprefix("http://")
    host, port = at.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = [f"{line} HTTP/{version}", *(each.format(at=at, port=port) for each in headers)]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    try:
        async with asyncio.timeout(60):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            fields = dict(each.lower().split(": ", 1) for each in head.split("\r\n")[1:-2])
            told = await reader.readexactly(int(fields.get("content-length", 0)))
    finally:
        writer.close()
    return int(head.split()[1]), json.loads(told) if told.startswith(b"{") else None


def _refused(answer: tuple[int, Any], header: str) -> None:
    status, body = answer
    assert status == 403, answer
    error = body["error"]
    assert (error["code"], error["type"]) == ("forbidden", "permission_error")
    assert error["param"] == header
    assert error["message"].startswith(f"{header}: ")
    assert "allowed are" in error["message"]


@pytest.mark.parametrize("kind", FOREIGN)
async def test_what_is_foreign_changes_nothing(client: Client, kind: str) -> None:
    headers, header = FOREIGN[kind]
    _, before = await client.get("/v1/arms")
    arm = before["arms"][0]["id"]
    spec = json.dumps({"usd_per_mtok_in": 1, "usd_per_mtok_out": 1}).encode()
    decide = json.dumps({"embedding": a_vector(1)}).encode()
    for line, body in (
        (f"DELETE /v1/arms/{arm}", b""),
        ("PUT /v1/arms/evil", spec),
        ("POST /v1/decide", decide),
        ("POST /v1/snapshots", b""),
        ("OPTIONS /v1/arms/evil", b""),
        ("GET /v1/arms", b""),
    ):
        typed = [*headers, f"Content-Length: {len(body)}", "Content-Type: text/plain"]
        _refused(await _sent(client, line, typed, body), header)
    _refused(await _sent(client, "GET /v1/stream", [*headers, *SOCKET]), header)
    _, after = await client.get("/v1/arms")
    assert after == before
    async with client.session.get(client.url + "/metrics") as metrics:
        text = await metrics.text()
    assert f'bandit_requests_denied_total{{reason="{header.lower()}"}} 7.0' in text
    assert 'bandit_http_requests_total{code="200",endpoint="/v1/decide"}' not in text


async def test_a_request_without_a_host_or_with_two_is_no_http(client: Client) -> None:
    for headers in ([], [HOST, HOST], [HOST, "Host: evil.example"]):
        assert (await _sent(client, "POST /v1/snapshots", headers))[0] in (400, 403)
        assert (await _sent(client, "GET /v1/stream", [*headers, *SOCKET]))[0] in (400, 403)
    _refused(await _sent(client, "GET /v1/arms", [], version="1.0"), "Host")


@pytest.mark.parametrize("kind", OURS)
async def test_what_is_ours_works_as_ever(client: Client, kind: str) -> None:
    body = json.dumps({"embedding": a_vector(1)}).encode()
    typed = [*OURS[kind], f"Content-Length: {len(body)}", "Content-Type: application/json"]
    status, decided = await _sent(client, "POST /v1/decide", typed, body)
    assert (status, "arm" in decided) == (200, True)
    assert (await _sent(client, "GET /v1/stream", [*OURS[kind], *SOCKET]))[0] == 101


async def test_every_route_and_every_other_path_is_looked_at(client: Client) -> None:
    paths = [*SCOPES, ("GET", "/nothing"), ("POST", "/v1/nothing"), ("PATCH", "/healthz")]
    evil = ["Host: evil.example"], [HOST, "Origin: http://evil.example"]
    for method, path in paths:
        for headers, header in zip(evil, ("Host", "Origin"), strict=True):
            _refused(await _sent(client, f"{method} {path}", headers), header)


async def test_it_is_refused_before_its_body_is_read(client: Client) -> None:
    """And where the client promises more than it sends, without waiting for it."""
    headers = ["Host: evil.example", "Content-Length: 1000000", "Content-Type: application/json"]
    _refused(await _sent(client, "POST /v1/decide", headers, b"{"), "Host")


async def test_what_is_refused_is_not_repeated_where_it_is_no_name(client: Client) -> None:
    secret = "sk-not-to-be-repeated/"
    for headers in ([f"Host: {secret}"], [HOST, f"Origin: {secret}"]):
        _, body = await _sent(client, "GET /v1/arms", headers)
        assert secret not in json.dumps(body)


async def test_configured_names_and_origins_are_served(tmp_path: Path, models: Path) -> None:
    named = {
        "BANDIT_SERVER_ALLOWED_HOSTS": "bandit-service, 10.0.0.0/8",
        "BANDIT_SERVER_ALLOWED_ORIGINS": '["https://router.example"]',
    }
    async with serving(tmp_path / "var", models, **named) as client:
        for path in ("/healthz", "/readyz", "/metrics"):  # a kubelet's and Prometheus's
            for host in ("10.244.0.7:8080", "bandit-service:8080"):
                assert (await _sent(client, f"GET {path}", [f"Host: {host}"]))[0] == 200
        _refused(await _sent(client, "GET /healthz", ["Host: 11.0.0.1:8080"]), "Host")
        own = ["Host: bandit-service:8080", "Origin: https://router.example"]
        site = "Sec-Fetch-Site: cross-site"
        assert (await _sent(client, "GET /v1/stream", [*own, site, *SOCKET]))[0] == 101
        other = [*own[:1], "Origin: https://router.example.evil.example", *SOCKET]
        _refused(await _sent(client, "GET /v1/stream", other), "Origin")


async def test_with_keys_any_name_is_good_where_a_key_is_asked_for(
    tmp_path: Path, models: Path
) -> None:
    """A page that was led here by its own name has no key, so it gets 401; what is open without
    one is told to our names and loopback only."""
    ring = Keyring(app={})
    key = f"Authorization: Bearer {ring['app']}"
    async with serving(tmp_path / "var", models, **ring.environ) as client:
        led = ["Host: evil.example", "Origin: http://evil.example"]
        assert (await _sent(client, "GET /v1/arms", led))[0] == 401
        assert (await _sent(client, "GET /v1/stream", [*led, *SOCKET]))[0] == 401
        assert (await _sent(client, "GET /readyz", ["Host: 10.244.0.7:8080"]))[0] == 200
        assert (await _sent(client, "GET /v1/arms", ["Host: router.example", key]))[0] == 200
        _refused(await _sent(client, "GET /metrics", led), "Host")
        page = [HOST, "Origin: http://evil.example", key]
        _refused(await _sent(client, "GET /v1/arms", page), "Origin")


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("HOSTS", "a:80", "server.allowed_hosts: 'a:80' has a port"),
        ("HOSTS", "10.0.0.1/8", "server.allowed_hosts: 10.0.0.1/8 has host bits set"),
        ("HOSTS", "[1]", "server.allowed_hosts: must be a list of strings, got [1]"),
        ("ORIGINS", "router.example", "server.allowed_origins: 'router.example' is not scheme://"),
    ],
)
def test_a_wrong_name_is_told_at_the_start(variable: str, value: str, expected: str) -> None:
    with pytest.raises(settings.BadSettings) as caught:
        settings.read(None, {f"BANDIT_SERVER_ALLOWED_{variable}": value})
    assert any(each.startswith(expected) for each in caught.value.mistakes), caught.value.mistakes


def test_the_file_has_lists_of_names(tmp_path: Path) -> None:
    path = tmp_path / "bandit.toml"
    path.write_text('[server]\nallowed_hosts = ["a.example"]\n')
    assert settings.read(path, {}).server.allowed_hosts == ("a.example",)


async def test_programs_by_localhost_work_as_ever(client: Client) -> None:
    """aiohttp's own client, as an SDK is: no Origin, and the Host of its address."""
    assert isinstance(client.session, aiohttp.ClientSession)
    url = client.url.replace("127.0.0.1", "localhost")
    async with client.session.get(url + "/v1/arms") as answer:
        assert answer.status == web.HTTPOk.status_code
