"""Recorded traffic with full information: quality and cost of every model on every query.

`NAME.jsonl` or `NAME.jsonl.gz` has one JSON object a line: `text`, `quality` and `cost` (one
entry per model, null where the model has no answer), and where known `query_id`, `in_tok`,
`task` and `latency_s` (one entry per model).
`NAME.meta.json` beside it has `models` and `usd_per_million_tokens`. An invalid row is
skipped and reported with its line, as far as `rows` allows; a file that cannot be used raises
BadRecording.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from tqdm import tqdm

from bandit_service.core.events import ArmSpec
from bandit_service.core.fields import MAX_LATENCY_S
from bandit_service.data.compressed import BROKEN, opened
from bandit_service.data.recorded import Recorded as Recorded
from bandit_service.data.recorded import Row, checked_row, listed_arm
from bandit_service.data.recorded import surface_once as surface_once
from bandit_service.data.routerbench import load_routerbench
from bandit_service.data.rows import (
    MAX_LEFT_OUT,
    LeftOut,
    Malformed,
    number_within,
)
from bandit_service.data.rows import BadRecording as BadRecording
from bandit_service.embedding import Backend
from bandit_service.parsing.extras import install
from bandit_service.parsing.inputs import Unusable, json_of, text_of
from bandit_service.parsing.suggestions import did_you_mean
from policies import Vector

PARETOBANDIT = "paretobandit"
SPECIALISTS = "specialists"
_SPECIALISTS = Path(__file__).with_name(SPECIALISTS) / f"{SPECIALISTS}.jsonl.gz"
_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
_ROUTERBENCH = (".pkl", ".pickle", ".csv", ".csv.gz", ".csv.zst")
_CHUNK = 64


def open_recording(data: str) -> Recorded:
    """The recording in the file `data`, or one of the two that are known by name.

    `specialists` is part of this package, `paretobandit` of the package of that name.
    RouterBench's own files, a pickle or a CSV, are read as they are.
    """
    if data == PARETOBANDIT:
        return load_paretobandit()
    if data == SPECIALISTS:
        return load(_SPECIALISTS)
    if data.endswith(_ROUTERBENCH):
        return load_routerbench(Path(data))
    return load(Path(data))


def load(path: Path, most_left_out: float = MAX_LEFT_OUT) -> Recorded:
    """The recording in NAME.jsonl or NAME.jsonl.gz, with NAME.meta.json beside it."""
    suffix = next((suffix for suffix in reversed(_SUFFIXES) if path.name.endswith(suffix)), None)
    if suffix is None:
        known = (PARETOBANDIT, SPECIALISTS)
        raise BadRecording(
            f"{path}: must be named NAME{' or NAME'.join(_SUFFIXES)}, or be one of the recordings "
            f"{' and '.join(known)}{did_you_mean(str(path), known)}"
        )
    name = path.name.removesuffix(suffix)
    if not path.is_file():
        raise BadRecording(f"{path}: no such file")
    arms = _arms_of_meta(path.with_name(f"{name}.meta.json"))
    ids = [arm.id for arm in arms]

    def row(fields: dict[str, Any], line: int) -> Row:
        quality = _list_of("quality", fields.get("quality"), len(ids))
        cost = _list_of("cost", fields.get("cost"), len(ids))
        latency = fields.get("latency_s")
        found = checked_row(
            str(line) if fields.get("query_id") is None else fields["query_id"],
            fields.get("text"),
            quality,
            cost,
            fields.get("in_tok"),
            fields.get("task"),
        )
        if latency is None:
            return found
        return replace(
            found,
            latency=[
                number_within(f"latency_s[{k}]", seconds, MAX_LATENCY_S)
                for k, seconds in enumerate(_list_of("latency_s", latency, len(ids)))
            ],
        )

    return _collect(name, arms, [path], row, most_left_out)


def load_paretobandit() -> Recorded:
    """The prompts with three models' scores and bills that the package brings as examples."""
    # Looked up, not imported: only its files are wanted.
    found = importlib.util.find_spec("pareto_bandit")
    if found is None or found.origin is None:
        raise BadRecording(
            f"paretobandit: the package is not installed; {install('demo', 'paretobandit')}"
        )
    package = Path(found.origin).parent
    listed = package / "config" / "models.json"
    try:
        arms = [
            listed_arm(model["model_id"], model["input_cost_per_m"], model["output_cost_per_m"])
            for model in _json(listed)["models"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise BadRecording(f"{listed}: {error}") from None
    ids = [arm.id for arm in arms]

    def row(fields: dict[str, Any], _: int) -> Row:
        by_arm = fields.get("arms")
        if not isinstance(by_arm, dict) or not all(isinstance(x, dict) for x in by_arm.values()):
            raise Malformed("arms: must be an object of objects")
        unknown = sorted(set(by_arm) - set(ids))
        if unknown:
            raise Malformed(f"arms: {unknown[0]!r} is not in models.json")
        answers = [by_arm.get(id, {}) for id in ids]
        text = fields.get("prompt")
        return checked_row(
            hashlib.sha256(str(text).encode()).hexdigest()[:16],
            text,
            [answer.get("reward") for answer in answers],
            [answer.get("cost") for answer in answers],
            None,
            None,
        )

    examples = package / "data" / "examples"
    return _collect(
        PARETOBANDIT, arms, [examples / "val.jsonl", examples / "test_holdout.jsonl"], row
    )


# --- embeddings ---------------------------------------------------------------------------


def embed_all(texts: Sequence[str], backend: Backend, model: str, cache_dir: Path) -> Vector:
    """(n, dim) embeddings, each text embedded once and kept in `cache_dir` under its hash.

    Every backend and `model` has a file of its own. Embeddings from before an interruption are
    kept.
    """
    which = hashlib.sha256(f"{backend.name}:{model}".encode()).hexdigest()[:16]
    store = cache_dir / f"{backend.name}-{which}.npz"
    known = _read_cache(store, backend.dim)
    keys = [hashlib.sha256(text.encode()).digest() for text in texts]
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    todo = sorted(missing, key=lambda key: len(missing[key]))  # like lengths pad little
    try:
        with tqdm(total=len(todo), desc="embedding", unit=" queries", disable=_quiet(todo)) as bar:
            for start in range(0, len(todo), _CHUNK):
                part = todo[start : start + _CHUNK]
                vectors = backend.encode([missing[key] for key in part])
                known.update(zip(part, vectors, strict=True))
                bar.update(len(part))
    finally:
        if todo:
            _write_cache(store, known)
    return np.array([known[key] for key in keys], np.float32).reshape(len(keys), backend.dim)


def _quiet(todo: Sequence[bytes]) -> bool | None:
    """No bar where there is nothing to do; None leaves it to whether stderr is a terminal."""
    return None if todo else True


def _read_cache(path: Path, dim: int) -> dict[bytes, Vector]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            keys, vectors = stored["keys"], stored["vectors"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error):
        return {}  # not there, or damaged: a cache costs time, never data
    if vectors.shape != (len(keys), dim):
        return {}
    return {key.tobytes(): vector for key, vector in zip(keys, vectors, strict=True)}


def _write_cache(path: Path, known: dict[bytes, Vector]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = np.frombuffer(b"".join(known), np.uint8).reshape(len(known), 32)
    vectors = np.array(list(known.values()), np.float32)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
        np.savez(file, keys=keys, vectors=vectors)
    Path(file.name).replace(path)


# --- rows ---------------------------------------------------------------------------------


class _ToRow(Protocol):
    def __call__(self, fields: dict[str, Any], line: int, /) -> Row: ...


_Lines: TypeAlias = Iterator[tuple[int, bytes]]


def _collect(
    name: str,
    arms: list[ArmSpec],
    paths: Sequence[Path],
    to_row: _ToRow,
    most: float = MAX_LEFT_OUT,
) -> Recorded:
    rows: dict[str, Row] = {}
    left_out = LeftOut(paths[0], most)
    for path in paths:
        for line, body in _lines(path):
            try:
                row = to_row(_object(body), line)
                if row.id in rows:
                    raise Malformed(f"query_id: duplicate id {row.id!r}")
            except Malformed as error:
                left_out.add(path.name, line, error)
            else:
                rows[row.id] = row
    bad = left_out.checked(len(rows))
    order = sorted(range(len(arms)), key=lambda k: arms[k].id)
    unknown = [math.nan] * len(arms)
    latency = np.array([row.latency or unknown for row in rows.values()])[:, order]
    return Recorded(
        name=name,
        arms=tuple(arms[k] for k in order),
        ids=tuple(rows),
        texts=tuple(row.text for row in rows.values()),
        quality=np.array([row.quality for row in rows.values()])[:, order],
        cost=np.array([row.cost for row in rows.values()])[:, order],
        tokens=np.array([row.tokens for row in rows.values()], np.int64),
        tasks=tuple(row.task for row in rows.values()),
        left_out=bad,
        latency=None if np.isnan(latency).all() else latency,
    )


def _lines(path: Path) -> _Lines:
    """The lines that are not blank, with their numbers from 1."""
    line = 0
    try:
        with opened(path) as (file, _):
            for line, body in enumerate(file, start=1):
                if body.strip():
                    yield line, body
    except Unusable as error:
        raise BadRecording(f"{path}: {error}") from None
    except BROKEN as error:
        raise BadRecording(f"{path}: cannot be read after line {line}: {error}") from None


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json_of(body)
    except ValueError as error:
        raise Malformed(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Malformed(f"must be an object, got {type(value).__name__}")
    return value


def _list_of(name: str, value: Any, k: int) -> list[Any]:
    if not isinstance(value, list):
        raise Malformed(f"{name}: must be a list, got {type(value).__name__}")
    if len(value) != k:
        raise Malformed(f"{name}: must have {k} entries, one per model, got {len(value)}")
    return value


def _arms_of_meta(path: Path) -> list[ArmSpec]:
    meta = _json(path)
    models = meta.get("models") if isinstance(meta, dict) else None
    prices = meta.get("usd_per_million_tokens") if isinstance(meta, dict) else None
    if not isinstance(models, list) or not models or not isinstance(prices, dict):
        raise BadRecording(f"{path}: must have models, a list, and usd_per_million_tokens, a map")
    if len({str(model) for model in models}) != len(models):
        raise BadRecording(f"{path}: models: must not have duplicates")
    arms = []
    for model in models:
        price = prices.get(model) if isinstance(model, str) else None
        if not isinstance(price, dict):
            raise BadRecording(f"{path}: usd_per_million_tokens: no price for {model!r}")
        try:
            arms.append(listed_arm(model, price.get("input"), price.get("output")))
        except ValueError as error:
            raise BadRecording(f"{path}: {model}: {error}") from None
    return arms


def _json(path: Path) -> Any:
    try:
        body = text_of(path)
    except OSError as error:
        raise BadRecording(f"{path}: cannot be read: {error.strerror or error}") from None
    except (Unusable, *BROKEN) as error:
        raise BadRecording(f"{path}: {error}") from None
    try:
        return json_of(body)
    except ValueError as error:
        raise BadRecording(f"{path}: not JSON: {error}") from None
