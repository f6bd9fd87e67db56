"""An id is in the log once, in whatever order ids come, and whatever was trimmed or undone."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandit_service import clock
from store import Duplicate, Offset, Record
from store.sqlite import SqliteLog

_EIDS = st.one_of(
    st.text("ab\0é", max_size=3),
    st.integers(0, 60).map("{:02}".format),
    st.integers(0, 60).map("import {}".format),
)
_RUNS = st.tuples(st.sampled_from(["", "0", "m", "z"]), st.integers(0, 90), st.integers(1, 70)).map(
    lambda run: [f"{run[0]}{i:04}" for i in range(run[1], run[1] + run[2])]
)
_BATCHES = st.lists(st.one_of(_RUNS, st.lists(_EIDS, min_size=1, max_size=70)), max_size=15)


@settings(max_examples=60, deadline=None)
@given(batches=_BATCHES, trims=st.lists(st.integers(0, 50), max_size=15), again=st.booleans())
def test_an_id_is_refused_exactly_when_it_is_there(
    batches: list[list[str]], trims: list[int], again: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        log, kept = SqliteLog(Path(directory) / "events.db"), list[str]()
        for number, batch in enumerate(batches):
            known = set(kept[log.first - 1 :])
            twice = {eid for i, eid in enumerate(batch) if eid in batch[:i]}
            trimmed = set(kept[: log.first - 1])
            new = [Record(eid, "k", 1.0, b"x") for eid in batch]
            refused = None
            try:
                log.append(new)
            except Duplicate as error:
                refused = error.eid
            if refused is None:
                assert not twice
                assert not known & set(batch)
                kept += batch
            else:
                assert refused in known | twice | trimmed
            assert log.last == len(kept)
            if again and number % 4 == 3:
                log.close()
                log = SqliteLog(log.path)
            if number < len(trims):
                log.trim(Offset(log.first - 1 + trims[number]))
        for eid in set(kept[log.first - 1 :]):
            with pytest.raises(Duplicate):
                log.append([Record(eid, "k", 1.0, b"x")])
        log.close()


def _entries(log: SqliteLog) -> tuple[int, int]:
    """Strays, and ranges of rows."""
    (strays,) = log._db.execute("SELECT count(*) FROM stray").fetchone()
    (ranges,) = log._db.execute("SELECT count(high) FROM batch").fetchone()
    return strays, ranges


def test_ids_of_the_service_need_no_entry(tmp_path: Path) -> None:
    log, ids = SqliteLog(tmp_path / "events.db"), clock.Ids(1e9)
    for i in range(200):
        log.append([Record(ids.new(1e9 + i), "k", 1.0, b"x") for _ in range(1 + i % 5)])
    assert _entries(log) == (0, 0)
    log.close()


def test_after_an_import_a_row_has_one_entry(tmp_path: Path) -> None:
    """Ids of an import are above those of the service, and do not all ascend."""
    log, ids = SqliteLog(tmp_path / "events.db"), clock.Ids(1.7e9)
    log.append([Record(f"import {i}", "k", 1.0, b"x") for i in range(1, 1001)])
    strays = _entries(log)[0]
    for i in range(100):
        log.append([Record(ids.new(1.7e9 + i), "k", 1.0, b"x") for _ in range(10)])
    assert _entries(log) == (strays, 100)
    log.close()
