"""What clients ask in each dialect, and how they are answered: transcripts, held to the packages.

Each transcript is the whole of what goes over; the official packages' types are the judge of it.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent, ToolUnionParam
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import responses as responses_types
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from pydantic import TypeAdapter

from bandit_service.core.errors import Refused
from bandit_service.gateway.failures import Failed
from bandit_service.gateway.providers import _anthropic_request, _responses_request, front_of
from bandit_service.gateway.providers._blocks import Blocks
from bandit_service.gateway.request_size import size_of
from bandit_service.gateway.sse import Events
from bandit_service.gateway.translation import heard_of, told_of
from tests.service.dialects import walked
from tests.unit.test_anthropic import REQUEST as MESSAGES

MESSAGE_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
RESPONSE_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
CHAT: TypeAdapter[Any] = TypeAdapter(CompletionCreateParamsNonStreaming)
RESPONSES: TypeAdapter[Any] = TypeAdapter(ResponseCreateParamsNonStreaming)
PNG = "iVBORw0KGgo="
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
FUNCTION = {"name": "weather", "description": "of a city", "parameters": SCHEMA}

BY_MESSAGES: dict[str, Any] = {
    "model": "auto",
    "max_tokens": 500,
    "system": [
        {"type": "text", "text": "You code."},
        {"type": "text", "text": "Rules.", "cache_control": {"type": "ephemeral"}},
    ],
    "messages": [
        {"role": "user", "content": [
            {"type": "image",
             "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
            {"type": "text", "text": "What is it?"},
        ]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Hm. ", "signature": ""},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Oslo"}},
            {"type": "tool_use", "id": "t2", "name": "weather", "input": {}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": [
                {"type": "text", "text": "rain"},
                {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}},
            ]},
            {"type": "tool_result", "tool_use_id": "t2", "is_error": True, "content": "no city"},
            {"type": "text", "text": "Go on."},
        ]},
    ],
    "tools": [{"name": "weather", "description": "of a city", "input_schema": SCHEMA,
               "cache_control": {"type": "ephemeral"}}],
    "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    "stop_sequences": ["END"],
    "temperature": 0.5,
    "top_k": 40,
    "thinking": {"type": "enabled", "budget_tokens": 400},
    "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    "metadata": {"user_id": "u1"},
}  # fmt: skip
BY_RESPONSES: dict[str, Any] = {
    "model": "auto",
    "instructions": "You code.\n\nRules.",
    "input": [
        {"role": "user", "content": [
            {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"},
            {"type": "input_text", "text": "What is it?"},
        ]},
        {"type": "reasoning", "id": "rs_1", "summary": [],
         "content": [{"type": "reasoning_text", "text": "Hm. "}]},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
         "content": [{"type": "output_text", "text": "I look.", "annotations": []}]},
        {"type": "function_call", "id": "fc_1", "call_id": "t1", "name": "weather",
         "arguments": '{"city":"Oslo"}'},
        {"type": "function_call", "call_id": "t2", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "t1", "output": [
            {"type": "input_text", "text": "rain"},
            {"type": "input_image", "image_url": "https://a.example/b.png", "detail": "auto"},
        ]},
        {"type": "function_call_output", "call_id": "t2", "output": "Error: no city"},
        {"role": "user", "content": "Go on."},
    ],
    "tools": [{"type": "function", **FUNCTION, "strict": None}],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "temperature": 0.5,
    "max_output_tokens": 500,
    "text": {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}},
    "user": "u1",
    "store": False,
    "prompt_cache_key": "k",
}  # fmt: skip
AS_CHAT: dict[str, Any] = {
    "model": "auto",
    "messages": [
        {"role": "system", "content": "You code.\n\nRules."},
        {"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
            {"type": "text", "text": "What is it?"},
        ]},
        {"role": "assistant", "content": "I look.", "reasoning_content": "Hm. ", "tool_calls": [
            {"id": "t1", "type": "function",
             "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}},
            {"id": "t2", "type": "function",
             "function": {"name": "weather", "arguments": "{}"}},
        ]},
        {"role": "tool", "tool_call_id": "t1", "content": "rain"},
        {"role": "tool", "tool_call_id": "t2", "content": "Error: no city"},
        {"role": "user", "content": [
            {"type": "text", "text": "What the call t1 gave:"},
            {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
            {"type": "text", "text": "Go on."},
        ]},
    ],
    "tools": [{"type": "function", "function": FUNCTION}],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "stop": ["END"],
    "temperature": 0.5,
    "max_completion_tokens": 500,
    "user": "u1",
    "response_format": {"type": "json_schema",
                        "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}},
}  # fmt: skip


def test_a_request_of_the_messages_api_as_a_chat() -> None:
    MESSAGES.validate_python(BY_MESSAGES)
    heard = heard_of(front_of("anthropic"), BY_MESSAGES)
    assert (heard.lost, heard.unit) == (None, "u1")
    assert heard.body == AS_CHAT
    walked(CHAT.validate_python(heard.body))


def test_a_request_of_the_responses_api_as_a_chat() -> None:
    walked(RESPONSES.validate_python(BY_RESPONSES))
    heard = heard_of(front_of("responses"), BY_RESPONSES)
    assert heard.lost is None
    expected = json.loads(json.dumps(AS_CHAT))
    del expected["stop"]  # which the API has not
    expected["tools"][0]["function"]["strict"] = True  # which is its default
    # what a tool showed is a message of its own, since the turn after it is an item of its own
    shown = expected["messages"].pop()["content"]
    expected["messages"] += [
        {"role": "user", "content": shown[:2]}, {"role": "user", "content": "Go on."},
    ]  # fmt: skip
    assert heard.body == expected
    walked(CHAT.validate_python(heard.body))


def test_both_reach_the_other_ones_provider() -> None:
    body = {name: each for name, each in AS_CHAT.items() if name != "stop"}
    asked = _responses_request.request("/chat/completions", body)
    walked(RESPONSES.validate_python(asked))
    assert [each.get("type") or each["role"] for each in asked["input"]] == [
        "system", "user", "assistant", "function_call", "function_call", "function_call_output",
        "function_call_output", "user",
    ]  # fmt: skip
    assert asked["text"]["format"]["strict"] is True
    assert (asked["max_output_tokens"], asked["store"]) == (500, False)
    heard = heard_of(front_of("responses"), BY_RESPONSES)
    message = _anthropic_request.request("/chat/completions", heard.body)
    walked(MESSAGES.validate_python(message))
    assert [each["role"] for each in message["messages"]] == ["user", "assistant", "user"]
    assert [each["type"] for each in message["messages"][2]["content"]] == [
        "tool_result", "tool_result", "text", "image", "text",
    ]  # fmt: skip


def test_what_only_leaves_out_old_parts_or_names_the_client_is_asked_of_any_arm() -> None:
    """As Claude Code and Codex send it: else no arm of another dialect could answer them."""
    edits = [{"type": "clear_thinking_20251015", "keep": "all"}]
    more: dict[str, Any] = {"context_management": {"edits": edits}}
    assert heard_of(front_of("anthropic"), BY_MESSAGES | more).lost is None
    more = {"client_metadata": {"x": "y"}}
    assert heard_of(front_of("responses"), BY_RESPONSES | more).lost is None


def test_a_line_that_differs_in_each_request_is_no_part_of_the_prompt() -> None:
    system = [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=4711;"},
        {"type": "text", "text": "You help."},
    ]
    heard = heard_of(front_of("anthropic"), BY_MESSAGES | {"system": system})
    assert heard.body["messages"][0] == {"role": "system", "content": "You help."}


def test_what_is_lost_elsewhere_is_billed_by_who_gets_it() -> None:
    """A budget would let anything through, else."""
    output = {"type": "custom_tool_call_output", "call_id": "c", "output": "z" * 400_000}
    own = {"model": "auto", "input": [{"role": "user", "content": "q"}, output]}
    heard = heard_of(front_of("responses"), own)
    assert heard.lost is not None
    assert size_of(heard.body, own, lost=True).prompt > 100_000
    picture = {"type": "image", "source": {"type": "base64", "data": "z" * 400_000}}
    own = {"messages": [{"role": "user", "content": [picture]}]}
    assert size_of({"messages": []}, own, lost=True).prompt < 2000


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("anthropic", {"max_tokens": 9, "messages": [{"role": "user", "content": [
            {"type": "document", "source": {"type": "url", "url": "https://a.example/a.pdf"}}]}]}),
        ("responses", {"input": [{"type": "custom_tool_call_output", "call_id": "c",
                                  "output": "x"}]}),
    ],
)  # fmt: skip
def test_a_request_of_which_all_is_lost_elsewhere_is_asked_of_its_own_dialect(
    kind: str, own: dict[str, Any]
) -> None:
    heard = heard_of(front_of(kind), {"model": "auto", **own})
    assert heard.lost is not None
    assert heard.body["messages"] == [{"role": "user", "content": ""}]


def test_a_call_that_never_came_is_not_waited_for() -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "tool_calls"}]}
    teller = front_of("anthropic").teller({}, "d1", 5)
    told = teller.feed(chunk) + teller.end(done=True)
    assert b'"stop_reason":"end_turn"' in told.replace(b" ", b"")


def _calls(*calls: tuple[int | None, str, str, str], whole: bool = False) -> list[dict[str, Any]]:
    told = [
        ({} if index is None else {"index": index})
        | {"id": id, "function": {"name": name, "arguments": text}}
        for index, id, name, text in calls
    ]
    if whole:
        return [{"choices": [{"index": 0, "message": {"tool_calls": told}}]}]
    return [{"choices": [{"index": 0, "delta": {"tool_calls": [each]}}]} for each in told]


def _said_by(chunks: list[dict[str, Any]]) -> list[tuple[str, str]]:
    blocks = Blocks("d1")
    for chunk in chunks:
        blocks.feed(chunk)
    blocks.end()
    return [(each.name or each.kind, each.text()) for each in blocks.all]


def test_calls_that_all_have_the_number_0_are_not_one() -> None:
    both = [(0, "a", "f", '{"x":1}'), (0, "b", "g", '{"y":2}')]
    assert _said_by(_calls(*both)) == [("f", '{"x":1}'), ("g", '{"y":2}')]
    nameless: list[tuple[int | None, str, str, str]] = [(i, "", n, t) for i, _, n, t in both]
    for calls in (both, nameless):
        assert _said_by(_calls(*calls, whole=True)) == [("f", '{"x":1}'), ("g", '{"y":2}')]


def test_text_within_a_call_follows_it_and_a_repeated_call_is_not_another() -> None:
    begun = _calls((0, "a", "f", '{"x":'))
    more = {"content": "so", "tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}
    rest = [{"choices": [{"index": 0, "delta": more}]}]
    assert _said_by(begun + rest) == [("f", '{"x":1}'), ("text", "so")]
    again = _calls((0, "a", "f", "{}"))
    assert _said_by(begun + rest + again) == [("f", '{"x":1}'), ("text", "so")]


def test_usage_is_told_wherever_a_provider_puts_it() -> None:
    blocks, usage = Blocks("d1"), {"prompt_tokens": 7, "completion_tokens": 2}
    blocks.feed({"choices": [{"index": 0, "delta": {}, "usage": usage}]})
    assert blocks.usage == usage


@pytest.mark.parametrize("field", ["content", "refusal", "reasoning_content"])
def test_a_part_of_a_response_begins_empty(field: str) -> None:
    """The first piece comes as a delta; a client that adds it to the part would have it twice."""
    teller = front_of("responses").teller({}, "d1", 5)
    data = teller.feed({"choices": [{"index": 0, "delta": {field: "Hello"}}]})
    events = [json.loads(line[6:]) for line in data.decode().splitlines() if line[:6] == "data: "]
    (part,) = (each["part"] for each in events if each["type"] == "response.content_part.added")
    assert part.get("text", part.get("refusal")) == ""
    assert [each["delta"] for each in events if each["type"].endswith(".delta")] == ["Hello"]


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers"),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, "context_management"),
        ({"messages": [{"role": "user", "content": [
            {"type": "document", "source": {"type": "url", "url": "https://a.example/a.pdf"}}]}]},
         "messages[0].content[0].source"),
        ({"messages": [{"role": "user", "content": [
            {"type": "document", "source": {"type": "text", "data": "x"},
             "citations": {"enabled": True}}]}]}, "messages[0].content[0].citations"),
        ({"messages": [{"role": "user", "content": [{"type": "search_result"}]}]},
         "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": [
            {"type": "redacted_thinking", "data": "x"}]}, {"role": "user", "content": "x"}]},
         "messages[1].content[0]"),
    ],
)  # fmt: skip
def test_what_a_chat_cannot_say_of_messages_is_lost_by_name(
    more: dict[str, Any], field: str
) -> None:
    lost = heard_of(front_of("anthropic"), BY_MESSAGES | more).lost
    assert lost is not None
    assert lost.param == field


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "custom", "name": "sh"}]}, "tools[0].type"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
         "input[0].content[0].type"),
        ({"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]}, "input[0]"),
        ({"truncation": "auto"}, "truncation"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, "tool_choice"),
    ],
)  # fmt: skip
def test_what_a_chat_cannot_say_of_responses_is_lost_by_name(
    more: dict[str, Any], field: str
) -> None:
    lost = heard_of(front_of("responses"), BY_RESPONSES | more).lost
    assert lost is not None
    assert lost.param == field


def _kinds_of(union: Any) -> list[str]:
    """The types of tools that the union of a package has."""
    found: list[str] = []
    for each in typing.get_args(union):
        kind = typing.get_type_hints(each, include_extras=False).get("type")
        found += [name for name in typing.get_args(kind) if isinstance(name, str)]
    return found


HOSTED = [
    *(("responses", kind) for kind in _kinds_of(responses_types.ToolParam)
      if kind not in ("function", "namespace")),
    *(("anthropic", kind) for kind in _kinds_of(ToolUnionParam) if kind != "custom"),
]  # fmt: skip


def test_the_packages_have_the_tools_that_providers_run() -> None:
    assert {("responses", "web_search"), ("responses", "mcp"), ("responses", "shell"),
            ("anthropic", "web_search_20250305"), ("anthropic", "memory_20250818"),
            ("anthropic", "code_execution_20250825")} <= set(HOSTED)  # fmt: skip


@pytest.mark.parametrize(("dialect", "kind"), HOSTED)
def test_a_tool_that_a_provider_runs_is_for_its_own_api_alone(dialect: str, kind: str) -> None:
    """Every kind that the official packages know, beside a function that any arm could call."""
    api, function = {
        "responses": ("Responses", {"type": "function", "name": "weather", "parameters": SCHEMA}),
        "anthropic": ("Messages", {"name": "weather", "input_schema": SCHEMA}),
    }[dialect]
    body = {"responses": BY_RESPONSES, "anthropic": BY_MESSAGES}[dialect]
    heard = heard_of(front_of(dialect), body | {"tools": [function, {"type": kind, "name": "x"}]})
    assert heard.lost is not None
    assert heard.lost.message == f"tools[1].type: only the {api} API has {kind!r}"
    assert [each["function"]["name"] for each in heard.body["tools"]] == ["weather"]


@pytest.mark.parametrize("sent", [_anthropic_request, _responses_request])
@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"web_search_options": {"search_context_size": "low"}}, "web_search_options"),
        ({"tools": [{"type": "custom", "custom": {"name": "sh"}}]}, "tools[0].type"),
        ({"functions": [FUNCTION]}, "functions"),
    ],
)
def test_what_only_chat_completions_has_reaches_no_other_api(
    sent: Any, more: dict[str, Any], field: str
) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **more}
    with pytest.raises(Refused) as refused:
        sent.request("/chat/completions", body)
    assert refused.value.param == field


CRM = {"type": "namespace", "name": "crm", "description": "Customers.", "tools": [
    {"type": "function", "name": "find", "description": "One.", "parameters": SCHEMA,
     "strict": False}]}  # fmt: skip


def test_functions_of_a_namespace_are_called_by_both_names_elsewhere() -> None:
    items = [
        {"role": "user", "content": "x"},
        {"type": "function_call", "call_id": "c1", "name": "find", "namespace": "crm",
         "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "Ann"},
    ]  # fmt: skip
    asked = {"input": items, "tools": [CRM], "tool_choice": {"type": "function", "name": "x"}}
    heard = heard_of(front_of("responses"), BY_RESPONSES | asked)
    assert heard.lost is None
    function = {"name": "crm__find", "description": "One.", "parameters": SCHEMA}
    assert heard.body["tools"] == [{"type": "function", "function": function}]
    (called,) = [each["tool_calls"] for each in heard.body["messages"] if "tool_calls" in each]
    assert called[0]["function"] == {"name": "crm__find", "arguments": "{}"}
    walked(CHAT.validate_python(heard.body))


def test_a_call_of_a_function_of_a_namespace_is_told_with_it_whole_and_streamed() -> None:
    chunks = [_call(0, "c1", "crm__find", '{"city": "Oslo"}'), _call(1, "c2", "other", "{}"),
              _chunk({}, "tool_calls"), USAGE]  # fmt: skip
    events = _told("responses", chunks, {"tools": [CRM]})
    for each in events:
        RESPONSE_EVENT.validate_python(each)
    names = [("find", "crm"), ("other", None)]
    output = events[-1]["response"]["output"]
    assert [(each["name"], each.get("namespace")) for each in output] == names
    for kind in ("added", "done"):
        items = [each["item"] for each in events if each["type"].endswith(f"output_item.{kind}")]
        assert [(each["name"], each.get("namespace")) for each in items] == names
    done = [each["name"] for each in events if each["type"].endswith("arguments.done")]
    assert done == ["find", "other"]


@pytest.mark.parametrize(
    ("tools", "field"),
    [
        ([CRM | {"tools": [{"type": "custom", "name": "sh"}]}], "tools[0].tools[0].type"),
        ([CRM | {"name": "c" * 60}], "tools[0].tools[0].name"),
        ([CRM, {"type": "function", "name": "crm__find", "parameters": SCHEMA}], "tools"),
    ],
)
def test_a_namespace_that_no_other_api_can_have_is_lost_by_name(
    tools: list[dict[str, Any]], field: str
) -> None:
    lost = heard_of(front_of("responses"), BY_RESPONSES | {"tools": tools}).lost
    assert lost is not None
    assert lost.param == field


@pytest.mark.parametrize(
    ("tool", "field"),
    [
        ({"type": "namespace", "tools": []}, "tools[0].name"),
        ({"type": "namespace", "name": "crm"}, "tools[0].tools"),
        (CRM | {"tools": [{"type": "function"}]}, "tools[0].tools[0].name"),
    ],
)
def test_a_namespace_that_is_none_is_refused(tool: dict[str, Any], field: str) -> None:
    with pytest.raises(Refused) as refused:
        heard_of(front_of("responses"), BY_RESPONSES | {"tools": [tool]})
    assert refused.value.param == field


# --- answers


def _chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "x", "model": "m", "choices": [choice]}


def _call(index: int, id: str = "", name: str = "", arguments: str = "") -> dict[str, Any]:
    call: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
    if id:
        call |= {"id": id, "type": "function"}
        call["function"]["name"] = name
    return _chunk({"tool_calls": [call]})


USAGE = {"choices": [], "usage": {
    "prompt_tokens": 90, "completion_tokens": 7, "total_tokens": 97,
    "prompt_tokens_details": {"cached_tokens": 40},
    "completion_tokens_details": {"reasoning_tokens": 3},
}}  # fmt: skip
SPOKEN = [
    _chunk({"role": "assistant", "content": ""}),
    _chunk({"reasoning_content": "Hm."}),
    _chunk({"content": "It "}),
    _chunk({"content": "rains."}),
    _call(0, "t1", "weather"),
    _call(0, arguments='{"city":'),
    _call(1, "t2", "weather", "{}"),  # before the first one's end
    _call(0, arguments='"Oslo"}'),
    _chunk({}, "tool_calls"),
    USAGE,
]


def _told(kind: str, chunks: list[dict[str, Any]], asked: dict[str, Any]) -> list[Any]:
    teller = front_of(kind).teller(asked, "d1", 5)
    data = b"".join(map(teller.feed, chunks)) + teller.end(done=True) + teller.end(done=False)
    return [json.loads(each) for each in Events(1 << 20).feed(data)]


def test_a_stream_as_events_of_the_messages_api() -> None:
    events = _told("anthropic", SPOKEN, {})
    for each in events:
        if each["type"] != "ping":
            MESSAGE_EVENT.validate_python(each)
    told = [(each["type"], each.get("index"), *each.get("delta", {}).values()) for each in events]
    assert told == [
        ("message_start", None), ("ping", None),
        ("content_block_start", 0), ("content_block_delta", 0, "thinking_delta", "Hm."),
        ("content_block_stop", 0),
        ("content_block_start", 1), ("content_block_delta", 1, "text_delta", "It "),
        ("content_block_delta", 1, "text_delta", "rains."), ("content_block_stop", 1),
        ("content_block_start", 2),
        ("content_block_delta", 2, "input_json_delta", '{"city":'),
        ("content_block_delta", 2, "input_json_delta", '"Oslo"}'), ("content_block_stop", 2),
        ("content_block_start", 3), ("content_block_delta", 3, "input_json_delta", "{}"),
        ("content_block_stop", 3),
        ("message_delta", None, "tool_use", None), ("message_stop", None),
    ]  # fmt: skip
    assert events[-2]["usage"] == {
        "input_tokens": 50, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 40,
        "output_tokens": 7, "output_tokens_details": {"thinking_tokens": 3},
    }  # fmt: skip


def test_a_stream_as_events_of_the_responses_api() -> None:
    events = _told("responses", SPOKEN, {"instructions": "i"})
    for each in events:
        RESPONSE_EVENT.validate_python(each)
    assert [each["sequence_number"] for each in events] == list(range(len(events)))
    told = [each["type"].removeprefix("response.") for each in events]
    call = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done",
            "output_item.done"]  # fmt: skip
    assert told == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.done",
        "content_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        *call[:2], *call[1:], *call, "completed",
    ]  # fmt: skip
    whole = events[-1]["response"]
    assert [each["type"] for each in whole["output"]] == [
        "reasoning", "message", "function_call", "function_call",
    ]  # fmt: skip
    done = [each["item"] for each in events if each["type"] == "response.output_item.done"]
    assert done == whole["output"]
    assert whole["usage"]["input_tokens_details"] == {"cached_tokens": 40, "cache_write_tokens": 0}
    assert whole["usage"]["output_tokens_details"] == {"reasoning_tokens": 3}
    assert (whole["instructions"], whole["store"]) == ("i", False)


@pytest.mark.parametrize(
    ("choice", "asked", "messages", "responses"),
    [
        ({"finish_reason": "stop"}, {}, "end_turn", ("completed", None)),
        ({"finish_reason": "length"}, {}, "max_tokens", ("incomplete", "max_output_tokens")),
        ({"finish_reason": "content_filter"}, {}, "refusal", ("incomplete", "content_filter")),
        ({"finish_reason": "stop", "stop_reason": "END"}, {"stop_sequences": ["END"]},
         "stop_sequence", ("completed", None)),
    ],
)  # fmt: skip
def test_why_it_stopped(
    choice: dict[str, Any], asked: dict[str, Any], messages: str, responses: tuple[str, str | None]
) -> None:
    message = {"role": "assistant", "content": "so far"}
    answer = {"model": "m", "created": 5, "choices": [{"index": 0, "message": message, **choice}]}
    told = told_of(front_of("anthropic"), answer, asked, "d1")
    assert Message.model_validate(told).stop_reason == messages
    response = Response.model_validate(told_of(front_of("responses"), answer, asked, "d1"))
    reason = response.incomplete_details.reason if response.incomplete_details else None
    assert (response.status, reason) == responses
    assert response.output[0].status == response.status  # type: ignore[union-attr]


def test_a_refusal_and_arguments_that_are_none() -> None:
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": "No."}
    answer = {"model": "m", "choices": [{"message": message, "finish_reason": "stop"}]}
    told = Message.model_validate(told_of(front_of("anthropic"), answer, {}, "d1"))
    assert (told.stop_reason, told.content[0].text) == ("refusal", "No.")  # type: ignore[union-attr]
    response = Response.model_validate(told_of(front_of("responses"), answer, {}, "d1"))
    assert response.output[0].content[0].refusal == "No."  # type: ignore[union-attr, index]
    call = {"id": "t", "type": "function", "function": {"name": "f", "arguments": "{"}}
    message["tool_calls"] = [call]
    with pytest.raises(Failed, match="the arguments of a call are no JSON object"):
        told_of(front_of("anthropic"), answer, {}, "d1")


@st.composite
def _interleaved(draw: st.DrawFn) -> tuple[list[str], list[tuple[int, str]]]:
    """Arguments of calls, and their pieces in any order that keeps each call's own."""
    texts = draw(
        st.lists(
            st.dictionaries(st.sampled_from("ab"), st.integers() | st.text(max_size=3)).map(
                json.dumps
            ),
            min_size=1,
            max_size=4,
        )
    )
    pieces = []
    for i, text in enumerate(texts):
        cut = draw(st.integers(0, len(text)))
        pieces.append([(i, text[:cut]), (i, text[cut:])])
    order = draw(st.permutations([i for i in range(len(texts)) for _ in range(2)]))
    return texts, [pieces[i].pop(0) for i in order]


