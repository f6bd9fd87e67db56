"""What binds a turn of a conversation to the arm, or the provider, that answered before. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from bandit_service.settings.upstreams import UpstreamSpec


def in_tool_loop(body: Mapping[str, Any]) -> bool:
    """Whether a model called tools and has not answered since: it waits for what they gave.

    >>> call = {"role": "assistant", "tool_calls": [{"id": "1"}]}
    >>> asked, gave = {"role": "user", "content": "?"}, {"role": "tool", "content": "!"}
    >>> in_tool_loop({"messages": [asked, call, gave]})
    True
    >>> said = {"role": "assistant", "content": "."}
    >>> in_tool_loop({"messages": [asked, call, gave, said, asked]})
    False
    """
    messages = body.get("messages")
    turns: Sequence[object] = messages if isinstance(messages, list) else ()
    for each in reversed(turns):
        if isinstance(each, Mapping) and each.get("role") == "assistant":
            return bool(each.get("tool_calls") or each.get("function_call"))
    return False


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


def vendor_of(upstream: UpstreamSpec) -> tuple[str, str]:
    """Whose signatures a provider can read: its dialect, and its name, else its host."""
    return upstream.kind, upstream.provider or urlsplit(upstream.base_url).netloc


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    for each in value if isinstance(value, list) else ():
        if isinstance(each, Mapping):
            yield each
