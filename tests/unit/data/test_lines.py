"""JSON lines: what is written can be read back, and is nothing that was erased."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bandit_service.core import events as ev
from bandit_service.data.jsonl import lines, read
from bandit_service.data.log_source import LogSource
from bandit_service.data.scan import Scan
from store import Offset
from tests.unit.data.making import a_history, a_log

SAMPLES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "golden" / "events.json").read_text(encoding="utf-8")
)


def _lines(log: Any, embeddings: str = "base64", after: int = 0) -> tuple[list[bytes], str]:
    with Scan(LogSource(log), after, joined=False) as scan:
        return list(lines(scan, embeddings)), scan.summary()


@pytest.mark.parametrize("embeddings", ["base64", "list"])
def test_lines_are_read_back_as_the_very_events(tmp_path: Path, embeddings: str) -> None:
    samples = [ev.decode(bytes.fromhex(each["hex"])) for each in SAMPLES]
    events = [*a_history(200), *(each for each in samples if not isinstance(each, ev.Forgotten))]
    log = a_log(tmp_path / "log", events)
    written, _ = _lines(log, embeddings)
    log.close()
    assert [read(each) for each in written] == list(enumerate(events, 1))


def test_without_embeddings_all_else_is_there(tmp_path: Path) -> None:
    events = a_history(50)
    log = a_log(tmp_path / "log", events)
    written, _ = _lines(log, "none")
    log.close()
    for (_, got), event in zip(map(read, written), events, strict=True):
        assert ev.kind(got) == ev.kind(event)
        if isinstance(got, ev.Decided) and isinstance(event, ev.Decided):
            assert got.embedding == got.surface == b""
            assert got.propensities == event.propensities
    assert not any(b"embedding" in each or b"surface" in each for each in written)


def test_after_an_offset(tmp_path: Path) -> None:
    events = a_history(20)
    log = a_log(tmp_path / "log", events)
    written, told = _lines(log, after=12)
    log.close()
    assert [read(each)[0] for each in written] == list(range(13, len(events) + 1))
    assert told == f"wrote {len(events) - 12} events"


def test_what_was_trimmed_is_passed_over(tmp_path: Path) -> None:
    events = a_history(20)
    log = a_log(tmp_path / "log", events)
    log.trim(Offset(15))
    written, _ = _lines(log)
    log.close()
    assert [read(each)[0] for each in written] == list(range(16, len(events) + 1))


def test_erased_records_are_left_out_and_counted(tmp_path: Path) -> None:
    events = a_history(60)
    log = a_log(tmp_path / "log", events)
    erased = log.forget(ev.owner_of("acme", "u3"), log.last)
    written, told = _lines(log)
    log.close()
    assert erased > 3
    assert len(written) == len(events) - erased
    assert told.endswith(f"left out: {erased} erased")
    assert not any(b'"u3"' in each for each in written)


def test_a_unit_that_is_forgotten_but_not_erased_yet_is_left_out(tmp_path: Path) -> None:
    """Its outcomes too; what it does after that is its own."""
    events = a_history(60)
    own = {e.id for e in events if isinstance(e, ev.Decided) and e.unit == "u3"}
    events.append(ev.Forgotten(ts=2e9, owner=ev.owner_of("acme", "u3")))
    again = a_history(4, seed=5)
    later = next(e for e in again if isinstance(e, ev.Decided) and e.unit == "u3")
    new = ev.decode(ev.encode(later).replace(b"d-3", b"n-3"))
    log = a_log(tmp_path / "log", [*events, new])
    written, told = _lines(log)
    log.close()
    left = [read(each)[1] for each in written]
    decided = [e for e in left if isinstance(e, ev.Decided) and e.unit == "u3"]
    assert decided == [new]
    outcomes = {e.decision_id for e in left if isinstance(e, ev.Rewarded | ev.Compared)}
    assert len(outcomes) > 10
    assert not outcomes & own
    assert "of units being erased" in told
