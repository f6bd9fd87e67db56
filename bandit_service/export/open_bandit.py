"""A table like the Open Bandit Dataset's: one decision a row, as CSV or Parquet.

`bandit_service.foreign.open_bandit` reads it back; others' tools find timestamp, action, position,
reward, pscore and the whole distribution, `action_dist_ARM`, empty for arms that were not eligible.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bandit_service.core import events as ev
from bandit_service.export.scan import Outcome, Scan

GROUP = 2000
_TEXT = ("timestamp", "EventId", "tenant", "unit", "policy", "fallback", "action")
_PLAIN = (
    "timestamp", "EventId", "tenant", "unit", "policy", "fallback", "tokens", "willingness_to_pay",
    "action", "position", "reward", "pscore", "quality", "cost_usd", "latency_s",
)  # fmt: skip


def columns(scan: Scan, embeddings: bool) -> list[str]:
    """Every column, in order."""
    dim = scan.dim if embeddings else 0
    return [
        *_PLAIN,
        *(f"embedding_{i}" for i in range(dim)),
        *(f"action_dist_{arm}" for arm in sorted(scan.arms)),
    ]


def rows(scan: Scan, embeddings: bool, unrewarded: str) -> Iterator[dict[str, Any]]:
    """Every decision; `unrewarded` says what becomes of one without reward."""
    dim = scan.dim if embeddings else 0
    for _, event in scan.events():
        if not isinstance(event, ev.Decided):
            continue
        outcome = scan.outcome(event.id)
        if outcome.reward is None and unrewarded == "skip":
            scan.counts.unrewarded += 1
            continue
        scan.counts.wrote("decisions")
        row = _row(event, outcome, 0.0 if unrewarded == "zero" else None)
        vector = ev.unpack(event.embedding)
        if len(vector) == dim:
            row |= {f"embedding_{i}": float(f"{x:.9g}") for i, x in enumerate(vector)}
        yield row


def csv_lines(scan: Scan, embeddings: bool, unrewarded: str) -> Iterator[bytes]:
    """The table as CSV, its header first; numbers have the digits that give them back."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns(scan, embeddings), restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows(scan, embeddings, unrewarded):
        writer.writerow(row)
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    yield text.getvalue().encode()


def write_parquet(scan: Scan, path: Path, embeddings: bool, unrewarded: str) -> None:
    """The table as Parquet, a group of rows at a time. It takes its name when it is whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole = ("tokens", "position")
    schema = pa.schema([
        (name, pa.string() if name in _TEXT else pa.int64() if name in whole else pa.float64())
        for name in columns(scan, embeddings)
    ])  # fmt: skip
    partial = path.with_name(path.name + ".partial")
    try:
        with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            group: list[dict[str, Any]] = []
            for row in rows(scan, embeddings, unrewarded):
                group.append(row)
                if len(group) == GROUP:
                    writer.write_table(pa.Table.from_pylist(group, schema))
                    group = []
            writer.write_table(pa.Table.from_pylist(group, schema))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _row(event: ev.Decided, outcome: Outcome, missing: float | None) -> dict[str, Any]:
    row = {
        "timestamp": f"{datetime.fromtimestamp(event.ts, UTC):%Y-%m-%dT%H:%M:%S.%f}Z",
        "EventId": event.id,
        "tenant": event.tenant,
        "unit": event.unit,
        "policy": f"{event.policy}/{event.key}",
        "fallback": event.fallback,
        "tokens": event.tokens,
        "willingness_to_pay": event.willingness_to_pay,
        "action": event.arm,
        "position": 1,
        "reward": missing if outcome.reward is None else outcome.reward,
        "pscore": event.propensity,
        "quality": outcome.quality,
        "cost_usd": outcome.cost_usd,
        "latency_s": outcome.latency_s,
    }
    dist = zip(event.arms, event.propensities, strict=True)
    return row | {f"action_dist_{arm}": p for arm, p in dist}
