"""docs/first-ab-test.md, followed: its commands run in their order, against its service."""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
from pathlib import Path

import aiohttp
import pytest

from bandit_service import settings
from bandit_service.core.experiments.spec import (
    Audience,
    Experiment,
    Guardrail,
    Metric,
    Step,
    Variant,
)
from tests.docs.test_five_minutes import ROOT, running
from tests.tools import needed

needed("pareto_bandit")

TEXT = (ROOT / "docs" / "first-ab-test.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")


def _fences(language: str, text: str = TEXT) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


async def _ran(line: str, url: str, cwd: Path) -> str:
    program, *words = shlex.split(line)
    if program == "bandit-service":
        words = ["-m", "bandit_service.cli", *words, "--url", url]
    process = await asyncio.create_subprocess_exec(
        "env",
        f"PYTHONPATH={ROOT}",
        sys.executable,
        *words,
        cwd=cwd,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, (line, err.decode())
    return out.decode()


async def _begun(url: str) -> None:
    """Wait until the trial's policies are folded, which a loaded machine takes its time for."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(120):
        while True:
            async with session.get(f"{url}/v1/experiments/router-trial") as answer:
                if (await answer.json()).get("status") != "starting":
                    return
            await asyncio.sleep(0.05)


@pytest.mark.long
async def test_the_page_works_as_it_stands(tmp_path: Path, models: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "models").symlink_to(models, target_is_directory=True)
    (file,), (code,) = _fences("toml"), _fences("python")
    (tmp_path / "trial.toml").write_text(file)
    serve, *lines = (line for fence in _fences("sh") for line in fence.splitlines())
    async with running(serve, tmp_path) as url:
        (tmp_path / "app.py").write_text(code.replace("http://127.0.0.1:8080", url))
        said = []
        for line in lines:
            await _begun(url)
            said.append(await _ran(line, url, tmp_path))
    put, asked, early, ramped, again, late, stopped = said
    assert re.match(r"router-trial: (running|starting)\. ", put)  # a loaded machine folds longer
    assert asked == "60 users asked\n"
    assert "Not enough data" in early
    assert ramped.startswith("router-trial: running. ")
    assert again == "500 users asked\n"
    assert re.search(r"^router is better than today in reward: by \+0\.\d+", late, re.M), late
    assert "split as configured" in late
    assert stopped.startswith("router-trial: stopped. ")


def test_the_configuration_may_hold_the_experiment_as_well(tmp_path: Path) -> None:
    path = tmp_path / "bandit.toml"
    path.write_text(_fences("toml")[0])
    (spec,) = settings.read(path, {}).experiments
    assert (spec.id, spec.share) == ("router-trial", 0.2)
    assert [one.key for one in spec.variants] == ["today", "router"]


def test_the_reference_has_every_field_and_its_examples_are_valid(tmp_path: Path) -> None:
    for kind in (Experiment, Variant, Audience, Metric, Guardrail, Step):
        for name in kind.__struct_fields__:
            assert f"`{name}`" in REFERENCE, (kind.__name__, name)
    for name in ("stopped", "holdout_share", "holdout_arm"):
        assert name in REFERENCE
    (file,) = _fences("toml", REFERENCE)
    inline = re.findall(r"`((?:guardrails|ramp|metrics|overrides) = [^`]+)`", REFERENCE)
    assert len(inline) == 3
    path = tmp_path / "bandit.toml"
    experiment, variants = file.split("\n[[experiments.variants]]", 1)
    text = "\n".join([experiment, *inline, f"[[experiments.variants]]{variants}"])
    path.write_text(text.replace('"qa-anna"', "qa-anna"))
    (spec,) = settings.read(path, {}).experiments
    assert (len(spec.ramp), spec.metrics[0].name) == (3, "thumbs")
    assert spec.overrides == {"qa-anna": "router"}
