"""Users' own logs: a line per query and model, from which a recording is gathered."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bandit_service.core.outcomes import MAX_COST_USD, MAX_LATENCY_S
from bandit_service.evaluate._lines import Unread, lines, plain
from bandit_service.evaluate.convert import Answer, Prices, Query, recorded_of
from bandit_service.replay.recorded import BadRow, Malformed, Recorded, number_within

COLUMNS = ("query", "model", "quality", "cost_usd")
OPTIONAL = ("query_id", "task", "in_tok", "out_tok", "latency_s")


def load_long(path: Path, prices: Prices | None = None) -> Recorded:
    """A line per (query, model): columns query, model, quality, cost_usd.

    And where they are known query_id, task, in_tok, out_tok, latency_s; other columns are not
    read. CSV or JSON lines, also gzipped, or Parquet. Queries are told apart by query_id, and
    without one by their text. A line that is not so, and a second answer of a model to a query,
    are left out and told. BadRecording where the whole cannot be used.
    """
    queries: dict[str, Query] = {}
    models: set[str] = set()
    left_out = []
    for line, fields in lines(path, COLUMNS):
        try:
            models.add(_add(queries, fields))
        except Malformed as error:
            left_out.append(BadRow(path.name, line, str(error)))
    name = path.name.removesuffix(".gz").rpartition(".")[0]
    return recorded_of(name, models, list(queries.values()), left_out, prices, path)


def _add(queries: dict[str, Query], fields: Mapping[str, Any] | Unread) -> str:
    """Add one line's answer to its query, and say whose it is."""
    if isinstance(fields, Unread):
        raise Malformed(fields.why)
    text, model = (_text(name, fields.get(name)) for name in ("query", "model"))
    quality = number_within("quality", plain(fields.get("quality")), 1.0)
    cost = number_within("cost_usd", plain(fields.get("cost_usd")), MAX_COST_USD)
    for name, value in (("quality", quality), ("cost_usd", cost)):
        if math.isnan(value):
            raise Malformed(f"{name}: missing")
    latency = number_within("latency_s", plain(fields.get("latency_s")), MAX_LATENCY_S)
    tokens = {name: _whole(name, fields.get(name)) for name in ("in_tok", "out_tok")}
    task = fields.get("task")
    if task is not None and not isinstance(task, str):
        raise Malformed(f"task: must be a string, got {task!r}")
    id = _identity(fields.get("query_id"), text)
    query = queries.get(id) or Query(id, text, task or "", tokens["in_tok"])
    if query.text != text:
        raise Malformed(f"query_id: {id!r} was there before with another query")
    if model in query.answers:
        raise Malformed(f"model: {model!r} was there before for query {id!r}; the first is kept")
    query.answers[model] = Answer(quality, cost, tokens["out_tok"], latency)
    queries[id] = query
    return model


def _identity(id: Any, text: str) -> str:
    """A query's id as text; without one a hash of what is asked."""
    if plain(id) is None:
        return hashlib.sha256(text.encode()).hexdigest()[:16]
    if isinstance(id, bool) or not isinstance(id, str | int):
        raise Malformed(f"query_id: must be a string, got {id!r}")
    return str(id)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Malformed(f"{name}: must be a string that is not empty, got {value!r}")
    return value


def _whole(name: str, value: Any) -> int | None:
    number = plain(value)
    if number is None:
        return None
    if not isinstance(number, int | float) or not 0 <= number <= 1e9 or number != int(number):
        raise Malformed(f"{name}: must be a whole number from 0 up, got {value!r}")
    return int(number)
