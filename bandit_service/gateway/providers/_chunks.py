"""Makes OpenAI's chunks, for the stream of another dialect. Pure."""

from __future__ import annotations

from typing import Any

from bandit_service.gateway.providers._base import Json, encoded


class Chunks:
    """Makes the data of each chunk. model: as the provider names it, once it has."""

    def __init__(self, created: int) -> None:
        self._created = created
        self._model: Any = None
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
