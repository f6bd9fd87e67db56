"""The translation to and from Anthropic's Messages API, held to its official package's types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from bandit_service.core.errors import Refused
from bandit_service.gateway.failures import Failed
from bandit_service.gateway.providers import _anthropic_request
from bandit_service.gateway.providers._anthropic_answer import Decoder, answer, usage
from bandit_service.gateway.sse import Events, TooLong

REQUEST: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsNonStreaming)
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
PNG = "data:image/png;base64,iVBORw0KGgo="
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
ASKED: dict[str, Any] = {
    "model": "claude",
    "messages": [
        {"role": "system", "content": "Be brief"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": PNG}},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function",
                 "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}},
                {"id": "c2", "type": "function",
                 "function": {"name": "weather", "arguments": ""}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "tool", "tool_call_id": "c2", "content": "sun"},
    ],
    "tools": [TOOL],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "temperature": 1.7,
    "stop": "END",
    "max_completion_tokens": 50,
    "user": "u1",
    "seed": 7,
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": 1}}},
}  # fmt: skip


def _walked(value: Any) -> Any:
    """Everything that is checked only when it is looked at, looked at."""
    if isinstance(value, dict):
        return {name: _walked(each) for name, each in value.items()}
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        return value
    return [_walked(each) for each in value]


def test_a_request_is_one_that_the_official_package_would_send() -> None:
    sent = _anthropic_request.request("/chat/completions", ASKED)
    _walked(REQUEST.validate_python(sent))
    assert sent["system"] == [{"type": "text", "text": "Be brief"}]
    assert [turn["role"] for turn in sent["messages"]] == ["user", "assistant", "user"]
    assert [block["type"] for block in sent["messages"][0]["content"]] == ["text", "image", "image"]
    assert sent["messages"][0]["content"][1]["source"] == {
        "type": "base64",
        "media_type": "image/png",
        "data": "iVBORw0KGgo=",
    }
    assert sent["messages"][1]["content"][0] == {
        "type": "tool_use",
        "id": "c1",
        "name": "weather",
        "input": {"city": "Oslo"},
    }
    assert sent["messages"][1]["content"][1]["input"] == {}
    assert [block["tool_use_id"] for block in sent["messages"][2]["content"]] == ["c1", "c2"]
    assert sent["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    assert (sent["temperature"], sent["stop_sequences"], sent["max_tokens"]) == (1.0, ["END"], 50)
    assert sent["metadata"] == {"user_id": "u1"}
    assert sent["output_config"]["format"]["schema"] == {"a": 1}
    assert "seed" not in sent


def test_the_least_request_has_a_bound() -> None:
    sent = _anthropic_request.request(
        "/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    )
    assert sent == {
        "model": "m",
        "max_tokens": _anthropic_request.MAX_TOKENS,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    }


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("n", {"n": 2}),
        ("logprobs", {"logprobs": True}),
        ("functions", {"functions": [{}]}),
        ("modalities", {"modalities": ["audio"]}),
        ("max_tokens", {"max_tokens": 0, "max_completion_tokens": None}),
        ("temperature", {"temperature": "hot"}),
        ("stop", {"stop": [" "]}),
        ("tool_choice", {"tool_choice": "perhaps"}),
        ("response_format", {"response_format": {"type": "xml"}}),
        ("messages", {"messages": [{"role": "system", "content": "x"}]}),
        ("messages[0].role", {"messages": [{"role": "robot", "content": "x"}]}),
        ("messages[0].content[0].type",
         {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}),
        ("messages[0].content[0].image_url.url",
         {"messages": [{"role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}]}),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_refused_by_its_field(field: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        _anthropic_request.request("/chat/completions", ASKED | wrong)
    assert refused.value.param == field
    assert refused.value.message.startswith(f"{field}: ")


def test_other_paths_are_refused() -> None:
    with pytest.raises(Refused, match="/v1/completions"):
        _anthropic_request.request("/completions", {"model": "m", "prompt": "x"})


MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "It rains."},
        {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Oslo"}},
    ],
    "stop_reason": "tool_use", "stop_sequence": None,
    "usage": {"input_tokens": 10, "cache_read_input_tokens": 400,
              "cache_creation_input_tokens": 20, "output_tokens": 7},
}  # fmt: skip


def test_an_answer_is_one_that_the_official_client_reads() -> None:
    Message.model_validate(MESSAGE)  # the sample is what the API says
    read = ChatCompletion.model_validate(answer(MESSAGE, 5))
    choice = read.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("It rains.", "tool_calls")
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].id == "t1"
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": "Oslo"}  # type: ignore[union-attr]
    assert read.usage is not None
    assert read.usage.prompt_tokens == 430
    assert read.usage.completion_tokens == 7
    assert read.usage.prompt_tokens_details is not None
    assert read.usage.prompt_tokens_details.cached_tokens == 400
    assert usage({}) is None


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"),
     ("refusal", "content_filter"), ("pause_turn", "stop")],
)  # fmt: skip
def test_why_it_stopped(reason: str, finish: str) -> None:
    made = answer(MESSAGE | {"stop_reason": reason, "content": []}, 5)
    assert made["choices"][0]["finish_reason"] == finish
    assert made["choices"][0]["message"]["content"] == ""


def test_an_error_tells_its_status_and_none_of_its_text() -> None:
    for kind, status in (("overloaded_error", 529), ("rate_limit_error", 429), ("odd", 500)):
        with pytest.raises(Failed) as failed:
            answer({"type": "error", "error": {"type": kind, "message": "the prompt"}}, 0)
        assert failed.value.status == status
        assert "prompt" not in str(failed.value)


EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Es "}},
    {"type": "content_block_delta", "index": 0,
     "delta": {"type": "text_delta", "text": "schneit ❄"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1,
     "content_block": {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}},
    {"type": "content_block_delta", "index": 1,
     "delta": {"type": "input_json_delta", "partial_json": '{"city": '}},
    {"type": "content_block_delta", "index": 1,
     "delta": {"type": "input_json_delta", "partial_json": '"Oslo"}'}},
    {"type": "content_block_stop", "index": 1},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None},
     "usage": {"output_tokens": 30}},
    {"type": "message_stop"},
]  # fmt: skip


def _told(events: list[dict[str, Any]]) -> list[bytes]:
    stream = Decoder(5)
    told = [each for event in events for each in stream.feed(msgspec.json.encode(event))]
    return told + stream.end()


def test_a_stream_is_one_that_the_official_client_reads() -> None:
    for event in EVENTS:
        if event["type"] != "ping":
            EVENT.validate_python(event)
    told = _told(EVENTS)
    assert told[-1] == b"[DONE]"
    chunks = [ChatCompletionChunk.model_validate_json(each) for each in told[:-1]]
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == "Es schneit ❄"
    assert [delta.role for delta in deltas][:2] == ["assistant", None]
    calls = [call for delta in deltas for call in delta.tool_calls or ()]
    assert calls[0].function is not None
    assert (calls[0].id, calls[0].function.name) == ("t1", "weather")
    arguments = "".join((call.function.arguments or "") if call.function else "" for call in calls)
    assert json.loads(arguments) == {"city": "Oslo"}
    finished = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert [each for each in finished if each] == ["tool_calls"]
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (430, 30)


def test_a_stream_that_is_cut_off_or_tells_an_error_has_no_end() -> None:
    assert b"[DONE]" not in _told(EVENTS[:6])
    with pytest.raises(Failed, match="overloaded_error"):
        _told([*EVENTS[:4], {"type": "error", "error": {"type": "overloaded_error"}}])
    for wrong in (b"{", b"[]", b'{"type": "message_start"}'):
        with pytest.raises(Failed):
            Decoder(5).feed(wrong)


def _pieces(whole: bytes, cuts: list[int]) -> Iterator[bytes]:
    edges = [0, *sorted({cut % (len(whole) + 1) for cut in cuts}), len(whole)]
    for a, b in pairwise(edges):
        yield whole[a:b]


@given(st.lists(st.integers(0, 10**6), max_size=30), st.sampled_from(["\n", "\r\n", "\r"]))
def test_however_the_bytes_are_cut_the_same_events_come(cuts: list[int], end: str) -> None:
    lines = [f": a comment{end}"]
    lines += [
        f"event: {event['type']}{end}data: {json.dumps(event, ensure_ascii=False)}{end}{end}"
        for event in EVENTS
    ]
    reader = Events(10_000)
    found = [
        data for piece in _pieces("".join(lines).encode(), cuts) for data in reader.feed(piece)
    ]
    assert [json.loads(data) for data in found] == EVENTS
    assert reader.end() == b""


def test_an_event_has_a_bound_and_the_last_one_needs_no_empty_line() -> None:
    with pytest.raises(TooLong):
        Events(10).feed(b"data: " + b"x" * 20)
    reader = Events(100)
    assert reader.feed(b"data: a\ndata: b") == []
    assert reader.end() == b"a\nb"
