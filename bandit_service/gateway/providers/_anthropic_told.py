"""A chat completion, whole or as a stream, as an answer of Anthropic's Messages API. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandit_service.gateway.failures import Failed
from bandit_service.gateway.providers._base import Json, event, passed_event, plain_id
from bandit_service.gateway.providers._blocks import Block, Blocks, Step
from bandit_service.gateway.usage import count, counts_of
from bandit_service.parsing.inputs import said_json

_REASONS = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_SILENT = frozenset({"ping", "message_start", "content_block_stop"})
_EMPTY = frozenset({"text", "thinking", "tool_use"})
"""Blocks whose beginning has no content yet, or is read as a chunk."""


def error(status: int, told: Mapping[str, Any]) -> Json:
    """The body of an error: the API's type, and all fields of OpenAI's wire format."""
    rest = {name: value for name, value in told.items() if value is not None}
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {**rest, "type": kind, "message": told.get("message") or ""}}


def message(answer: Json, asked: Json, id: str) -> Json:
    """A whole message. Raises Failed if the arguments of a call are no object."""
    blocks = Blocks(id)
    blocks.feed(answer)
    blocks.end()
    content = [_whole(block) for block in blocks.all]
    return {
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": blocks.model,
        "content": content,
        **_stopped(blocks, asked),
        "usage": usage(blocks.usage),
    }


def usage(reported: Any) -> Json:
    """The API's usage, in which tokens read from a cache or written to it are separate.

    >>> ours = {"prompt_tokens": 9, "completion_tokens": 2}
    >>> usage(ours | {"prompt_tokens_details": {"cached_tokens": 4}})["input_tokens"]
    5
    """
    counts = counts_of(reported)
    if counts is None:
        return {"input_tokens": 0, "output_tokens": 0}
    told: Json = {
        "input_tokens": counts.fresh,
        "cache_creation_input_tokens": counts.written,
        "cache_read_input_tokens": counts.cached,
        "output_tokens": counts.answer,
    }
    details = reported.get("completion_tokens_details")
    thought = count(details.get("reasoning_tokens")) if isinstance(details, Mapping) else None
    if thought is not None:
        told["output_tokens_details"] = {"thinking_tokens": thought}
    return told


class Teller:
    """Translates a stream's chunks into the API's events."""

    def __init__(self, asked: Json, id: str) -> None:
        self._asked = asked
        self._id = id
        self._blocks = Blocks(id)
        self._started = False
        self._ended = False
        self._passes = False  # events as they came

    def feed(self, chunk: Json) -> bytes:
        """The events of one chunk. Raises Failed."""
        steps = self._blocks.feed(chunk)
        return self._start() + b"".join(map(_step, steps))

    def end(self, *, done: bool) -> bytes:  # noqa: ARG002 - it is one end, whoever said so
        """The events that end the message, once."""
        if self._ended or self._passes:
            return b""
        self._ended = True
        said = self._start() + b"".join(map(_step, self._blocks.end()))
        stopped = _stopped(self._blocks, self._asked)
        counted = usage(self._blocks.usage)
        said += event({"type": "message_delta", "delta": stopped, "usage": counted})
        return said + event({"type": "message_stop"})

    def own(self, data: bytes) -> tuple[bytes, bool]:
        """An event of the API as it came, under the decision's id."""
        self._passes = True
        if not data:
            return (b"" if self._ended else event({"type": "message_stop"})), True
        said = said_json(data, halves=True)
        kind = said.get("type")
        if kind == "message_start" and isinstance(said.get("message"), dict):
            return event(said | {"message": said["message"] | {"id": self._id}}), False
        self._ended = kind == "message_stop"
        block = said.get("content_block")
        empty = isinstance(block, dict) and block.get("type") in _EMPTY
        speaks = isinstance(kind, str) and kind not in _SILENT and not empty
        return passed_event(kind, data), speaks

    def fail(self, status: int, told: Mapping[str, Any]) -> bytes:
        """The event of an error."""
        return event(error(status, told))

    def _start(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        begun: Json = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._blocks.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        return event({"type": "message_start", "message": begun}) + event({"type": "ping"})


def _step(step: Step) -> bytes:
    kind, block, text = step
    said: Json = {"index": block.index}
    if kind == "open":
        return event({"type": "content_block_start", **said, "content_block": _empty(block)})
    if kind == "close":
        return event({"type": "content_block_stop", **said})
    match block.kind:
        case "tool":
            delta = {"type": "input_json_delta", "partial_json": text}
        case "thinking":
            delta = {"type": "thinking_delta", "thinking": text}
        case _:
            delta = {"type": "text_delta", "text": text}
    return event({"type": "content_block_delta", **said, "delta": delta})


def _empty(block: Block) -> Json:
    match block.kind:
        case "tool":
            return {"type": "tool_use", "id": plain_id(block.id), "name": block.name, "input": {}}
        case "thinking":
            return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "text", "text": ""}


def _whole(block: Block) -> Json:
    match block.kind:
        case "tool":
            given = block.arguments()
            if given is None:
                raise Failed("the arguments of a call are no JSON object")
            return _empty(block) | {"input": given}
        case "thinking":
            return _empty(block) | {"thinking": block.text()}
    return _empty(block) | {"text": block.text()}


def _stopped(blocks: Blocks, asked: Json) -> Json:
    """The stop reason; if a tool is called, that is the reason, whatever the server reports."""
    sequences = asked.get("stop_sequences")
    if blocks.stopped_by is not None and blocks.stopped_by in (sequences or ()):
        return {"stop_reason": "stop_sequence", "stop_sequence": blocks.stopped_by}
    kinds = {block.kind for block in blocks.all}
    reason = _REASONS.get(blocks.finish, "end_turn")
    if reason == "tool_use" and "tool" not in kinds:
        reason = "end_turn"  # otherwise a client would wait for a call
    if reason == "end_turn":
        reason = "tool_use" if "tool" in kinds else "refusal" if "refusal" in kinds else reason
    return {"stop_reason": reason, "stop_sequence": None}
