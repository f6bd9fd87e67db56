"""Tuning: what is tried, what the choice is made on, and what is said of it."""

from __future__ import annotations

import argparse
import json
import math
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import policies
from bandit_service import settings
from bandit_service.cli.commands import tune as tune_command
from bandit_service.cli.options import Usage
from bandit_service.data.convert import write
from bandit_service.lab.data import Labelled, split
from bandit_service.lab.tune import (
    SALT,
    BadSearch,
    Grid,
    Guided,
    Parameters,
    Range,
    Space,
    TuningTrial,
    TuningWorld,
    check_space,
    toml_of,
    tune,
)
from tests.tools import imported, needed
from tests.unit.data.recordings import planted, recording

needed("scipy")
optuna = imported("optuna")

WORLD = TuningWorld(seeds=2)


def _torn(n: int = 60, on_test: float = 0.2) -> Labelled:
    """arm0 is right on the validation part, on the test part with this quality, and dearer; arm1
    is always half right. The default of `fixed` is the cheaper arm.
    """
    made = recording([[1.0, 0.5]] * n, [[0.001, 0.0]] * n)
    data = Labelled(made, np.eye(8, dtype=np.float32)[np.arange(n) % 8])
    _, test = split(data, WORLD.share, SALT)
    quality = made.quality.copy()
    quality[[id in test.recorded.ids for id in made.ids], 0] = on_test
    return Labelled(replace(made, quality=quality), data.embeddings)


def test_a_grid_is_every_combination() -> None:
    grid, found = Grid({"a": [1, 2], "b": ["x", "y"]}), []
    while (candidate := grid.ask()) is not None:
        found.append(candidate)
        grid.tell(0.0)
    assert found == [{"a": a, "b": b} for a in (1, 2) for b in ("x", "y")]


def _asked(seed: int) -> list[Parameters]:
    space: Space = {"neighbours": Range(1, 9), "ridge": Range(0.1, 10, True), "bias": [True, False]}
    search, found = Guided(space, 15, seed, frozenset({"neighbours"})), []
    while (candidate := search.ask()) is not None:
        found.append(candidate)
        search.tell(-abs(math.log(candidate["ridge"])))
    return found


def test_a_guided_search_keeps_its_ranges_and_its_seed() -> None:
    found = _asked(1)
    assert len(found) == 15
    assert all(isinstance(each["neighbours"], int) for each in found)
    assert {1 <= each["neighbours"] <= 9 for each in found} == {True}
    assert {0.1 <= each["ridge"] <= 10.0 for each in found} == {True}
    assert {each["bias"] for each in found} == {True, False}
    assert found == _asked(1)
    assert found != _asked(2)


@pytest.mark.parametrize(
    ("policy", "space", "why"),
    [
        ("nothing", {}, "no policy named 'nothing'; expected one of "),
        ("metallm", {"beta": [1]}, "beta: metallm has alpha, ridge"),
        ("metallm", {"alpha": [-1]}, "alpha: must be"),
        ("metallm", {"reward": Range(0, 1)}, "reward: not a number; give a list"),
        ("metallm", {"bias": Range(0, 1)}, "bias: not a number; give a list"),
        ("metallm", {"alpha": Range(2, 1)}, "alpha: the low end must be below the high end"),
        ("metallm", {"alpha": Range(0, 1, True)}, "alpha: the low end must be above 0 and below"),
        ("metallm", {"prior": Range(0, 2)}, "prior: must be"),
        ("eagle", {"neighbours": Range(0.5, 2)}, "neighbours: must be whole numbers"),
    ],
)
def test_a_search_of_what_is_not_there_is_refused(policy: str, space: Space, why: str) -> None:
    with pytest.raises(BadSearch) as caught:
        check_space(policy, space)
    assert why in str(caught.value)


def test_the_choice_is_made_on_the_validation_part_alone() -> None:
    seen: list[tuple[Parameters, bool]] = []

    def watch(trial: TuningTrial, on_validation: bool) -> None:
        seen.append((trial.parameters, on_validation))

    data = _torn()
    found = tune(data, "fixed", Grid({"arm": ["arm1", "arm0"]}), WORLD, watch)
    validation, test = split(data, WORLD.share, SALT)
    assert (found.validation, found.test) == (len(validation), len(test))
    assert found.chosen.parameters == {"arm": "arm0"}
    assert found.chosen.reward > 0.95
    assert found.test_chosen.reward < 0.25
    tried: list[Parameters] = [{}, {"arm": "arm1"}, {"arm": "arm0"}]
    # the test part comes after every choice, with two runs
    assert seen == [(each, True) for each in tried] + [({}, False), ({"arm": "arm0"}, False)]
    assert "on the test part the chosen parameters are not better" in found.warnings[-1]
    assert found.outcomes == 3 * WORLD.seeds * len(validation)
    assert [trial.reward for trial in found.trials] == sorted(
        (trial.reward for trial in found.trials), reverse=True
    )


def test_a_gain_that_is_clear_is_not_warned_of() -> None:
    found = tune(_torn(on_test=1.0), "fixed", Grid({"arm": ["arm0"]}), TuningWorld(seeds=4))
    assert found.gain.mean > 0.1
    assert found.gain.half < found.gain.mean
    assert found.test_gain.mean > 0.1
    assert found.warnings == ()


