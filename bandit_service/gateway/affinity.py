"""What ties a turn of a conversation to the arm, or the provider, that answered before. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any
from urllib.parse import urlsplit

from bandit_service.gateway.providers import plain_id
from bandit_service.settings.upstreams import UpstreamSpec

MAX_CALLS = 4
"""Calls of tools in one answer that are remembered. Their results come back together, so that one
of them tells which arm waits; a client may drop some. Of one conversation so many answers are
remembered at once as this goes into `conversations.MAX_CALLS`.
"""
_MAX_ID = 256


def open_calls(body: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The ids of the tool calls whose results the model waits for; None if it waits for none. A
    call in the old form, without ids, has none.

    >>> call = {"role": "assistant", "tool_calls": [{"id": "1"}]}
    >>> asked, gave = {"role": "user", "content": "?"}, {"role": "tool", "content": "!"}
    >>> open_calls({"messages": [asked, call, gave]})
    ('1',)
    >>> said = {"role": "assistant", "content": "."}
    >>> open_calls({"messages": [asked, call, gave, said, asked]}) is None
    True
    """
    for each in reversed([*_objects(body.get("messages"))]):
        if each.get("role") == "assistant":
            waits = each.get("tool_calls") or each.get("function_call")
            return tuple(_call_ids(each)) if waits else None
    return None


def calls_in(choices: object, said: str) -> Iterator[str]:
    """The ids of the tool calls in an answer, or in a piece of one. said: "message" or "delta"."""
    for choice in _objects(choices):
        if isinstance(message := choice.get(said), dict):
            yield from _call_ids(message)


def _call_ids(message: Mapping[str, Any]) -> Iterator[str]:
    for call in _objects(message.get("tool_calls")):
        if isinstance(id := call.get("id"), str) and 0 < len(id) <= _MAX_ID:
            yield id


def hashed(conversation: str, ids: Iterable[str]) -> tuple[str, ...]:
    """Calls as the log has them: hashes, which are specific to a conversation. They are the same
    whether an id comes back as the provider gave it or as a dialect with fewer characters writes
    it.
    """
    return tuple(
        blake2b(f"{conversation} {plain_id(id)}".encode(), digest_size=8).hexdigest() for id in ids
    )


def begins(body: Mapping[str, Any]) -> bool:
    """Whether no model has answered yet."""
    return not any(each.get("role") == "assistant" for each in _objects(body.get("messages")))


def is_signed(kind: str, own: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    """Whether a request holds thinking that only the provider that signed it can read.

    kind, own: the client's dialect, and what it said there. body: as a chat completion.
    """
    if kind == "anthropic":
        return any(
            each.get("type") == "redacted_thinking"
            or (each.get("type") == "thinking" and bool(each.get("signature")))
            for turn in _objects(own.get("messages"))
            if turn.get("role") == "assistant"
            for each in _objects(turn.get("content"))
        )
    if kind == "responses":
        return any(
            each.get("type") == "reasoning" and bool(each.get("encrypted_content"))
            for each in _objects(own.get("input"))
        )
    return any(
        bool(each.get("signature")) or each.get("type") == "reasoning.encrypted"
        for turn in _objects(body.get("messages"))
        for each in _objects(turn.get("reasoning_details"))
    )


def has_reasoning(body: Mapping[str, Any]) -> bool:
    """Whether a chat completion holds a model's thinking of an earlier turn, as plain text."""
    return any(each.get("reasoning_content") for each in _objects(body.get("messages")))


def without_reasoning(body: Mapping[str, Any]) -> dict[str, Any]:
    """The same without it."""
    messages = [
        {name: value for name, value in each.items() if name != "reasoning_content"}
        for each in _objects(body.get("messages"))
    ]
    return {**body, "messages": messages}


def vendor_of(upstream: UpstreamSpec) -> tuple[str, str]:
    """Whose signatures a provider can read: its dialect, and its name, else its host."""
    return upstream.kind, upstream.provider or urlsplit(upstream.base_url).netloc


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    for each in value if isinstance(value, list) else ():
        if isinstance(each, dict):
            yield each
