"""The command `evaluate`, end to end on a small recording, and the pages made of its results."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bandit_service.cli.commands import evaluate
from bandit_service.data.recordings import open_recording
from policies import Vector
from tests.tools import imported, needed
from tests.unit.data.recordings import write

needed("sklearn")
needed("pyarrow")
needed("matplotlib")

META = {
    "models": ["large", "small"],
    "usd_per_million_tokens": {
        "large": {"input": 10, "output": 30},
        "small": {"input": 0.1, "output": 0.3},
    },
}


class _Backend:
    """The topic of a text is its first letter."""

    name, dim = "letters", 8

    def encode(self, texts: list[str]) -> Vector:
        vectors = np.array([np.eye(8)[ord(text[0]) % 8] for text in texts])
        vectors += 0.05 * np.array([[(7 * len(t) + 3 * i) % 5 for i in range(8)] for t in texts])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.astype(np.float32)


def _recording(path: Path, n: int = 120) -> Path:
    """The small model is right on one topic in two."""
    rows = [
        {
            "query_id": f"q{i}",
            "text": f"{'ab'[i % 2]} question {'!' * (i % 7)} {i}",
            "quality": [0.9, 0.85 if i % 2 else 0.1],
            "cost": [0.004, 0.00004],
        }
        for i in range(n)
    ]
    return write(path, [*rows[:3], "{", *rows[3:]], META)


def _run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *arguments: str) -> int:
    monkeypatch.setattr(evaluate, "open_backend", lambda *_: _Backend())
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    args = parser.parse_args(["--data-dir", str(tmp_path / "state"), *arguments])
    return evaluate.run(args)


def _evaluated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, out: str, *more: str
) -> dict[str, Any]:
    data = _recording(tmp_path / "made.jsonl.gz")
    arguments = [
        "--data", str(data), "--policy", "metallm", "--policy", "eagle@paper", "--router", "knn",
        "--router", "Hybrid LLM prob", "--seeds", "2", "--worth", "0.1", "--worth", "0.001",
        "--jobs", "1", "--out", str(tmp_path / out), *more,
    ]  # fmt: skip
    assert _run(monkeypatch, tmp_path, *arguments) == 0
    found: dict[str, Any] = json.loads((tmp_path / out / "made.json").read_text())
    return found


def test_every_protocol_leaves_tables_curves_and_plots(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq = imported("pyarrow.parquet")
    found = _evaluated(monkeypatch, tmp_path, "out")
    told = capsys.readouterr()
    assert "made.jsonl.gz:4: not JSON" in told.err
    assert "made: 120 queries, 2 arms" in told.out
    for title in ("made: 2 splits", "two models", "bandit feedback", "change half-way", "worth"):
        assert title in told.out
    assert (found["queries"], found["left_out"]) == (120, 1)
    assert {row["router"] for row in found["offline"]} == {
        "uniform",
        "best single",
        "zero router",
        "task label",
        "oracle",
        "kNN",
        "Hybrid LLM prob",
    }
    online = {row["label"]: row for row in found["online"]}
    assert online["metallm"]["reward"]["mean"] > online["(uniform)"]["reward"]["mean"]
    assert {row["scenario"] for row in found["change"]} == {
        "joins",
        "degrades",
        "dearer",
        "price x60",
        "retires",
    }
    assert {row["label"] for row in found["regimes"]} >= {
        "metallm, bandit only",
        "metallm, warm + bandit",
        "metallm, full information",
        "eagle@paper, duel only",
    }
    out = tmp_path / "out"
    for name in ("made-curves", "made-regret", "made-change"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (out / f"{name}.svg").read_bytes()
        assert pq.read_table(out / f"{name}.parquet").num_rows > 0


def test_a_run_is_reproducible(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def timeless(found: dict[str, Any]) -> dict[str, Any]:
        for row in found["offline"]:
            row["numbers"] = {k: v for k, v in row["numbers"].items() if not k.endswith("_s")}
        return found

    some = ("--protocol", "offline", "--protocol", "online")
    once = timeless(_evaluated(monkeypatch, tmp_path, "once", *some))
    assert timeless(_evaluated(monkeypatch, tmp_path, "twice", *some)) == once
    for name in ("made-regret.png", "made-regret.svg", "made-regret.parquet"):
        pair = [(tmp_path / out / name).read_bytes() for out in ("once", "twice")]
        assert pair[0] == pair[1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--policy", "gpt"], "--policy gpt: expected one of eagle, eagle@paper"),
        (["--policy", "uniform@paper"], "--policy uniform@paper: expected one of"),
        (["--policy", "eagle@home"], "--policy eagle@home: expected one of"),
        (["--router", "magic"], "--router magic: expected one of uniform, best single"),
        (["--data", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
    ],
)
def test_what_is_not_there_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    data = _recording(tmp_path / "made.jsonl")
    assert _run(monkeypatch, tmp_path, "--data", str(data), *arguments) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


def test_the_strength_of_a_warm_start_is_checked_and_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _recording(tmp_path / "made.jsonl")
    some = ("--data", str(data), "--protocol", "regimes", "--policy", "metallm")
    with pytest.raises(SystemExit, match="2"):
        _run(monkeypatch, tmp_path, *some, "--warm-strength", "-1")
    told = capsys.readouterr().err
    assert "--warm-strength: must be a number of outcomes above 0, or 'full', got '-1'" in told
    found = []
    for strength in ("0.1", "full"):
        more = ("--few", "1", "--jobs", "1", "--warm-strength", strength)
        assert _run(monkeypatch, tmp_path, *some, *more, "--out", str(tmp_path / strength)) == 0
        found.append(json.loads((tmp_path / strength / "made.json").read_text()))
    assert [each["protocol"]["warm_strength"] for each in found] == [0.1, None]
    rewards = [{row["label"]: row["reward"]["mean"] for row in each["regimes"]} for each in found]
    assert rewards[0].pop("metallm, warm + bandit") != rewards[1].pop("metallm, warm + bandit")
    assert rewards[0] == rewards[1]


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate, "_NEEDS", ("no_such_package",))
    assert _run(monkeypatch, tmp_path, "--data", "x.jsonl") == 2
    assert "no_such_package: pip install " in capsys.readouterr().err


def test_the_command_line_needs_none_of_the_extra_to_start() -> None:
    extra = {"sklearn", "scipy", "pandas", "pyarrow", "matplotlib", "optuna", "threadpoolctl"}
    code = f"import sys, bandit_service.cli; print(sorted({extra} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_routerbench_files_are_recordings_as_they_are(tmp_path: Path) -> None:
    pd = imported("pandas")
    table = {
        "sample_id": ["a", "b"], "prompt": ["one", "two"], "eval_name": ["x", "y"],
        "m": [1.0, 0.0], "n": [0.5, 1.0], "m|total_cost": [0.01, 0.02], "n|total_cost": [0.0, 0.1],
    }  # fmt: skip
    pd.DataFrame(table).to_pickle(tmp_path / "rb.pkl")
    pd.DataFrame(table).to_csv(tmp_path / "rb.csv", index=False)
    for name in ("rb.pkl", "rb.csv"):
        recorded = open_recording(str(tmp_path / name))
        assert (recorded.ids, recorded.tasks) == (("a", "b"), ("x", "y"))
        assert recorded.quality.tolist() == [[1.0, 0.5], [0.0, 1.0]]


def test_a_router_that_cannot_be_fitted_is_left_out_and_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # no query was answered by both, so that Hybrid LLM has no gap to learn from
    rows = [
        {
            "text": f"{'ab'[i % 2]} {i}",
            "quality": [0.9, None] if i % 2 else [None, 0.4],
            "cost": [0.004, None] if i % 2 else [None, 0.00004],
        }
        for i in range(60)
    ]
    data = write(tmp_path / "made.jsonl", rows, META)
    arguments = [
        "--data", str(data), "--protocol", "offline", "--router", "hybrid llm prob",
        "--seeds", "1", "--jobs", "1", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    assert _run(monkeypatch, tmp_path, *arguments) == 0
    told = capsys.readouterr()
    assert "Hybrid LLM prob, split 0: left out: train: no query was answered by both" in told.err
    assert "Hybrid LLM prob" not in told.out
    assert "best single" in told.out
