"""An answer of OpenAI's Responses API, whole or as a stream, as a chat completion. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from bandit_service.gateway import provider_errors
from bandit_service.gateway.failures import Failed, Rejected, of_error, raise_for_error
from bandit_service.gateway.providers._base import Json
from bandit_service.gateway.providers._chunks import (
    Chunks,
    call_of,
    completion_of,
    text_of,
    tokens_of,
)
from bandit_service.gateway.usage import bills_in, count, counts_or_zero
from bandit_service.parsing.inputs import said_json

_FAILED = ("failed", "cancelled")
_REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}


def answer(response: Mapping[str, Any], created: int) -> Json:
    """A chat.completion. Raises Failed if it is not a response, or not a finished one."""
    output = response.get("output")
    if not isinstance(output, list) or not all(isinstance(each, dict) for each in output):
        raise Failed("the answer has no output")
    if response.get("status") not in (None, "completed", "incomplete"):
        raise Failed("the response is not complete")
    calls = [
        _call(item, _given(item) or "{}") for item in output if item.get("type") == "function_call"
    ]
    text, refusal = _joined(output, "output_text", "text"), _joined(output, "refusal", "refusal")
    return completion_of(
        response,
        created,
        {"content": text or (None if calls or refusal else ""), "refusal": refusal or None},
        calls,
        "\n\n".join(filter(None, map(_thought, output))),
        _finish(response, bool(calls)),
        usage(response.get("usage")),
    )


def usage(reported: Any) -> Json | None:
    """OpenAI's usage of a chat completion; what a provider adds to the API's own is kept.

    >>> usage({"input_tokens": 5, "output_tokens": 7})["total_tokens"]
    12
    """
    counts = counts_or_zero(reported)
    if counts is None:
        return None
    told: Json = {**tokens_of(counts), **bills_in(reported)}
    for name, ours in (
        ("input_tokens_details", "prompt_tokens_details"),
        ("output_tokens_details", "completion_tokens_details"),
    ):
        if isinstance(reported.get(name), Mapping):
            told[ours] = {
                each: value if (tokens := count(value)) is None else tokens
                for each, value in reported[name].items()
                if count(value) is not None or not each.endswith("_tokens")
            }
    cached = {
        "cached_tokens": counts.cached,
        "cache_creation_tokens": counts.written,
        "ephemeral_1h_input_tokens": counts.kept_hour,
    }
    if cached := {name: tokens for name, tokens in cached.items() if tokens}:
        told["prompt_tokens_details"] = told.get("prompt_tokens_details", {}) | cached
    return told


class Decoder(Chunks):
    """Feed it the data of each event; it returns the data of OpenAI's chunks.

    The end of an item repeats its whole content, which is read there if a server sends no pieces.
    """

    def __init__(self, created: int) -> None:
        super().__init__(created)
        self._calls: dict[Any, int] = {}
        self._heard: set[Any] = set()  # items of which pieces came
        self._ended = False

    def feed(self, data: bytes) -> list[bytes]:
        """The chunks of an event. Raises Failed."""
        try:
            event = said_json(data, halves=True)
        except ValueError:
            raise Failed("an event is not JSON") from None
        if not isinstance(event, dict):
            raise Failed("an event is not an object")
        kind, index = event.get("type"), event.get("output_index")
        match kind:
            case "response.output_text.delta":
                return self._piece(index, "content", event)
            case "response.refusal.delta":
                return self._piece(index, "refusal", event)
            case "response.reasoning_text.delta" | "response.reasoning_summary_text.delta":
                return self._piece(index, "reasoning_content", event)
            case "response.reasoning_summary_part.added" if event.get("summary_index"):
                return [self._chunk({"reasoning_content": "\n\n"})]
            case "response.output_item.added":
                item = event.get("item")
                if isinstance(item, dict) and item.get("type") == "function_call":
                    return [self._begin(index, item)]
            case "response.function_call_arguments.delta":
                self._heard.add(index)
                return [self._arguments(index, text_of(event.get("delta")))]
            case "response.output_item.done":
                return self._item(index, event.get("item"))
            case "response.completed" | "response.incomplete":
                return self._last(event.get("response"))
            case "response.failed" | "response.cancelled":
                raise _reported(event.get("response"))
            case "error":
                raise _reported(event)
            case _ if not str(kind).startswith("response."):  # not an event of the API
                raise_for_error(event)
            case "response.created" | "response.in_progress":
                response = event.get("response")
                self._model = text_of(response.get("model")) if isinstance(response, dict) else ""
        return []

    def end(self) -> list[bytes]:
        """Nothing: a response ends with an event that says so."""
        return []

    def _piece(self, index: Any, field: str, event: Json) -> list[bytes]:
        delta = event.get("delta")
        if not isinstance(delta, str) or not delta:
            return []
        self._heard.add(index)
        return [self._chunk({field: delta})]

    def _begin(self, index: Any, item: Json) -> bytes:
        call = _call(item, "") | {"index": len(self._calls)}
        self._calls[index] = len(self._calls)
        return self._chunk({"tool_calls": [call]})

    def _arguments(self, index: Any, text: str) -> bytes:
        if index not in self._calls:
            raise Failed("a call's arguments came before the call")
        call = {"index": self._calls[index], "function": {"arguments": text}}
        return self._chunk({"tool_calls": [call]})

    def _item(self, index: Any, item: Any) -> list[bytes]:
        """The end of an item; maybe no piece of it has come."""
        if not isinstance(item, dict):
            raise Failed("an event has no item")
        if item.get("type") == "function_call":
            chunks = [] if index in self._calls else [self._begin(index, item)]
            if index not in self._heard:
                chunks.append(self._arguments(index, _given(item) or "{}"))
            return chunks
        if index in self._heard:
            return []
        told = {
            "reasoning_content": _thought(item),
            "content": _joined([item], "output_text", "text"),
            "refusal": _joined([item], "refusal", "refusal"),
        }
        return [self._chunk({name: text}) for name, text in told.items() if text]

    def _last(self, response: Any) -> list[bytes]:
        if not isinstance(response, dict):
            raise Failed("an event has no response")
        if provider_errors.there(response.get("error")) or response.get("status") in _FAILED:
            raise _reported(response)
        if self._ended:
            return []
        self._ended = True
        chunks = [self._chunk({}, _finish(response, bool(self._calls)))]
        if counted := usage(response.get("usage")):
            chunks.append(self._line([], counted))
        return [*chunks, b"[DONE]"]


def _finish(response: Mapping[str, Any], calls: bool) -> str:
    details = response.get("incomplete_details")
    if response.get("status") == "incomplete":
        reason = details.get("reason") if isinstance(details, Mapping) else None
        return _REASONS.get(reason, "length") if isinstance(reason, str) else "length"
    return "tool_calls" if calls else "stop"


def _call(item: Mapping[str, Any], arguments: str) -> Json:
    return call_of(item.get("call_id"), item.get("name"), arguments)


def _given(item: Mapping[str, Any]) -> str:
    """The arguments of a call; some servers give the object itself. Raises Failed."""
    given = item.get("arguments")
    if isinstance(given, dict):
        return msgspec.json.encode(given).decode()
    if given is not None and not isinstance(given, str):
        raise Failed("the arguments of a tool's call are no text")
    return given or ""


def _joined(output: list[Json], kind: str, field: str) -> str:
    parts = (
        part
        for item in output
        if item.get("type") == "message"
        for part in item.get("content") or ()
        if isinstance(part, dict) and part.get("type") == kind
    )
    return "".join(part[field] for part in parts if isinstance(part.get(field), str))


def _thought(item: Json) -> str:
    """The text of a reasoning item: the reasoning itself, otherwise its summary."""
    if item.get("type") != "reasoning":
        return ""
    parts = item.get("content") or item.get("summary") or ()
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return "\n\n".join(text for text in texts if isinstance(text, str))


def _reported(said: Any) -> Failed | Rejected:
    """The error that an event, or the response in it, reports, and its cost."""
    error = of_error(provider_errors.error_in(said) or provider_errors.Error(), said)
    if isinstance(error, Failed) and isinstance(said, Mapping):
        error.usage = usage(said.get("usage"))
    return error
