"""`bandit-service learn`: what was recorded is known before the first query is served."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import pytest

from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.cli.commands import learn as learn_cli
from bandit_service.core import events as ev
from bandit_service.wire import DecideRequest, RewardRequest
from tests.service.running import prepare
from tests.unit.data.recordings import a_row, write


def _learn(config: Path, data: Path, *more: str) -> int:
    parser = argparse.ArgumentParser()
    learn_cli.add_arguments(parser)
    args = parser.parse_args(["--config", str(config), "--data", str(data), *more])
    return learn_cli.run(args)


@pytest.fixture
def config(tmp_path: Path, models: Path) -> Path:
    prepare(tmp_path / "var", models)
    path = tmp_path / "config.toml"
    arms = "".join(
        f'[[arms]]\nid = "{arm}"\nusd_per_mtok_in = 1.0\nusd_per_mtok_out = 2.0\n'
        for arm in ("a", "b")
    )
    path.write_text(f'data_dir = "{tmp_path / "var"}"\n[policy]\nname = "metallm"\n{arms}')
    return path


def test_a_warm_start_is_in_the_log_once_and_decides(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # the recording's models are b and a: b is right, a is not
    rows = [a_row(i, quality=[1, 0], latency_s=[0.5, None]) for i in range(30)]
    rows.append(a_row(30, quality=[None, 1], cost=[None, 0]))
    data = write(tmp_path / "made.jsonl", rows)
    assert _learn(config, data, "--limit", "10") == 0
    assert _learn(config, data) == 0
    told = capsys.readouterr().out
    assert "20 outcomes of 10 queries were learned, 0 were known before" in told
    assert "41 outcomes of 31 queries were learned, 20 were known before" in told

    async def decided() -> ev.Decided:
        async with assembly.running_router(settings.read(config)) as (router, _, _, _):
            return await router.decide(DecideRequest(query="question 7"))

    found = asyncio.run(decided())
    assert found.arms == ("a", "b")
    assert found.scores[1] > found.scores[0] + 0.1


def test_models_that_are_not_in_the_catalogue_are_refused_before_anything_is_learned(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = {
        "models": ["b", "new"],
        "usd_per_million_tokens": {m: {"input": 1, "output": 2} for m in ("b", "new")},
    }
    data = write(tmp_path / "made.jsonl", [a_row(1)], meta)
    assert _learn(config, data) == 2
    assert "--data: not in the catalogue: new; configure them, or pass --add-arms" in (
        capsys.readouterr().err
    )
    assert _learn(config, data, "--add-arms") == 0
    assert "2 outcomes of 1 queries were learned, 0 were known before" in capsys.readouterr().out


def test_a_text_that_is_too_long_is_left_out_and_told(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "made.jsonl", [a_row(1), a_row(2, text="x" * 2_000_000)])
    assert _learn(config, data) == 0
    told = capsys.readouterr()
    assert "2 outcomes of 2 queries were learned" in told.out
    assert "(2 outcomes)" in told.err
    assert "xxx" not in told.err


def test_a_recording_that_cannot_be_read_is_one_error(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _learn(config, tmp_path / "absent.jsonl") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_warm_start_counts_as_so_many_outcomes_and_once(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [a_row(i, quality=[1, 0], latency_s=[0.5, None]) for i in range(12)]
    data = write(tmp_path / "made.jsonl", rows)
    assert _learn(config, data, "--strength", "full", "--limit", "5") == 0
    assert "each counts in full" in capsys.readouterr().out

    async def known() -> tuple[str, list[float]]:
        async with assembly.running_router(settings.read(config)) as (router, _, _, _):
            arms = router.world.arms.values()
            return router.world.digest(), [arm.weight for arm in arms]

    assert asyncio.run(known())[1] == [5.0, 5.0]
    assert _learn(config, data, "--strength", "3") == 0
    assert "of each arm they count as 3 outcomes at most" in capsys.readouterr().out
    once = asyncio.run(known())
    assert once[1] == pytest.approx([3.0, 3.0])
    assert _learn(config, data, "--strength", "3") == 0
    assert "0 outcomes of 12 queries were learned, 24 were known" in capsys.readouterr().out
    assert asyncio.run(known()) == once


def test_a_policy_that_cannot_forget_and_an_arm_that_learned_by_itself_are_told(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(config.read_text().replace('"metallm"', '"river:LinUCBDisjoint"'))

    async def live() -> None:
        async with assembly.running_router(settings.read(config)) as (router, _, _, _):
            await router.reward(RewardRequest(query="q", arm="b", quality=0.5))

    asyncio.run(live())
    data = write(tmp_path / "made.jsonl", [a_row(i) for i in range(4)])
    assert _learn(config, data, "--strength", "2") == 0
    told = capsys.readouterr().out
    assert "river:LinUCBDisjoint cannot forget a part" in told
    assert "learned by itself before: b;" in told


def test_a_strength_that_is_none_is_named(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "made.jsonl", [a_row(1)])
    with pytest.raises(SystemExit, match="2"):
        _learn(config, data, "--strength", "0")
    told = capsys.readouterr().err
    assert "--strength: must be a number of outcomes above 0, or 'full', got '0'" in told
