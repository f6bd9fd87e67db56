"""What ties a turn of a conversation to the arm, or the provider, that answered before. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any
from urllib.parse import urlsplit

import msgspec

from bandit_service.gateway.providers import plain_id
from bandit_service.settings.upstreams import UpstreamSpec

MAX_CALLS = 4
"""Calls of tools in one answer that are remembered. Their results come back together, so that one
of them tells which arm waits; a client may drop some. Of one conversation so many answers are
remembered at once as this goes into `conversations.MAX_CALLS`.
"""
_MAX_ID = 256


class Ties(msgspec.Struct, frozen=True):
    """What the messages of a chat completion say of who answered before.

    calls: the ids of the tool calls whose results the model waits for; None if it waits for none. A
    call in the old form, without ids, has none. begins: no model has answered yet. signed: there is
    thinking that only the provider that signed it can read, in OpenAI's dialect. thought: there is
    a model's thinking of an earlier turn, as plain text.
    """

    calls: tuple[str, ...] | None = None
    begins: bool = True
    signed: bool = False
    thought: bool = False


def ties_of(body: Mapping[str, Any]) -> Ties:
    """The ties of a chat completion.

    >>> call = {"role": "assistant", "tool_calls": [{"id": "1"}]}
    >>> asked, gave = {"role": "user", "content": "?"}, {"role": "tool", "content": "!"}
    >>> ties_of({"messages": [asked, call, gave]}).calls
    ('1',)
    >>> said = {"role": "assistant", "content": "."}
    >>> ties_of({"messages": [asked, call, gave, said, asked]}).calls is None
    True
    """
    messages = body.get("messages")
    newest: Mapping[str, Any] | None = None
    signed = thought = False
    for each in messages if isinstance(messages, list) else ():
        if not isinstance(each, dict):
            continue
        if each.get("role") == "assistant":
            newest = each
        if details := each.get("reasoning_details"):
            signed = signed or any(map(_is_signature, _objects(details)))
        if each.get("reasoning_content"):
            thought = True
    if newest is None:
        return Ties(None, True, signed, thought)
    waits = newest.get("tool_calls") or newest.get("function_call")
    return Ties(tuple(_call_ids(newest)) if waits else None, False, signed, thought)


def _is_signature(detail: Mapping[str, Any]) -> bool:
    return bool(detail.get("signature")) or detail.get("type") == "reasoning.encrypted"


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


def is_signed(kind: str, own: Mapping[str, Any], ties: Ties) -> bool:
    """Whether a request holds thinking that only the provider that signed it can read.

    kind, own: the client's dialect, and what it said there. ties: of the same in OpenAI's.
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
    return ties.signed


def without_reasoning(body: Mapping[str, Any]) -> dict[str, Any]:
    """A chat completion without a model's thinking of earlier turns, as plain text."""
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
