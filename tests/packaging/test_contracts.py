"""The import contracts can fail: each is broken in a copy of the tree, and the check says so."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLANTED = {
    "policies and store know no sibling": ("store/memory.py", "import policies"),
    "policies know only numpy and the standard library, and one file river": (
        "policies/knn.py", "import aiohttp"),
    "policies do no input or output": ("policies/knn.py", "import socket"),
    "the core is pure: it knows policies and nothing of the shell": (
        "bandit_service/core/apply.py", "import sqlite3"),
    "statistics know nothing but arithmetic": (
        "bandit_service/statistics/means.py", "import bandit_service.core.world"),
    "nothing imports OpenTelemetry but what sends spans": (
        "bandit_service/gateway/spans.py", "import opentelemetry"),
    "only the edges speak HTTP": ("bandit_service/runtime/writer.py", "import aiohttp"),
    "nothing that serves imports evaluation": (
        "bandit_service/runtime/router.py", "import bandit_service.lab.online"),
    "the shell stands on the core": (
        "bandit_service/core/events.py", "import bandit_service.runtime.router"),
}  # fmt: skip


def _command() -> list[str]:
    """The line of `make check` that holds the contracts, as it stands."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (line,) = re.findall(r"^\t@\$\(BIN\)/(lint-imports.*)$", makefile, re.MULTILINE)
    assert "|" not in line, "a pipe hides the exit code of what is before it"
    return [str(Path(sys.executable).parent / part) if i == 0 else part
            for i, part in enumerate(line.split())]  # fmt: skip


def test_every_contract_has_a_violation_here() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    assert sorted(each["name"] for each in contracts) == sorted(PLANTED)


@pytest.mark.parametrize("planted", [False, True], ids=["as it is", "broken"])
def test_make_check_fails_where_a_contract_is_broken(tmp_path: Path, planted: bool) -> None:
    """On 5a5a85b the linter's output went through `tail`, whose success was the check's."""
    for name in ("bandit_service", "policies", "store"):
        shutil.copytree(ROOT / name, tmp_path / name,
                        ignore=shutil.ignore_patterns("__pycache__", "*.json*"))  # fmt: skip
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path, line in PLANTED.values() if planted else ():
        with (tmp_path / path).open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")
    done = subprocess.run(_command(), cwd=tmp_path, capture_output=True, text=True, check=False)
    said = {name: re.search(rf"^{re.escape(name)} (KEPT|BROKEN)", done.stdout, re.MULTILINE)
            for name in PLANTED}  # fmt: skip
    verdicts = {name: found and found.group(1) for name, found in said.items()}
    assert verdicts == dict.fromkeys(PLANTED, "BROKEN" if planted else "KEPT"), done.stdout
    assert (done.returncode != 0) == planted
