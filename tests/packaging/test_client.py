"""The client is a wheel of its own: it needs what it declares, and nothing of the service."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.built import build
from tests.client.unruly import DECIDED, unruly

ROOT = Path(__file__).parents[2] / "bandit_client"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("client-wheel")
    build(ROOT, target)  # the wheel is built of the source distribution
    (built,) = target.glob("*.whl")
    return built


def _needed(requirements: list[str], found: dict[str, metadata.Distribution]) -> None:
    """The distributions that are required, and those that they require, without extras."""
    for each in map(Requirement, requirements):
        left_out = each.marker is not None and not each.marker.evaluate({"extra": ""})
        if each.name in found or left_out:
            continue
        found[each.name] = metadata.distribution(each.name)
        _needed(found[each.name].requires or [], found)


@pytest.fixture(scope="module")
def alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel and what it declares."""
    directory = tmp_path_factory.mktemp("client-alone")
    venv.create(directory, with_pip=False, symlinks=True)
    python = directory / "bin" / "python"
    (site,) = directory.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install"]
    options = ["--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check", "-q"]
    done = subprocess.run([*pip, *options, str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(wheel) as archive:
        (about,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        declared = re.findall(r"^Requires-Dist: (.*)$", archive.read(about).decode(), re.MULTILINE)
    needed: dict[str, metadata.Distribution] = {}
    _needed(declared, needed)
    assert {"aiohttp", "msgspec"} <= set(needed)
    for each in needed.values():
        for top in {file.parts[0] for file in each.files or [] if file.parts[0] != ".."}:
            there = Path(str(each.locate_file(top)))
            if there.exists() and not (site / top).exists():
                (site / top).symlink_to(there)
    return python


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        kept = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
    there = {str(p.relative_to(ROOT.parent)) for p in ROOT.rglob("*.py")}
    assert names == there | {"bandit_client/py.typed"}
    assert kept


def test_it_works_without_the_service_and_without_numpy(alone: Path, tmp_path: Path) -> None:
    code = """
import importlib.util, sys
import bandit_client
assert not [name for name in ("numpy", "torch", "onnxruntime", "bandit_service")
            if name in sys.modules or importlib.util.find_spec(name)]
with bandit_client.Client(sys.argv[1], "") as client:
    print(client.decide("hello", embedding=None).decision_id)
try:
    bandit_client.Client.embedded()
except bandit_client.NotInstalled as error:
    print(error)
print(bandit_client.__file__)
"""
    with unruly() as server:
        server.always = DECIDED
        command = [str(alone), "-c", code, server.url]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={})
    assert done.returncode == 0, done.stderr
    id, said, file = done.stdout.splitlines()
    assert id == "d1"
    assert "install the package bandit-service, or give the url" in said
    assert Path(file).is_relative_to(alone.parents[1])


def test_its_version_is_the_one_of_the_distribution(
    wheel: Path, alone: Path, tmp_path: Path
) -> None:
    code = "import bandit_client; print(bandit_client.__version__)"
    done = subprocess.run(
        [str(alone), "-c", code], capture_output=True, text=True, cwd=tmp_path, env={}
    )
    assert done.stdout.strip() == wheel.name.split("-")[1], done.stderr
