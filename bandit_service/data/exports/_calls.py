"""Calls of models and their scores, from any tool: added in any order, joined at the end."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from bandit_service.data.convert import Prices
from bandit_service.data.rows import BadRecording, Malformed, Repeated
from bandit_service.embedding import text_of_messages
from bandit_service.parsing.inputs import json_of, plain
from bandit_service.parsing.suggestions import did_you_mean

QUALITY = "quality"
"""The name of scores that come in a table of their own."""
Row: TypeAlias = Mapping[str, Any]


class Unscored(Repeated):
    """An answer without a score: it may be skipped, whether or not scores are missing by chance."""


@dataclass(frozen=True, slots=True)
class Call:
    """One answer of a model.

    ids: by which scores name it. whole: the trace, or episode, that it is a part of, "" if none is
    known: a score of the whole is the call's if it is the only one. cost_usd: None where the export
    does not say it.
    """

    ids: tuple[str, ...]
    text: str
    model: str
    whole: str = ""
    cost_usd: Any = None
    in_tok: Any = None
    out_tok: Any = None
    latency_s: Any = None
    task: Any = None


@dataclass
class Calls:
    """at: the file and the line that is being read. left: what is left out, by file and line."""

    prices: Prices | None = None
    at: tuple[str, int] = ("", 0)
    left: list[tuple[tuple[str, int], Malformed]] = field(default_factory=list)
    _parts: dict[str, tuple[tuple[str, int], dict[str, Any]]] = field(default_factory=dict)
    _calls: list[tuple[tuple[str, int], Call]] = field(default_factory=list)
    _scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    _names: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """Leave out what turns out to be malformed."""
        try:
            yield
        except Malformed as why:
            self.left.append((self.at, why))

    def call(self, call: Call) -> None:
        """One answer, by the row that is being read."""
        self._calls.append((self.at, call))

    def score(self, id: str, metric: str, value: Any) -> None:
        """A score of an answer, or of a whole; a later score replaces an earlier one."""
        self._names[metric] += 1
        self._scores.setdefault(id, {})[metric] = value

    def part(self, key: str) -> dict[str, Any]:
        """The fields of one key so far, from rows of several tables; the caller adds to them."""
        return self._parts.setdefault(key, (self.at, {}))[1]

    def parts(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """All of these, each with the place of its first row."""
        for key, (at, part) in self._parts.items():
            self.at = at
            yield key, part

    def metric_named(self, metric: str, path: Path) -> str:
        """The metric in use. Raises BadRecording if it is ambiguous."""
        there = ", ".join(f"{name} ({n})" for name, n in self._names.most_common())
        if metric and metric not in self._names:
            more = (
                f"{did_you_mean(metric, list(self._names))}; expected one of {there}"
                if there
                else ""
            )
            raise BadRecording(f"{path}: --metric: there are no scores of {metric!r}{more}")
        if not metric and not there:
            raise BadRecording(
                f"{path}: nothing says how good an answer was; give a table of scores (--scores), "
                "with the columns id and quality"
            )
        if not metric and len(self._names) > 1:
            raise BadRecording(f"{path}: --metric: there are several scores, name one: {there}")
        return metric or next(iter(self._names))

    def answers(self, metric: str) -> Iterator[tuple[str, int, Row | Malformed]]:
        """By file and line, the columns of `answer_logs`, or why a call is skipped."""
        parts_of = Counter(call.whole for _, call in self._calls if call.whole)
        asked: Counter[tuple[str, str]] = Counter()
        for at, call in self._calls:
            try:
                quality = self._quality(call, metric, parts_of[call.whole])
                cost = self._cost(call)
            except Malformed as why:
                yield *at, why
                continue
            turn = asked[call.text, call.model] = asked[call.text, call.model] + 1
            yield (
                *at,
                {
                    "query": call.text,
                    "model": call.model,
                    "quality": quality,
                    "cost_usd": cost,
                    "in_tok": call.in_tok,
                    "out_tok": call.out_tok,
                    "latency_s": call.latency_s,
                    "task": call.task,
                    "query_id": "" if turn == 1 else call.ids[0],
                },
            )

    def _quality(self, call: Call, metric: str, parts: int) -> Any:
        for id in call.ids:
            if metric in self._scores.get(id, ()):
                return self._scores[id][metric]
        if call.whole and metric in self._scores.get(call.whole, ()):
            if parts == 1:
                return self._scores[call.whole][metric]
            raise Unscored(f"{metric}: the score is for a whole that has several calls")
        raise Unscored(f"{metric}: no score")

    def _cost(self, call: Call) -> Any:
        if call.cost_usd is not None:
            return call.cost_usd
        price = (self.prices or {}).get(call.model)
        if price is None:
            raise Malformed(f"cost: unknown; give the prices of {call.model!r} with --prices")
        tokens = [plain(call.in_tok), plain(call.out_tok)]
        if not all(isinstance(each, int | float) for each in tokens):
            raise Malformed("cost: neither the cost nor the tokens are known")
        return (tokens[0] * price["input"] + tokens[1] * price["output"]) / 1e6


# --- reading a row --------------------------------------------------------------------------


def opened(value: Any) -> Any:
    """A value that some exports write as JSON text; any other value is unchanged."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    try:
        return json_of(value)
    except ValueError:
        return value


def asked_in(value: Any, where: str) -> str:
    """What the user asked, as the service reads it: of messages, of an object with messages, or of
    plain text.
    """
    found = opened(value)
    if isinstance(found, Mapping):
        found = next((found[name] for name in ("messages", "input", "prompt") if name in found), "")
    if isinstance(found, str) and found.strip():
        return found
    if not isinstance(found, list) or not all(isinstance(each, Mapping) for each in found):
        raise Malformed(f"{where}: must be messages or a text, got {type(found).__name__}")
    try:
        return text_of_messages([_message(each) for each in found])
    except ValueError as error:
        raise Malformed(f"{where}: {error}") from None


def _message(said: Row) -> Row:
    """A message in OpenAI's shape, from that of OpenTelemetry, TensorZero or the Responses API."""
    parts = said.get("parts", said.get("content"))
    if not isinstance(parts, list):
        return {"role": said.get("role"), "content": parts}
    return {"role": said.get("role"), "content": [_part(each) for each in parts]}


def _part(part: Any) -> Any:
    if not isinstance(part, Mapping):
        return {"type": "text", "text": part} if isinstance(part, str) else part
    if part.get("type") in ("text", "input_text"):
        text = next((part[name] for name in ("text", "content", "value") if name in part), None)
        return {"type": "text", "text": text if isinstance(text, str) else str(text)}
    return dict(part)


def named(row: Row, name: str) -> str:
    """A required text."""
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Malformed(f"{name}: must be a string that is not empty, got {value!r:.40}")
    return value


def first_of(row: Row, *found: str) -> Any:
    """The first of these that is present and known."""
    return next((row[name] for name in found if plain(row.get(name)) is not None), None)


def seconds(begun: Any, ended: Any) -> float | None:
    """The time from one moment to another; None if either is unknown."""
    times = [_time(each) for each in (begun, ended)]
    if None in times:
        return None
    took = times[1] - times[0]  # type: ignore[operator]
    return took if math.isfinite(took) and took >= 0.0 else None


def _time(value: Any) -> float | None:
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value.strip().replace(" UTC", "+00:00")).timestamp()
        except ValueError:
            return None
    return None


def listed(value: Any) -> Sequence[Row]:
    """The objects of a list; none of anything else."""
    found = opened(value)
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []
