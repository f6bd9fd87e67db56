"""Tables of the Open Bandit Dataset's kind, as CSV or Parquet: one decision a row.

Needed are a timestamp, the action (`item_id` or `action`), what it earned (`click` or `reward`,
empty where nothing came back) and its probability (`propensity_score` or `pscore`).
`action_dist_ARM` has the probability of each arm, empty where it was not eligible; without these
columns every arm of the file is taken as eligible, and only the drawn arm's probability is known.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bandit_service.delimited import canonical, delimited
from bandit_service.export.source import Unreadable
from bandit_service.foreign.records import (
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
from bandit_service.inputs import plain, with_point
from bandit_service.nearest import did_you_mean
from policies import Vector

DIST, EMBEDDING, AFFINITY = "action_dist_", "embedding_", "user-item_affinity_"
_NAMES = {
    "action": ("action", "item_id"),
    "reward": ("reward", "click"),
    "pscore": ("pscore", "propensity_score"),
    "timestamp": ("timestamp",),
}
_OWN = ("EventId", "tenant", "unit", "policy", "tokens", "willingness_to_pay", "quality",
        "cost_usd", "latency_s", "fallback", "")  # fmt: skip
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
                f"{path}: Parquet needs pyarrow: pip install 'bandit-service[evaluate]'"
            ) from None
        try:
            at = 0
            for batch in pq.ParquetFile(path).iter_batches(2000):
                for row in batch.to_pylist():
                    at += 1
                    yield at, row
        except (ValueError, OSError) as error:
            raise Unreadable(f"{path}: is no Parquet file ({error!s:.200})") from None
        return
    line = [0]
    with text_in(path, line) as text, delimited(text) as found:
        header = canonical(found.header, [name for names in _NAMES.values() for name in names])
        try:
            for line[0], cells in found.rows:
                if len(cells) != len(header):
                    raise Unreadable(f"{path}, line {line[0]}: has not as many values as there are "
                                     "columns")  # fmt: skip
                cells = [with_point(cell, found.delimiter) for cell in cells]
                yield line[0], dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise Unreadable(f"{path}, line {line[0] + 1}: {error}") from None


def _columns(path: Path, row: Mapping[str, Any]) -> dict[str, str]:
    """Which column has what."""
    found = {}
    for what, names in _NAMES.items():
        there = [name for name in names if name in row]
        if not there:
            meant = did_you_mean(names[0], row) or did_you_mean(names[-1], row)
            raise Unreadable(
                f"{path}: there is no column {' or '.join(names)}{meant}; there are "
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
            raise BadLine(f"{columns['pscore']}: is {chosen:g}, but {DIST}{action} is "
                          f"{shares[there.index(action)]:g}")  # fmt: skip
    else:
        there = tuple(arms)
        rest = (1.0 - chosen) / max(1, len(there) - 1)
        shares = tuple(chosen if arm == action else rest for arm in there)
    if action not in there:
        raise BadLine(
            f"{columns['action']}: {action!r} is none of the arms {', '.join(there):.200}"
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
    """A CSV's text, or a Decimal, as the number that it is, if it is one."""
    found = plain(value)
    return value if found is None else found
