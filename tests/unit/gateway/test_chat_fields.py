"""What a chat completion becomes for another API is of that API's types, or is refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from pydantic import TypeAdapter, ValidationError

from bandit_service.core.errors import Refused
from bandit_service.gateway import fields
from bandit_service.gateway.providers import _anthropic_request, _responses_request, provider_of
from bandit_service.gateway.translation import refusal
from tests.service.dialects import walked

CHAT = "/chat/completions"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
PIXEL = "data:image/png;base64,iVBORw0KGgo="
CALLS = [
    {"id": id, "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    for id in ("call_1", "call_2")
]
ASKED: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Hi"},
                {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
                {
                    "type": "file",
                    "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a"},
                },
            ],
        },
        {"role": "assistant", "content": "Wait", "tool_calls": CALLS},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "sun"}]},
        {"role": "user", "content": "And?"},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "d",
                "parameters": SCHEMA,
                "strict": True,
            },
        }
    ],
    "tool_choice": {"type": "function", "function": {"name": "weather"}},
    "parallel_tool_calls": False,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "s", "schema": SCHEMA, "strict": True},
    },
    "max_completion_tokens": 100,
    "temperature": 0.5,
    "top_p": 0.9,
    "user": "u",
    "metadata": {"a": "b"},
    "reasoning_effort": "low",
    "service_tier": "auto",
    "prompt_cache_key": "k",
    "verbosity": "low",
}
ODD: tuple[Any, ...] = (None, "", 7, -1.5, True, [], {}, [None], {"type": "x"}, [{"type": "x"}])
KINDS = {
    "anthropic": (_anthropic_request, MessageCreateParamsNonStreaming),
    "responses": (_responses_request, ResponseCreateParamsNonStreaming),
}
_ANY_WORD = {"role", "type", "reasoning_effort", "service_tier", "verbosity", "detail"}
"""Of words that an API lists its provider is asked, since it may know new ones."""


def _paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every field and item, but for what is within a JSON schema."""
    if at:
        yield at
    if at and at[-1] in ("schema", "parameters"):
        return
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _paths(inner, (*at, name))


def _with(path: tuple[Any, ...], odd: Any) -> dict[str, Any]:
    body = deepcopy(ASKED)
    at: Any = body
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = odd
    return body


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_a_field_is_the_translation_is_of_the_apis_types_or_refused(kind: str) -> None:
    sent, api = KINDS[kind]
    adapter: TypeAdapter[Any] = TypeAdapter(api)
    walked(adapter.validate_python(sent.request(CHAT, ASKED)))
    wrong = []
    for path in _paths(ASKED):
        if path == ("model",) or (path[0] == "messages" and len(path) < 3):
            continue  # refused before any dialect is asked
        for odd in ODD:
            if path[-1] in _ANY_WORD and isinstance(odd, str):
                continue
            body = _with(path, odd)
            try:
                fields.check(body)
            except Refused:
                continue
            why = refusal(provider_of(kind), CHAT, body)
            if why is not None:
                if not why.param:
                    wrong.append((path, odd, why.message))
                continue
            try:
                walked(adapter.validate_python(sent.request(CHAT, body)))
            except ValidationError as error:
                wrong.append((path, odd, str(error)[:200]))
    assert wrong == []


def test_of_several_wrong_fields_the_same_is_named_whatever_their_order() -> None:
    wrong = {"n": 0, "model": "m", "tools": {}, "stream": "yes"}
    for body in (wrong, dict(reversed(wrong.items()))):
        with pytest.raises(Refused, match=r"^stream: must be true or false, got a text$"):
            fields.check(body)
