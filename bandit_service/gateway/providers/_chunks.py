"""Makes OpenAI's chunks and chat completions, for answers of another dialect. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandit_service.gateway.failures import Failed
from bandit_service.gateway.providers._base import Json, encoded
from bandit_service.gateway.usage import Counts


def text_of(value: object) -> str:
    """A text; empty for anything else."""
    return value if isinstance(value, str) else ""


def call_of(id: object, name: object, arguments: str) -> Json:
    """A call of a tool. Raises Failed without an id or a name, which nobody could answer."""
    if not text_of(id) or not text_of(name):
        raise Failed("a tool's call has no id or no name")
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def completion_of(
    answer: Mapping[str, Any],
    created: int,
    text: Json,
    calls: list[Json],
    thought: str,
    finish: str,
    usage: Json | None,
) -> Json:
    """A chat.completion with the id and model of a whole answer. text: content and refusal."""
    reply: Json = {"role": "assistant", **text}
    if calls:
        reply["tool_calls"] = calls
    if thought:
        reply["reasoning_content"] = thought
    choice = {"index": 0, "message": reply, "finish_reason": finish, "logprobs": None}
    return {
        "id": answer.get("id"),
        "object": "chat.completion",
        "created": created,
        "model": text_of(answer.get("model")),
        "choices": [choice],
        "usage": usage,
    }


def tokens_of(counts: Counts) -> Json:
    """What every usage of a chat completion has."""
    return {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.answer,
        "total_tokens": counts.prompt + counts.answer,
    }


class Chunks:
    """Makes the data of each chunk. model: as the provider names it, once it has."""

    def __init__(self, created: int) -> None:
        self._created = created
        self._model = ""
        self._started = False

    def _chunk(self, delta: Json, finish: str | None = None) -> bytes:
        if not self._started:
            self._started = True
            delta = {"role": "assistant", **delta}
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return self._line([choice])

    def _line(self, choices: list[Json], counted: Json | None = None) -> bytes:
        chunk: Json = {
            "id": "",
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }
        return encoded(chunk | ({"usage": counted} if counted else {}))
