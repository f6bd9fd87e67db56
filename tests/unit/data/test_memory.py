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
from tests.unit.data.making import a_history, a_log

EVENTS = 12_000


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteLog]:
    opened = a_log(tmp_path_factory.mktemp("long") / "log", a_history(6_600, dim=32)[:EVENTS])
    assert opened.last == EVENTS
    yield opened
    opened.close()


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
    tmp_path: Path, log: SqliteLog, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(parquet, "GROUP", 200)
    _peak(log, 500, kind, tmp_path)  # what is made once
    quarter, whole = (_peak(log, upto, kind, tmp_path) for upto in (EVENTS // 4, EVENTS))
    assert whole < 1.5 * quarter  # it would be four times as much
    assert whole < 0.6 * log.size_bytes