@given(_interleaved())
def test_calls_told_in_turns_come_one_after_another(
    told: tuple[list[str], list[tuple[int, str]]],
) -> None:
    texts, pieces = told
    blocks, steps, named = Blocks("d"), [], set()
    for i, text in pieces:
        chunk = _call(i, arguments=text) if i in named else _call(i, f"t{i}", f"f{i}", text)
        named.add(i)
        steps += blocks.feed(chunk)
    steps += blocks.end()
    assert {block.id: block.text() for block in blocks.all} == {
        f"t{i}": text for i, text in enumerate(texts)
    }
    opened = None
    for kind, block, _ in steps:
        assert kind == "open" if opened is None else block is opened
        opened = None if kind == "close" else block
    assert opened is None


# --- whatever comes

_NAMES = ("model", "messages", "input", "role", "content", "type", "text", "tools", "system", "id",
          "max_tokens", "name", "source", "data", "tool_choice", "call_id", "output", "arguments",
          "tool_use_id", "metadata", "format", "reasoning", "include", "summary", "thinking",
          "stop_sequences", "stream", "user", "citations", "output_config", "schema",
          "properties", "image_url", "tool_calls", "function", "index", "delta", "choices",
          "message", "usage", "finish_reason")  # fmt: skip
_WORDS = ("user", "assistant", "text", "image", "document", "tool_use", "tool_result", "message",
          "function_call", "function_call_output", "reasoning", "input_text", "input_image",
          "json_schema", "function", "base64", "auto", "thinking", "")  # fmt: skip
