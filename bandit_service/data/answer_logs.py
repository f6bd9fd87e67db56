"""A recording from a user's own log, which has a line for each query and model."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bandit_service.core.fields import MAX_COST_USD, MAX_LATENCY_S
from bandit_service.data.compressed import unpacked_name
from bandit_service.data.convert import Answer, Prices, Query, recorded_of
from bandit_service.data.lines import Unread, lines
from bandit_service.data.recorded import Recorded
from bandit_service.data.rows import (
    MAX_LEFT_OUT,
    LeftOut,
    Malformed,
    Repeated,
    Scale,
    number_within,
)
from bandit_service.parsing.inputs import plain, worded

COLUMNS = ("query", "model", "quality", "cost_usd")
OPTIONAL = ("query_id", "task", "in_tok", "out_tok", "latency_s")
WAY_OUT = "name the scale, as with --scale {scale}"
_NUMBERS = ("quality", "cost_usd", "in_tok", "out_tok", "latency_s")


def load_long(
    path: Path,
    prices: Prices | None = None,
    scale: Scale | None = None,
    most_left_out: float = MAX_LEFT_OUT,
) -> Recorded:
    """A line per (query, model): columns query, model, quality, cost_usd.

    Optional: query_id, task, in_tok, out_tok, latency_s; other columns are not read. CSV, JSON or
    Parquet, see `lines`. Queries are distinguished by query_id, or by their text if there is none.
    An invalid line, and a second answer of a model to a query, is skipped and reported. scale: of
    the column quality, [0, 1] by default. most_left_out: the largest share of skipped lines.
    BadRecording if the file cannot be used.
    """
    left_out = LeftOut(path, most_left_out, WAY_OUT)
    found = lines(path, COLUMNS, OPTIONAL, lambda name: name in _NUMBERS)
    rows = (
        (path.name, line, Malformed(fields.why) if isinstance(fields, Unread) else fields)
        for line, fields in found
    )
    queries = gathered(rows, scale or Scale(), left_out)
    return recorded_from(path, queries, left_out, prices)


def gathered(
    rows: Iterable[tuple[str, int, Mapping[str, Any] | Malformed]],
    scale: Scale,
    left_out: LeftOut,
) -> list[Query]:
    """The queries with their answers, from rows by file and line; notes why rows are skipped."""
    queries: dict[str, Query] = {}
    for file, line, fields in rows:
        try:
            _add(queries, fields, scale)
        except Malformed as error:
            left_out.add(file, line, error)
    return list(queries.values())


def recorded_from(
    path: Path, queries: Sequence[Query], left_out: LeftOut, prices: Prices | None
) -> Recorded:
    """The recording, named like the file. Raises BadRecording if too many rows were skipped."""
    bad = left_out.checked(sum(len(query.answers) for query in queries))
    models = {model for query in queries for model in query.answers}
    name = unpacked_name(path.name).rpartition(".")[0]
    return recorded_of(name, models, queries, bad, prices, path)


def _add(queries: dict[str, Query], fields: Mapping[str, Any] | Malformed, scale: Scale) -> None:
    """Add one row's answer to its query."""
    if isinstance(fields, Malformed):
        raise fields
    text, model = (_text(name, fields.get(name)) for name in ("query", "model"))
    quality = scale.quality("quality", fields.get("quality"))
    cost = number_within("cost_usd", fields.get("cost_usd"), MAX_COST_USD)
    for name, value in (("quality", quality), ("cost_usd", cost)):
        if math.isnan(value):
            raise Malformed(f"{name}: missing")
    latency = number_within("latency_s", fields.get("latency_s"), MAX_LATENCY_S)
    tokens = {name: _whole(name, fields.get(name)) for name in ("in_tok", "out_tok")}
    task = worded(fields.get("task"))
    if task is not None and not isinstance(task, str):
        raise Malformed(f"task: must be a string, got {task!r}")
    id = _identity(fields.get("query_id"), text)
    query = queries.get(id) or Query(id, text, task or "", tokens["in_tok"])
    if query.text != text:
        raise Malformed(f"query_id: {id!r} stands for another query in an earlier row")
    answer = Answer(quality, cost, tokens["out_tok"], latency)
    if repr(query.answers.get(model)) == repr(answer):  # by repr, since NaN is not itself
        raise Repeated(f"model: {model!r} already answered query {id!r}, with the same values")
    if model in query.answers:
        raise Malformed(f"model: {model!r} already answered query {id!r}; the first answer is kept")
    query.answers[model] = answer
    queries[id] = query


def _identity(id: Any, text: str) -> str:
    """A query's id as text; without one a hash of what is asked."""
    found = worded(id)
    if found is None or plain(found) is None:
        return hashlib.sha256(text.encode()).hexdigest()[:16]
    if not isinstance(found, str):
        raise Malformed(f"query_id: must be a string, got {id!r}")
    return found


def _text(name: str, value: Any) -> str:
    found = worded(value)
    if not isinstance(found, str) or not found.strip():
        raise Malformed(f"{name}: must be a string that is not empty, got {value!r}")
    return found


def _whole(name: str, value: Any) -> int | None:
    number = plain(value)
    if number is None:
        return None
    if not isinstance(number, int | float) or not 0 <= number <= 1e9 or number != int(number):
        raise Malformed(f"{name}: must be a whole number from 0 up, got {value!r}")
    return int(number)
