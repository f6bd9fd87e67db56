"""The command, its table and its plot."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import policies
from bandit_service.cli import options
from bandit_service.cli.commands import replay as replay_cli
from bandit_service.core.exploration import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.offline import report
from tests.tools import needed
from tests.unit.data.recordings import a_row, planted, write


def _replayed(names: list[str], seeds: int = 2) -> report.Runs:
    recorded, vectors = planted(120)
    return replay_cli.replay(
        recorded,
        vectors,
        replay_cli.chosen_policies(names, []),
        seeds=seeds,
        explore=Exploration(),
        rule=RewardRule(),
        neighbours=20,
        capacity=1000,
        quiet=True,
    )


def test_rows_rank_policies_and_end_with_the_baselines() -> None:
    rows = report.rows(_replayed(["uniform", "metallm"]))
    assert [row.name for row in rows] == [
        "metallm",
        "uniform",
        "(uniform, expected)",
        "(best single: arm0)",
        "(oracle)",
    ]
    assert rows[0].reward > rows[1].reward
    assert [rows[2].gap_closed, rows[4].gap_closed] == [0.0, 1.0]
    assert [rows[3].regret_best, rows[4].regret_oracle] == [0.0, 0.0]
    oracle, metallm = rows[4], rows[0]
    assert metallm.regret_oracle == pytest.approx(120 * (oracle.reward - metallm.reward))
    lines = report.table(rows).splitlines()
    assert len(lines) == 2 + len(rows)
    assert lines[2].startswith("metallm  ")


def test_one_run_has_no_spread() -> None:
    rows = report.rows(_replayed(["uniform"], seeds=1))
    assert {row.sd for row in rows} == {None}
    assert report.table(rows).splitlines()[2].split()[2] == "-"


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    needed("matplotlib")
    report.plot(_replayed(["uniform", "metallm"]), "made", tmp_path / "sub" / "plot.png")
    assert (tmp_path / "sub" / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_parameters_go_to_the_policies_that_have_them() -> None:
    chosen = replay_cli.chosen_policies(
        ["metallm", "eagle", "uniform"], ["alpha=0.25", "eagle.neighbours=5"]
    )
    assert list(chosen) == ["metallm", "eagle", "uniform"]
    assert chosen["metallm"].alpha == 0.25  # type: ignore[attr-defined]
    assert chosen["eagle"].neighbours == 5  # type: ignore[attr-defined]


def test_a_policy_brings_its_parameters_and_stands_by_them() -> None:
    chosen = replay_cli.chosen_policies(["metallm:alpha=0.25", "metallm"], [])
    assert list(chosen) == ["metallm:alpha=0.25", "metallm"]
    assert chosen["metallm:alpha=0.25"].alpha == 0.25  # type: ignore[attr-defined]
    assert list(replay_cli.chosen_policies(["all"], [])) == list(policies.names())


@pytest.mark.parametrize(
    ("names", "params", "why"),
    [
        (["nosuch"], [], "--policy nosuch: no policy named 'nosuch'; expected one of "),
        (["metallm"], ["nosuch=1"], "--param nosuch=1: must be KEY=VALUE"),
        (["metallm"], ["alpha"], "--param alpha: must be KEY=VALUE"),
        (["metallm"], ["eagle.blend=1"], "--param eagle.blend=1: must be"),
        (["metallm"], ["alpha=-1"], "--param alpha: "),
    ],
)
def test_what_is_not_there_is_named(names: list[str], params: list[str], why: str) -> None:
    with pytest.raises(options.Usage) as told:
        replay_cli.chosen_policies(names, params)
    assert str(told.value).startswith(why)


def _arguments(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    replay_cli.add_arguments(parser)
    return parser.parse_args(argv)


class _Backend:
    name, dim = "made", 4

    def encode(self, texts: list[str]) -> Any:
        vectors = np.array([[1.0, len(text) % 3, 0.5, 0.1] for text in texts], np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_command_answers_people_and_machines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_cli, "open_backend", lambda *_: _Backend())
    data = str(write(tmp_path / "t.jsonl", [*(a_row(i) for i in range(40)), "{"]))
    common = ("--data", data, "--policy", "uniform", "--seeds", "2", "--data-dir", str(tmp_path))
    assert replay_cli.run(_arguments(*common)) == 0
    out, err = capsys.readouterr()
    assert out.startswith("t: 40 queries, 2 arms, 2 seeds\n")
    assert "(oracle)" in out
    assert "skipped t.jsonl:41: not JSON" in err
    assert "1 of 41 rows were skipped" in err
    assert replay_cli.run(_arguments(*common, "--limit", "10", "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["queries"], told["left_out"], told["arms"]) == (10, 1, ["a", "b"])
    assert told["rows"][0]["name"] == "uniform"


def test_the_command_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay_cli.run(_arguments("--data", str(tmp_path / "absent.jsonl"))) == 2
    assert capsys.readouterr().err.count("\n") == 1