_INNER = (
    "text",
    "id",
    "name",
    "source",
    "content",
    "tool_use_id",
    "thinking",
    "input",
    "image_url",
    "citations",
)
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from(_WORDS) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=5)
    ),
    max_leaves=8,
)
_TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(_WORDS[:2])},
    optional={"content": _ANY | st.lists(st.fixed_dictionaries(
        {"type": st.sampled_from(_WORDS)}, optional=dict.fromkeys(_INNER, _ANY)))},
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["anthropic", "responses"]),
    st.lists(_TURN, max_size=3),
    st.dictionaries(st.sampled_from(_NAMES), _ANY, max_size=4),
)
def test_whatever_a_client_asks_is_heard_or_refused(
    kind: str, turns: list[Any], more: dict[str, Any]
) -> None:
    own = {"model": "a", "max_tokens": 5, "messages": turns, "input": turns, **more}
    with suppress(Refused):
        heard = heard_of(front_of(kind), own)
        assert isinstance(heard.body["messages"], list)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["anthropic", "responses"]),
    st.lists(st.dictionaries(st.sampled_from(_NAMES), _ANY) | _ANY.map(
        lambda each: {"choices": [{"index": 0, "delta": each, "message": each}]}), max_size=4),
)  # fmt: skip
def test_whatever_a_provider_says_is_told_or_a_failure(
    kind: str, chunks: list[dict[str, Any]]
) -> None:
    for each in chunks:
        with suppress(Failed):
            told_of(front_of(kind), each, {}, "d1")


