"""The version is the tag's, wherever the source comes from."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import bandit_client
import bandit_service
import hatch_version
from tests.built import ROOT

_FORMAT = "describe: $Format:%(describe:tags=true,match=v[0-9]*)$\n"
"""`.git_archival.txt` as it is in the repository; in an archive it is filled in already."""
_WHO = ("-c", "user.name=n", "-c", "user.email=e@example.invalid", "-c", "commit.gpgsign=false")


def _git(where: Path, *arguments: str) -> str:
    command = ["git", *_WHO, *arguments]
    ours = os.environ.items()  # noqa: TID251 - passed on
    environ = {key: value for key, value in ours if not key.startswith("GIT_")}
    done = subprocess.run(
        command, cwd=where, env=environ, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _age_of_git(where: Path) -> tuple[int, ...]:
    if shutil.which("git") is None:
        return ()
    found = re.search(r"\d+(\.\d+)+", _git(where, "version"))
    return tuple(map(int, found[0].split("."))) if found else ()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small repository with one commit."""
    if _age_of_git(tmp_path) < (2, 35):
        pytest.skip("needs git 2.35, which fills in the version of an archive: apt-get install git")
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("hatch_version.py", ".gitattributes"):
        shutil.copy(ROOT / name, tree)
    (tree / ".git_archival.txt").write_text(_FORMAT)
    _git(tree, "init", "-q")
    _git(tree, "add", "-A")
    _git(tree, "commit", "-qm", "one")
    return tree


def test_a_tag_is_the_version_and_what_follows_is_the_next_ones_dev(tree: Path) -> None:
    commit = _git(tree, "rev-parse", "--short", "HEAD")
    assert hatch_version.version(tree) == f"{hatch_version.NEXT}.dev1+g{commit}"
    _git(tree, "tag", "not-a-version")
    _git(tree, "tag", "v0.2.0")
    assert hatch_version.version(tree) == "0.2.0"
    (tree / "hatch_version.py").write_text("changed")
    assert hatch_version.version(tree) == f"0.2.1.dev0+g{commit}.dirty"
    _git(tree, "commit", "-qam", "two")
    after = _git(tree, "rev-parse", "--short", "HEAD")
    assert hatch_version.version(tree) == f"0.2.1.dev1+g{after}"


def test_a_tag_of_another_form_is_no_version(tree: Path) -> None:
    _git(tree, "tag", "v0.3.0-rc1")
    commit = _git(tree, "rev-parse", "--short", "HEAD")
    assert hatch_version.version(tree) == f"{hatch_version.NEXT}.dev1+g{commit}"


def test_a_hook_of_another_repository_is_not_asked(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by what is built, nor by these tests, which commit."""
    other = tmp_path / "other"
    other.mkdir()
    _git(other, "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    _git(tree, "tag", "v0.4.0")
    assert hatch_version.version(tree) == "0.4.0"
    assert not _git(other, "tag")


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
    assert hatch_version.version(copy) == hatch_version.UNKNOWN
    inside = tree / "vendored"  # in another repository, whose version is not ours
    inside.mkdir()
    assert hatch_version.version(inside) == hatch_version.UNKNOWN
    monkeypatch.setenv(hatch_version.GIVEN, "1.2.3")
    assert hatch_version.version(copy) == "1.2.3"


def test_a_checkout_that_is_not_installed_says_the_same() -> None:
    for package in (bandit_service, bandit_client):
        source = Path(str(package.__file__)).read_text(encoding="utf-8")
        assert f'__version__ = "{hatch_version.UNKNOWN}"' in source
    image = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    assert f"ARG VERSION={hatch_version.UNKNOWN}\n" in image
