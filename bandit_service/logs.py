"""Structured logs on stderr, a line each: never a prompt's text, a unit, an embedding or a key.

JSON for machines, or `time LEVEL logger message name=value …` for people. Only fields that are
listed here are written. Of an exception the frames and the type are written and not its message,
and of what other packages log the first line before anything is put into it: either may repeat
what a client sent.
"""

from __future__ import annotations

import contextvars
import logging
import re
import time
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
decision_id: contextvars.ContextVar[str] = contextvars.ContextVar("decision_id", default="")
"""Of the request under way, once they are known; every line of it carries them."""

FORMATS = ("auto", "json", "console")
FIELDS = (
    "request_id",
    "decision_id",
    "why",
    "event",
    "endpoint",
    "code",
    "seconds",
    "url",
    "pool",
    "events",
    "model",
    "from_snapshot",
    "erased",
    "offset",
    "bytes",
    "records",
    "decisions",
    "policy",
    "key",
    "experiment",
    "arm",
    "detector",
    "direction",
    "before",
    "after",
    "task",
    "unapplied",
    "path",
    "revision",
    "sections",
    "settings",
    "by",
    "source",
    "route",
    "deployment",
    "upstream",
    "judge",
    "usd",
    "replica",
    "replicas",
    "slot",
    "epoch",
    "upto",
    "units",
    "keys",
    "version",
    "learned_anew",
    "recalled_by",
    "remembered",
    "configured",
    "keep",
    "file",
    "secrets",
    "count",
    "more",
    "traceback",
)
OURS = "bandit"
_PLAIN = re.compile(r"[\w.:/+@-]+")


class Seldom:
    """Lines that clients or the machine may cause at any rate: one of each kind in `every_s`."""

    def __init__(self, every_s: float = 1.0) -> None:
        self._every_s = every_s
        self._told: dict[str, float] = {}
        self._kept: dict[str, int] = {}

    def __call__(self, kind: str) -> int | None:
        """How many of this kind were left out since the last line; None for one more of them.

        kind: one of few; of what others choose there may be any number.
        """
        now = time.monotonic()
        if now - self._told.get(kind, -self._every_s) < self._every_s:
            self._kept[kind] = self._kept.get(kind, 0) + 1
            return None
        self._told[kind] = now
        return self._kept.pop(kind, 0)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of a line, in the order of `FIELDS`."""
    known = vars(record) | {
        "request_id": request_id.get() or None,
        "decision_id": getattr(record, "decision_id", None) or decision_id.get() or None,
        "traceback": _frames(record),
    }
    return {name: known[name] for name in FIELDS if known.get(name) is not None}


def _frames(record: logging.LogRecord) -> str | None:
    """Where an exception was raised, and of which type it and its causes are."""
    if not record.exc_info or record.exc_info[1] is None:
        return None
    told: list[str] = []
    error: BaseException | None = record.exc_info[1]
    while error is not None and len(told) < 10:
        frames = traceback.extract_tb(error.__traceback__)
        at = (f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
        told.append("\n".join([type(error).__qualname__, *at]))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(told)


def _message(record: logging.LogRecord) -> str:
    if record.name.partition(".")[0] == OURS:
        return record.getMessage()
    return str(record.msg).partition("\n")[0]


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        return msgspec.json.encode(line | _fields(record)).decode()


class _Console(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        frames = fields.pop("traceback", None)
        now = datetime.fromtimestamp(record.created, UTC)
        words = [
            f"{now:%H:%M:%S}.{now.microsecond // 1000:03d}",
            f"{record.levelname:<8}",
            record.name,
            _message(record),
            *(f"{name}={_shown(value)}" for name, value in fields.items()),
        ]
        line = " ".join(words)
        return line if frames is None else line + "\n  " + frames.replace("\n", "\n  ")


def _shown(value: Any) -> str:
    """A value as it is, or quoted where it would not be told from what comes after it."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if _PLAIN.fullmatch(text) else msgspec.json.encode(text).decode()


def set_level(level: str) -> None:
    """Log from this level up from now on."""
    logging.getLogger(OURS).setLevel(level.upper())


def configure(level: str, stream: TextIO, form: str = "auto") -> None:
    """Log to `stream` from `level` up; "auto" is "console" on a terminal and else "json".

    What other packages log comes in the same form, from warnings up.
    """
    if form == "auto":
        form = "console" if stream.isatty() else "json"
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Console() if form == "console" else _Json())
    ours, others = logging.getLogger(OURS), logging.getLogger()
    ours.handlers = others.handlers = [handler]
    ours.propagate = False
    ours.setLevel(level.upper())
    others.setLevel(logging.WARNING)
