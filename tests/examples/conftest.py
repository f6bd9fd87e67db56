"""A copy of the examples as a user has them, and a service as `make run` starts it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from bandit_service.data.convert import write
from bandit_service.data.recordings import open_recording
from tests.service.running import Process

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

Ran = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def copied(tmp_path: Path, models: Path) -> Path:
    """The directory, with the exported model where the examples look for it."""
    target = tmp_path / "examples"
    shutil.copytree(EXAMPLES, target, ignore=shutil.ignore_patterns("__pycache__", "var"))
    (target / "var").mkdir()
    (target / "var" / "models").symlink_to(models, target_is_directory=True)
    return target


@pytest.fixture
def few(copied: Path) -> str:
    """The name of a recording there: a quarter of the one that the examples take by default."""
    whole = open_recording("specialists")
    write(whole.take(np.arange(0, len(whole.texts), 4)), copied / "few.jsonl")
    return "few.jsonl"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[str]:
    """The address of a service with the embedded defaults."""
    process = Process(tmp_path_factory.mktemp("examples") / "var", models)
    try:
        yield asyncio.run(process.url())
    finally:
        process.stop()


def environ(**more: str) -> dict[str, str]:
    """Of a user's shell: without what the tests have."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}  # noqa: TID251 - passed on
    return kept | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"} | more


@pytest.fixture
def run(copied: Path) -> Ran:
    """Runs an example to its end, there."""

    def ran(name: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, name, *words],
            cwd=copied,
            env=environ(**more),
            capture_output=True,
            encoding="utf-8",
            timeout=600,
            check=False,
        )

    return ran
