"""The files of deploy/, for the tests that look at them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.tools import tool

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def documents(path: str) -> list[Any]:
    """What a YAML file holds."""
    return list(yaml.safe_load_all((DEPLOY / path).read_text(encoding="utf-8")))


def ran(*command: str) -> str:
    """What a command says that is expected to succeed."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def compose_agrees(path: str, service: str, tmp_path: Path) -> None:
    """Whether compose accepts a file, and would not accept what it does not know in a service."""
    docker = shutil.which("docker")
    asks = ["docker", "compose", "version"]
    if docker and subprocess.run(asks, capture_output=True).returncode == 0:
        ran("docker", "compose", "--file", str(DEPLOY / path), "config", "--quiet")
        return
    compose = tool("docker-compose", "apt-get install --no-install-recommends docker-compose")
    (described,) = documents(path)
    del described["name"]  # which the first generation does not know yet
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(described), encoding="utf-8")
    ran(compose, "--file", str(tmp_path / "compose.yaml"), "config", "--quiet")
    described["services"][service]["imagine"] = "x"
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(described), encoding="utf-8")
    wrong = [compose, "--file", str(tmp_path / "compose.yaml"), "config", "--quiet"]
    assert subprocess.run(wrong, capture_output=True).returncode != 0
