"""Every text that names an install says a way that exists: there is no package index of ours."""

from __future__ import annotations

import fnmatch
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from bandit_service.parsing.extras import install

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
OURS = {"bandit-service", "bandit-client", "bandit-model-all-minilm-l6-v2"}
BUILT = (
    "dist/bandit_service-0.2.0-py3-none-linux_x86_64.whl",
    "dist/bandit_service-0.2.0.tar.gz",
    "dist/bandit_client-0.2.0-py3-none-any.whl",
    "dist/bandit_model_all_minilm_l6_v2-4.0.0-py3-none-any.whl",
)
"""What `make dist` builds, as the build tests name it."""
_TEXTS = (
    "*.md",
    "docs/**/*.md",
    "bandit_client/*.md",
    "bandit_model/*.md",
    "bandit_service/**/*.md",
)
_CODE = ("bandit_service", "bandit_client", "policies", "store", "loadtest")


def _files() -> list[Path]:
    texts = {path for pattern in _TEXTS for path in ROOT.glob(pattern)}
    code = {path for name in _CODE for path in (ROOT / name).rglob("*.py")}
    others = [ROOT / "Makefile", *(p for p in (ROOT / "deploy").rglob("*") if p.is_file())]
    return sorted(texts | code | set(others))


def _commands(path: Path) -> list[str]:
    """What follows `pip install` in a text, up to the end of the command, the code or the line."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"\bpip install ((?:\$\([^)]*\)|[^`\n&|;)])+)", text)
    if path.suffix == ".py":  # a string of the program
        found = [re.split(r'"|, or | \(| for ', each)[0] for each in found if "{" not in each]
    if path.name == "Makefile":  # a line that sed writes, once for each extra of a loop
        found = [re.sub(r'" \S+\s*$', "", each) for each in found]
        extras = re.search(r"for extra in ([\w ]+);", text)
        assert extras is not None
        found = [each.replace("$$extra", one) for each in found for one in extras[1].split()]
    return [re.split(r"\s+#", each)[0].strip() for each in found]


ALL = [(path, command) for path in _files() for command in _commands(path)]


def _options_left_out(words: list[str]) -> list[str]:
    """The things to install; files that options name must be there."""
    wanted, options = [], iter(words)
    for word in options:
        if word in ("-r", "--requirement", "-c", "--constraint"):
            file = next(options).removeprefix("/src/")
            assert (ROOT / file).is_file(), file
        elif not word.startswith("-"):
            wanted.append(word)
    return wanted


def _check(wanted: str) -> None:
    path, _, extras = wanted.partition("[")
    names = [name for name in extras.rstrip("]").split(",") if name]
    path = re.sub(r"^\$\(ls (.*)\)$", r"\1", path)
    if path.startswith((".", "/src")):
        there = ROOT / path.removeprefix("/src").lstrip("/")
        assert (there / "pyproject.toml").is_file(), wanted
        assert set(names) <= set(EXTRAS), wanted
    elif path.endswith((".whl", ".tar.gz")):
        made = path if path.startswith("dist/") else f"dist/{path}"
        assert fnmatch.filter(BUILT, made), wanted
        assert set(names) <= set(EXTRAS), wanted
    else:
        name = Requirement(wanted).name
        assert name not in OURS, f"{wanted}: is in no package index"


def test_there_are_texts_that_name_an_install() -> None:
    named = {path.relative_to(ROOT).as_posix() for path, _ in ALL}
    assert {"README.md", "docs/install.md", "docs/walkthrough.md", "docs/client.md"} <= named
    assert {"deploy/Dockerfile", "loadtest/peers/mabwiser.py"} <= named


@pytest.mark.parametrize(
    ("path", "command"), [pytest.param(p, c, id=f"{p.relative_to(ROOT)}: {c}") for p, c in ALL]
)
def test_what_a_text_installs_is_there(path: Path, command: str) -> None:
    for wanted in _options_left_out(shlex.split(command.replace("'\"'", ""))):
        _check(wanted)


@pytest.mark.parametrize(
    "wrong", ["bandit-service[evaluate]", ".[no-such]", "dist/other-*.whl", "./docs"]
)
def test_a_way_that_does_not_exist_would_be_found(wrong: str) -> None:
    with pytest.raises(AssertionError):
        _check(wrong)


def test_what_the_program_says_is_what_the_extra_declares() -> None:
    """Each `install("extra", "package")` in the source."""
    calls = [
        call
        for path in (ROOT / "bandit_service").rglob("*.py")
        for call in re.findall(r"\binstall\(((?:['\"][\w-]+['\"],? ?)+)\)", path.read_text("utf-8"))
    ]
    assert len(calls) > 8
    for call in calls:
        extra, *packages = re.findall(r"[\w-]+", call)
        if "no-such-package" in packages:
            continue
        declared = {Requirement(each).name for each in EXTRAS[extra]}
        assert set(packages) <= declared, call


def test_the_command_has_the_requirements_of_the_wheel(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an installed service says it, and for every extra: pip takes the wheel's name with it."""
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--no-compile"]
    wanted = f"{wheel}[{','.join(EXTRAS)}]"
    done = subprocess.run([*pip, "--target", str(target), wanted], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "does not provide" not in done.stderr
    monkeypatch.syspath_prepend(target)
    assert install("evaluate", "pyarrow") == "pip install 'pyarrow>=21'"
    said = shlex.split(install("evaluate"))
    assert said[:2] == ["pip", "install"]
    declared = {Requirement(each) for each in EXTRAS["evaluate"]}
    assert {Requirement(each) for each in said[2:]} == declared
    assert install("demo", "paretobandit") == "pip install paretobandit==0.1.1"


def test_every_extra_is_on_the_page() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[\w`, ]+`) \|", page, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(EXTRAS)
