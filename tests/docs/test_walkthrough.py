"""The walkthrough, walked: its files are written down and its commands run on them."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.tools import needed

needed("scipy")
needed("optuna")

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "walkthrough.md").read_text(encoding="utf-8")
# It takes minutes; how it is called is tested where it is.
UNTESTED = ("pip", "bandit-service evaluate")
SERVE = "bandit-service serve"


def _fences(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def _commands() -> list[str]:
    return [line for fence in _fences("sh") for line in fence.splitlines()]


def _started(command: str, *more: str) -> tuple[str, ...]:
    program, *arguments = shlex.split(command)
    assert program == "bandit-service"
    path = f"PYTHONPATH={ROOT}"  # the commands run where the logs are
    return "env", path, sys.executable, "-m", "bandit_service.cli", *arguments, *more


async def _run(*command: str, cwd: Path) -> tuple[str, str]:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, (command, err.decode())
    return out.decode(), err.decode()


@pytest.mark.long
async def test_every_command_runs_on_the_logs_of_the_page(tmp_path: Path, models: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "models").symlink_to(models, target_is_directory=True)
    (logs,) = _fences("csv")
    prices, config = _fences("toml")
    for name, body in (("logs.csv", logs), ("prices.toml", prices), ("bandit.toml", config)):
        (tmp_path / name).write_text(body, encoding="utf-8")
    commands = [line for line in _commands() if not line.startswith(UNTESTED)]
    said: dict[str, str] = {}
    for command in commands[: commands.index(next(c for c in commands if c.startswith(SERVE)))]:
        out, err = await _run(*_started(command), cwd=tmp_path)
        said[command.split()[1]] = out + err
    assert "logs.csv:17: quality: missing" in said["convert"]
    assert "8 queries, 2 models, 15 answers" in said["convert"]
    with gzip.open(tmp_path / "my.jsonl.gz") as file:
        assert len(file.readlines()) == 8
    assert "best single" in said["replay"]
    assert "On the test part, which nothing was chosen on" in said["tune"]
    assert len(json.loads((tmp_path / "tuned.json").read_text())["validation"]["trials"]) == 6
    assert "15 outcomes of 8 queries were learned" in said["learn"]
    serve, ask = commands[-2:]
    await _serve_and_ask(serve, ask, tmp_path)


async def _serve_and_ask(serve: str, ask: str, cwd: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *_started(serve, "--port", "0"), cwd=cwd, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        url = None
        while url is None:
            line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
            assert line, "it ended before it listened"
            url = re.search(r"listening on (http://\S+)", line)
        script = ask.replace("http://127.0.0.1:8080", url[1])
        assert script != ask
        out, _ = await _run("bash", "-euo", "pipefail", "-c", script, cwd=cwd)
        assert json.loads(out)["arm"] in ("large", "small")
    finally:
        process.terminate()
        await process.communicate()
    assert process.returncode == 0


def test_the_commands_of_the_page_are_those_that_are_walked() -> None:
    names = [" ".join(shlex.split(line)[:2]) for line in _commands()]
    assert names == [
        "pip install",
        "bandit-service convert",
        "bandit-service replay",
        "bandit-service evaluate",
        "bandit-service tune",
        "bandit-service tune",
        "bandit-service config",
        "bandit-service learn",
        "bandit-service serve",
        "curl -s",
    ]
