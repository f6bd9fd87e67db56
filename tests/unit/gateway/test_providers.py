"""A provider's dialect is one file of the package, found by its name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bandit_service.core.errors import Refused
from bandit_service.gateway import providers
from bandit_service.gateway.providers import Provider, anthropic, openai, provider_of
from bandit_service.gateway.translation import answer_of, chunks_of, refusal, request_of
from bandit_service.settings.upstreams import KINDS, Upstream, UpstreamSpec

CHAT = "/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "a"}]}
TYPED: tuple[Provider, ...] = (openai, anthropic)
"""The type checker holds each module to the protocol."""

ECHO = """
from bandit_service.core.errors import Refused
from bandit_service.gateway.providers._base import HttpRequest, headers_of


class Decoder:
    def feed(self, data):
        return [b"chunk of " + data]

    def end(self):
        return [b"[DONE]"]


def output_limit():
    return 7


def check(path, body):
    if body.get("tools"):
        raise Refused("tools: this provider has none", param="tools")


def request(upstream, path, body):
    check(path, body)
    url = upstream.spec.base_url + "/echo"
    return HttpRequest(url, headers_of(upstream), {"say": body["model"]})


def answer(answer, created):
    return {"choices": [{"text": answer["said"]}]}


def decoder(created):
    return Decoder()
"""


def test_the_kinds_that_settings_allow_are_the_dialects_that_there_are() -> None:
    assert sorted(KINDS) == list(providers.names())
    assert [provider_of("anthropic"), provider_of("openai")] == [anthropic, openai]
    public = {name for name in vars(Provider) if not name.startswith("_")}
    for provider in map(provider_of, providers.names()):
        assert {name for name in public if callable(getattr(provider, name))} == public


@pytest.mark.parametrize(
    ("spec", "key", "url", "headers"),
    [
        ({"base_url": "https://a.example/v1/"}, "k", "https://a.example/v1/chat/completions",
         {"Authorization": "Bearer k"}),
        ({"base_url": "https://a.example/v1"}, "", "https://a.example/v1/chat/completions", {}),
        ({"base_url": "https://a.example/v1", "auth_header": "api-key", "headers": {"x-b": "c"}},
         "k", "https://a.example/v1/chat/completions", {"x-b": "c", "api-key": "k"}),
        ({"base_url": "https://a.example/v1", "kind": "anthropic"}, "k",
         "https://a.example/v1/messages", {"anthropic-version": "2023-06-01", "x-api-key": "k"}),
        ({"base_url": "https://a.example", "kind": "anthropic", "auth_header": "Authorization",
          "headers": {"anthropic-version": "new"}}, "k", "https://a.example/v1/messages",
         {"anthropic-version": "new", "Authorization": "Bearer k"}),
    ],
)  # fmt: skip
def test_a_call_has_the_address_and_the_headers_of_its_dialect(
    spec: dict[str, Any], key: str, url: str, headers: dict[str, str]
) -> None:
    upstream = Upstream(UpstreamSpec(id="u", **spec), key)
    request = request_of(provider_of(upstream.spec.kind), upstream, CHAT, BODY)
    assert (request.url, request.headers) == (url, {"Content-Type": "application/json", **headers})


async def test_one_file_is_a_dialect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "echo.py").write_text(ECHO, encoding="utf-8")
    monkeypatch.setattr(providers, "__path__", [*providers.__path__, str(tmp_path)])
    assert "echo" in providers.names()
    echo = provider_of("echo")
    upstream = Upstream(UpstreamSpec(id="u", base_url="http://a.example", kind="echo"))
    request = request_of(echo, upstream, CHAT, BODY)
    assert (request.url, request.body) == ("http://a.example/echo", {"say": "m"})
    refused = refusal(echo, CHAT, BODY | {"tools": [1]})
    assert isinstance(refused, Refused)
    assert (refused.param, refusal(echo, CHAT, BODY), echo.output_limit()) == ("tools", None, 7)
    assert answer_of(echo, {"said": "hi"}) == {"choices": [{"text": "hi"}]}

    async def pieces() -> AsyncIterator[list[bytes]]:
        yield [b"1", b"2"]

    chunks = [piece async for piece in chunks_of(echo, pieces())]
    assert chunks == [[b"chunk of 1", b"chunk of 2"], [b"[DONE]"]]
