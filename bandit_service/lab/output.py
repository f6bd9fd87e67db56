"""The output files of `evaluate`: results as JSON, curves as Parquet."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from bandit_service.lab.online import Passed


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Dataclasses as objects, NaN as null; keys in the order given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    _put(path, (text + "\n").encode())


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One row per mapping; all have the same keys."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), partial)
    partial.replace(path)


def regret_points(data: str, passed: Sequence[Passed]) -> list[dict[str, Any]]:
    """Every checkpoint of every run: sums of rewards so far, of the policy and the baselines."""
    return [
        {
            "data": data,
            "policy": run.label,
            "scenario": run.scenario,
            "willingness_to_pay": run.worth,
            "seed": run.seed,
            "queries": int(run.steps[i]),
            "reward": float(run.rewards[i]),
            **{f"reward_{name}": float(sums[i]) for name, sums in run.beside.items()},
        }
        for run in passed
        for i in range(run.steps.size)
    ]


def _put(path: Path, body: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(body)
    partial.replace(path)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
