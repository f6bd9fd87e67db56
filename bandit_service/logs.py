"""Structured logs: one JSON object a line on stderr, never a prompt's text or a key."""

from __future__ import annotations

import contextvars
import logging
from typing import TextIO

import msgspec

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")

_FIELDS = (
    "decision_id", "why", "event", "endpoint", "code", "seconds", "url", "events", "model",
    "from_snapshot", "erased", "offset", "bytes", "records", "decisions", "policy", "key",
)  # fmt: skip


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id.get():
            line["request_id"] = request_id.get()
        for name in _FIELDS:
            value = getattr(record, name, None)
            if value is not None:
                line[name] = value
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure(level: str, stream: TextIO) -> None:
    """Log to `stream` from `level` up. Only extras that are listed here are written."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Json())
    root = logging.getLogger("bandit")
    root.handlers = [handler]
    root.propagate = False
    root.setLevel(level.upper())
