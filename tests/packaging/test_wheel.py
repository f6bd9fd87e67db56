"""The wheel has what it should, and works where the checkout is not."""

from __future__ import annotations

import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.built import ROOT, build

PACKAGES = ("bandit_service", "policies", "store")


def run(python: Path, code: str, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Without PYTHONPATH, and nothing of the checkout in reach."""
    return subprocess.run(
        [str(python), "-c", code, *arguments], capture_output=True, text=True, cwd=cwd, env={}
    )


def test_holds_the_three_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)
    for package in PACKAGES:
        assert f"{package}/py.typed" in names
        source = {
            str(path.relative_to(ROOT))
            for path in (ROOT / package).rglob("*.py")
            if "__pycache__" not in path.parts
        }
        assert {n for n in names if n.startswith(f"{package}/") and n.endswith(".py")} == source
    page = {str(path.relative_to(ROOT)) for path in (ROOT / "bandit_service" / "web").iterdir()}
    assert "bandit_service/web/index.html" in page
    assert {name for name in names if name.startswith("bandit_service/web/")} == page
    compiled = ["policies/_nested.so", "store/_scan.so"] if shutil.which("cc") else []
    assert sorted(name for name in names if name.endswith((".pyc", ".db", ".so"))) == compiled
    assert [name for name in names if name.endswith("dist-info/licenses/LICENSE")]
    assert "bandit_service/data/specialists/specialists.jsonl.gz" in names


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no compiler here")
def test_recalls_by_the_compiled_scan(wheel: Path, elsewhere: Path, tmp_path: Path) -> None:
    assert "-py3-none-" in wheel.name  # one for every Python of this platform
    code = "from store._kernels import best, native; print(best().name == native().name)"
    done = run(elsewhere, code, tmp_path)
    assert (done.stdout, done.stderr) == ("True\n", "")
    done = run(elsewhere, "from policies._native import native; print(bool(native()))", tmp_path)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_imports_where_the_checkout_is_not(elsewhere: Path, tmp_path: Path) -> None:
    code = f"""
import importlib
for name in {PACKAGES}:
    print(importlib.import_module(name).__file__)
"""
    done = run(elsewhere, code, tmp_path)
    assert done.returncode == 0, done.stderr
    files = [Path(line) for line in done.stdout.splitlines()]
    assert [file.parent.name for file in files] == list(PACKAGES)
    for file in files:
        assert file.is_relative_to(elsewhere.parents[1])
        assert not file.is_relative_to(ROOT)


def test_its_command_is_there(elsewhere: Path, tmp_path: Path) -> None:
    command = [str(elsewhere.parent / "bandit-service"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={})
    assert done.returncode == 0, done.stderr
    assert "bandit-service" in done.stdout


@pytest.mark.parametrize("package", ["policies", "store"])
def test_a_foreign_package_of_that_name_is_named(
    elsewhere: Path, tmp_path: Path, package: str
) -> None:
    foreign = tmp_path / package / "__init__.py"
    foreign.parent.mkdir()
    foreign.write_text("")
    code = "import sys; sys.path.insert(0, sys.argv[1]); import bandit_service"
    done = run(elsewhere, code, tmp_path, str(tmp_path))
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError")
    assert str(foreign) in last


def test_the_source_distribution_and_the_tree_give_the_same_bytes(
    wheel: Path, tmp_path: Path
) -> None:
    """Two builds, in two places: one of what was packed, one of the checkout."""
    build(ROOT, tmp_path, "--wheel")
    (again,) = tmp_path.glob("*.whl")
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def test_it_knows_its_version(wheel: Path, elsewhere: Path, tmp_path: Path) -> None:
    done = run(elsewhere, "import bandit_service as b; print(b.__version__)", tmp_path)
    assert done.stdout.strip() == wheel.name.split("-")[1]


def test_what_serves_needs_no_more_than_it_declares(wheel: Path) -> None:
    """Nothing that only makes a model's files, or only studies need, is installed by default."""
    with zipfile.ZipFile(wheel) as archive:
        (about,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        text = archive.read(about).decode()
    declared = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", text, re.MULTILINE)
    assert sorted(declared) == [
        "aiohttp", "jsonschema", "msgspec", "numpy", "onnxruntime", "prometheus-client", "tqdm",
    ]  # fmt: skip
    extras = set(re.findall(r"^Provides-Extra: (.*)$", text, re.MULTILINE))
    assert {"export", "evaluate", "river", "drift", "otel", "torch"} <= extras
