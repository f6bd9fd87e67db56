"""What the tests of packages share: each distribution is built once."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.once import made_once

ROOT = Path(__file__).parents[1]


def build(source: Path, target: Path, *options: str) -> None:
    """`python -m build` with what is installed here."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target)]
    done = subprocess.run([*command, *options, str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the service's source distribution and the wheel that is built of it."""
    return made_once(tmp_path_factory, "dist", lambda target: build(ROOT, target))


@pytest.fixture(scope="session")
def wheel(distributions: Path) -> Path:
    (built,) = distributions.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment outside the tree, with the wheel installed."""
    return environment(tmp_path_factory.mktemp("installed"), wheel)


def environment(directory: Path, *wheels: Path) -> Path:
    """The interpreter of an environment there, with these wheels and what they depend on."""
    venv.create(directory, with_pip=False, symlinks=True)
    python = directory / "bin" / "python"
    site = directory / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            assert not [name for name in archive.namelist() if ".data/" in name]
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install"]
    options = ["--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check", "-q"]
    done = subprocess.run([*pip, *options, *map(str, wheels)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    # The dependencies; .pth files found there are not followed, so no editable checkout is seen.
    dependencies = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    (site / "dependencies.pth").write_text("\n".join(dependencies) + "\n")
    return python
