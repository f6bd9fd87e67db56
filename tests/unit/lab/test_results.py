"""The pages of `make results`, made from a small recording, and the papers' own experiments."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from bandit_service.cli.commands.evaluate import entrants_of
from bandit_service.core.outcomes import RewardRule
from bandit_service.lab.convergence import converge
from bandit_service.lab.data import Labelled
from bandit_service.lab.routers import standard
from tests.tools import needed
from tests.unit.data.recordings import planted, recording, write
from tests.unit.lab.test_evaluate_cli import META, _Backend

needed("sklearn")
needed("pyarrow")
needed("matplotlib")

from loadtest.results import __main__ as results  # noqa: E402
from loadtest.results import claims, experiments, found, latency  # noqa: E402

RULE = RewardRule()
KEPT = (
    "uniform", "best single", "zero router", "task label", "oracle", "kNN", "kNN tuned", "ridge",
    "ridge tuned", "MLP", "SVM", "FORC", "FORC, threshold", "RouteLLM SW", "RouteLLM MF",
    "Hybrid LLM det", "Hybrid LLM prob", "Hybrid LLM trans", "Eagle", "MetaLLM",
)  # fmt: skip
SHOWN = ("eagle", "forc", "metallm", "nested", "pickllm_q", "routellm_sw", "uniform")


def _data(directory: Path, n: int = 90) -> None:
    rows = [
        {
            "query_id": f"q{i}",
            "text": f"{'ab'[i % 2]} question {'!' * (i % 7)} {i}",
            "quality": [1.0 if i % 5 else 0.0, 1.0 if i % 2 and i % 3 else 0.0],
            "cost": [0.004, 0.00004],
        }
        for i in range(n)
    ]
    directory.mkdir()
    write(directory / "made.jsonl.gz", rows, META)


@pytest.mark.long
def test_every_page_is_written_and_can_be_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    routers = {name: router for name, router in standard().items() if name in KEPT}
    monkeypatch.setattr(results, "standard", lambda: routers)
    monkeypatch.setattr(results, "open_backend", lambda *_: _Backend())
    shown = [each for each in entrants_of(None) if each.label in SHOWN]
    monkeypatch.setattr(results, "entrants_of", lambda _: shown)
    monkeypatch.setattr(results, "_LEARNERS", ("eagle", "metallm"))
    monkeypatch.setattr(results, "_SWEEP", (0.001, 0.1))
    _data(tmp_path / "data")
    common = ["--out", str(tmp_path / "docs"), "--records", str(tmp_path / "records")]
    arguments = [
        "--data", str(tmp_path / "data"), "--only", "made", "--seeds", "2", "--few", "1",
        "--splits", "2", "--jobs", "1", "--old-floor",
        "--state", str(tmp_path / "state"), *common,
    ]  # fmt: skip
    assert results.main(arguments) == 0
    assert "latency_llmfao.jsonl.gz: no such file" in capsys.readouterr().err
    written = (tmp_path / "docs" / "results.md").read_text()
    for section in ("Which wins where", "Eagle", "MetaLLM", "PickLLM", "RouteLLM", "FORC"):
        assert f"# {section}" in written
    assert re.search(r"\bnan\b", written) is None
    page = (tmp_path / "docs" / "results" / "made.md").read_text()
    assert "| policy | 0.01 per arm | 2 % in all | second less first |" in page
    for figure in ("made-curves", "made-regret", "made-change"):
        assert f"({figure}.png)" in page
        assert (tmp_path / "docs" / "results" / f"{figure}.png").exists()
    (tmp_path / "docs" / "results.md").unlink()
    assert results.main(["--render", *common]) == 0
    assert (tmp_path / "docs" / "results.md").read_text() == written
    # the claims alone: what stands before them, and the recording's page, stay as they are
    head, claimed = written.split("## The papers' claims")
    (tmp_path / "docs" / "results.md").write_text(f"kept{head}## The papers' claims\n\nold\n")
    page_path = tmp_path / "docs" / "results" / "made.md"
    page_path.write_text("kept")
    assert results.main([*arguments, "--claims"]) == 0
    again = (tmp_path / "docs" / "results.md").read_text()
    assert again.startswith(f"kept{head}")
    assert again.count("\n### ") == claimed.count("\n### ")
    assert "old" not in again.split("## The papers' claims")[1].split()
    assert page_path.read_text() == "kept"


def test_without_any_recording_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "open_backend", lambda *_: _Backend())
    absent = str(tmp_path / "absent")
    arguments = ["--data", absent, "--only", "none", "--out", absent, "--records", absent]
    assert results.main(arguments) == 1
    told = capsys.readouterr().err
    assert f"there is no recording in {absent}" in told
    assert f"there are no results in {absent}" in told


def test_forc_under_a_budget_never_expects_more_than_the_integer_program() -> None:
    rows = experiments.assigned(Labelled(*planted(200)))
    by_budget: dict[float, dict[str, found.AssignedRow]] = {}
    for row in rows:
        if not math.isnan(row.budget):
            by_budget.setdefault(row.budget, {})[row.strategy] = row
    assert set(by_budget) == set(experiments.BUDGETS)
    for budget, its in by_budget.items():
        exact = its["integer program"]
        assert exact.expected >= max(row.expected for row in its.values()) - 1e-3
        assert exact.expected - its["price of money"].expected < 1.5 / 60
        # planted costs are alike everywhere, so that the bill is what was estimated
        assert max(row.spent for row in its.values()) <= budget + 1e-9


def test_a_session_converges_to_the_better_arm_and_says_when() -> None:
    made = recording([[1.0, 0.0]] * 300, [[0.0, 0.0]] * 300)
    row = converge(made, "a", "pickllm_gradient", {"learning_rate": 0.2}, seeds=10, rule=RULE)
    # only arm0 is ever rewarded, so no session can end elsewhere
    assert (row.share, row.best, row.regret) == (1.0, 1.0, 0.0)
    # p(arm1) = ½·0.8^m after m rewards of nearly 1: at most 0.01 from m = 18 on
    assert 18 <= row.queries < 40
    never = converge(made, "a", "pickllm_gradient", {"learning_rate": 0.001}, seeds=2, rule=RULE)
    assert never.share == 0.0
    assert math.isnan(never.queries)


def test_a_session_needs_every_answer() -> None:
    missing = recording([[1.0, math.nan]], [[0.0, math.nan]])
    with pytest.raises(ValueError, match="every arm's answer"):
        converge(missing, "a", "pickllm_q", {}, seeds=1, rule=RULE)
    assert experiments.sessions(missing, 1) == []


def test_votes_and_times_make_a_session(tmp_path: Path) -> None:
    times = [
        {"prompt_id": p, "text": f"text {p}", "model": m, "latency_ms": 1000.0 * (i + 1)}
        for p in ("p1", "p2")
        for i, m in enumerate(("slow", "fast"))
    ]
    votes = [
        {"prompt_id": p, "model_a": "fast", "model_b": "slow", "winner": winner}
        for p, winner in (("p1", "a"), ("p1", "tie"), ("p2", "b"))
    ]
    import gzip
    import json

    for name, rows in (("latency", times), ("pairs", votes)):
        body = "\n".join(json.dumps(row) for row in rows).encode()
        (tmp_path / f"{name}_llmfao.jsonl.gz").write_bytes(gzip.compress(body))
    made = latency.session(tmp_path, queries=5)
    assert [arm.id for arm in made.arms] == ["fast", "slow"]
    assert made.latency is not None
    assert made.latency[0].tolist() == [2.0, 1.0]
    assert made.quality[0].tolist() == [0.75, 0.25]
    assert made.quality[1].tolist() == [0.0, 1.0]
    assert made.tasks == ("p1", "p2", "p1", "p2", "p1")


def test_quality_lost_is_read_off_the_curve() -> None:
    assert claims._signed(0.0402) == "+4.0 %"
    assert claims._with_sd([0.5, 0.7]) == "0.6000 ± 0.1414"
    assert claims._with_sd([0.5]) == "0.5000"
