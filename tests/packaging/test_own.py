"""A policy and a log of your own: found, and held to the suites from an installed wheel."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import policies
from bandit_service import settings

POLICY = '''
"""Always the arm whose name comes first."""

from dataclasses import dataclass, field

import numpy as np

from policies import Proposal

__all__ = ["First"]


@dataclass
class Nothing:
    """It learns nothing."""


@dataclass(frozen=True)
class First:
    """Chooses the first name; takes no parameters."""

    def init(self):
        return Nothing()

    def propose(self, state, context, arms):
        if not len(arms):
            raise ValueError("arms: no eligible arm to propose from")
        chosen = np.array([id == min(arms.ids) for id in arms.ids], float)
        return Proposal(chosen, chosen)

    def learn(self, state, event):
        return state
'''
SUITES = """
from first import First
from bandit_service.testing import LogSuite, PolicySuite
from store.memory import MemoryLog


class Leaky(MemoryLog):
    def append(self, records):
        return super().append(list(records)[:1])


class TestFirst(PolicySuite):
    policy = First
    exempt = {
        "the_best_arm_of_an_easy_problem_is_found": "it never looks at a reward",
    }


class TestMemory(LogSuite):
    def make(self, path):
        return MemoryLog()


class TestLeaky(LogSuite):
    def make(self, path):
        return Leaky()
"""


def _write(directory: Path, **files: str) -> None:
    for name, text in files.items():
        (directory / f"{name}.py").write_text(text, encoding="utf-8")


def test_the_suites_run_from_a_wheel_on_what_is_not_ours(elsewhere: Path, tmp_path: Path) -> None:
    _write(tmp_path, first=POLICY, test_own=SUITES)
    done = subprocess.run(
        [
            str(elsewhere),
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:randomly",
            "--rootdir",
            str(tmp_path),
            str(tmp_path / "test_own.py"),
            "-k",
            "TestFirst and (best_arm or hash_seed or exemptions) or append",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert done.returncode == 1, done.stdout + done.stderr
    assert failed, done.stdout
    assert all("::TestLeaky::" in line for line in failed), done.stdout


def test_a_directory_of_policies_is_found_by_the_command(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    _write(tmp_path / "mine", first=POLICY)
    config = tmp_path / "bandit.toml"
    config.write_text('policies_dir = "mine"\n[policy]\nname = "first"\n', encoding="utf-8")
    code = f"""
        from pathlib import Path
        import policies
        from bandit_service import settings
        chosen = settings.read(Path({str(config)!r}), {{}})
        print(settings.load_policy(chosen.policy), policies.directories())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.stdout == f"First() ({str(tmp_path / 'mine')!r},)\n", done.stderr


@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        ("", "policies_dir: there is no directory"),
        ("knn", "policies_dir: knn.py: there is a policy of this name already"),
    ],
)
def test_what_is_wrong_with_the_directory_is_said(tmp_path: Path, name: str, mistake: str) -> None:
    if name:
        (tmp_path / "mine").mkdir()
        _write(tmp_path / "mine", **{name: POLICY})
    with pytest.raises(settings.BadSettings, match=mistake):
        settings.read(None, {"BANDIT_POLICIES_DIR": str(tmp_path / "mine")})
    assert policies.directories() == ()


def test_a_policy_of_an_installed_package_is_found_by_its_entry_point(tmp_path: Path) -> None:
    _write(tmp_path, first=POLICY)
    about = tmp_path / "firstly-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: firstly\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[bandit_service.policies]\nfirst = first:First\nknn = first:First\n"
    )
    code = "import policies; print('first' in policies.names(), policies.load('first'), "
    code += "type(policies.load('knn')).__module__)"
    path = ":".join([str(tmp_path), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": path},
    )
    assert done.stdout == "True First() policies.knn\n", done.stderr
