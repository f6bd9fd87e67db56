"""What the fast path answers is what the HTTP stack answers, in the order of the requests."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from bandit_service import logs
from bandit_service.http import fast_path
from bandit_service.http.fast_path import FastPath
from tests.service.keyring import Keyring
from tests.service.provider import HELLO, a_gateway, until
from tests.service.running import Client, a_vector, serving

_CHANGES = ("date", "x-decision-id", "x-request-id", "x-feedback-token", "request-id",
            "content-length", "x-arm", "retry-after")  # fmt: skip
SLOW = "X-Request-Timeout: 60\r\n"
"""With this header a request is of the HTTP stack."""


def _post(path: str, body: Any, *more: str) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = "".join(more)
    return (
        f"POST {path} HTTP/1.1\r\nHost: [::1]\r\n{lines}Content-Length: {len(raw)}\r\n\r\n".encode()
        + raw
    )


async def _answer(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    async with asyncio.timeout(60):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in lines)}
        if "content-length" in headers:
            return first, headers, await reader.readexactly(int(headers["content-length"]))
        body = await reader.readuntil(b"\r\n0\r\n\r\n")
    return first, headers, body


async def _asked(client: Client, *requests: bytes) -> list[tuple[str, dict[str, str], bytes]]:
    host, port = client.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"".join(requests))
    answers = [await _answer(reader) for _ in requests]
    writer.close()
    return answers


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the fast path took each of the requests that were offered to it."""
    seen: list[bool] = []
    takes = FastPath.takes

    def noted(self: FastPath, head: Any, body: bytes, entrance: Any) -> bool:
        seen.append(takes(self, head, body, entrance))
        return seen[-1]

    monkeypatch.setattr(FastPath, "takes", noted)
    return seen


_VECTOR = [round(each, 9) for each in a_vector(1)]
_CHAT = {"model": "auto", "messages": HELLO}
_MESSAGE = {"model": "auto", "max_tokens": 9, "messages": HELLO}
ASKED: list[tuple[str, Any, bool]] = [
    ("/v1/decide", {"embedding": _VECTOR}, True),
    ("/v1/decide", {"embedding": [1.0]}, True),
    ("/v1/decide", {"embedding": _VECTOR, "arms": ["no such arm"]}, True),
    ("/v1/decide", {"embedding": _VECTOR, "explain": True}, False),
    ("/v1/decide", {"embedding": _VECTOR, "explian": True}, False),
    ("/v1/decide", b"{", False),
    ("/v1/chat/completions", _CHAT, True),
    ("/v1/chat/completions", _CHAT | {"stream": True}, True),
    ("/v1/chat/completions", _CHAT | {"model": "no such arm"}, True),
    ("/v1/chat/completions", b"[]", True),
    ("/v1/completions", {"model": "auto", "prompt": "hi"}, True),
    ("/v1/messages", _MESSAGE, True),
    ("/v1/messages", _MESSAGE | {"stream": True}, True),
    ("/v1/messages", b"{}", True),
    ("/v1/responses", {"model": "auto", "input": "hi"}, True),
]  # fmt: skip


async def test_both_ways_answer_the_same(tmp_path: Path, models: Path, taken: list[bool]) -> None:
    async with a_gateway(tmp_path, models) as (client, _):
        for path, body, fast in ASKED:
            taken.clear()
            (one,) = await _asked(client, _post(path, body))
            assert taken == [fast], (path, body)
            (other,) = await _asked(client, _post(path, body, SLOW))
            assert taken == [fast]
            assert one[0] == other[0], (path, body)
            assert one[1].keys() == other[1].keys(), (path, body)
            for name in one[1].keys() - set(_CHANGES):
                assert one[1][name] == other[1][name], (path, name)
            if one[1].get("content-type") == "application/json":
                told, theirs = json.loads(one[2]), json.loads(other[2])
                assert told.keys() == theirs.keys()
                assert told.get("error") == theirs.get("error")


async def test_requests_that_do_not_wait_are_answered_in_their_order(
    tmp_path: Path, models: Path, taken: list[bool]
) -> None:
    async with a_gateway(tmp_path, models) as (client, _):
        host, port = client.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        chat = _post("/v1/chat/completions", _CHAT, "x-request-id: 1\r\n")
        writer.write(chat)
        while not taken:
            await asyncio.sleep(0)
        large = _post("/v1/decide", {"query": "x" * 200_000}, "x-request-id: 2\r\n")
        writer.write(large)  # more than is held while the first one is under way
        writer.write(_post("/v1/decide", {"query": "hi"}, "x-request-id: 3\r\n"))
        answers = [await _answer(reader) for _ in range(3)]
        assert [headers["x-request-id"] for _, headers, _ in answers] == ["1", "2", "3"]
        assert [first.split()[1] for first, _, _ in answers] == ["200"] * 3
        writer.close()