def test_a_gain_within_noise_is_warned_of() -> None:
    # two arms that differ by nothing: which is ahead is the draw's doing
    rng = np.random.default_rng(0)
    quality = rng.integers(0, 2, (80, 2)).astype(float)
    data = Labelled(
        recording(quality.tolist(), np.zeros((80, 2)).tolist()),
        np.eye(8, dtype=np.float32)[rng.integers(0, 8, 80)],
    )
    found = tune(data, "epsilon_greedy", Grid({"epsilon": [0.1, 0.2, 0.3]}), TuningWorld(seeds=3))
    assert found.chosen is not found.default
    assert "is within noise: its 95 % interval over seeds is ±" in found.warnings[0]
    alone = tune(_torn(), "fixed", Grid({"arm": ["arm0"]}), TuningWorld(seeds=1))
    assert "one seed cannot distinguish the gain from noise" in alone.warnings[0]


def test_defaults_that_are_best_stay_and_are_run_once() -> None:
    count = [0]

    def watch(_trial: TuningTrial, _on_validation: bool) -> None:
        count[0] += 1

    data = Labelled(*planted(40))
    default = policies.load("metallm")
    found = tune(data, "metallm", Grid({"alpha": [default.alpha]}), WORLD, watch)  # type: ignore[attr-defined]
    assert found.chosen is found.default
    assert found.test_chosen is found.test_default
    assert count == [2]
    assert "no candidate was better than the default" in found.warnings[0]


def test_equal_arguments_give_equal_results() -> None:
    data = Labelled(*planted(60))

    def made() -> Any:
        search = Guided({"alpha": Range(0.01, 2.0, True)}, 3, 5, frozenset())
        return tune(data, "metallm", search, WORLD)

    assert made() == made()


def test_parts_that_are_empty_are_refused() -> None:
    with pytest.raises(BadSearch, match="too few"):
        tune(_torn(1), "fixed", Grid({"arm": ["arm0"]}), WORLD)


def test_the_configuration_is_what_the_service_reads(tmp_path: Path) -> None:
    chosen: dict[str, Any] = {"alpha": 1e-05, "reward": "paper", "bias": False}
    section = toml_of("metallm", chosen)
    assert tomllib.loads(section) == {"policy": {"name": "metallm", "parameters": chosen}}
    (tmp_path / "bandit.toml").write_text(section)
    assert settings.read(tmp_path / "bandit.toml").policy.parameters == chosen
    assert tomllib.loads(toml_of("eagle", {})) == {"policy": {"name": "eagle", "parameters": {}}}


# --- the command --------------------------------------------------------------------------


def test_what_is_searched_is_read_from_the_command_line() -> None:
    space = tune_command.space_of(
        ["reward=apart,paper", "bias=true"], ["alpha=0.01:2:log", "prior=0:1"], True
    )
    assert space == {
        "reward": ["apart", "paper"],
        "bias": [True],
        "alpha": Range(0.01, 2.0, True),
        "prior": Range(0.0, 1.0),
    }


@pytest.mark.parametrize(
    ("grids", "ranges", "drawn", "why"),
    [
        ([], [], True, "--grid KEY=V1,V2"),
        ([], ["a=1:2"], False, "--range needs --trials"),
        (["a"], [], False, "--grid a: must be KEY="),
        (["a="], [], False, "--grid a=: must be KEY="),
        (["a=1", "a=2"], [], False, "--grid a=2: duplicate key a"),
        ([], ["a=1"], True, "--range a=1: must be KEY=LOW:HIGH"),
        ([], ["a=1:2:lin"], True, "--range a=1:2:lin: must be KEY=LOW:HIGH"),
        ([], ["a=1:inf"], True, "--range a=1:inf: must be finite"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_told(
    grids: list[str], ranges: list[str], drawn: bool, why: str
) -> None:
    with pytest.raises(Usage) as caught:
        tune_command.space_of(grids, ranges, drawn)
    assert why in str(caught.value)


def _run(*argv: object) -> int:
    parser = argparse.ArgumentParser()
    tune_command.add_arguments(parser)
    return tune_command.run(parser.parse_args([str(each) for each in argv]))


def test_the_command_shows_both_parts_the_feedback_and_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded, vectors = planted(60)
    write(recorded, tmp_path / "made.jsonl.gz")
    monkeypatch.setattr(tune_command, "open_backend", lambda *_: None)
    monkeypatch.setattr(tune_command, "embed_all", lambda *_: vectors)
    data, out = tmp_path / "made.jsonl.gz", tmp_path / "found.json"
    assert _run("--data", data, "--grid", "prior=0.7,0.5", "--seeds", 2, "--json", out) == 0
    shown, _ = capsys.readouterr()
    assert "nested on the validation part: " in shown
    assert "On the test part, which nothing was chosen on: " in shown
    assert "Feedback used for choosing: " in shown
    found = json.loads(out.read_text())
    section = shown[shown.index("[policy]") :]
    assert tomllib.loads(section)["policy"]["parameters"] == found["chosen"]
    assert sum(found["queries"].values()) == 60
    assert found["outcomes_shown"] == 2 * 2 * found["queries"]["validation"]
    assert len(found["validation"]["trials"]) == 2
    assert _run("--data", data, "--trials", 2, "--range", "prior=0.1:1:log", "--seeds", 1) == 0


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("--data", "x", "--grid", "beta=1"), "beta: nested has"),
        (("--data", "nowhere.jsonl", "--grid", "kappa=1"), "no such file"),
        (
            ("--data", "x", "--policy", "nothing", "--grid", "a=1"),
            "--policy nothing: no policy named 'nothing'; expected one of",
        ),
        (("--data", "x"), "--grid KEY=V1,V2"),
    ],
)
def test_what_cannot_be_tuned_is_one_error(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], why: str
) -> None:
    assert _run(*argv) == 2
    assert why in capsys.readouterr().err
