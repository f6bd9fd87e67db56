"""Calls of providers through a proxy: one of the configuration's, or the environment's."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import openai
import pytest
import trustme

from bandit_service import settings
from tests.service.running import Process, serving
from tests.service.wires import Wire, a_whole, text_from, wires

_PRICES = {"usd_per_mtok_in": 1.0, "usd_per_mtok_out": 4.0}


class _Proxy:
    """A forward proxy: whole addresses for http, CONNECT for https; it may ask for a password."""

    def __init__(self, password: str = "") -> None:
        self.asked: list[str] = []
        self.url = ""
        self._wanted = base64.b64encode(password.encode()).decode()

    async def serve(self, reader: asyncio.StreamReader, wire: Wire) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, target, _ = head.split("\r\n")[0].split(" ")
            self.asked.append(f"{method} {target}")
            if self._wanted and f"proxy-authorization: basic {self._wanted}".lower() not in (
                head.lower()
            ):
                wire.write(a_whole(b"", status="407 Proxy Authentication Required"))
                await wire.drain()
            elif method == "CONNECT":
                host, _, port = target.partition(":")
                wire.write(b"HTTP/1.1 200 OK\r\n\r\n")
                await self._between(reader, wire, host, int(port), b"")
            else:
                place, _, path = target.removeprefix("http://").partition("/")
                host, _, port = place.partition(":")
                first = head.replace(target, f"/{path}", 1).encode()
                await self._between(reader, wire, host, int(port), first)
        wire.close()
        with suppress(ConnectionError):
            await wire.wait_closed()

    async def _between(
        self, reader: asyncio.StreamReader, wire: Wire, host: str, port: int, first: bytes
    ) -> None:
        far_reader, far = await asyncio.open_connection(host, port)
        far.write(first)

        async def pump(of: asyncio.StreamReader, to: Wire) -> None:
            with suppress(ConnectionError):
                while data := await of.read(65_536):
                    to.write(data)
                    await to.drain()
            to.close()

        try:
            await asyncio.gather(pump(reader, far), pump(far_reader, wire))
        finally:
            for each in (far, wire):
                each.transport.abort()


@asynccontextmanager
async def a_proxy(password: str = "") -> AsyncIterator[_Proxy]:
    proxy = _Proxy(password)
    running: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, wire: Wire) -> None:
        running.add(asyncio.ensure_future(proxy.serve(reader, wire)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _said(
    tmp_path: Path, models: Path, url: str, environ: dict[str, str], **upstream: Any
) -> str | None:
    given = {
        "BANDIT_UPSTREAMS": json.dumps([{"id": "p", "base_url": url, **upstream}]),
        "BANDIT_ARMS": json.dumps([{"id": "a", "upstream": "p", **_PRICES}]),
    }
    async with (
        serving(tmp_path / "var", models, **given, **environ) as client,
        openai.AsyncOpenAI(base_url=f"{client.url}/v1", api_key="x", max_retries=0) as asking,
    ):
        return await text_from(asking, "a")


async def test_a_proxy_of_the_configuration_carries_the_calls(tmp_path: Path, models: Path) -> None:
    """Seen on 5a5a85b: there was no such setting, and HTTP_PROXY was not read."""
    async with wires() as (_, url), a_proxy() as proxy:
        assert await _said(tmp_path, models, url, {}, proxy=proxy.url) == "fine"
        assert proxy.asked == [f"POST {url}/chat/completions"]
        assert await _said(tmp_path, models, url, {"HTTP_PROXY": proxy.url}) == "fine"
        assert len(proxy.asked) == 1  # nobody said that the environment's is trusted


async def test_the_environments_proxy_carries_them_where_it_is_trusted(
    tmp_path: Path, models: Path
) -> None:
    async with wires() as (_, url), a_proxy("me:s3cret/%") as proxy:
        with_words = proxy.url.replace("//", "//me:s3cret%2F%25@")
        for environ, through in (
            ({"HTTP_PROXY": with_words}, 1),
            ({"http_proxy": "", "HTTP_PROXY": "", "ALL_PROXY": with_words}, 1),
            ({"HTTPS_PROXY": with_words}, 0),  # the address is http
            ({"HTTP_PROXY": with_words, "NO_PROXY": "example.org, 127.0.0.0/8"}, 0),
        ):
            before = len(proxy.asked)
            assert await _said(tmp_path, models, url, environ, trust_env=True) == "fine"
            assert len(proxy.asked) - before == through, environ
        with pytest.raises(openai.APIStatusError, match="status 407"):
            await _said(tmp_path, models, url, {"HTTP_PROXY": proxy.url}, trust_env=True)


async def test_an_https_provider_is_reached_by_connect(tmp_path: Path, models: Path) -> None:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    ca.cert_pem.write_to_path(tmp_path / "ca")
    async with wires(context) as (_, address), a_proxy() as proxy:
        upstream = {"id": "p", "base_url": address, "proxy": proxy.url}
        process = Process(
            tmp_path / "var",
            models,
            SSL_CERT_FILE=str(tmp_path / "ca"),
            BANDIT_UPSTREAMS=json.dumps([upstream]),
            BANDIT_ARMS=json.dumps([{"id": "a", "upstream": "p", **_PRICES}]),
        )
        try:
            url = f"{await process.url()}/v1"
            async with openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=0) as asking:
                assert await text_from(asking, "a") == "fine"
        finally:
            process.stop()
        assert proxy.asked == [f"CONNECT {address.removeprefix('https://').removesuffix('/v1')}"]


def _refused(environ: dict[str, str] | None = None, **upstream: Any) -> str:
    items = json.dumps([{"id": "p", "base_url": "https://api.example/v1", **upstream}])
    with pytest.raises(settings.BadSettings) as refused:
        settings.read(None, {"BANDIT_UPSTREAMS": items, **(environ or {})})
    return str(refused.value)


def test_a_proxy_that_cannot_be_one_is_refused_and_no_password_is_shown() -> None:
    assert "upstreams[0].proxy: must be http://HOST:PORT" in _refused(proxy="socks5://h:1")
    assert "upstreams[0].proxy: must be http://HOST:PORT" in _refused(proxy="proxy:3128")
    words = _refused(proxy="http://me:s3cret@proxy:3128")
    assert "must not hold a user or a password" in words
    assert "s3cret" not in words
    assert "set this or trust_env, not both" in _refused(proxy="http://h:1", trust_env=True)
    words = _refused({"HTTPS_PROXY": "socks5://me:s3cret@h:1"}, trust_env=True)
    assert "trust_env: the environment's proxy must be http" in words
    assert "s3cret" not in words
    items = json.dumps([{"id": "p", "base_url": "https://api.example/v1", "trust_env": True}])
    environ = {"BANDIT_UPSTREAMS": items, "https_proxy": "http://me:s3cret@h:1"}
    assert "s3cret" not in repr(settings.read(None, environ))
