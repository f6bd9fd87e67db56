"""Large requests, events and heads: each thing has one limit, a setting as large as providers'."""

from __future__ import annotations

import json
import pkgutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from bandit_service import settings
from tests.service.provider import HELLO, signals_of
from tests.service.wires import (
    STREAM_HEAD,
    a_whole,
    an_answer,
    an_event,
    behind,
    says,
    says_and_closes,
    text_from,
)

_DONE = b"data: [DONE]\n\n"


def _turns(text: str, more: int = 0) -> list[Any]:
    return [{"role": "user", "content": text}, *({"role": "user", "content": text},) * more]


async def test_an_image_in_one_event_or_answer_goes_through(tmp_path: Path, models: Path) -> None:
    """Seen on 5a5a85b: "an event is larger than 4194304 bytes", whatever was configured."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "x" * 6_000_000}}
    delta = {"role": "assistant", "content": "", "images": [image]}
    chunk = {"id": "t", "choices": [{"index": 0, "delta": delta, "finish_reason": "stop"}]}
    stream = STREAM_HEAD + b"\r\ndata: " + json.dumps(chunk).encode() + b"\n\n" + _DONE
    arm = {"id": "alpha", "upstream": "alpha", "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 4.0}
    arms = {"BANDIT_ARMS": json.dumps([arm | {"capabilities": ["vision"]}])}
    async with behind(tmp_path, models, **arms) as (asking, client, alpha, _):
        alpha.script = [says_and_closes(stream)]
        raw = await asking.chat.completions.with_raw_response.create(
            model="alpha", messages=HELLO, stream=True
        )
        chunks = [each async for each in raw.parse()]
        found = chunks[0].choices[0].delta.images[0]
        assert len(found["image_url"]["url"]) > 6_000_000
        assert "quality" not in await signals_of(client, raw.headers["x-decision-id"], 1)
        alpha.script = [says(a_whole(an_answer("y" * 6_000_000)))]
        assert await text_from(asking, "alpha") == "y" * 6_000_000
        # and the images that go in
        parts: Any = [{"type": "text", "text": "What is it?"}, image]
        answer = await asking.chat.completions.create(model="alpha", messages=_turns(parts, 1))
        assert answer.choices[0].message.content == "fine"


async def test_one_setting_bounds_an_answer_and_each_event_of_a_stream(
    tmp_path: Path, models: Path
) -> None:
    bound = {"BANDIT_GATEWAY_MAX_ANSWER_BYTES": "65536", "BANDIT_GATEWAY_MAX_BODY_BYTES": "200000"}
    async with behind(tmp_path, models, **bound) as (asking, client, alpha, _):
        small = b"".join(an_event("x" * 30_000) for _ in range(10))
        alpha.script = [says_and_closes(STREAM_HEAD + b"\r\n" + small + _DONE)]
        assert len(await text_from(asking, "alpha", stream=True) or "") == 300_000
        large = STREAM_HEAD + b"\r\n" + an_event("x" * 70_000) + _DONE
        alpha.script = [says_and_closes(large)]
        with pytest.raises(openai.InternalServerError, match=r"gateway\.max_answer_bytes"):
            await text_from(asking, "alpha", stream=True)
        asked = {"model": "alpha", "messages": _turns("x" * 250_000)}
        status, answer = await client.post("/v1/chat/completions", asked)
        assert (status, answer["error"]["code"]) == (413, "too_large")
        assert "larger than 200000 bytes (gateway.max_body_bytes)" in answer["error"]["message"]


async def test_a_text_is_as_long_as_the_window_of_an_arm(tmp_path: Path, models: Path) -> None:
    """Seen on 5a5a85b: 413 `query: … at most 200000` for 75,000 tokens and a window of 128,000."""
    arm = {"usd_per_mtok_in": 1.0, "usd_per_mtok_out": 4.0}
    arms = [{**arm, "id": "alpha", "upstream": "alpha", "context_window": 16_000},
            {**arm, "id": "beta", "upstream": "beta", "context_window": 2_000_000}]  # fmt: skip
    async with behind(tmp_path, models, BANDIT_ARMS=json.dumps(arms)) as (_, client, alpha, beta):
        # a text of more than the body that other paths take
        for text in ("word " * 60_000, "word " * 900_000):
            for model in ("auto", "beta"):
                asked = {"model": model, "messages": _turns(text)}
                status, answer = await client.post("/v1/chat/completions", asked)
                assert status == 200, answer
        completed = {"model": "auto", "prompt": "word " * 60_000}
        assert (await client.post("/v1/completions", completed))[0] == 200
        assert (alpha.requests, beta.requests) == (0, 5)
        status, answer = await client.post("/v1/decide", {"query": "word " * 60_000})
        assert (status, answer["error"]["code"]) == (413, "too_large")


async def test_a_head_with_a_long_line_is_read_and_a_longer_one_named(
    tmp_path: Path, models: Path
) -> None:
    """Seen on 5a5a85b: a header of 9,000 bytes was "no connection (ClientResponseError)"."""
    async with behind(tmp_path, models) as (asking, _, alpha, _beta):
        alpha.script = [says(a_whole(an_answer(), "x-policy: " + "a" * 20_000))]
        assert await text_from(asking, "alpha") == "fine"
        alpha.script = [says_and_closes(a_whole(an_answer(), "x-policy: " + "a" * 90_000))]
        with pytest.raises(openai.InternalServerError) as failed:
            await text_from(asking, "alpha")
        assert "more than 65536 bytes (gateway.max_header_bytes)" in str(failed.value)
        assert "aaaa" not in str(failed.value)


def _many(n: int) -> dict[str, dict[str, Any]]:
    """By path: a body with a list of so many objects, or of ten times as many numbers."""
    said = {"role": "user", "content": "x"}
    blocks = [{"role": "user", "content": [{"type": "text", "text": "x"}] * n}]
    return {
        "/v1/chat/completions": {"model": "alpha", "messages": [said] * n},
        "/v1/responses": {"model": "alpha", "input": [said] * n},
        "/v1/messages": {"model": "alpha", "max_tokens": 5, "messages": blocks},
        "/v1/messages/count_tokens": {"model": "alpha", "messages": blocks},
        "/v1/completions": {"model": "alpha", "prompt": [0] * (n * 10)},
        "/v1/embeddings": {"model": "alpha", "input": [0] * (n * 10)},
    }


_WORK = (
    "bandit_service.wire.decode_passed",
    "bandit_service.http.gateway.fields.check",
    "bandit_service.http.gateway.heard_of",
    "bandit_service.http.gateway.of_chat",
    "bandit_service.http.gateway.of_completion",
    "bandit_service.gateway.gateway.size_of",
    "bandit_service.gateway.gateway.ties_of",
    "bandit_service.gateway.embedding.size_of",
    "bandit_service.gateway.counting.size_of",
    "bandit_service.gateway.upstreams.fit_of",
    "bandit_service.gateway.request.ChatRequest.to",
    "bandit_service.gateway.translation.request_of",
)
"""All that looks at each message."""


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_a_request_of_many_parts_does_not_hold_up_who_comes_beside_it(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """On 0e17ee51 a chat of 200,000 messages held the event loop for 1.1 s, 100,000 items of
    /v1/responses or blocks of /v1/messages for 0.3 s and more: all of it was done in its turns."""
    off: set[str] = set()  # what was done in the turns of the loop
    done: set[str] = set()
    loop = threading.get_ident()

    def noted(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def working(*arguments: Any, **more: Any) -> Any:
            done.add(name)
            if threading.get_ident() == loop:
                off.add(name)
            return work(*arguments, **more)

        return working

    for name in _WORK:
        at, _, last = name.rpartition(".")
        monkeypatch.setattr(name, noted(name, getattr(pkgutil.resolve_name(at), last)))
    async with behind(tmp_path, models, 60.0, kind) as (_, client, *_providers):
        for path, body in _many(4_001).items():
            await client.post(path, body)
        assert not off
        assert done == set(_WORK)
        assert (await client.post("/v1/chat/completions", _many(10)["/v1/chat/completions"]))[0]
        assert off  # a small one is done at once


async def test_a_body_of_too_many_parts_is_refused_by_its_field_and_the_limit(
    tmp_path: Path, models: Path
) -> None:
    """The decoding holds up all others; on 0e17ee51 2,000,000 lists did so for 1 s."""
    async with behind(tmp_path, models, BANDIT_GATEWAY_MAX_BODY_PARTS="500") as (_, client, *_):
        for path, body in _many(501).items():
            status, answer = await client.post(path, body)
            assert status == 413, answer
            field = next(name for name in ("messages", "input", "prompt") if name in body)
            assert answer["error"]["message"].startswith(f"{field}: the body has more than 500 ")
            assert "(gateway.max_body_parts)" in answer["error"]["message"]
        text = _turns('[{"a": 1}, "b\\"", ' * 1000)  # a text has no parts, whatever is in it
        asked = {"model": "alpha", "messages": text}
        assert (await client.post("/v1/chat/completions", asked))[0] == 200


def test_the_limits_are_as_large_as_providers() -> None:
    gateway = settings.Settings().gateway
    assert min(gateway.max_body_bytes, gateway.max_answer_bytes) >= 32 * 2**20
    assert gateway.max_body_parts >= 40 * 2048  # messages of OpenAI's, with a few parts each
