"""Whatever a provider answers, the client's answer is of the types of its API, or is none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from anthropic.types import Message
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response
from pydantic import BaseModel, ValidationError

from bandit_service.gateway.failures import Failed, Rejected
from bandit_service.gateway.providers import front_of, provider_of
from bandit_service.gateway.translation import WRONG_TYPE, answer_of, told_of
from tests.service import dialects

TOOL = {"type": "function", "name": "weather", "function": {"name": "weather"}}
BODIES: dict[str, dict[str, Any]] = {
    "text": {"messages": [{"role": "user", "content": "think"}], "input": "think"},
    "calls": {
        "messages": [{"role": "user", "content": "Hi"}],
        "input": "Hi",
        "tools": [TOOL],
    },
}
SAYS = {
    "openai": dialects._chat,
    "anthropic": dialects._message,
    "responses": dialects._response,
}
API: dict[str, type[BaseModel]] = {
    "openai": ChatCompletion,
    "anthropic": Message,
    "responses": Response,
}
ODD: tuple[Any, ...] = (None, "", 7, -1.5, True, [], {}, [None], {"type": "x"}, [{"type": "x"}])


def _with_odd(value: Any) -> Iterator[tuple[str, Any]]:
    """The value with each of its fields in turn left out, or of another type."""
    for path in _paths(value):
        for odd in (*ODD, "left out"):
            changed = deepcopy(value)
            at: Any = changed
            for name in path[:-1]:
                at = at[name]
            if odd == "left out":
                del at[path[-1]]
            else:
                at[path[-1]] = odd
            yield f"{path} {odd!r}", changed


def _paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if name != "tools":
                yield from _paths(inner, (*at, name))


@pytest.mark.parametrize("what", BODIES)
@pytest.mark.parametrize("kind", SAYS)
def test_a_whole_answer_is_of_the_types_of_the_clients_api(kind: str, what: str) -> None:
    whole, _ = SAYS[kind]({"model": "m", **BODIES[what]})
    wrong: list[str] = []
    for where, said in [("as it is", whole), *_with_odd(whole)]:
        for client, api in API.items():
            if client == kind:
                continue
            try:
                answer = answer_of(provider_of(kind), said)
                if not answer.get("choices"):
                    continue  # which is a failure, whoever asks
                told = told_of(front_of(client), answer, BODIES[what], "id")
            except (Failed, Rejected):
                continue
            try:
                api.model_validate(json.loads(json.dumps(told)))
            except ValidationError as error:
                wrong.append(f"{client}: {where}: {error}"[:300])
    assert wrong == []


@pytest.mark.parametrize("what", BODIES)
@pytest.mark.parametrize("kind", ["anthropic", "responses"])
def test_a_streamed_answer_is_of_the_types_of_a_chat_completion(kind: str, what: str) -> None:
    _, events = SAYS[kind]({"model": "m", "stream": True, **BODIES[what]})
    wrong: list[str] = []
    for where, said in [("as it is", events), *_with_odd(events)]:
        decoder = provider_of(kind).decoder(1)
        chunks: list[bytes] = []
        try:
            for event in said:
                chunks += decoder.feed(json.dumps(event).encode())
        except (Failed, Rejected, *WRONG_TYPE):
            pass  # which ends the stream
        for chunk in chunks:
            if chunk != b"[DONE]":
                try:
                    ChatCompletionChunk.model_validate_json(chunk)
                except ValidationError as error:
                    wrong.append(f"{where}: {error}"[:300])
    assert wrong == []
