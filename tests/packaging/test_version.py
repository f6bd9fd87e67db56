"""The version is the tag's, wherever the source comes from."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import bandit_client
import bandit_service
import hatch_version
from tests.built import ROOT

_WHO = ("-c", "user.name=n", "-c", "user.email=e@example.invalid", "-c", "commit.gpgsign=false")


def _git(where: Path, *arguments: str) -> str:
    command = ["git", *_WHO, *arguments]
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small repository with one commit."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("hatch_version.py", ".gitattributes", ".git_archival.txt"):
        shutil.copy(ROOT / name, tree)
    _git(tree, "init", "-q")
    _git(tree, "add", "-A")
    _git(tree, "commit", "-qm", "one")
    return tree


def test_a_tag_is_the_version_and_what_follows_is_the_next_ones_dev(tree: Path) -> None:
    commit = _git(tree, "rev-parse", "--short", "HEAD")
    assert hatch_version.version(tree) == f"0.2.0.dev1+g{commit}"
    _git(tree, "tag", "not-a-version")
    _git(tree, "tag", "v0.2.0")
    assert hatch_version.version(tree) == "0.2.0"
    (tree / "hatch_version.py").write_text("changed")
    assert hatch_version.version(tree) == f"0.2.1.dev0+g{commit}.dirty"
    _git(tree, "commit", "-qam", "two")
    after = _git(tree, "rev-parse", "--short", "HEAD")
    assert hatch_version.version(tree) == f"0.2.1.dev1+g{after}"


def test_an_archive_of_a_tag_knows_it_without_git(tree: Path, tmp_path: Path) -> None:
    _git(tree, "tag", "v0.3.1")
    _git(tree, "archive", "--output", str(tmp_path / "tree.tar"), "v0.3.1")
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    shutil.unpack_archive(tmp_path / "tree.tar", unpacked)
    assert hatch_version.version(unpacked) == "0.3.1"


def test_without_a_tag_and_without_git_it_is_the_next_versions_dev0(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy, ignore=shutil.ignore_patterns(".git"))
    assert hatch_version.version(copy) == "0.2.0.dev0"
    inside = tree / "vendored"  # in another repository, whose version is not ours
    inside.mkdir()
    assert hatch_version.version(inside) == "0.2.0.dev0"
    monkeypatch.setenv(hatch_version.GIVEN, "1.2.3")
    assert hatch_version.version(copy) == "1.2.3"


def test_a_checkout_that_is_not_installed_says_the_same() -> None:
    for package in (bandit_service, bandit_client):
        source = Path(str(package.__file__)).read_text(encoding="utf-8")
        assert f'__version__ = "{hatch_version.UNKNOWN}"' in source
