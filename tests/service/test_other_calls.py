"""Paths as clients write them, calls of other dialects, and providers that a request is not for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest

from bandit_service import settings
from bandit_service.gateway.providers import _anthropic_request
from tests.service.keyring import Keyring
from tests.service.provider import HELLO
from tests.service.running import serving
from tests.service.wires import behind, wires

ASKED: dict[str, Any] = {"model": "alpha", "messages": HELLO}


async def test_calls_that_are_not_there_say_so(tmp_path: Path, models: Path) -> None:
    """Seen on 5a5a85b: 404, for which a proxy in front takes the whole deployment out."""
    async with behind(tmp_path, models) as (asking, client, _, _beta):
        with pytest.raises(openai.InternalServerError) as absent:
            await asking.moderations.create(input="hello")
        assert absent.value.status_code == 501
        assert absent.value.body["code"] == "not_implemented"  # type: ignore[index]
        assert "docs/gateway.md says which calls are" in str(absent.value)
        for path in ("/v1/audio/speech", "/v1/images/generations", "/v1/rerank"):
            status, body = await client.post(path, b"no JSON at all")
            assert (status, body["error"]["type"]) == (501, "not_implemented_error")
        status, body = await client.post("/v1/messages/batches", {})
        assert (status, body["type"], body["error"]["code"]) == (501, "error", "not_implemented")
        assert (await client.post("/v1/nothing", {}))[0] == 404
        for method, path in (
            ("GET", "/v1/responses/resp_1"), ("DELETE", "/v1/responses/resp_1"),
            ("POST", "/v1/responses/resp_1/cancel"), ("GET", "/v1/files"), ("POST", "/v1/batches"),
            ("GET", "/v1/vector_stores/vs_1/files/f_1"), ("POST", "/v1/threads/t/runs"),
            ("POST", "/v1/complete"), ("POST", "/v1/realtime/sessions"),
        ):  # fmt: skip
            status, body = await client.call(method, path, {})
            assert (status, body["error"]["code"]) == (501, "not_implemented"), path


async def test_a_path_may_end_with_a_slash_and_one_without_its_version_is_told(
    tmp_path: Path, models: Path
) -> None:
    async with behind(tmp_path, models) as (_, client, alpha, _beta):
        for path in ("/v1/chat/completions", "/v1/chat/completions/"):
            assert (await client.post(path, ASKED))[0] == 200
        assert (await client.post("/v1/completions/", {"model": "alpha", "prompt": "a"}))[0] == 200
        assert alpha.requests == 3
        status, body = await client.post("/chat/completions", ASKED)
        assert (status, body["error"]["code"]) == (404, "unknown")
        assert "did you mean /v1/chat/completions?" in body["error"]["message"]


async def test_the_same_scopes_hold_for_them(tmp_path: Path, models: Path) -> None:
    ring = Keyring(caller={"scopes": ["decide"]}, reader={"scopes": ["read"]})
    async with behind(tmp_path, models, BANDIT_KEYS=json.dumps(ring.tables)) as (_, client, *_rest):
        for path, right in (("/v1/chat/completions/", 200), ("/v1/moderations", 501)):
            for key, expected in (("", 401), (ring["reader"], 403), (ring["caller"], right)):
                assert (await client.by(key).post(path, ASKED))[0] == expected, path


async def test_what_only_prepares_another_providers_request_fails_for_that_one_alone(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen on 5a5a85b: 500 for every arm, once any provider of Anthropic's kind was configured."""
    real = _anthropic_request.request

    def fails(path: str, body: Any) -> Any:
        if body.get("odd"):
            raise RecursionError
        return real(path, body)

    monkeypatch.setattr(_anthropic_request, "request", fails)
    async with wires() as (plain, url), wires() as (other, other_url):
        upstreams = [{"id": "plain", "base_url": url},
                     {"id": "other", "base_url": other_url, "kind": "anthropic"}]  # fmt: skip
        arms = [
            {
                "id": id,
                "upstream": id,
                "usd_per_mtok_in": 1.0,
                "usd_per_mtok_out": 4.0,
                "capabilities": ["tools"],
            }
            for id in ("plain", "other")
        ]
        environ = {"BANDIT_UPSTREAMS": json.dumps(upstreams), "BANDIT_ARMS": json.dumps(arms)}
        async with serving(tmp_path / "var", models, **environ) as client:
            path = "/v1/chat/completions"
            for model in ("plain", "auto"):
                status, _ = await client.post(path, ASKED | {"model": model, "odd": True})
                assert status == 200
            status, body = await client.post(path, ASKED | {"model": "other", "odd": True})
            assert (status, body["error"]["code"]) == (400, "invalid_value")
            for model in ("plain", "other", "auto"):
                status, body = await client.post(path, ASKED | {"model": model, "tools": True})
                assert (status, body["error"]["param"]) == (400, "tools")
            assert (plain.requests, other.requests) == (2, 0)


def test_a_mark_before_a_key_or_a_list_of_the_environment_is_none_of_it(tmp_path: Path) -> None:
    """Seen on 5a5a85b: a key file of Windows' Notepad gave a key that no header can carry."""
    (tmp_path / "key").write_bytes(b"\xef\xbb\xbfsk-1\r\n")
    (tmp_path / "wide").write_bytes("sk-2\r\n".encode("utf-16"))
    (tmp_path / "two").write_text("sk-3\nsk-4\n")
    items = [
        {"id": name, "base_url": "http://h/v1", "key_file": str(tmp_path / name)}
        for name in ("key", "wide", "two")
    ]
    found = settings.read(None, {"BANDIT_UPSTREAMS": "\ufeff" + json.dumps(items[:2])})
    assert [each.key for each in found.upstreams] == ["sk-1", "sk-2"]
    with pytest.raises(settings.BadSettings, match=r"key_file: the key must be one line"):
        settings.read(None, {"BANDIT_UPSTREAMS": json.dumps(items[2:])})
