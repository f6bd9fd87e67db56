"""`bandit-service evaluate --from-log`, end to end on real logs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import policies
from bandit_service import cli
from bandit_service.core import events as ev
from bandit_service.core import snapshot
from bandit_service.core.apply import apply
from bandit_service.core.metric_spec import NamedMetric
from bandit_service.core.world import new_world
from bandit_service.data import jsonl
from store import Offset
from store.snapshots import FileSnapshots
from store.sqlite import SqliteLog
from tests.unit.data.making import a_log
from tests.unit.offpolicy.logs import uniform_log


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    a_log(tmp_path / "data" / "events.sqlite3", uniform_log(240)).close()


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["evaluate", *arguments])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_a_directory_a_file_and_json_lines_say_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = b"".join(jsonl.line(i, event) for i, event in enumerate(uniform_log(240), 1))
    (tmp_path / "events.jsonl").write_bytes(written)
    chosen = ("--policy", "uniform", "--policy", "epsilon_greedy:epsilon=0.6", "--json")
    found = []
    for where in ("data", "data/events.sqlite3", "events.jsonl"):
        code, out, _ = run(capsys, "--from-log", where, *chosen)
        assert code == 0
        found.append(json.loads(out))
    assert found[0] == found[1] == found[2]
    uniform, greedy = found[0]["policies"]
    assert found[0]["log"]["used"] == 240
    assert greedy["parameters"] == {"epsilon": 0.6}
    # arms earn 0.2, 0.5 and 0.8: the best one, and six in ten at random
    assert uniform["estimates"]["snips"]["value"] == pytest.approx(0.5, abs=0.05)
    assert greedy["estimates"]["snips"]["value"] == pytest.approx(0.62, abs=0.05)
    assert greedy["beside_log"]["low"] > 0.05
    assert uniform["sequence"]["low"] < 0.5 < uniform["sequence"]["high"]


def test_the_configured_log_and_a_window_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bandit.toml").write_text('data_dir = "data"\n[exploration]\nfloor = 0.0\n')
    code, out, _ = run(
        capsys,
        "--from-log",
        "--config",
        "bandit.toml",
        "--policy",
        "fixed:arm=c",
        "--since",
        "1970-01-01T00:01:00Z",
        "--until",
        "180",
        "--clip",
        "2",
        "--alpha",
        "0.1",
    )
    assert code == 0
    assert out.startswith("120 of 120 decisions")
    assert "no estimate: the effective sample size is" in out
    assert "SNIPS" not in out
    code, out, _ = run(
        capsys,
        "--from-log",
        "--config",
        "bandit.toml",
        "--policy",
        "fixed:arm=c",
        "--anyway",
        "--frozen",
        "--metric",
        "quality",
    )
    assert code == 0
    assert "SNIPS                0.8000" in out


def test_a_metric_of_the_users_own_may_be_estimated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = uniform_log(240)
    named = ev.MetricsChanged(ts=0.0, metrics=(NamedMetric(name="stars", low=1.0, high=5.0),))
    asked = ("--policy", "uniform", "--metric", "stars", "--json")
    for log in (events, [*events[:3], named, *events[3:]]):
        written = b"".join(jsonl.line(i, event) for i, event in enumerate(log, 1))
        (tmp_path / "events.jsonl").write_bytes(written)
        code, out, _ = run(capsys, "--from-log", "events.jsonl", *asked)
        assert code == 0
        (uniform,) = json.loads(out)["policies"]
        assert uniform["estimates"]["snips"]["value"] == pytest.approx(2.0, abs=0.15)
        assert (uniform["sequence"] is None) is (log is events)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from-log", "nowhere"), "there is no log at nowhere"),
        (
            ("--from-log", "data", "--policy", "best"),
            "--policy best: no policy named 'best'; expected one of eagle",
        ),
        (("--from-log", "data", "--policy", "metallm:alpha"), "comes PARAMETER=VALUE, got 'alpha'"),
        (("--from-log", "data", "--policy", "metallm:alpha=x"), "alpha: must be a number"),
        (("--from-log", "data", "--policy", "metallm:a=1"), "a: metallm has no such parameter"),
        (
            ("--from-log", "data", "--metric", "star"),
            "--metric star: no reward of these decisions has it; did you mean stars?; "
            "expected one of "
            "reward, quality, cost_usd, latency_s, stars",
        ),
        (("--from-log", "data", "--data", "x"), "needs one of --data"),
        ((), "needs one of --data, --from-log"),
        (("--data", "specialists", "--metric", "stars"), "--metric: is for --from-log, --from-ds"),
        (("--data", "specialists", "--tag", "x"), "--tag: is for --from-log, --from-dsjson"),
        (("--from-log", "broken.jsonl"), "broken.jsonl, line 2: "),
        (("--from-log", "ftp://x"), "there is no log at ftp:/x"),
        (("--from-log", "http://127.0.0.1:1"), "does not answer"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    first = jsonl.line(1, uniform_log(1)[0])
    (tmp_path / "broken.jsonl").write_bytes(first + b'{"offset": 2}\n')
    code, out, err = run(capsys, *arguments)
    assert code in (1, 2)
    assert said in err
    assert not out


@pytest.mark.parametrize(
    "arguments",
    [("--since", "yesterday"), ("--since", "nan"), ("--alpha", "0")],
)
def test_the_parser_refuses_what_it_cannot_read(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["evaluate", "--from-log", "data", *arguments])
    assert stopped.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_a_log_that_begins_late_is_evaluated_from_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = uniform_log(240)
    late = b"".join(jsonl.line(i, event) for i, event in enumerate(events, 1) if i < 4 or i > 99)
    (tmp_path / "gap.jsonl").write_bytes(late)
    code, out, _ = run(capsys, "--from-log", "gap.jsonl", "--policy", "uniform", "--json")
    assert code == 0
    assert json.loads(out)["log"]["used"] == 240 - 48
    trimmed = b"".join(jsonl.line(i, event) for i, event in enumerate(events, 1) if i > 99)
    (tmp_path / "gap.jsonl").write_bytes(trimmed)
    code, out, err = run(capsys, "--from-log", "gap.jsonl", "--policy", "uniform", "--json")
    assert code == 0
    assert "events up to 99 were deleted by retention" in err
    left_out = json.loads(out)["log"]["left_out"]
    assert left_out == {"with arms that the log does not describe": 192}


def test_a_trimmed_log_begins_with_the_snapshot_that_reaches_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = new_world({"uniform": policies.load("uniform")}, "uniform", 100)
    for event in uniform_log(240)[:100]:
        world = apply(world, event)
    FileSnapshots(tmp_path / "data" / "snapshots").save(
        Offset(100), "uniform", snapshot.dump(world, b"")
    )
    log = SqliteLog(tmp_path / "data" / "events.sqlite3")
    while log.trim(Offset(100)):
        pass
    assert log.first == 101
    log.close()
    code, out, err = run(capsys, "--from-log", "data", "--policy", "uniform", "--json")
    assert code == 0
    assert "begin after them with nothing learned" in err
    found = json.loads(out)["log"]
    assert found["left_out"] == {}
    assert found["decisions"] == found["used"] == 191


def test_the_log_of_a_service_that_runs_is_left_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = SqliteLog(tmp_path / "data" / "events.sqlite3")
    code, _, err = run(capsys, "--from-log", "data")
    log.close()
    assert code == 1
    assert "is open in another process" in err
    assert "--from-log URL" in err
