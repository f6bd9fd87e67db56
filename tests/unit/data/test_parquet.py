"""The tables against the history that they were made of, column by column."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bandit_service.core import events as ev
from bandit_service.data import parquet
from bandit_service.data.log_source import LogSource
from bandit_service.data.scan import Outcome, Scan
from tests.unit.data.making import DIM, a_history, a_log


def written(path: Path, events: list[ev.AnyEvent], **options: Any) -> tuple[dict[str, Any], str]:
    """The history through a log and an export: the tables, and what it told."""
    after = options.pop("after", 0)
    log = a_log(path / "log", events)
    if owner := options.pop("forget", ""):
        log.forget(owner, log.last)
    with Scan(LogSource(log), after, joined=True) as scan:
        parquet.write(scan, path / "tables", embeddings=options.pop("embeddings", True))
        told = scan.summary()
    log.close()
    return {
        name: pq.read_table(path / "tables" / f"{name}.parquet") for name in parquet.SCHEMAS
    }, told


def outcomes(events: list[ev.AnyEvent]) -> dict[str, Outcome]:
    """What came back for each decision, by going through the events once."""
    found: dict[str, Outcome] = {e.id: Outcome() for e in events if isinstance(e, ev.Decided)}
    for event in events:
        if isinstance(event, ev.DecisionsExpired):
            for id in event.ids:
                found[id] = dataclasses.replace(
                    found[id], expired=True, reward=event.default_reward, reward_ts=event.ts
                )
        if not isinstance(event, ev.Rewarded) or not event.decision_id:
            continue
        was = found[event.decision_id]
        found[event.decision_id] = Outcome(
            quality=was.quality if event.quality is None else event.quality,
            cost_usd=was.cost_usd if event.cost_usd is None else event.cost_usd,
            latency_s=was.latency_s if event.latency_s is None else event.latency_s,
            reward=was.reward if event.reward is None else event.reward,
            reward_ts=was.reward_ts if event.reward is None else event.ts,
            settled=was.settled or event.reward is not None,
            corrected=was.corrected or event.correction,
        )
    return found


@pytest.mark.parametrize("group", [7, 2000])
def test_a_row_for_each_decision_with_all_that_came_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    monkeypatch.setattr(parquet, "GROUP", group)
    events = a_history(300, seed=2)
    tables, _ = written(tmp_path, events)
    table = tables["decisions"]
    assert table.schema.remove(table.schema.get_field_index("embedding")).equals(parquet.DECISIONS)
    groups = pq.ParquetFile(tmp_path / "tables" / "decisions.parquet").num_row_groups
    assert groups == -(-300 // group)
    decided = [e for e in events if isinstance(e, ev.Decided)]
    known = outcomes(events)
    assert {"corrected", "expired", "settled"} == {
        name
        for name in ("corrected", "expired", "settled")
        if any(getattr(each, name) for each in known.values())
    }
    for row, event in zip(table.to_pylist(), decided, strict=True):
        assert events[row["offset"] - 1] is event
        for name in (
            "id",
            "tenant",
            "unit",
            "policy",
            "key",
            "arm",
            "propensity",
            "tokens",
            "price",
            "willingness_to_pay",
            "list_cost_usd",
            "expected_cost_usd",
            "expected_quality",
            "expected_deviation",
            "expected_count",
            "expected_latency_s",
            "fallback",
        ):
            assert row[name] == getattr(event, name), name
        for name in ("arms", "propensities", "scores"):
            assert tuple(row[name]) == getattr(event, name)
        assert row["ts"].timestamp() == event.ts
        assert row["embedding"] == ev.unpack(event.embedding).tolist()
        outcome = dataclasses.asdict(known[event.id])
        row["metrics"] = dict(row["metrics"])
        if row["reward_ts"] is not None:
            row["reward_ts"] = row["reward_ts"].timestamp()
        assert {name: row[name] for name in outcome} == outcome


def test_comparisons_and_self_contained_outcomes(tmp_path: Path) -> None:
    events = a_history(300, seed=2)
    tables, told = written(tmp_path, events)
    compared = [e for e in events if isinstance(e, ev.Compared)]
    assert len(compared) > 20
    for row, event in zip(tables["comparisons"].to_pylist(), compared, strict=True):
        assert (row["winner"], row["loser"], row["tie"]) == (event.winner, event.loser, event.tie)
        assert row["decision_id"] == (event.decision_id or None)
        of = event.subject
        assert row["unit"] == (None if of is None else of.unit)
        assert row["embedding"] == (None if of is None else ev.unpack(of.embedding).tolist())
    alone = [e for e in events if isinstance(e, ev.Rewarded) and e.subject is not None]
    for row, sent in zip(tables["self_contained"].to_pylist(), alone, strict=True):
        assert sent.subject is not None
        signals = [row[name] for name in ("arm", "quality", "reward")]
        assert signals == [sent.arm, sent.quality, sent.reward]
        assert row["tokens"] == sent.subject.tokens
        assert row["embedding"] == ev.unpack(sent.subject.embedding).tolist()
    assert told == (
        f"wrote {len(compared)} comparisons, 300 decisions, {len(alone)} self-contained outcomes"
    )


def test_without_embeddings_and_of_an_empty_log(tmp_path: Path) -> None:
    tables, _ = written(tmp_path, a_history(20), embeddings=False)
    for name, schema in parquet.SCHEMAS.items():
        assert tables[name].schema.equals(schema)
    (tmp_path / "empty").mkdir()
    tables, told = written(tmp_path / "empty", [])
    assert [table.num_rows for table in tables.values()] == [0, 0, 0]
    assert told == "wrote nothing"


def test_what_is_erased_is_in_no_table(tmp_path: Path) -> None:
    events = a_history(100)
    tables, told = written(tmp_path, events, forget=ev.owner_of("acme", "u3"))
    units = set(tables["decisions"]["unit"].to_pylist())
    assert units == {f"u{i}" for i in range(7)} - {"u3"}
    assert "erased" in told
    assert "elsewhere" not in told


def test_outcomes_of_earlier_decisions_are_counted(tmp_path: Path) -> None:
    events = a_history(100)
    middle = len(events) // 2
    tables, told = written(tmp_path, events, after=middle)
    expected = [e.id for e in events[middle:] if isinstance(e, ev.Decided)]
    assert tables["decisions"]["id"].to_pylist() == expected
    assert "outcomes of decisions that are not in this export" in told


def test_a_broken_off_export_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = a_history(100)
    before, _ = written(tmp_path, events)
    (tmp_path / "log").unlink()
    monkeypatch.setattr(parquet, "GROUP", 10)
    monkeypatch.setattr(Scan, "outcome", lambda self, id: 1 / (0 if id == "d-50" else 1))
    with pytest.raises((ZeroDivisionError, TypeError)):
        written(tmp_path, events)
    names = {path.name for path in (tmp_path / "tables").iterdir()}
    assert names == {f"{name}.parquet" for name in parquet.SCHEMAS}
    assert pq.read_table(tmp_path / "tables" / "decisions.parquet").equals(before["decisions"])


def test_the_embedding_is_a_fixed_size_list_of_single_precision(tmp_path: Path) -> None:
    tables, _ = written(tmp_path, a_history(20))
    for table in tables.values():
        kind = table.schema.field("embedding").type
        assert (kind.list_size, str(kind.value_type)) == (DIM, "float")
