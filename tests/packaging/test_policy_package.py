"""The example of a policy package: its wheel beside the service's, its laws as its CI runs them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.built import ROOT, build, environment

PACKAGE = ROOT / "examples" / "policy_package"


def _copied(directory: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", "dist", ".pytest_cache")
    return Path(shutil.copytree(PACKAGE, directory / "checkout", ignore=ignored))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The package as a repository of its own."""
    return _copied(tmp_path)


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with both wheels."""
    directory = tmp_path_factory.mktemp("both")
    build(_copied(directory), directory / "dist", "--wheel")
    (own,) = (directory / "dist").glob("*.whl")
    return environment(directory / "installed", wheel, own)


def _workflow(checkout: Path) -> list[str]:
    """The commands of the workflow."""
    text = (checkout / ".github" / "workflows" / "laws.yml").read_text(encoding="utf-8")
    steps = yaml.safe_load(text)["jobs"]["laws"]["steps"]
    return [step["run"] for step in steps if "run" in step]


def _ran(python: Path, line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program, *words = shlex.split(line)
    command = {"python": str(python), "bandit-service": str(python.parent / "bandit-service")}
    return subprocess.run(
        [command[program], *words], cwd=cwd, env={}, capture_output=True, text=True, check=False
    )


@pytest.mark.long
def test_its_laws_hold_where_both_wheels_are_installed(checkout: Path, python: Path) -> None:
    shutil.rmtree(checkout / "bandit_ucb1")  # what is tried is what is installed
    install, laws = _workflow(checkout)
    assert install.startswith("python -m pip install --find-links wheels ")
    assert "BANDIT" not in laws
    done = _ran(python, laws, checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b2\d passed, \d+ skipped", done.stdout), done.stdout
    told = _ran(python, "bandit-service policies ucb1", checkout)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("ucb1: Each arm is tried once")


@pytest.mark.long
def test_a_policy_that_breaks_a_law_fails_its_ci(checkout: Path, python: Path) -> None:
    (site,) = python.parents[1].glob("lib/python*/site-packages/bandit_ucb1")
    source = site / "__init__.py"
    honest = source.read_text(encoding="utf-8")
    broken = honest.replace("best / best.sum()", "best / best.sum() * 0.9")
    assert broken != honest
    source.write_text(broken, encoding="utf-8")
    shutil.rmtree(checkout / "bandit_ucb1")
    try:
        done = _ran(python, _workflow(checkout)[-1], checkout)
    finally:
        source.write_text(honest, encoding="utf-8")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED" in done.stdout


def test_its_readme_names_what_is_there(checkout: Path) -> None:
    text = (checkout / "README.md").read_text(encoding="utf-8")
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (name,) = project["entry-points"]["bandit_service.policies"]
    assert f"BANDIT_POLICY_NAME={name} bandit-service serve" in text
    assert _workflow(checkout) == [
        line.partition("#")[0].strip() for line in text.splitlines() if line.startswith("python ")
    ]
