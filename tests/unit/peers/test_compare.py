"""Runs over seeds, their rows, and the command."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bandit_service.core.exploration import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.offline.simulate import simulate
from loadtest.peers import __main__ as command
from loadtest.peers import entrants as who
from loadtest.peers.entrants import EMBEDDING, Entrant, reference
from policies.nested import Nested
from tests.tools import needed
from tests.unit.data.recordings import a_row, planted, recording, write

needed("scipy")
needed("threadpoolctl")

from loadtest.peers import compare, summary  # noqa: E402 - reads scipy

RULE = RewardRule(0.10)
ABSENT = Entrant("river", "no such policy", "RiverContextFree", EMBEDDING, {"policy": "None"})


def _stream(n: int = 80) -> compare.Stream:
    recorded, embeddings = planted(n)
    return compare.Stream(recorded, {EMBEDDING: embeddings.astype(np.float64)}, RULE)


def _result(seed: int, reward: float, entrant: Entrant | None = None) -> compare.Result:
    return compare.Result(
        entrant or reference(), seed, reward, reward, 0.5, 0.001, (3, 1), 10.0, 20.0
    )


def test_ours_is_what_simulate_gives() -> None:
    data = _stream()
    compare._begin(data)
    found = compare.run(reference(), seed=2)
    assert isinstance(found, compare.Result)
    ours = simulate(
        data.recorded,
        data.features[EMBEDDING].astype(np.float32),
        Nested(),
        seed=2,
        explore=Exploration(),
        rule=RULE,
    )
    assert found.reward == ours.track.reward.mean()
    assert found.last_third == ours.track.reward[-26:].mean()
    assert found.cost_usd == ours.track.cost.mean()
    assert found.arms == tuple(np.bincount(ours.arm, minlength=3).tolist())
    assert min(found.decide_us, found.learn_us) > 0.0


def test_a_failure_is_a_result_and_a_paced_row_needs_a_cost() -> None:
    compare._begin(_stream())
    failed = compare.run(ABSENT, seed=0)
    assert isinstance(failed, compare.Failed)
    paced = compare.run(replace(ABSENT, paced=True), seed=0)
    assert isinstance(paced, compare.Failed)
    assert paced.error == "there is no cost of ours to keep"


def test_slow_rows_have_fewer_seeds() -> None:
    assert compare.count([reference(), replace(ABSENT, slow=True)], 20, 5) == 25


def test_rows_by_hand() -> None:
    cost = [[0.0, 0.01], [0.0, 0.0]]
    data = compare.Stream(recording([[1.0, 0.5], [0.0, 0.75]], cost), {}, RULE)
    other = replace(ABSENT, says="other")
    theirs = [replace(_result(seed, 0.7, other), learn_us=110.0) for seed in (0, 1)]
    results = [_result(0, 0.2), _result(1, 0.4), *theirs]
    first, second, uniform, best, oracle = summary.rows(results, data)
    assert [first.label, second.label] == [other.label, reference().label]
    # t(0.975, 1) = 12.706; sd of 0.2 and 0.4 is 0.1·√2, over √2
    assert (second.reward.mean, second.reward.half) == pytest.approx((0.3, 1.2706), abs=1e-4)
    assert second.versus is None
    assert first.versus is not None
    assert (first.versus.mean, first.versus.half) == pytest.approx((0.4, 1.2706), abs=1e-4)
    assert (first.usd_per_1000, first.arms) == (1.0, (0.75, 0.25))
    assert uniform.reward.mean == pytest.approx((1.0 + 0.4 + 0.0 + 0.75) / 4)
    assert best.label == "(best single: arm1)"
    assert oracle.reward.mean == pytest.approx(0.875)
    assert [first.ours, second.ours, oracle.ours] == [0.25, 1.0, None]  # 10 + 20 and 10 + 110 us
    text = summary.table([first, uniform], "made").text()
    assert "0.4000  1.2706" in text
    assert "0.25" in text
    told = summary.as_json([first, uniform], data, results)
    assert told["rows"][1]["reward"]["half"] is None
    assert not math.isnan(told["runs"][0]["reward"])


def test_tables_go_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    summary.write_markdown(page, "new")
    assert page.read_text() == "new\n"
    page.write_text(f"before\n{summary.BEGIN}\nold\n{summary.END}\nafter\n")
    summary.write_markdown(page, "new")
    assert page.read_text() == f"before\n{summary.BEGIN}\n\nnew\n\n{summary.END}\nafter\n"


class _Backend:
    name, dim = "made", 4

    def encode(self, texts: list[str]) -> Any:
        vectors = np.array([[1.0, len(text) % 3, 0.5, 0.1] for text in texts], np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_command_tells_what_is_missing_and_writes_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "open_backend", lambda *_: _Backend())
    for module in (command, who):
        monkeypatch.setattr(module, "installed", lambda package: package == "ours")
    unanswered = a_row(99, quality=[1, None], cost=[0.0, None])
    data = str(write(tmp_path / "t.jsonl", [*(a_row(i) for i in range(40)), unanswered]))
    files = ("--json", str(tmp_path / "t.json"), "--markdown", str(tmp_path / "t.md"))
    common = ("--seeds", "2", "--jobs", "1", "--data-dir", str(tmp_path))
    assert command.main(["--data", data, *common, *files]) == 0
    out = capsys.readouterr().out
    assert "mabwiser: skipped, it is not installed; pip install mabwiser" in out
    assert "pca25: skipped" in out
    assert "left out 1 of 41 queries" in out
    told = json.loads((tmp_path / "t.json").read_text())
    labels = [row["label"] for row in told["data"][0]["rows"]]
    assert labels[0] == "nested [embedding]"
    assert labels[1:] == ["(uniform)", "(best single: b)", "(oracle)"]
    assert len(told["data"][0]["runs"]) == 2
    assert "| (oracle) |" in (tmp_path / "t.md").read_text()


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["--policy", "nope"], "--policy nope: expected one of "),
        (["--data", "absent.jsonl"], "absent.jsonl: no such file"),
    ],
)
def test_the_command_refuses_in_one_line(
    argv: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(argv) == 2
    err = capsys.readouterr().err
    assert why in err
    assert err.count("\n") == 1
