"""An answer of Anthropic's Messages API, whole or as a stream, as a chat completion. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from bandit_service.gateway.usage import count, merged
from bandit_service.parsing.inputs import json_of

Json = dict[str, Any]

_KEPT = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")

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


class Misspoken(ValueError):
    """What came is not the API's language, or it is an error. status: of the error, 0 if none."""

    def __init__(self, why: str, status: int = 0) -> None:
        super().__init__(why)
        self.status = status


def answer(message: Mapping[str, Any], created: int) -> Json:
    """A chat.completion. Raises Misspoken for what is no message."""
    if message.get("type") == "error":
        raise _told(message)
    content = message.get("content")
    if not isinstance(content, list) or not all(isinstance(each, dict) for each in content):
        raise Misspoken("the answer has no content")
    calls = [_call(block) for block in content if block.get("type") == "tool_use"]
    said = _joined(content, "text")
    reply: Json = {"role": "assistant", "content": said or (None if calls else ""), "refusal": None}
    if calls:
        reply["tool_calls"] = calls
    if thought := _joined(content, "thinking"):
        reply["reasoning_content"] = thought
    choice = {
        "index": 0,
        "message": reply,
        "finish_reason": _finish(message.get("stop_reason")),
        "logprobs": None,
    }
    return {
        "id": message.get("id"), "object": "chat.completion", "created": created,
        "model": message.get("model"), "choices": [choice], "usage": usage(message.get("usage")),
    }  # fmt: skip


def usage(told: Any) -> Json | None:
    """OpenAI's usage: the prompt with what was read from the cache and written to it.

    >>> told = usage({"input_tokens": 5, "cache_read_input_tokens": 90, "output_tokens": 7})
    >>> told["prompt_tokens"], told["completion_tokens"]
    (95, 7)
    """
    if not isinstance(told, Mapping):
        return None
    fresh, completion = count(told.get("input_tokens")), count(told.get("output_tokens"))
    if fresh is None and completion is None:
        return None
    read = _count(told, "cache_read_input_tokens")
    lengths = told.get("cache_creation")
    kept = {} if not isinstance(lengths, Mapping) else {
        name: _count(lengths, name) for name in _KEPT if count(lengths.get(name)) is not None
    }  # fmt: skip
    written = max(_count(told, "cache_creation_input_tokens"), sum(kept.values()))
    prompt = (fresh or 0) + read + written
    prompted: Json = {"cached_tokens": read, "cache_creation_tokens": written}
    if kept:
        prompted["cache_creation_token_details"] = kept
    made: Json = {
        "prompt_tokens": prompt,
        "completion_tokens": completion or 0,
        "total_tokens": prompt + (completion or 0),
        "prompt_tokens_details": prompted,
    }
    details = told.get("output_tokens_details")
    if isinstance(details, Mapping):
        thought = _count(details, "thinking_tokens")
        made["completion_tokens_details"] = {"reasoning_tokens": thought}
    if told.get("cost") is not None:  # of a provider that speaks this language and tells its bill
        made["cost"] = told["cost"]
    return made


class Stream:
    """Feed it the data of each event; it gives the data of OpenAI's events.

    The end is told when the message's end is there, or when the stream is at its end after the
    reason why it stopped. Nothing is given for the message's begin, so that a stream that fails
    before its first block has given nothing.
    """

    def __init__(self, created: int) -> None:
        self._created = created
        self._model: Any = None
        self._usage: Json = {}
        self._stopped: str | None = None
        self._begun = False
        self._ended = False
        self._calls: dict[Any, int] = {}
        self._silent: set[Any] = set()  # calls of whose input nothing came

    def feed(self, data: bytes) -> list[bytes]:
        """What an event says. Raises Misspoken."""
        try:
            event = json_of(data)
        except ValueError:
            raise Misspoken("an event is not JSON") from None
        if not isinstance(event, dict):
            raise Misspoken("an event is not an object")
        match event.get("type"):
            case "message_start":
                message = _object(event, "message")
                self._model = message.get("model")
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
                if self._stopped is None:
                    raise Misspoken("the message ended without a reason")
                return self.end()
            case "error":
                raise _told(event)
        return []

    def end(self) -> list[bytes]:
        """The end, where the reason why it stopped is known and it was not told yet."""
        if self._ended or self._stopped is None:
            return []
        self._ended = True
        told = [self._chunk({}, _finish(self._stopped))]
        if counted := usage(self._usage):
            told.append(self._line([], counted))
        return [*told, b"[DONE]"]

    def _block(self, index: Any, block: Json) -> list[bytes]:
        match block.get("type"):
            case "text" if block.get("text"):
                return [self._chunk({"content": block["text"]})]
            case "tool_use":
                self._calls[index] = len(self._calls)
                self._silent.add(index)
                call = _call({**block, "input": None}) | {"index": self._calls[index]}
                told = [self._chunk({"tool_calls": [call]})]
                if block.get("input"):
                    told.append(self._input(index, _text(block["input"])))
                return told
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

    def _chunk(self, delta: Json, finish: str | None = None) -> bytes:
        if not self._begun:
            self._begun = True
            delta = {"role": "assistant", **delta}
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return self._line([choice])

    def _line(self, choices: list[Json], counted: Json | None = None) -> bytes:
        chunk: Json = {
            "id": "", "object": "chat.completion.chunk", "created": self._created,
            "model": self._model, "choices": choices,
        }  # fmt: skip
        return msgspec.json.encode(chunk | ({"usage": counted} if counted else {}))

    def _count(self, told: Any) -> None:
        """Counts are of all until then; one that is not told again stays."""
        if isinstance(told, Mapping):
            self._usage = merged(self._usage, told)


def _finish(reason: Any) -> str:
    return _FINISH.get(reason, "stop") if isinstance(reason, str) else "stop"


def _call(block: Mapping[str, Any]) -> Json:
    given = block.get("input")
    function = {"name": block.get("name"), "arguments": "" if given is None else _text(given)}
    return {"id": block.get("id"), "type": "function", "function": function}


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _joined(content: list[Json], kind: str) -> str:
    texts = (block.get(kind) for block in content if block.get("type") == kind)
    return "".join(text for text in texts if isinstance(text, str))


def _object(event: Json, name: str) -> Json:
    found = event.get(name)
    if not isinstance(found, dict):
        raise Misspoken(f"an event has no {name}")
    return found


def _count(told: Mapping[str, Any], name: str) -> int:
    return count(told.get(name)) or 0


def _told(event: Mapping[str, Any]) -> Misspoken:
    """Only a known type is repeated: a message may hold what the client wrote."""
    error = event.get("error")
    kind = error.get("type") if isinstance(error, Mapping) else None
    if not isinstance(kind, str) or kind not in _STATUS:
        return Misspoken("it told of an error", 500)
    return Misspoken(f"it told of an error ({kind})", _STATUS[kind])
