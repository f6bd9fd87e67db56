from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bandit_service.testing.snapshots import SnapshotsSuite
from store import Full, Offset, Snapshots, StoreError
from store.memory import MemorySnapshots
from store.snapshots import FileSnapshots

_ROOT = Path(__file__).parents[3]


class TestMemorySnapshots(SnapshotsSuite):
    def make(self, path: Path) -> Snapshots:
        return MemorySnapshots()


class TestFileSnapshots(SnapshotsSuite):
    def make(self, path: Path) -> Snapshots:
        return FileSnapshots(path)


def _two(directory: Path) -> tuple[FileSnapshots, Path]:
    """Snapshots at 1 and 2; the file of the newer one."""
    snapshots = FileSnapshots(directory)
    for at in (1, 2):
        snapshots.save(Offset(at), "world", b"state %d" % at)
    (newer,) = directory.glob("*2.snapshot")
    return snapshots, newer


@pytest.fixture(params=["in one piece", "in pieces"])
def _read_so(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state is read and hashed at once, or in pieces as a large one is."""
    if request.param == "in pieces":
        monkeypatch.setattr("store.snapshots._PIECE", 3)


@pytest.mark.usefixtures("_read_so")
def test_cut_at_any_byte_it_is_skipped(tmp_path: Path) -> None:
    snapshots, newer = _two(tmp_path)
    whole = newer.read_bytes()
    for at in range(len(whole)):
        newer.write_bytes(whole[:at])
        assert snapshots.latest("world") == (1, b"state 1")
        assert [each.path for each in snapshots.skipped] == [newer]
    newer.write_bytes(whole + b"\0")
    assert snapshots.latest("world") == (1, b"state 1")
    newer.write_bytes(whole)
    assert snapshots.latest("world") == (2, b"state 2")


@pytest.mark.usefixtures("_read_so")
def test_with_any_byte_flipped_it_is_skipped(tmp_path: Path) -> None:
    snapshots, newer = _two(tmp_path)
    whole = newer.read_bytes()
    for at in range(len(whole)):
        content = bytearray(whole)
        content[at] ^= 1 << (at % 8)
        newer.write_bytes(content)
        assert snapshots.latest("world") == (1, b"state 1")
        assert [each.why for each in snapshots.found()] != ["", ""]


def test_one_with_the_name_of_another_is_skipped(tmp_path: Path) -> None:
    snapshots, newer = _two(tmp_path)
    newer.rename(newer.with_name(newer.name.replace("2.snapshot", "9.snapshot")))
    assert snapshots.latest("world") == (1, b"state 1")
    assert [each.why for each in snapshots.skipped] == ["its name does not match offset 2"]


def test_says_what_there_is(tmp_path: Path) -> None:
    snapshots, newer = _two(tmp_path)
    snapshots.save(Offset(7), "other", b"x" * 100)
    newer.write_bytes(b"bandsnap")
    found = [(each.key, each.offset, each.why) for each in snapshots.found()]
    assert found == [
        ("other", 7, ""),
        ("", 2, "it has 8 bytes, fewer than any snapshot"),
        ("world", 1, ""),
    ]
    assert all(each.size_bytes == each.path.stat().st_size for each in snapshots.found())


def test_keeps_the_newest_of_each_key_and_survives_reopening(tmp_path: Path) -> None:
    for at in range(1, 8):
        for key in ("world", "other"):
            FileSnapshots(tmp_path, keep=2).save(Offset(at), key, b"%d" % at)
    again = FileSnapshots(tmp_path)
    assert [(each.key, each.offset) for each in again.found()] == [
        ("other", 7),
        ("other", 6),
        ("world", 7),
        ("world", 6),
    ]
    assert again.latest("world") == (7, b"7")


def test_damaged_ones_do_not_push_out_whole_ones(tmp_path: Path) -> None:
    snapshots = FileSnapshots(tmp_path, keep=2)
    for at in (8, 9):
        snapshots.save(Offset(at), "world", b"later")
    for path in tmp_path.glob("*.snapshot"):
        path.write_bytes(b"")
    assert snapshots.latest("world") is None
    snapshots.save(Offset(3), "world", b"whole")
    assert snapshots.latest("world") == (3, b"whole")


def test_forgetting_takes_damaged_ones_too(tmp_path: Path) -> None:
    snapshots, newer = _two(tmp_path)
    newer.write_bytes(newer.read_bytes()[:-1])
    assert snapshots.latest("world") == (1, b"state 1")
    snapshots.forget(Offset(3))
    assert list(tmp_path.iterdir()) == []
    assert snapshots.skipped == []


def test_keeps_at_least_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep: must be at least 1, got 0"):
        FileSnapshots(tmp_path, keep=0)


def test_what_a_dead_process_left_half_written_is_removed(tmp_path: Path) -> None:
    _, newer = _two(tmp_path)
    partial = newer.with_name(newer.name + ".partial")
    partial.write_bytes(b"half")
    (tmp_path / "precious").write_bytes(b"")
    again = FileSnapshots(tmp_path)
    assert not partial.exists()
    assert (tmp_path / "precious").exists()
    assert again.latest("world") == (2, b"state 2")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """The child's files may not grow beyond a limit."""
    code = """
import resource, sys
from pathlib import Path
from store import *
from store.snapshots import FileSnapshots
snapshots = FileSnapshots(Path(sys.argv[1]))
snapshots.save(Offset(1), "world", b"small")
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
try:
    snapshots.save(Offset(2), "world", b"x" * 1_000_000)
except Full as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print(len(list(Path(sys.argv[1]).iterdir())), snapshots.latest("world"))
snapshots.save(Offset(2), "world", b"x" * 1_000_000)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, cwd=_ROOT
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("a snapshot cannot be written (File too large); nothing was written")
    assert second == "1 (1, b'small')"
    assert FileSnapshots(tmp_path).latest("world") == (2, b"x" * 1_000_000)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_what_fails_under_way_leaves_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    snapshots, _ = _two(tmp_path)

    def failing(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(*((os, call, failing) if call == "fsync" else (Path, call, failing)))
        with pytest.raises(StoreError, match=r"cannot be written \(Input/output error\)"):
            snapshots.save(Offset(3), "world", b"new")
    assert len(list(tmp_path.iterdir())) == 2
    assert snapshots.latest("world") == (2, b"state 2")


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Full, match="cannot be written"):
        FileSnapshots(tmp_path / "file" / "snapshots")
