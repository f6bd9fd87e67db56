"""Large requests, events and heads: each thing has one limit, a setting as large as providers'."""

from __future__ import annotations

import json
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


def test_the_limits_are_as_large_as_providers() -> None:
    gateway = settings.Settings().gateway
    assert min(gateway.max_body_bytes, gateway.max_answer_bytes) >= 32 * 2**20