async def test_what_is_rare_is_left_to_the_stack(
    tmp_path: Path, models: Path, taken: list[bool]
) -> None:
    body = json.dumps({"embedding": _VECTOR}).encode()
    packed = gzip.compress(body)
    async with a_gateway(tmp_path, models) as (client, _):
        for request in (
            _post("/v1/decide", packed, "Content-Encoding: gzip\r\n"),
            _post("/v1/decide", body, "Idempotency-Key: a\r\n"),
            _post("/v1/decide?x=1", body),
            _post("/v1/decide", body, "X-Odd: \x01\r\n"),
        ):
            ((first, _, _),) = await _asked(client, request)
            assert first.split()[1] in ("200", "400")
        assert taken == []


async def test_a_kept_connection_ends_when_it_is_idle_and_not_before(
    tmp_path: Path, models: Path, taken: list[bool]
) -> None:
    async with a_gateway(tmp_path, models, BANDIT_SERVER_IDLE_S="0.5") as (client, _):
        host, port = client.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(3):
            writer.write(_post("/v1/chat/completions", _CHAT))
            first, _, _ = await _answer(reader)
            assert first.startswith("HTTP/1.1 200")
        async with asyncio.timeout(60):
            assert await reader.read() == b""
        assert taken == [True] * 3
        writer.close()


async def test_each_request_of_a_connection_is_admitted_by_itself(
    tmp_path: Path, models: Path, taken: list[bool]
) -> None:
    few = {"rate_per_s": 0.001, "burst": 2}
    ring = Keyring(app={}, few=few, old={"expires": "2020-01-01"}, ops={"scopes": ["admin"]})
    async with serving(tmp_path / "var", models, **ring.environ) as client:
        host, port = client.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))

        async def told(*more: str, by: str = "") -> int:
            said = (f"Authorization: Bearer {ring[by]}\r\n",) if by else ()
            writer.write(_post("/v1/decide", {"embedding": _VECTOR}, *said, *more))
            first, headers, _ = await _answer(reader)
            assert ("www-authenticate" in headers) == ("401" in first)
            return int(first.split()[1])

        foreign = "Origin: http://elsewhere.example\r\n"
        assert [await told(by="app"), await told(), await told(by="app")] == [200, 401, 200]
        assert [await told(foreign, by="app"), await told(by="app")] == [403, 200]
        assert [await told(by="few") for _ in range(3)] == [200, 200, 429]
        assert [await told(by="app"), await told(by="old")] == [200, 401]
        assert await told(by="app") == 200
        assert (await client.by(ring["ops"]).call("DELETE", "/v1/keys/app"))[0] == 200
        assert await told(by="app") == 401, "the head is the one before, byte for byte"
        assert taken == [True] * 12
        writer.close()


async def test_a_client_that_left_before_its_answer_is_logged_as_one(
    tmp_path: Path, models: Path, taken: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bandit.access")
    async with serving(tmp_path / "var", models) as client:
        host, port = client.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(_post("/v1/decide", {"embedding": _VECTOR}))
        writer.write_eof()  # for aiohttp, too, this is to leave

        async def logged() -> bool:
            return any(each.name == "bandit.access" for each in caplog.records)

        await until(logged)
        (one,) = (vars(each) for each in caplog.records if each.name == "bandit.access")
        assert (one["endpoint"], one["code"], taken) == ("POST /v1/decide", 499, [True])
        writer.close()


async def test_a_request_that_was_held_is_not_logged_with_the_decision_before_it(
    tmp_path: Path, models: Path, taken: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bandit.access")
    decisions: list[str] = []

    def noted(_: logging.LogRecord) -> bool:
        decisions.append(logs.decision_id.get())
        return True

    async with a_gateway(tmp_path, models) as (client, provider):
        provider.behaviour["alpha"] = "500 at the end"
        host, port = client.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(_post("/v1/chat/completions", _CHAT | {"model": "alpha"}))
        await until(lambda: _is(bool(provider.seen)))
        writer.write(_post("/v1/chat/completions", b"{}"))
        logging.getLogger("bandit.access").addFilter(noted)
        try:
            provider.finish.set()
            assert [(await _answer(reader))[0].split()[1] for _ in range(2)] == ["500", "400"]
        finally:
            logging.getLogger("bandit.access").removeFilter(noted)
        assert taken == [True, True]
        assert (bool(decisions[0]), decisions[1:]) == (True, [""])
        writer.close()


async def _is(there: bool) -> bool:
    return there


@pytest.mark.parametrize("lacks", ["an attribute", "the parser's form"])
async def test_with_an_aiohttp_of_another_make_its_own_server_answers(
    tmp_path: Path,
    models: Path,
    taken: list[bool],
    lacks: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if lacks == "an attribute":
        monkeypatch.setattr(fast_path, "_OF_AIOHTTP", ("_not_there_any_more",))
    else:
        monkeypatch.setattr(fast_path, "HttpRequestParser", lambda protocol: protocol)
    async with serving(tmp_path / "var", models) as client:
        ((first, _, _),) = await _asked(client, _post("/v1/decide", {"embedding": _VECTOR}))
        assert (first, taken) == ("HTTP/1.1 200 OK", [])
    assert "usual requests take the slow path" in caplog.text
