"""Makes OpenAI's chunks, for the stream of another dialect. Pure."""

from __future__ import annotations

from bandit_service.gateway.failures import Failed
from bandit_service.gateway.providers._base import Json, encoded


def text_of(value: object) -> str:
    """A text; empty for anything else."""
    return value if isinstance(value, str) else ""


def call_of(id: object, name: object, arguments: str) -> Json:
    """A call of a tool. Raises Failed without an id or a name, which nobody could answer."""
    if not text_of(id) or not text_of(name):
        raise Failed("a tool's call has no id or no name")
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


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
