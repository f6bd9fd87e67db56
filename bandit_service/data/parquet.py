"""Tables for data frames: decisions with their outcomes, and outcomes without a decision.

Rows are written in groups of `GROUP`, so no table is ever completely in memory. Needs pyarrow.
"""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bandit_service.core import events as ev
from bandit_service.data.scan import Scan

GROUP = 2000
_TEXT, _REAL, _FLAG, _WHOLE = pa.string(), pa.float64(), pa.bool_(), pa.int64()
_TIME = pa.timestamp("us", tz="UTC")


def _schema(required: dict[str, Any], **optional: Any) -> pa.Schema:
    columns = [pa.field(name, kind, nullable=False) for name, kind in required.items()]
    return pa.schema(columns + [pa.field(name, kind) for name, kind in optional.items()])


DECISIONS = _schema(
    {
        "offset": _WHOLE,
        "id": _TEXT,
        "ts": _TIME,
        "tenant": _TEXT,
        "unit": _TEXT,
        "policy": _TEXT,
        "key": _TEXT,
        "arm": _TEXT,
        "propensity": _REAL,
        "arms": pa.list_(_TEXT),
        "propensities": pa.list_(_REAL),
        "scores": pa.list_(_REAL),
        "tokens": _WHOLE,
        "willingness_to_pay": _REAL,
        "price": _REAL,
        "list_cost_usd": _REAL,
        "expected_cost_usd": _REAL,
        "fallback": _TEXT,
        "settled": _FLAG,
        "corrected": _FLAG,
        "expired": _FLAG,
        "tags": pa.list_(_TEXT),
        "route": _TEXT,
        "weighed": _FLAG,
        "metrics": pa.map_(_TEXT, _REAL),
    },
    expected_quality=_REAL,
    expected_deviation=_REAL,
    expected_count=_REAL,
    expected_latency_s=_REAL,
    quality=_REAL,
    cost_usd=_REAL,
    latency_s=_REAL,
    reward=_REAL,
    reward_ts=_TIME,
)
COMPARISONS = _schema(
    {"offset": _WHOLE, "ts": _TIME, "winner": _TEXT, "loser": _TEXT, "tie": _FLAG},
    decision_id=_TEXT,
    tenant=_TEXT,
    unit=_TEXT,
    tokens=_WHOLE,
    willingness_to_pay=_REAL,
)
SELF_CONTAINED = _schema(
    {
        "offset": _WHOLE,
        "ts": _TIME,
        "tenant": _TEXT,
        "unit": _TEXT,
        "arm": _TEXT,
        "tokens": _WHOLE,
        "willingness_to_pay": _REAL,
    },
    quality=_REAL,
    cost_usd=_REAL,
    latency_s=_REAL,
    reward=_REAL,
)
SCHEMAS = {"decisions": DECISIONS, "comparisons": COMPARISONS, "self_contained": SELF_CONTAINED}


def write(scan: Scan, directory: Path, *, embeddings: bool) -> None:
    """A file for each table. They get their names when all of them are complete."""
    directory.mkdir(parents=True, exist_ok=True)
    dim = scan.dim if embeddings else 0
    partial = {name: directory / f"{name}.parquet.partial" for name in SCHEMAS}
    try:
        with ExitStack() as stack:
            tables = {
                name: stack.enter_context(_Table(partial[name], schema, dim))
                for name, schema in SCHEMAS.items()
            }
            for offset, event in scan.events():
                _add(scan, tables, offset, event)
        for name, path in partial.items():
            path.replace(directory / f"{name}.parquet")
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)


class _Table:
    """A file that is written a group of rows at a time. dim: of the embeddings, 0 for none."""

    def __init__(self, path: Path, schema: pa.Schema, dim: int) -> None:
        self._plain, self._dim = schema, dim
        if dim:
            schema = schema.append(pa.field("embedding", pa.list_(pa.float32(), dim)))
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._schema = schema
        self._rows: list[dict[str, Any]] = []
        self._embeddings: list[bytes | None] = []

    def add(self, row: dict[str, Any], embedding: bytes | None) -> None:
        """Add a row; the columns are those of the schema."""
        self._rows.append(row)
        self._embeddings.append(embedding)
        if len(self._rows) == GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        columns = [
            pa.array([row[field.name] for row in self._rows], field.type) for field in self._plain
        ]
        if self._dim:
            columns.append(self._vectors())
        self._writer.write_table(pa.table(columns, schema=self._schema), row_group_size=GROUP)
        self._rows, self._embeddings = [], []

    def _vectors(self) -> Any:
        """The embeddings of these rows; null if there is none, or if it is of another model."""
        size = 4 * self._dim
        absent = [each is None or len(each) != size for each in self._embeddings]
        data = b"".join(
            bytes(size) if no or each is None else each
            for each, no in zip(self._embeddings, absent, strict=True)
        )
        return pa.FixedSizeListArray.from_arrays(
            pa.array(np.frombuffer(data, "<f4")), self._dim, mask=pa.array(absent)
        )

    def __enter__(self) -> _Table:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()


def _add(scan: Scan, tables: dict[str, _Table], offset: int, event: ev.AnyEvent) -> None:
    where = {"offset": offset, "ts": _micro(event.ts)}
    match event:
        case ev.Decided():
            outcome = scan.outcome(event.id)
            row = msgspec.structs.asdict(event) | where
            row |= {"arm": event.arm, "propensity": event.propensity}
            row |= dataclasses.asdict(outcome) | {"metrics": list(outcome.metrics.items())}
            if row["reward_ts"] is not None:
                row["reward_ts"] = _micro(row["reward_ts"])
            tables["decisions"].add(row, event.embedding)
            scan.counts.wrote("decisions")
        case ev.Rewarded() if event.subject is not None:
            row = msgspec.structs.asdict(event) | msgspec.structs.asdict(event.subject) | where
            tables["self_contained"].add(row, event.subject.embedding)
            scan.counts.wrote("self-contained outcomes")
        case ev.Compared():
            of = event.subject
            row = msgspec.structs.asdict(event) | where
            row |= {"decision_id": event.decision_id or None}
            for name in ("tenant", "unit", "tokens", "willingness_to_pay"):
                row[name] = None if of is None else getattr(of, name)
            tables["comparisons"].add(row, None if of is None else of.embedding)
            scan.counts.wrote("comparisons")
        case _:
            pass


def _micro(ts: float) -> int:
    return round(ts * 1e6)
