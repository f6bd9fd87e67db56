"""The import contracts can fail: each is broken in a copy of the tree, and the check says so."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from loadtest import structure

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
    "only what sends spans imports OpenTelemetry": (
        "bandit_service/gateway/spans.py", "import opentelemetry"),
    "only the MCP server's own file imports mcp": (
        "bandit_service/cli/commands/mcp.py", "import mcp"),
    "only the edges speak HTTP": ("bandit_service/runtime/writer.py", "import aiohttp"),
    "nothing that serves imports the lab": (
        "bandit_service/runtime/router.py", "import bandit_service.lab.online"),
    "the client is a distribution of its own and light": (
        "bandit_client/client.py", "import numpy"),
    "the service knows no client": ("bandit_service/http/route.py", "import bandit_client"),
    "a package of the service imports only what stands below it": (
        "bandit_service/core/events.py", "import bandit_service.runtime.router"),
}  # fmt: skip


def _command() -> list[str]:
    """The line of `make check` that holds the contracts, as it stands."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (line,) = re.findall(r"^\t@\$\(BIN\)/(lint-imports.*)$", makefile, re.MULTILINE)
    assert "|" not in line, "a pipe hides the exit code of what is before it"
    return [
        str(Path(sys.executable).parent / part) if i == 0 else part
        for i, part in enumerate(line.split())
    ]


def test_every_contract_has_a_violation_here() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    assert sorted(each["name"] for each in contracts) == sorted(PLANTED)


def _copied(to: Path) -> None:
    for name in ("bandit_client", "bandit_service", "policies", "store"):
        shutil.copytree(
            ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__", "*.json*")
        )
    shutil.copy(ROOT / "pyproject.toml", to)


def _checked(where: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(), cwd=where, capture_output=True, text=True, check=False)


def test_a_package_that_is_in_no_layer_fails(tmp_path: Path) -> None:
    _copied(tmp_path)
    (tmp_path / "bandit_service" / "attic").mkdir()
    (tmp_path / "bandit_service" / "attic" / "__init__.py").touch()
    done = _checked(tmp_path)
    assert done.returncode != 0
    assert "attic" in done.stdout


@pytest.mark.parametrize("planted", [False, True], ids=["as it is", "broken"])
def test_make_check_fails_where_a_contract_is_broken(tmp_path: Path, planted: bool) -> None:
    """On 5a5a85b the linter's output went through `tail`, whose success was the check's."""
    _copied(tmp_path)
    for path, line in PLANTED.values() if planted else ():
        with (tmp_path / path).open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")
    done = _checked(tmp_path)
    said = {
        name: re.search(rf"^{re.escape(name)} (KEPT|BROKEN)", done.stdout, re.MULTILINE)
        for name in PLANTED
    }
    verdicts = {name: found and found.group(1) for name, found in said.items()}
    assert verdicts == dict.fromkeys(PLANTED, "BROKEN" if planted else "KEPT"), done.stdout
    assert (done.returncode != 0) == planted


def test_no_package_and_no_file_imports_in_a_circle() -> None:
    modules = structure.modules_of(ROOT)
    files = {name: set(structure.imports_of(modules, name)) for name in modules}
    assert structure.circles(files) == []
    assert structure.circles(structure.packages_of(files)) == []
    assert structure.circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_private_modules_are_imported_by_their_own_package_alone() -> None:
    modules = structure.modules_of(ROOT)
    files = {name: set(structure.imports_of(modules, name)) for name in modules}
    assert _trespassing(files) == []
    planted = {"lab.tune": {"policies._checks"}, "policies.knn": {"policies._checks"}}
    assert _trespassing(planted) == ["lab.tune imports policies._checks"]


def _trespassing(files: Mapping[str, set[str]]) -> list[str]:
    """Imports of a module with an underscore from outside of its package."""
    return [
        f"{name} imports {target}"
        for name, targets in files.items()
        for target in sorted(targets)
        if (at := target.find("._")) >= 0 and not f"{name}.".startswith(target[: at + 1])
    ]


def test_only_tables_of_data_keep_a_format_of_their_own() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for name in ("bandit_client", "bandit_service", "loadtest", "policies", "store")
        for path in sorted((ROOT / name).rglob("*.py"))
        for line in _skipped(path.read_text(encoding="utf-8"))
    ]
    assert found == []
    assert _skipped("def f():\n    return g(\n        1, 2)  # fmt: skip\n") == [3]
    assert _skipped("TABLE = {\n    1: 2, 3: 4,\n}  # fmt: skip\n") == []


def _skipped(source: str) -> list[int]:
    """The lines at which formatting is skipped, but for constants of a module."""
    constants = (ast.Assign, ast.AnnAssign)
    tables = {each.end_lineno for each in ast.parse(source).body if isinstance(each, constants)}
    lines = enumerate(source.splitlines(), 1)
    return [i for i, line in lines if line.endswith("# fmt: skip") and i not in tables]
