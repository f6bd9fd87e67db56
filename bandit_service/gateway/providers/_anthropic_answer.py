"""An answer of Anthropic's Messages API, whole or as a stream, as a chat completion. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from bandit_service.gateway import provider_errors
from bandit_service.gateway.failures import Failed, Rejected, of_error, raise_for_error
from bandit_service.gateway.providers._chunks import (
    Chunks,
    call_of,
    completion_of,
    text_of,
    tokens_of,
)
from bandit_service.gateway.usage import bills_in, count, counts_or_zero, merged
from bandit_service.parsing.inputs import said_json

Json = dict[str, Any]

_FINISH = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}  # every other reason is "stop"
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}  # every other type is 500


def answer(message: Mapping[str, Any], created: int) -> Json:
    """A chat.completion. Raises Failed for what is no message."""
    if message.get("type") == "error":
        raise _reported(message)
    content = message.get("content")
    if not isinstance(content, list) or not all(isinstance(each, dict) for each in content):
        raise Failed("the answer has no content")
    calls = [
        _call(block, _text(block.get("input") or {}))
        for block in content
        if block.get("type") == "tool_use"
    ]
    text = _joined(content, "text")
    return completion_of(
        message,
        created,
        {"content": text or (None if calls else ""), "refusal": None},
        calls,
        _joined(content, "thinking"),
        _finish(message.get("stop_reason")),
        usage(message.get("usage")),
    )


def usage(reported: Any) -> Json | None:
    """OpenAI's usage, whose prompt includes what was read from the cache and written to it.

    >>> ours = usage({"input_tokens": 5, "cache_read_input_tokens": 90, "output_tokens": 7})
    >>> ours["prompt_tokens"], ours["completion_tokens"]
    (95, 7)
    """
    counts = counts_or_zero(reported)
    if counts is None:
        return None
    prompted: Json = {"cached_tokens": counts.cached, "cache_creation_tokens": counts.written}
    if isinstance(reported.get("cache_creation"), Mapping):
        prompted["cache_creation_token_details"] = {
            "ephemeral_5m_input_tokens": counts.kept,
            "ephemeral_1h_input_tokens": counts.kept_hour,
        }
    translated: Json = {
        **tokens_of(counts),
        "prompt_tokens_details": prompted,
        **bills_in(reported),
    }
    details = reported.get("output_tokens_details")
    if isinstance(details, Mapping):
        thought = count(details.get("thinking_tokens")) or 0
        translated["completion_tokens_details"] = {"reasoning_tokens": thought}
    return translated


class Decoder(Chunks):
    """Feed it the data of each event; it returns the data of OpenAI's events.

    It returns the end when the message ends, or when the stream ends after the stop reason. It
    returns nothing for the message's start, so a stream that fails before its first block has
    returned nothing.
    """

    def __init__(self, created: int) -> None:
        super().__init__(created)
        self._usage: Json = {}
        self._stopped: str | None = None
        self._ended = False
        self._calls: dict[Any, int] = {}
        self._silent: set[Any] = set()  # calls whose input is still missing

    def feed(self, data: bytes) -> list[bytes]:
        """The chunks of an event. Raises Failed."""
        try:
            event = said_json(data)
        except ValueError:
            raise Failed("an event is not JSON") from None
        if not isinstance(event, dict):
            raise Failed("an event is not an object")
        match event.get("type"):
            case "message_start":
                message = _object(event, "message")
                self._model = text_of(message.get("model"))
                self._count(message.get("usage"))
            case "content_block_start":
                return self._block(event.get("index"), _object(event, "content_block"))
            case "content_block_delta":
                return self._delta(event.get("index"), _object(event, "delta"))
            case "content_block_stop":
                if event.get("index") in self._silent:
                    return [self._input(event.get("index"), "{}")]
            case "message_delta":
                stopped = (event.get("delta") or {}).get("stop_reason")
                self._stopped = stopped if isinstance(stopped, str) else self._stopped
                self._count(event.get("usage"))
            case "message_stop":
                self._count(event.get("usage"))
                if self._stopped is None:
                    raise Failed("the message ended without a stop reason")
                return self.end()
            case "error":
                raise _reported(event)
            case kind if not isinstance(kind, str):  # not an event of the API
                raise_for_error(event)
        return []

    def end(self) -> list[bytes]:
        """The end, once, if the stop reason is known."""
        if self._ended or self._stopped is None:
            return []
        self._ended = True
        chunks = [self._chunk({}, _finish(self._stopped))]
        if counted := usage(self._usage):
            chunks.append(self._line([], counted))
        return [*chunks, b"[DONE]"]

    def _block(self, index: Any, block: Json) -> list[bytes]:
        match block.get("type"):
            case "text" if text := text_of(block.get("text")):
                return [self._chunk({"content": text})]
            case "tool_use":
                call = _call(block, "") | {"index": len(self._calls)}
                self._calls[index] = len(self._calls)
                self._silent.add(index)
                chunks = [self._chunk({"tool_calls": [call]})]
                if block.get("input"):
                    chunks.append(self._input(index, _text(block["input"])))
                return chunks
        return []

    def _delta(self, index: Any, delta: Json) -> list[bytes]:
        match delta:
            case {"type": "text_delta", "text": str(text)} if text:
                return [self._chunk({"content": text})]
            case {"type": "thinking_delta", "thinking": str(text)} if text:
                return [self._chunk({"reasoning_content": text})]
            case {"type": "input_json_delta", "partial_json": str(text)} if text:
                return [self._input(index, text)] if index in self._calls else []
        return []

    def _input(self, index: Any, text: str) -> bytes:
        self._silent.discard(index)
        call = {"index": self._calls[index], "function": {"arguments": text}}
        return self._chunk({"tool_calls": [call]})

    def _count(self, reported: Any) -> None:
        """Counts are cumulative; a count that a later event omits stays."""
        if isinstance(reported, Mapping):
            self._usage = merged(self._usage, reported)


def _finish(reason: Any) -> str:
    """OpenAI's finish reason.

    A reason that reports a failure stays as it is, and is read as a failure.
    """
    if provider_errors.ended_badly(reason):
        return str(reason)
    return _FINISH.get(reason, "stop") if isinstance(reason, str) else "stop"


def _call(block: Mapping[str, Any], arguments: str) -> Json:
    return call_of(block.get("id"), block.get("name"), arguments)


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _joined(content: list[Json], kind: str) -> str:
    texts = (block.get(kind) for block in content if block.get("type") == kind)
    return "".join(text for text in texts if isinstance(text, str))


def _object(event: Json, name: str) -> Json:
    value = event.get(name)
    if not isinstance(value, dict):
        raise Failed(f"an event has no {name}")
    return value


def _reported(event: Mapping[str, Any]) -> Failed | Rejected:
    """Only a known type is repeated: a message may contain the client's text."""
    told = provider_errors.error_in(event) or provider_errors.Error()
    if told.about is provider_errors.About.PAIR:
        return of_error(told, event)
    error = event.get("error")
    kind = error.get("type") if isinstance(error, Mapping) else None
    if not isinstance(kind, str) or kind not in _STATUS:
        return Failed("it reported an error", status=500, reported=True)
    return Failed(f"it reported an error ({kind})", status=_STATUS[kind], reported=True)
