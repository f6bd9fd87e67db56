"""`make chaos-scale`, a short one: the program judges what is left by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import shared_log


@pytest.mark.long
def test_a_few_faults_lose_nothing(models: Path) -> None:
    shared_log.wanted()
    command = [sys.executable, "-m", "loadtest.scale", "--kills", "2", "--models", str(models)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = dict(line.rsplit(maxsplit=1) for line in done.stdout.splitlines()[-7:-1])
    assert found["of these lost"] == found["refused that should not be"] == "0"
    assert int(found["rewards acknowledged"]) > 0
