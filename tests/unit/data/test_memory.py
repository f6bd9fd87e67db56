"""A log of four times the length is exported in the same memory, in every format."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from bandit_service.data import dsjson, jsonl, parquet
from bandit_service.data.log_source import LogSource
from bandit_service.data.scan import Scan
from store.sqlite import SqliteLog
from tests.apart import Run, apart
from tests.unit.data.making import a_history, a_log

EVENTS = 4_000


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "log"
    opened = a_log(path, a_history(EVENTS // 2, dim=32)[:EVENTS])
    assert opened.last == EVENTS
    opened.close()
    return path


@pytest.fixture(scope="module")
def alone() -> Iterator[Run]:
    """A process in which nothing else allocates: a worker's other threads count too."""
    with apart() as run:
        yield run


def _peaks(path: Path, kind: str, to: Path) -> tuple[int, int, int]:
    """Of an export of a quarter of the events, and of all; and the size of the log."""
    parquet.GROUP = 200
    log = SqliteLog(path)
    try:
        _peak(log, 500, kind, to)  # what is made once
        quarter, whole = (_peak(log, upto, kind, to) for upto in (EVENTS // 4, EVENTS))
        return quarter, whole, log.size_bytes
    finally:
        log.close()


def _peak(log: SqliteLog, upto: int, kind: str, to: Path) -> int:
    """The most bytes that an export of the events up to an offset holds at a time."""
    source = LogSource(log)
    source.last = upto
    gc.collect()
    arrow = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        with Scan(source, 0, joined=kind != "jsonl") as scan:
            if kind == "parquet":
                parquet.write(scan, to, embeddings=True)
            else:
                written = (
                    jsonl.lines(scan, "list")
                    if kind == "jsonl"
                    else dsjson.lines(scan, True, "zero")
                )
                assert sum(map(len, written)) > 100 * upto
            assert sum(scan.counts.written.values()) > upto // 3
        assert pa.total_allocated_bytes() <= arrow
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["jsonl", "dsjson", "parquet"])
def test_memory_does_not_grow_with_the_log(
    tmp_path: Path, log: Path, alone: Run, kind: str
) -> None:
    quarter, whole, size = alone(_peaks, log, kind, tmp_path)
    assert whole < 1.5 * quarter  # it would be four times as much
    assert whole < size
