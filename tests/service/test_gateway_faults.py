"""The gateway in front of providers that misbehave on the wire: real sockets, raw bytes."""

from __future__ import annotations

import asyncio
import gzip
import socket
from pathlib import Path

import openai
import pytest

from bandit_service.gateway.allowance import Allowance
from bandit_service.gateway.failures import Failed
from bandit_service.gateway.upstreams import Upstreams, retry_after_s
from bandit_service.settings import GatewaySettings
from bandit_service.settings.upstreams import Upstream, UpstreamSpec
from tests.service.provider import HELLO, signals_of
from tests.service.running import Client
from tests.service.wires import (
    A_STREAM,
    STREAM_HEAD,
    Wire,
    Wires,
    a_whole,
    an_answer,
    an_event,
    behind,
    byte_by_byte,
    half_closes,
    resets,
    says,
    says_and_closes,
    stops_in_the_middle,
    text_from,
)


async def _sent_again(client: Client, upstream: str) -> float:
    async with client.session.get(f"{client.url}/metrics") as exposed:
        text = await exposed.text()
    name = f'bandit_upstream_sent_again_total{{upstream="{upstream}"}} '
    return float(text.split(name)[1].split()[0]) if name in text else 0.0


_MALFORMED = {
    "reset before the head": resets,
    "closed before the head": says_and_closes(b""),
    "no HTTP": says_and_closes(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    "half a head": says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "shorter than it said": says_and_closes(a_whole(an_answer())[:-9]),
    "broken chunks": says_and_closes(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}"
    ),
    "no gzip": says_and_closes(a_whole(b"plain", "Content-Encoding: gzip")),
    "not UTF-8": says_and_closes(a_whole(b'{"choices": "\xff\xfe"}')),
    "an error with 200": says_and_closes(a_whole(b'{"error": {"message": "overloaded"}}')),
    "a list": says_and_closes(a_whole(b"[]")),
    "no choice": says_and_closes(a_whole(b'{"choices": []}')),
    "a choice of null": says_and_closes(a_whole(b'{"choices": [null]}')),
    "nothing at all": says_and_closes(a_whole(b"")),
    "a redirect": says_and_closes(a_whole(b"", "Location: http://x/", status="302 Found")),
}


@pytest.fixture(scope="module")
def quick() -> dict[str, str]:
    return {"BANDIT_GATEWAY_BREAKER_FAILURES": "1000"}


async def test_what_is_malformed_is_the_arms_failure_and_another_answers(
    tmp_path: Path, models: Path, quick: dict[str, str]
) -> None:
    async with behind(tmp_path, models, **quick) as (asking, client, alpha, _):
        for name, act in _MALFORMED.items():
            before = alpha.requests
            alpha.script = [act]
            with pytest.raises(openai.InternalServerError, match="alpha") as failed:
                await text_from(asking, "alpha")
            assert failed.value.status_code == 502, name
            assert alpha.requests == before + 1, f"{name}: asked {alpha.requests - before} times"
            alpha.script = [act]
            while alpha.script:  # chance may choose beta first
                assert await text_from(asking, "auto") == "fine", name
            alpha.script = [act]
            with pytest.raises(openai.InternalServerError, match="alpha"):
                await text_from(asking, "alpha", stream=True)
        assert await text_from(asking, "alpha") == "fine"
        assert await _sent_again(client, "alpha") == 0.0


async def test_an_idle_connection_that_was_closed_is_replaced_once(
    tmp_path: Path, models: Path, quick: dict[str, str]
) -> None:
    async with behind(tmp_path, models, **quick) as (asking, client, alpha, _):
        for i, act in enumerate((resets, says_and_closes(b""))):
            assert await text_from(asking, "alpha") == "fine"
            alpha.script = [act]
            before = alpha.requests
            assert await text_from(asking, "alpha") == "fine"
            assert alpha.requests == before + 2
            assert await _sent_again(client, "alpha") == i + 1.0
        # a fresh connection that is closed too is the arm's failure: no third time
        alpha.script = [resets, resets]
        before = alpha.requests
        with pytest.raises(openai.InternalServerError, match="alpha"):
            await text_from(asking, "alpha")
        assert alpha.requests == before + 2


