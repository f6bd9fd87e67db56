"""Tables of the Open Bandit Dataset's kind, as CSV or Parquet: one decision a row.

Needed are a timestamp, the action (`item_id` or `action`), what it earned (`click` or `reward`,
empty where nothing came back) and its probability (`propensity_score` or `pscore`).
`action_dist_ARM` has the probability of each arm, empty where it was not eligible; without these
columns every arm of the file is taken as eligible, and only the drawn arm's probability is known.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bandit_service.core import events as ev
from bandit_service.data.delimited import canonical, delimited
from bandit_service.data.log_source import Unreadable
from bandit_service.data.logged import (
    LARGEST,
    BadLine,
    Logged,
    distribution,
    features,
    hashed,
    moment,
    number,
    propensity,
    signal,
    text_in,
    unit,
)
from bandit_service.data.scan import Outcome, Scan
from bandit_service.parsing.extras import install
from bandit_service.parsing.inputs import plain, with_point
from bandit_service.parsing.suggestions import did_you_mean
from policies import Vector

GROUP = 2000
_TEXT = ("timestamp", "EventId", "tenant", "unit", "policy", "fallback", "action")
_PLAIN = (
    "timestamp",
    "EventId",
    "tenant",
    "unit",
    "policy",
    "fallback",
    "tokens",
    "willingness_to_pay",
    "action",
    "position",
    "reward",
    "pscore",
    "quality",
    "cost_usd",
    "latency_s",
)

DIST, EMBEDDING, AFFINITY = "action_dist_", "embedding_", "user-item_affinity_"
_NAMES = {
    "action": ("action", "item_id"),
    "reward": ("reward", "click"),
    "pscore": ("pscore", "propensity_score"),
    "timestamp": ("timestamp",),
}
_OWN = (
    "EventId",
    "tenant",
    "unit",
    "policy",
    "tokens",
    "willingness_to_pay",
    "quality",
    "cost_usd",
    "latency_s",
    "fallback",
    "",
)
_NEAR = 1e-4


def read(path: Path) -> Iterator[tuple[int, Logged]]:
    """Line numbers and decisions; Unreadable names the file, the line and the column."""
    arms: list[str] = []
    columns = {"": ""}
    for at, row in _rows(path):
        if not arms:
            columns = _columns(path, row)
            arms = _arms(path, columns, row)
        try:
            yield at, _logged(at, row, columns, arms)
        except BadLine as error:
            raise Unreadable(f"{path}, line {at}: {error}") from None


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if path.suffix.lower() in (".parquet", ".pq"):
        try:
            import pyarrow.parquet as pq
        except ImportError:
            raise Unreadable(
                f"{path}: Parquet needs pyarrow: {install('evaluate', 'pyarrow')}"
            ) from None
        try:
            at = 0
            for batch in pq.ParquetFile(path).iter_batches(2000):
                for row in batch.to_pylist():
                    at += 1
                    yield at, row
        except (ValueError, OSError) as error:
            raise Unreadable(f"{path}: is not a Parquet file ({error!s:.200})") from None
        return
    line = [0]
    with text_in(path, line) as text, delimited(text) as found:
        header = canonical(found.header, [name for names in _NAMES.values() for name in names])
        try:
            for line[0], cells in found.rows:
                if len(cells) != len(header):
                    raise Unreadable(f"{path}, line {line[0]}: must have one value for each column")
                cells = [with_point(cell, found.delimiter) for cell in cells]
                yield line[0], dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise Unreadable(f"{path}, line {line[0] + 1}: {error}") from None


def _columns(path: Path, row: Mapping[str, Any]) -> dict[str, str]:
    """The name of each column that is read."""
    found = {}
    for what, names in _NAMES.items():
        there = [name for name in names if name in row]
        if not there:
            meant = did_you_mean(names[0], row) or did_you_mean(names[-1], row)
            raise Unreadable(
                f"{path}: there is no column {' or '.join(names)}{meant}; it has "
                f"{', '.join(row)[:400]}"
            )
        found[what] = there[0]
    return found


def _arms(path: Path, columns: Mapping[str, str], row: Mapping[str, Any]) -> list[str]:
    """Every arm of the table: by its columns, else by reading all actions once before."""
    for prefix in (DIST, AFFINITY):
        if named := [name[len(prefix) :] for name in row if name.startswith(prefix)]:
            return named
    return sorted({str(each[columns["action"]]) for _, each in _rows(path)})


def _logged(
    at: int, row: Mapping[str, Any], columns: Mapping[str, str], arms: Sequence[str]
) -> Logged:
    action = str(row[columns["action"]])
    chosen = propensity(columns["pscore"], row[columns["pscore"]])
    dist = {arm: row[DIST + arm] for arm in arms if plain(row.get(DIST + arm)) is not None}
    if dist:
        there = tuple(dist)
        shares = distribution(
            DIST + "*", [number(DIST + arm, p, 0.0, 1.0) for arm, p in dist.items()]
        )
        if action in dist and abs(shares[there.index(action)] - chosen) > _NEAR:
            raise BadLine(
                f"{columns['pscore']}: is {chosen:g}, but {DIST}{action} is "
                f"{shares[there.index(action)]:g}"
            )
    else:
        there = tuple(arms)
        rest = (1.0 - chosen) / max(1, len(there) - 1)
        shares = tuple(chosen if arm == action else rest for arm in there)
    if action not in there:
        raise BadLine(
            f"{columns['action']}: {action!r} is not one of the arms {', '.join(there):.200}"
        )
    told = {}
    for name in ("quality", "cost_usd", "latency_s"):
        if plain(row.get(name)) is not None:
            told[name] = signal(name, row[name])
    if plain(row[columns["reward"]]) is not None:
        number(columns["reward"], row[columns["reward"]], -1.0, 1.0)
        told["reward"] = signal("reward", row[columns["reward"]])
    return Logged(
        id=str(row.get("EventId") or f"row-{at}"),
        ts=moment(columns["timestamp"], row[columns["timestamp"]]),
        arms=there,
        propensities=shares,
        drawn=there.index(action),
        vector=_vector(row, columns),
        whole=bool(dist) or len(there) == 1,
        tokens=int(number("tokens", plain(row.get("tokens")) or 0, 0, 1e9)),
        willingness_to_pay=number(
            "willingness_to_pay", plain(row.get("willingness_to_pay")) or 0.1, 1e-9, 1e6
        ),
        tenant=str(row.get("tenant") or ""),
        unit=str(row.get("unit") or ""),
        policy=str(row.get("policy") or "imported"),
        signals=told,
    )


def _vector(row: Mapping[str, Any], columns: Mapping[str, str]) -> Vector:
    """The embedding where there is one, else every other column hashed."""
    given = [row[name] for name in row if name.startswith(EMBEDDING)]
    if given:
        if all(plain(each) is None for each in given):
            return np.zeros(len(given), np.float32)
        return unit(np.array([number(f"{EMBEDDING}*", each, -LARGEST, LARGEST) for each in given]))
    taken = {*columns.values(), *_OWN}
    context = {}
    for name, value in row.items():
        if name in taken or name.startswith(DIST) or value in (None, ""):
            continue
        context[name] = _typed(value)
    return hashed(features("", context))


def _typed(value: Any) -> Any:
    """A CSV's text, or a Decimal, as a number if it is one."""
    found = plain(value)
    return value if found is None else found


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
    """The table as Parquet, a group of rows at a time. It gets its name when it is complete."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole = ("tokens", "position")
    schema = pa.schema(
        [
            (name, pa.string() if name in _TEXT else pa.int64() if name in whole else pa.float64())
            for name in columns(scan, embeddings)
        ]
    )
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
