"""Published benchmarks with recorded answers of many models, as recordings: a file is a format.

Each module yields the rows of one file of its source, a row for each query and model, as
`answer_logs` takes them. benchmarks.toml has the models' list prices; a model that is not in it
is skipped, and counted.
"""

from __future__ import annotations

import importlib
import pkgutil
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from bandit_service.data.answer_logs import WAY_OUT, gathered, recorded_from
from bandit_service.data.benchmarks._tokens import Count, counting
from bandit_service.data.convert import Prices
from bandit_service.data.recorded import Recorded
from bandit_service.data.rows import (
    MAX_LEFT_OUT,
    BadRecording,
    LeftOut,
    Malformed,
    Repeated,
    Scale,
)

_TABLE = Path(__file__).with_name("benchmarks.toml")
_USD_PER = 1e-6


@dataclass(frozen=True, slots=True)
class Answered:
    """One model's answer to one query. model: as the source calls it."""

    query_id: str
    query: str
    task: str
    model: str
    quality: Any
    in_tok: int
    out_tok: int


Rows = Iterator[tuple[int, Answered | Malformed]]


class _Format(Protocol):
    """A module of this package. FILES: patterns of the files that are read of a directory."""

    FILES: Sequence[str]

    def rows(self, path: Path, count: Count) -> Rows:
        """The answers in one file, with the numbers of their rows from 1."""


def names() -> tuple[str, ...]:
    """Every format, sorted."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name.replace("_", "-") for name in modules if not name.startswith("_")))


def about(kind: str) -> dict[str, str]:
    """For the meta file: source, licence, and how tokens are counted."""
    table = _tables()[kind]
    return {"source": table["source"], "licence": table["licence"], "tokens": counting()[1]}


def load(
    kind: str,
    paths: Sequence[Path],
    prices: Prices | None = None,
    most_left_out: float = MAX_LEFT_OUT,
) -> Recorded:
    """The recording of a benchmark. paths: its files, or directories that have them.

    prices: in the place of benchmarks.toml. Raises BadRecording if the whole cannot be used.
    """
    reader = cast(_Format, importlib.import_module(f"{__name__}.{kind.replace('-', '_')}"))
    listed = _tables()[kind]["models"]
    arms = {_plain(name): id for id, its in listed.items() for name in (id, *its.get("names", ()))}
    charged: Prices = prices if prices is not None else listed
    arms |= {_plain(id): id for id in charged}
    left_out = LeftOut(paths[0], most_left_out, WAY_OUT)
    count = counting()[0]
    queries = gathered(
        (
            (path.name, line, _row(one, arms, charged))
            for path in _files(paths, reader.FILES)
            for line, one in reader.rows(path, count)
        ),
        Scale(),
        left_out,
    )
    return recorded_from(paths[0], queries, left_out, charged)


def _row(
    one: Answered | Malformed, arms: Mapping[str, str], prices: Prices
) -> Mapping[str, Any] | Malformed:
    """As `answer_logs` takes it, with what the answer cost."""
    if isinstance(one, Malformed):
        return one
    arm = arms.get(_plain(one.model), "")
    if arm not in prices:
        return Repeated(f"model: no price for {one.model!r}")
    price = prices[arm]
    usd = _USD_PER * (one.in_tok * price["input"] + one.out_tok * price["output"])
    return {
        "query_id": one.query_id,
        "query": one.query,
        "task": one.task,
        "model": arm,
        "quality": one.quality,
        "cost_usd": float(f"{usd:.4g}"),
        "in_tok": one.in_tok,
        "out_tok": one.out_tok,
    }


def _plain(name: str) -> str:
    """A model's name without the parts that differ between sources.

    >>> _plain("Meta-Llama-3_1-70B-Instruct@together")
    'meta-llama-3.1-70b-instruct'
    """
    return name.partition("@")[0].lower().replace("_", ".")


def _files(paths: Sequence[Path], patterns: Sequence[str]) -> list[Path]:
    """The files, those in a directory in the order of their names; not those of its directories."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise BadRecording(f"{path}: no such file or directory")
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted({each for pattern in patterns for each in path.glob(pattern)})
        if not inside:
            raise BadRecording(f"{path}: has no {' or '.join(patterns)}")
        found += inside
    return found


def _tables() -> dict[str, Any]:
    return tomllib.loads(_TABLE.read_text(encoding="utf-8"))