async def test_no_connection_is_tried_again_and_what_was_begun_is_not() -> None:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    seen: list[str] = []
    spec = UpstreamSpec(id="p", base_url=f"http://127.0.0.1:{port}/v1", resend_after_s=0.01)

    async def accept(reader: asyncio.StreamReader, wire: Wire) -> None:
        await Wires().serve(reader, wire)

    def opened(id: str) -> None:
        seen.append(id)
        if len(seen) == 2:
            listening.listen()
            servers.append(asyncio.ensure_future(asyncio.start_server(accept, sock=listening)))

    servers: list[asyncio.Future[asyncio.Server]] = []
    upstreams = Upstreams({"p": Upstream(spec)}, opened)
    allowance = Allowance(GatewaySettings())
    with pytest.raises(Failed, match="ClientConnectorError"):
        async with upstreams.send("p", "/chat/completions", {}, {}, allowance):
            raise AssertionError("nobody listens")
    assert seen == ["p"]
    async with upstreams.send("p", "/chat/completions", {}, {}, allowance) as response:
        assert await response.content.read() == an_answer()
    assert seen == ["p", "p"]
    await upstreams.close()
    for server in servers:
        (await server).close()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "7", "retry-after-ms": "1500"}, 1.5),
        ({"Retry-After": "Fri, 13 Feb 2009 23:32:00 GMT"}, 30.0),
        ({"Retry-After": "Fri, 13 Feb 2009 23:31:00 GMT"}, 0.0),
        ({"Retry-After": "-1"}, 0.0),
        ({"Retry-After": "inf"}, 0.0),
        ({"Retry-After": "soon", "retry-after-ms": "x"}, 0.0),
        ({}, 0.0),
    ],
)
def test_how_long_a_provider_asks_to_wait(headers: dict[str, str], seconds: float) -> None:
    """1234567890 is Fri, 13 Feb 2009 23:31:30 GMT."""
    assert retry_after_s(headers, 1234567890.0) == pytest.approx(seconds)


@pytest.mark.parametrize("stream", [False, True])
async def test_compressed_answers_are_read(
    tmp_path: Path, models: Path, quick: dict[str, str], stream: bool
) -> None:
    async with behind(tmp_path, models, **quick) as (asking, _, alpha, _beta):
        if stream:
            packed = gzip.compress(A_STREAM)
            data = STREAM_HEAD + b"Content-Encoding: gzip\r\n\r\n" + packed
            alpha.script = [says_and_closes(data)]
            assert await text_from(asking, "alpha", stream=True) == "Grüße, 世界 🌍"
        else:
            packed = gzip.compress(an_answer("packed"))
            alpha.script = [says(a_whole(packed, "Content-Encoding: gzip"))]
            assert await text_from(asking, "alpha") == "packed"


async def test_a_stream_may_come_one_byte_at_a_time(
    tmp_path: Path, models: Path, quick: dict[str, str]
) -> None:
    async with behind(tmp_path, models, **quick) as (asking, _, alpha, _beta):
        alpha.script = [byte_by_byte]
        assert await text_from(asking, "alpha", stream=True) == "Grüße, 世界 🌍"


async def test_a_line_without_an_end_and_a_stream_that_stops_end_with_an_error(
    tmp_path: Path, models: Path, quick: dict[str, str]
) -> None:
    huge = STREAM_HEAD + b"\r\n" + an_event("half") + b"data: " + b"x" * 5_000_000
    async with behind(tmp_path, models, 1.0, **quick) as (asking, client, alpha, _beta):
        for act in (says_and_closes(huge), half_closes, stops_in_the_middle):
            alpha.script = [act]
            raw = await asking.chat.completions.with_raw_response.create(
                model="alpha", messages=HELLO, stream=True
            )
            chunks = aiter(raw.parse())
            words = [(await anext(chunks)).choices[0].delta.content]
            with pytest.raises(openai.APIError, match="alpha"):
                await anext(chunks)
            assert words == ["half"]
            signals = await signals_of(client, raw.headers["x-decision-id"])
            assert signals["quality"] == 0.0


async def test_an_answer_beyond_the_bound_is_refused(
    tmp_path: Path, models: Path, quick: dict[str, str]
) -> None:
    bound = {"BANDIT_GATEWAY_MAX_ANSWER_BYTES": "65536"}
    async with behind(tmp_path, models, **quick, **bound) as (asking, _, alpha, _beta):
        alpha.script = [says_and_closes(a_whole(an_answer("x" * 70_000)))]
        with pytest.raises(openai.InternalServerError, match="larger than 65536 bytes"):
            await text_from(asking, "alpha")


async def test_what_comes_after_an_answer_is_not_the_next_ones(
    tmp_path: Path, models: Path, quick: dict[str, str]
) -> None:
    """A provider that answers twice must not give the second answer to another user."""
    async with behind(tmp_path, models, **quick) as (asking, _, alpha, _beta):
        alpha.script = [says(a_whole(an_answer("first")) + a_whole(an_answer("smuggled")))]
        assert await text_from(asking, "alpha") == "first"
        assert await text_from(asking, "alpha") == "fine"


async def test_429_masks_the_arm_for_as_long_as_it_says_and_it_comes_back(
    tmp_path: Path, models: Path
) -> None:
    async with behind(tmp_path, models) as (asking, _, alpha, _beta):
        limited = a_whole(b"{}", "Retry-After: 1", status="429 Too Many Requests")
        alpha.script = [says(limited)]
        loop = asyncio.get_running_loop()
        while alpha.script:
            begun = loop.time()  # before it is masked, however long the answer takes
            assert await text_from(asking, "auto") == "fine"
        async with asyncio.timeout(60):
            while alpha.requests == 1:
                await text_from(asking, "auto")
        assert loop.time() - begun >= 0.9
        assert await text_from(asking, "alpha") == "fine"
