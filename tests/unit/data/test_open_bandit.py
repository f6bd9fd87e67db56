"""Tables of the Open Bandit kind: written, read back, and the real sample evaluated."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from bandit_service import cli
from bandit_service.core import events as ev
from bandit_service.data import open_bandit
from bandit_service.data.log_source import LogSource, Unreadable
from bandit_service.data.logged import ForeignSource, source_of
from bandit_service.data.scan import Scan
from tests.open_bandit import table
from tests.shared_data import vectors
from tests.tools import needed
from tests.unit.data.making import a_history, a_log

CSV = (
    "timestamp,action,position,reward,pscore,country\n"
    "2026-03-01T12:00:00Z,a,1,1,0.5,FR\n"
    "2026-03-01T12:00:01Z,b,2,0,0.25,DE\n"
    "2026-03-01T12:00:02Z,b,2,,0.25,DE\n"
)


def source(path: Path) -> ForeignSource:
    return source_of(open_bandit.read(path), path, (), 5, 100)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("embeddings", [True, False])
def test_our_own_table_comes_back(tmp_path: Path, suffix: str, embeddings: bool) -> None:
    if suffix == ".parquet":
        needed("pyarrow")
    history = a_history(300, seed=5)
    log = a_log(tmp_path / "log", history)
    path = tmp_path / f"table{suffix}"
    with Scan(LogSource(log), 0, joined=True) as scan:
        if suffix == ".csv":
            path.write_bytes(b"".join(open_bandit.csv_lines(scan, embeddings, "skip-learn")))
        else:
            open_bandit.write_parquet(scan, path, embeddings, "skip-learn")
        assert scan.counts.written == {"decisions": 300}
        outcomes = {e.id: scan.outcome(e.id) for e in history if isinstance(e, ev.Decided)}
    log.close()
    found = source(path)
    assert found.known
    before = [event for event in history if isinstance(event, ev.Decided)]
    after = [event for event in found.all if isinstance(event, ev.Decided)]
    told = {e.decision_id: e for e in found.all if isinstance(e, ev.Rewarded)}
    for was, now in zip(before, after, strict=True):
        assert (now.id, now.arm, now.arms) == (was.id, was.arm, was.arms)
        assert now.propensities == was.propensities
        assert (now.ts, now.tokens, now.unit) == (was.ts, was.tokens, was.unit)
        outcome, reported = outcomes[was.id], told.get(was.id)
        for name in ("reward", "quality", "cost_usd"):
            assert getattr(outcome, name) == (reported and getattr(reported, name)), name
    assert len(told) > 200


def test_the_table_is_what_others_read(tmp_path: Path) -> None:
    log = a_log(tmp_path / "log", a_history(50, seed=6))
    with Scan(LogSource(log), 0, joined=True) as scan:
        text = b"".join(open_bandit.csv_lines(scan, False, "zero")).decode()
    log.close()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 50
    for row in rows:
        dist = {k: float(v) for k, v in row.items() if k.startswith("action_dist_") and v}
        assert sum(dist.values()) == pytest.approx(1.0)
        assert dist[f"action_dist_{row['action']}"] == float(row["pscore"])
        assert row["position"] == "1"
        assert float(row["reward"]) >= -1.0


def test_a_table_with_the_drawn_arms_probability_alone(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(CSV)
    found = source(path)
    assert not found.known
    decided = [event for event in found.all if isinstance(event, ev.Decided)]
    assert [(one.id, one.arm, one.propensity) for one in decided] == [
        ("row-2", "a", 0.5),
        ("row-3", "b", 0.25),
        ("row-4", "b", 0.25),
    ]
    assert decided[1].propensities == (0.75, 0.25)
    assert [e.reward for e in found.all if isinstance(e, ev.Rewarded)] == [1.0, 0.0]
    first, second, third = (one.embedding for one in decided)
    assert second == third != first


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("pscore", "p", "there is no column pscore or propensity_score"),
        (",reward,", ",r,", "there is no column reward or click"),
        ("0.25,DE", "0,DE", "line 3: pscore: must be above 0 for the drawn arm"),
        ("0.25,DE", "1.5,DE", "line 3: pscore: must be a number from 0 to 1, got '1.5'"),
        (",1,0.5", ",7,0.5", "line 2: reward: must be a number from -1 to 1, got '7'"),
        ("2026-03-01T12:00:01Z", "noon", "line 3: timestamp: must be like"),
        (",DE\n", "\n", "line 3: must have one value for each column"),
        (",DE\n", ",DE,x\n", "line 3: must have one value for each column"),
    ],
)
def test_the_line_and_the_column_are_named(
    tmp_path: Path, before: str, after: str, said: str
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(CSV.replace(before, after, 1))
    with pytest.raises(Unreadable) as caught:
        source(path)
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("dist", "said"),
    [
        ("0.5,0.6", "action_dist_*: the probabilities must sum to 1, they sum to 1.1"),
        ("0.4,0.6", "pscore: is 0.5, but action_dist_a is 0.4"),
        (",1", "action: 'a' is not one of the arms b"),
        ("x,0.5", "action_dist_a: must be a number from 0 to 1, got 'x'"),
    ],
)
def test_a_distribution_that_cannot_be_is_named(tmp_path: Path, dist: str, said: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(
        f"timestamp,action,reward,pscore,action_dist_a,action_dist_b\n2026-03-01,a,1,0.5,{dist}\n"
    )
    with pytest.raises(Unreadable, match="line 2: ") as caught:
        source(path)
    assert said in str(caught.value)


def test_what_is_no_table_is_said(tmp_path: Path) -> None:
    needed("pyarrow")
    for name, content in (("x.parquet", b"no parquet"), ("x.csv", b"\xff\xfe,\n1\n")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Unreadable, match=name):
            source(tmp_path / name)
    (tmp_path / "empty.csv").write_text("timestamp,action,reward,pscore\n")
    with pytest.raises(Unreadable, match="contains no decision"):
        source(tmp_path / "empty.csv")


def test_the_open_bandit_sample_through_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = vectors("stats/obd_small_ope.json")["campaigns"]["men"]
    path = tmp_path / "men.csv"
    path.write_bytes(table("men"))
    code = cli.main(
        [
            "evaluate",
            "--from-obd",
            str(path),
            "--policy",
            "uniform",
            "--bounds",
            "0",
            "1",
            "--json",
        ]
    )
    assert code == 0
    (one,) = json.loads(capsys.readouterr().out)["policies"]
    assert one["state"] == "shown"
    assert one["estimates"]["ips"]["value"] == pytest.approx(published["ips"], rel=1e-9)
    assert one["estimates"]["snips"]["value"] == pytest.approx(published["snips"], rel=1e-9)
    assert one["overlap"]["effective_size"] == pytest.approx(published["ess"], rel=1e-9)
    assert [one["sequence"]["low"], one["sequence"]["high"]] == pytest.approx(
        published["vw_cs_95"], abs=2e-5
    )
