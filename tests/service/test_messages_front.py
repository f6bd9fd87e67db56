"""Anthropic's own client in front, providers of every dialect behind, real sockets between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest
from anthropic.types import Message

from tests.service.dialects import (
    ANSWER,
    ARMS,
    CACHED,
    COST,
    PROMPT,
    SIGNED,
    THOUGHT,
    Provider,
    pair,
)
from tests.service.keyring import Keyring

HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]
PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
WEATHER: Any = {
    "name": "weather",
    "description": "of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
    "cache_control": {"type": "ephemeral"},
}
SYSTEM: list[Any] = [
    {"type": "text", "text": "You are a coding agent."},
    {"type": "text", "text": "Rules.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
]


@pytest.fixture
def client(dialects: tuple[str, Provider]) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=dialects[0], api_key="none", max_retries=0) as made:
        yield made


def _text(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


@pytest.mark.parametrize("arm", ARMS)
def test_a_whole_answer(client: anthropic.Anthropic, provider: Provider, arm: str) -> None:
    raw = client.messages.with_raw_response.create(
        model=arm, max_tokens=300, system=SYSTEM, messages=HELLO, stop_sequences=[]
    )
    message = raw.parse()
    assert _text(message) == f"Hello from {arm}-large, ☃"
    assert (message.stop_reason, message.type, message.role) == ("end_turn", "message", "assistant")
    assert message.usage.input_tokens == PROMPT - CACHED
    assert message.usage.cache_read_input_tokens == CACHED
    assert message.usage.output_tokens == ANSWER
    assert message.id == raw.headers["x-decision-id"]
    assert message._request_id == raw.headers["x-request-id"]
    assert raw.headers["x-arm"] == arm
    assert float(raw.headers["x-cost-usd"]) == pytest.approx(COST)
    assert "Rules." in json.dumps(provider.last()[1])


@pytest.mark.parametrize("arm", ARMS)
def test_a_stream_has_every_event_in_order(client: anthropic.Anthropic, arm: str) -> None:
    seen = []
    with client.messages.stream(model=arm, max_tokens=300, messages=HELLO) as stream:
        for event in stream:
            seen.append(event.type)
        message = stream.get_final_message()
    assert _text(message) == f"Hello from {arm}-large, ☃"
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens == ANSWER
    assert message.usage.input_tokens == PROMPT - CACHED
    order = [each for i, each in enumerate(seen) if i == 0 or seen[i - 1] != each]
    steps = [each for each in order if each not in ("text", "content_block_delta")]
    assert steps == [
        "message_start", "content_block_start", "content_block_stop", "message_delta",
        "message_stop",
    ]  # fmt: skip


@pytest.mark.parametrize("arm", [*ARMS, "auto"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_loop_with_parallel_calls(
    client: anthropic.Anthropic, provider: Provider, arm: str, streamed: bool
) -> None:
    """As a coding agent sends it: the whole conversation again in every turn."""
    turns: list[Any] = [{"role": "user", "content": "How is the weather?"}]

    def asked() -> Message:
        if not streamed:
            return client.messages.create(
                model=arm, max_tokens=300, system=SYSTEM, tools=[WEATHER], messages=turns
            )
        with client.messages.stream(
            model=arm, max_tokens=300, system=SYSTEM, tools=[WEATHER], messages=turns
        ) as stream:
            return stream.get_final_message()

    for _ in range(8 if arm == "auto" else 2):  # another arm may answer each turn
        message = asked()
        assert message.stop_reason == "tool_use"
        calls = [block for block in message.content if block.type == "tool_use"]
        assert [(call.name, call.input) for call in calls] == [
            ("weather", {"city": "Oslo"}), ("weather", {"city": "Rome"}),
        ]  # fmt: skip
        results = [
            {"type": "tool_result", "tool_use_id": call.id, "content": f"rain in {call.input}",
             "is_error": False} for call in calls
        ]  # fmt: skip
        turns.append({"role": "assistant", "content": [b.model_dump() for b in message.content]})
        turns.append({"role": "user", "content": results})
        message = asked()
        assert "Oslo" in _text(message)
        assert "Rome" in _text(message)
        turns.append({"role": "assistant", "content": _text(message)})
        turns.append({"role": "user", "content": "And now?"})
    assert len(provider.last()[1]["tools"]) == 1


def test_a_call_of_one_provider_is_taken_by_another(client: anthropic.Anthropic) -> None:
    """The one behind chat names its calls as Anthropic does not allow."""
    asked: dict[str, Any] = {"max_tokens": 300, "tools": [WEATHER]}
    message = client.messages.create(model="chat", messages=HELLO, **asked)
    results: list[Any] = [
        {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
        for call in message.content if call.type == "tool_use"
    ]  # fmt: skip
    turns: list[Any] = [*HELLO, {"role": "assistant", "content": message.content},
                        {"role": "user", "content": results}]  # fmt: skip
    for arm in ARMS:
        said = client.messages.create(model=arm, messages=turns, **asked)
        assert _text(said) == "Seen: rain; rain"


@pytest.mark.parametrize("arm", ARMS)
def test_images_also_those_of_a_tool(
    client: anthropic.Anthropic, provider: Provider, arm: str
) -> None:
    image: Any = {"type": "image", "source": PNG}
    call: Any = {"type": "tool_use", "id": "t1", "name": "shot", "input": {}}
    result: Any = {"type": "tool_result", "tool_use_id": "t1", "content": [image]}
    client.messages.create(
        model=arm, max_tokens=9, messages=[
            {"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]},
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
        ],
    )  # fmt: skip
    assert json.dumps(provider.last()[1]).count(PNG["data"]) == 2


@pytest.mark.parametrize("streamed", [False, True])
def test_signed_thinking_comes_back_and_goes_to_nobody_else(
    client: anthropic.Anthropic, provider: Provider, streamed: bool
) -> None:
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    asked: dict[str, Any] = {
        "model": "claude", "max_tokens": 2000, "thinking": thinking, "messages": HELLO,
    }  # fmt: skip
    if streamed:
        with client.messages.stream(**asked) as stream:
            message = stream.get_final_message()
    else:
        message = client.messages.create(**asked)
    block = message.content[0]
    assert block.type == "thinking"
    assert (block.thinking, block.signature) == (THOUGHT, SIGNED)
    turns = [*HELLO, {"role": "assistant", "content": [b.model_dump() for b in message.content]},
             {"role": "user", "content": "Go on"}]  # fmt: skip
    for _ in range(8):  # the other arms are masked
        raw = client.messages.with_raw_response.create(
            model="auto", max_tokens=2000, messages=turns
        )
        assert raw.headers["x-arm"] == "claude"
    assert provider.last()[1]["messages"][1]["content"][0]["signature"] == SIGNED
    told = httpx.get(
        f"{str(client.base_url).rstrip('/')}/v1/decisions/{raw.headers['x-decision-id']}"
    ).json()
    assert "the thinking is signed" in told["excluded"]["chat"]
    with pytest.raises(anthropic.BadRequestError, match="the thinking is signed") as refused:
        client.messages.create(model="chat", max_tokens=9, messages=turns)
    body: Any = refused.value.body
    assert body["error"]["param"] == "messages[1].content[0]"


def test_thinking_that_nobody_signed_is_no_thinking_for_anthropic(
    client: anthropic.Anthropic, provider: Provider
) -> None:
    first: Any = {"role": "user", "content": "think"}
    message = client.messages.create(model="chat", max_tokens=9, messages=[first])
    assert message.content[0].model_dump() == {
        "type": "thinking", "thinking": THOUGHT, "signature": "",
    }  # fmt: skip
    turns: list[Any] = [first, {"role": "assistant", "content": message.content}, *HELLO]
    for arm in ("claude", "chat"):
        client.messages.create(model=arm, max_tokens=9, messages=turns)
        path, body, _ = provider.last()
        said = body["messages"][1]
        assert (THOUGHT in json.dumps(said)) == (arm == "chat"), path


def test_what_came_for_its_own_dialect_is_passed_through(
    client: anthropic.Anthropic, provider: Provider
) -> None:
    raw = client.messages.with_raw_response.create(
        model="claude", max_tokens=9, messages=HELLO, system=SYSTEM, top_k=3,
        metadata={"user_id": "u"}, extra_headers={"anthropic-beta": "one-2025,two-2025"},
    )  # fmt: skip
    _, body, headers = provider.last()
    assert body == {
        "model": "claude-large", "max_tokens": 9, "messages": HELLO, "system": SYSTEM, "top_k": 3,
        "metadata": {"user_id": "u"},
    }  # fmt: skip
    assert headers["anthropic-beta"] == "one-2025,two-2025"
    assert headers["anthropic-version"] == "2023-06-01"
    assert raw.http_response.json()["x_new_field"] == {"kept": 1.5}
    for arm in ("claude", "chat"):  # as agents call it: /v1/messages?beta=true
        client.beta.messages.create(model=arm, max_tokens=9, messages=HELLO, betas=["one-2025"])
        assert ("anthropic-beta" in provider.last()[2]) == (arm == "claude")


def test_a_stream_of_its_own_dialect_keeps_events_and_fields(
    dialects: tuple[str, Provider],
) -> None:
    body = {"model": "claude", "max_tokens": 9, "messages": HELLO, "stream": True}
    told = httpx.post(f"{dialects[0]}/v1/messages", json=body).text
    assert 'event: ping\ndata: {"type": "ping"}\n\n' in told
    assert '"x_new_field":{"kept":1.5}' in told
    assert told.count("event: message_stop") == 1


@pytest.mark.parametrize("arm", ARMS)
def test_tokens_are_counted(client: anthropic.Anthropic, arm: str) -> None:
    raw = client.messages.with_raw_response.count_tokens(
        model=arm, messages=HELLO, tools=[WEATHER], system=SYSTEM
    )
    tokens = raw.parse().input_tokens
    if arm == "claude":
        assert (tokens, raw.headers["x-token-count"]) == (321, "provider")
    else:
        assert 20 < tokens < 200
        assert raw.headers["x-token-count"] == "estimated"
    with pytest.raises(anthropic.NotFoundError):
        client.messages.count_tokens(model="nobody", messages=HELLO)


def test_models_are_listed_as_each_client_reads_them(client: anthropic.Anthropic) -> None:
    listed = client.models.list()
    assert [each.id for each in listed] == ["auto", *ARMS]
    assert listed.data[1].max_input_tokens == 200_000
    assert client.models.retrieve("claude").max_tokens == 64_000
    with pytest.raises(anthropic.NotFoundError, match="GET /v1/models lists"):
        client.models.retrieve("nobody")
    told = httpx.get(f"{str(client.base_url).rstrip('/')}/v1/models").json()["data"]
    assert told[0] == {
        "id": "auto",
        "object": "model",
        "created": 0,
        "owned_by": "bandit",
        "kind": "chat",
        "route": True,
    }
    assert told[1]["prices"]["usd_per_mtok_cached_in"] == 0.5
    assert told[1]["context_window"] == 200_000
    assert told[1]["capabilities"] == ["tools", "json", "vision"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"messages": []}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"tools": [{"name": 7}]}, "tools[0].name"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"model": "nobody"}, "model"),
    ],
)
def test_errors_are_told_as_anthropic_does(
    client: anthropic.Anthropic, wrong: dict[str, Any], field: str
) -> None:
    asked: dict[str, Any] = {"model": "chat", "max_tokens": 9, "messages": HELLO} | wrong
    with pytest.raises(anthropic.APIStatusError) as refused:
        client.messages.create(**asked)
    body: Any = refused.value.body
    assert (body["type"], body["error"]["param"]) == ("error", field)
    assert body["error"]["type"] in ("invalid_request_error", "not_found_error")
    assert body["request_id"] == refused.value.response.headers["x-request-id"]


@pytest.mark.parametrize("arm", ARMS)
def test_a_providers_errors_and_broken_streams(
    client: anthropic.Anthropic, provider: Provider, arm: str
) -> None:
    provider.how = "overloaded"
    with pytest.raises(anthropic.APIStatusError, match=arm) as failed:
        client.messages.create(model=arm, max_tokens=9, messages=HELLO)
    assert failed.value.status_code == 529
    assert failed.value.response.headers["x-arm"] == arm
    body: Any = failed.value.body
    assert body["error"]["type"] == "overloaded_error"
    provider.how = "cut"
    with (
        pytest.raises(anthropic.APIStatusError, match="reason"),
        client.messages.stream(model=arm, max_tokens=9, messages=HELLO) as stream,
    ):
        stream.get_final_message()


def test_an_arm_that_breaks_before_its_first_word_is_followed_by_another(
    client: anthropic.Anthropic, provider: Provider
) -> None:
    """Its message and its first block had begun by then."""
    provider.how = "cut early"
    search: Any = {"type": "web_search_20250305", "name": "web_search"}
    with (
        pytest.raises(anthropic.APIStatusError) as failed,
        client.messages.stream(
            model="auto", max_tokens=9, messages=HELLO, tools=[search], tool_choice={"type": "none"}
        ),
    ):
        pass
    assert failed.value.status_code == 502  # told by its status, as nothing was sent
    provider.how = "cut early once"
    for _ in range(6):
        with client.messages.stream(model="auto", max_tokens=9, messages=HELLO) as stream:
            assert _text(stream.get_final_message()).startswith("Hello from")
        provider.how = "cut early once"


def test_what_only_anthropic_has_masks_the_others(client: anthropic.Anthropic) -> None:
    search: Any = {"type": "web_search_20250305", "name": "web_search"}
    for _ in range(6):
        raw = client.messages.with_raw_response.create(
            model="auto", max_tokens=9, messages=HELLO, tools=[search], tool_choice={"type": "none"}
        )
        assert raw.headers["x-arm"] == "claude"
    prefill: list[Any] = [*HELLO, {"role": "assistant", "content": "{"}]
    with pytest.raises(
        anthropic.BadRequestError, match="only the same model continues a started answer"
    ):
        client.messages.create(model="chat", max_tokens=9, messages=prefill)


async def test_a_key_comes_as_either_header(tmp_path: Path, models: Path) -> None:
    ring = Keyring(caller={"scopes": ["decide"]}, reader={"scopes": ["read"]})
    async with pair(tmp_path, models, BANDIT_KEYS=json.dumps(ring.tables)) as (url, _):
        for key, token in ((ring["caller"], None), (None, ring["caller"])):
            async with anthropic.AsyncAnthropic(
                base_url=url, max_retries=0, api_key=key, auth_token=token
            ) as asking:
                await asking.messages.create(model="auto", max_tokens=9, messages=HELLO)
        for key, wrong in (
            ("x", anthropic.AuthenticationError),
            (ring["reader"], anthropic.PermissionDeniedError),
        ):
            async with anthropic.AsyncAnthropic(base_url=url, max_retries=0, api_key=key) as asking:
                with pytest.raises(wrong) as refused:
                    await asking.messages.create(model="auto", max_tokens=9, messages=HELLO)
                body: Any = refused.value.body
                assert body["type"] == "error"
