"""Converts any format to that of docs/replay.md: queries with answers, prices, and writing.

The readers of `longlogs` and `routerbench` gather `Query` objects; `recorded_of` makes a recording
from them, and `write` writes it. Nothing is written before everything is read.
"""

from __future__ import annotations

import gzip
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import msgspec
import numpy as np
from tqdm import tqdm

from bandit_service.data.recorded import Recorded, Row, checked_row, listed_arm
from bandit_service.data.rows import BadRecording, BadRow
from bandit_service.embedding import estimate_tokens
from bandit_service.parsing.inputs import json_of, plain, text_of
from bandit_service.settings import arm_spec
from policies import Floats

# USD per million tokens, "input" and "output", of each model.
Prices: TypeAlias = Mapping[str, Mapping[str, float]]

_ASSUMED_OUTPUT = arm_spec(
    {"id": "any", "usd_per_mtok_in": 0.0, "usd_per_mtok_out": 0.0}
).expected_output_tokens


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's answer to one query. output_tokens: None if unknown."""

    quality: float
    cost: float
    output_tokens: int | None = None
    latency: float = math.nan


@dataclass
class Query:
    """One query with the answers by model. tokens: None if unknown."""

    id: str
    text: str
    task: str = ""
    tokens: int | None = None
    answers: dict[str, Answer] = field(default_factory=dict)


def recorded_of(
    name: str,
    models: Iterable[str],
    queries: Sequence[Query],
    left_out: Sequence[BadRow],
    prices: Prices | None,
    source: Path,
) -> Recorded:
    """The recording of these queries; the models sorted, null where one has no answer.

    Missing prices are estimated, see `estimated_prices`. Raises BadRecording if `prices` lack a
    model.
    """
    ids = sorted(models)
    if prices is None:
        prices = estimated_prices(ids, queries)
    arms = []
    for id in ids:
        if id not in prices:
            raise BadRecording(f"{source}: prices: no price for {id!r}")
        try:
            arms.append(listed_arm(id, prices[id].get("input"), prices[id].get("output")))
        except ValueError as error:
            raise BadRecording(f"{source}: {id}: {error}") from None
    none = Answer(math.nan, math.nan)
    table = [[query.answers.get(id, none) for id in ids] for query in queries]
    latency = np.array([[answer.latency for answer in row] for row in table])
    rows = [
        checked_row(
            query.id,
            query.text,
            [_or_none(answer.quality) for answer in row],
            [_or_none(answer.cost) for answer in row],
            query.tokens,
            query.task,
        )
        for query, row in zip(queries, table, strict=True)
    ]
    return Recorded(
        name=name,
        arms=tuple(arms),
        ids=tuple(row.id for row in rows),
        texts=tuple(row.text for row in rows),
        quality=_table(rows, "quality"),
        cost=_table(rows, "cost"),
        tokens=np.array([row.tokens for row in rows], np.int64),
        tasks=tuple(row.task for row in rows),
        left_out=tuple(left_out),
        latency=None if np.isnan(latency).all() else latency,
    )


def estimated_prices(
    models: Sequence[str], queries: Sequence[Query]
) -> dict[str, dict[str, float]]:
    """One price per model for tokens in and out: Σ cost / Σ (tokens in + tokens out).

    An estimate, in USD per million tokens. Tokens in as recorded, or by the length of the text;
    tokens out as recorded, or as many as the service expects from an unknown arm. So the cost that
    it expects at first is the average that was paid.
    """
    found = {}
    for model in models:
        usd, tokens = 0.0, 0
        for query in queries:
            answer = query.answers.get(model)
            if answer is not None:
                asked = estimate_tokens(len(query.text)) if query.tokens is None else query.tokens
                out = _ASSUMED_OUTPUT if answer.output_tokens is None else answer.output_tokens
                usd += answer.cost
                tokens += asked + out
        price = float(f"{1e6 * usd / tokens:.6g}") if tokens else 0.0
        found[model] = {"input": price, "output": price}
    return found


