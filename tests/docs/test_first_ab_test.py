"""docs/first-ab-test.md, followed: its commands run in their order, against its service."""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
from pathlib import Path

import pytest

from bandit_service import settings
from tests.docs.test_five_minutes import ROOT, running

pytest.importorskip("pareto_bandit")

TEXT = (ROOT / "docs" / "first-ab-test.md").read_text(encoding="utf-8")


def _fences(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


async def _ran(line: str, url: str, cwd: Path) -> str:
    program, *words = shlex.split(line)
    if program == "bandit-service":
        words = ["-m", "bandit_service.cli", *words, "--url", url]
    process = await asyncio.create_subprocess_exec(
        "env", f"PYTHONPATH={ROOT}", sys.executable, *words, cwd=cwd,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, (line, err.decode())
    return out.decode()


async def test_the_page_works_as_it_stands(tmp_path: Path, models: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "models").symlink_to(models, target_is_directory=True)
    (file,), (code,) = _fences("toml"), _fences("python")
    (tmp_path / "trial.toml").write_text(file)
    serve, *lines = (line for fence in _fences("sh") for line in fence.splitlines())
    async with running(serve, tmp_path) as url:
        (tmp_path / "app.py").write_text(code.replace("http://127.0.0.1:8080", url))
        said = [await _ran(line, url, tmp_path) for line in lines]
    put, asked, early, ramped, again, late, stopped = said
    assert put.startswith("router-trial: running. ")
    assert asked == "100 users asked\n"
    assert "Not enough data" in early.splitlines()[-1]
    assert ramped.startswith("router-trial: running. ")
    assert again == "420 users asked\n"
    conclusion = late.splitlines()[-1]
    assert re.match(r"Router is better than today in reward: by \+0\.\d+", conclusion), late
    assert "split as configured" in late
    assert stopped.startswith("router-trial: stopped. ")


def test_the_configuration_may_hold_the_experiment_as_well(tmp_path: Path) -> None:
    path = tmp_path / "bandit.toml"
    path.write_text(_fences("toml")[0])
    (spec,) = settings.read(path, {}).experiments
    assert (spec.id, spec.share) == ("router-trial", 0.2)
    assert [one.key for one in spec.variants] == ["today", "router"]
