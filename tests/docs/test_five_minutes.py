"""docs/five-minutes.md, followed: its processes run, its code runs against them."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bandit_service import settings
from tests.tools import needed

needed("pareto_bandit")

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "five-minutes.md").read_text(encoding="utf-8")


def _fences(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def _command(line: str, *more: str) -> tuple[str, ...]:
    program, *arguments = shlex.split(line)
    assert program == "bandit-service"
    path = f"PYTHONPATH={ROOT}"
    return "env", path, sys.executable, "-m", "bandit_service.cli", *arguments, *more


@asynccontextmanager
async def running(line: str, cwd: Path, *more: str) -> AsyncIterator[str]:
    """The command with a free port; its URL once it listens."""
    ready = cwd / f"{shlex.split(line)[1]}.ready"
    process = await asyncio.create_subprocess_exec(
        *_command(line, *more, "--port", "0", "--ready-file", str(ready)),
        cwd=cwd,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(120):
            while not ready.exists() or not ready.read_text():
                assert process.returncode is None, line
                await asyncio.sleep(0.05)
        yield str(json.loads(ready.read_text())["url"])
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def _ran(*command: str, cwd: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_the_page_works_as_it_stands(tmp_path: Path, models: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "models").symlink_to(models, target_is_directory=True)
    upstream, serve, ask = (line for fence in _fences("sh") for line in fence.splitlines())
    _, budget = _fences("toml")
    (code,) = _fences("python")
    async with running(upstream, tmp_path, "--speed", "200"):
        with (tmp_path / "gateway.toml").open("a", encoding="utf-8") as file:
            file.write(budget)
        async with running(serve, tmp_path) as url:
            local = code.replace("http://127.0.0.1:8080", url)
            assert local != code
            out = await _ran(sys.executable, "-c", local, cwd=tmp_path)
            assert re.search(r"^answered by \S+ for [0-9.]+ USD$", out, re.MULTILINE)
            assert "was recorded on this query" in out
            assert out.splitlines()[-1] == "accepted"
            told = await _ran(*_command(ask, "--url", url), cwd=tmp_path)
            assert "was recorded on this query" in told
            assert "google/gemini-2.5-pro" in told


def test_the_configuration_with_keys_is_a_valid_one(tmp_path: Path) -> None:
    with_keys, budget = _fences("toml")
    assert tomllib.loads(with_keys)["upstreams"][1]["kind"] == "anthropic"
    path = tmp_path / "gateway.toml"
    path.write_text(f"{with_keys}\n{budget}", encoding="utf-8")
    environ = {"OPENAI_API_KEY": "x", "ANTHROPIC_API_KEY": "y"}
    read = settings.read(path, environ)
    assert [each.spec.id for each in read.upstreams] == ["openai", "anthropic", "here"]
    assert read.budgets[0].usd == 20.0