def read_prices(path: Path) -> dict[str, dict[str, float]]:
    """USD per million tokens by model, from JSON or TOML: `{"m": {"input": 1, "output": 2}}`.

    A NAME.meta.json of a recording serves as well. Raises BadRecording with the error.
    """
    try:
        body = text_of(path)
        found: Any = tomllib.loads(body) if path.suffix == ".toml" else json_of(body)
    except OSError as error:
        raise BadRecording(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise BadRecording(f"{path}: neither JSON nor a .toml file: {error}") from None
    if isinstance(found, dict):
        found = found.get("usd_per_million_tokens", found)
    if not isinstance(found, dict) or not found:
        raise BadRecording(f"{path}: must be a map of models, each with input and output")
    prices = {}
    for model, price in found.items():
        given = price if isinstance(price, dict) else {}
        for part in ("input", "output"):
            value = plain(given.get(part))
            if not isinstance(value, int | float) or not value >= 0.0:
                raise BadRecording(
                    f"{path}: {model}: {part}: must be USD per million tokens, a number from 0 "
                    f"up, got {given.get(part)!r}"
                )
        prices[model] = {part: float(plain(given[part])) for part in ("input", "output")}
    return prices


def write(recorded: Recorded, to: Path, about: Mapping[str, Any] | None = None) -> Path:
    """NAME.jsonl or NAME.jsonl.gz, and NAME.meta.json beside it, whose path is returned.

    about: more for the meta file. Both are written beside their places and then moved there.
    """
    suffix = suffix_of(to)
    meta = to.with_name(f"{to.name.removesuffix(suffix)}.meta.json")
    described = {
        "models": [arm.id for arm in recorded.arms],
        "usd_per_million_tokens": {
            arm.id: {"input": arm.usd_per_mtok_in, "output": arm.usd_per_mtok_out}
            for arm in recorded.arms
        },
        "queries": len(recorded),
        **(about or {}),
    }
    to.parent.mkdir(parents=True, exist_ok=True)
    partial, meta_partial = (path.with_name(f"{path.name}.partial") for path in (to, meta))
    try:
        meta_partial.write_bytes(msgspec.json.format(msgspec.json.encode(described)) + b"\n")
        with partial.open("wb") as file, _packed(file, suffix) as out:
            for i in tqdm(range(len(recorded)), desc="writing", unit=" queries", disable=None):
                out.write(msgspec.json.encode(_line(recorded, i)) + b"\n")
        meta_partial.replace(meta)
        partial.replace(to)
    finally:
        for path in (partial, meta_partial):
            path.unlink(missing_ok=True)
    return meta


def suffix_of(to: Path) -> str:
    """ ".jsonl.gz" or ".jsonl". Raises BadRecording for another name."""
    for suffix in (".jsonl.gz", ".jsonl"):
        if to.name.endswith(suffix) and to.name != suffix:
            return suffix
    raise BadRecording(f"{to}: must be named NAME.jsonl.gz or NAME.jsonl")


@contextmanager
def _packed(file: IO[bytes], suffix: str) -> Iterator[IO[bytes]]:
    if suffix.endswith(".gz"):
        # without name and time, so that equal recordings are equal files
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            yield cast(IO[bytes], packed)
    else:
        yield file


def _line(recorded: Recorded, i: int) -> dict[str, Any]:
    line: dict[str, Any] = {
        "query_id": recorded.ids[i],
        "text": recorded.texts[i],
        "quality": [_or_none(value) for value in recorded.quality[i].tolist()],
        "cost": [_or_none(value) for value in recorded.cost[i].tolist()],
        "in_tok": int(recorded.tokens[i]),
    }
    if recorded.tasks[i]:
        line["task"] = recorded.tasks[i]
    if recorded.latency is not None:
        line["latency_s"] = [_or_none(value) for value in recorded.latency[i].tolist()]
    return line


def _table(rows: Sequence[Row], name: str) -> Floats:
    return np.array([getattr(row, name) for row in rows], np.float64)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
