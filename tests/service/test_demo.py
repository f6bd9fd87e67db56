"""Both demos end to end on a small recording: the service as a process, acts, table and picture."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.demo.__main__ import main
from tests.service.running import prepare

KINDS = ("add the numbers", "translate the sentence", "write a poem about")
QUERIES, SEEDS = 150, 2


def _recording(path: Path) -> Path:
    """Three models, each the best at one kind of question."""
    lines = []
    for i in range(QUERIES):
        kind = i % 3
        quality = [0.9 if k == kind else 0.4 + 0.1 * k for k in range(3)]
        cost = [0.0002, 0.0004, 0.0006]
        row = {"query_id": f"q{i}", "text": f"{KINDS[kind]} {i}", "quality": quality, "cost": cost}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines), encoding="utf-8")
    prices = {name: {"input": 1.0, "output": 2.0} for name in "abc"}
    meta = {"models": list("abc"), "usd_per_million_tokens": prices}
    path.with_name("small.meta.json").write_text(json.dumps(meta), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("module", "more"),
    [("loadtest.demo", []), ("loadtest.demo_gateway", ["--speed", "4000", "--limit", "90"])],
)
def test_a_demo_tells_three_acts_and_what_routing_was_worth(
    module: str, more: list[str], tmp_path: Path, models: Path
) -> None:
    """On e98ba34 it looked for its past in the snapshots of the service that was run before."""
    prepare(tmp_path / "var", models)
    there = sorted((tmp_path / "var").rglob("*"))
    section = "demo" if module == "loadtest.demo" else "demo gateway"
    document = tmp_path / "README.md"
    document.write_text(f"before\n<!-- {section} -->\n<!-- /{section} -->\nafter\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            module,
            "--data",
            str(_recording(tmp_path / "small.jsonl")),
            "--policy",
            "epsilon_greedy",
            "--seeds",
            str(SEEDS),
            "--data-dir",
            str(tmp_path / "var"),
            "--plot",
            str(tmp_path / "demo.png"),
            "--markdown",
            str(document),
            *more,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    left = {path.name for path in (tmp_path / "var").rglob("*")}
    assert left - {path.name for path in there} <= {"embeddings"} | {
        path.name for path in (tmp_path / "var" / "embeddings").rglob("*")
    }
    url, act_1 = (
        said.index("watch it: http://127.0.0.1:"),
        said.index("Act 1 of 3: the router knows nothing about its 2 models"),
    )
    assert url < act_1 < said.index("Act 2 of 3") < said.index("Act 3 of 3")
    assert re.search(r"Act 2 of 3: [abc], the favourite, costs 60 times as much", said)
    assert re.search(
        r"Act 3 of 3: [abc] joins .*; [abc], the favourite by now, silently gives half", said
    )
    assert re.search(
        r"(Above|Not above|Below) the best fixed choice in hindsight .*: [+-]0\.\d{4} \[.*\] "
        r"reward a query and [+-]\d+\.\d\d \[.*\] USD per 1,000 queries "
        r"\(95 % intervals over 2 seeds\)",
        said,
    )
    if module == "loadtest.demo":
        assert f"draws as the service: all {QUERIES}" in said
    written = document.read_text(encoding="utf-8")
    assert written.startswith("before\n")
    assert written.endswith("after\n")
    assert "| **the router** (`epsilon_greedy`) |" in written
    assert (tmp_path / "demo.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--policy", "none"], "demo: --policy: no policy named 'none'; expected one of"),
        (["--data", "no.jsonl"], "demo: no.jsonl: no such file"),
    ],
)
def test_what_cannot_be_used_is_named(
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["demo", *words])
    assert main() == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("module", ["loadtest.demo", "loadtest.demo_gateway"])
def test_a_reader_who_leaves_ends_a_demo_without_a_word(
    module: str, tmp_path: Path, models: Path
) -> None:
    """Seen on 0e17ee51: "demo: [Errno 32] Broken pipe", exit 1."""
    prepare(tmp_path / "var", models)
    words = ["--data", str(_recording(tmp_path / "small.jsonl")), "--seeds", "1"]
    with subprocess.Popen(
        [sys.executable, "-u", "-m", module, *words, "--data-dir", str(tmp_path / "var")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},  # noqa: TID251 - passed on
    ) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        assert b"real queries of small" in demo.stdout.readline()
        demo.stdout.close()
        assert demo.wait(120) == 0
        assert b"rror" not in demo.stderr.read()
