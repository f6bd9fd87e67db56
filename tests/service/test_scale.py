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
    command = [
        sys.executable,
        "-m",
        "loadtest.scale",
        "--kills",
        "2",
        "--paid",
        "40",
        "--models",
        str(models),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = dict(line.rsplit(maxsplit=1) for line in done.stdout.splitlines()[-11:-1])
    assert found["of these lost"] == found["refused that should not be"] == "0"
    assert int(found["rewards acknowledged"]) > 0
    assert 0.0 < float(found["booked of it, USD"]) <= float(found["budget, USD"])


@pytest.mark.long
def test_the_bench_measures_and_writes_its_tables(models: Path, tmp_path: Path) -> None:
    shared_log.wanted()
    shared_log.nats_wanted()
    page = tmp_path / "page.md"
    sections = ("replicas", "replica-appends", "replica-join")
    page.write_text("".join(f"<!-- {each} -->\n<!-- /{each} -->\n" for each in sections))
    command = [sys.executable, "-m", "loadtest.bench.replicas", "--models", str(models)]
    sizes = [
        "--replicas",
        "1",
        "--jetstream",
        "1",
        "--seconds",
        "0.2",
        "--past",
        "50",
        "--seeds",
        "0",
        "--markdown",
        str(page),
    ]
    done = subprocess.run(command + sizes, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    written = page.read_text()
    assert "| one process, SQLite (baseline) |" in written
    assert "| 1 on PostgreSQL |" in written
    assert "| 1 on JetStream |" in written
    assert "the log read from JetStream, 61 events" in written
    assert "| 4 x 16 |" in written
    assert "a second one: from a snapshot of" in written


@pytest.mark.long
def test_the_model_measures_its_constants_and_prints_its_table(models: Path) -> None:
    shared_log.wanted()
    command = [sys.executable, "-m", "loadtest.scale_model"]
    sizes = ["--seconds", "0.3", "--replicas", "1", "2", "--models", str(models)]
    done = subprocess.run([*command, *sizes], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    constants, model = done.stdout.strip().split("\n\n")
    assert len(constants.splitlines()) == 12
    assert "nan" not in done.stdout
    baseline, *rows = model.splitlines()[2:]
    assert "one process, SQLite (baseline)" in baseline
    rates = [row.split("|")[1].strip() for row in rows]
    assert rates == ["1,000", "10,000", "100,000", "1,000,000"]
    wrong = subprocess.run([*command, "--busy", "0"], capture_output=True, text=True, timeout=60)
    assert (wrong.returncode, "--busy above 0" in wrong.stderr) == (2, True)