def _half(chunks: list[dict[str, Any]]) -> Iterator[bytes]:
    teller = front_of("responses").teller({}, "d1", 5)
    yield from map(teller.feed, chunks)
    yield teller.fail(503, {"message": "stopping", "code": "unavailable", "param": None})


def test_an_error_within_a_stream_ends_a_response() -> None:
    events = [json.loads(each) for each in Events(1 << 20).feed(b"".join(_half(SPOKEN[:3])))]
    assert [each["type"] for each in events[-2:]] == ["error", "response.failed"]
    assert events[-1]["response"]["error"]["message"] == "stopping"
    for each in events[-2:]:
        RESPONSE_EVENT.validate_python(each)
    first = front_of("responses").teller({}, "", 5).fail(503, {"message": "stopping"})
    assert json.loads(Events(1 << 20).feed(first)[0])["sequence_number"] == 0


def test_a_call_without_an_id_gets_one_and_the_same_in_both() -> None:
    call = {"id": "", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    answer = {"model": "m", "choices": [{"message": message, "finish_reason": "stop"}]}
    decision = "0192f1b6-7c1e-7aaa-9c1e-5f0d6b1a2c3d"
    told = told_of(front_of("anthropic"), answer, {}, decision)["content"][0]["id"]
    assert told == told_of(front_of("responses"), answer, {}, decision)["output"][0]["call_id"]
    assert told == "call_0192f1b67c1e7aaa9c1e5f0d6b1a2c3d_0"
    assert len(told) <= 40
