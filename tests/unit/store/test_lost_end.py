"""Evidence that the end of a log is lost: it refuses, says so, keeps all, and can be repaired."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from bandit_service.testing.log_records import contents, expected, record
from store import Corrupt, Offset, Record
from store.salvage import examine, repair, take_place
from store.snapshots import FileSnapshots
from store.sqlite import SqliteLog

LAST = 60


def _killed(directory: Path, *, synced: bool = True) -> Path:
    """What a process leaves that was killed after its last sync: the files as they stand."""
    (directory / "live").mkdir()
    live, path = directory / "live" / "events.db", directory / "events.db"
    log = SqliteLog(live)
    for i in range(1, LAST + 1):
        log.append([record(i)])
    if synced:
        log.sync()
    for each in live.parent.iterdir():
        shutil.copy(each, directory)
    log.close()
    return path


def _files(path: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in path.parent.iterdir() if each.is_file()}


def _refused(path: Path) -> Corrupt:
    """What opening says; nothing may be changed or deleted by it."""
    before = _files(path)
    with pytest.raises(Corrupt) as said:
        SqliteLog(path)
    after = _files(path)
    assert set(before) <= set(after)
    for name in (f"{path.name}-wal", f"{path.name}-synced"):
        assert after.get(name, b"") == before.get(name, b""), name
    return said.value


def _repaired(path: Path) -> list[tuple[int, bytes]]:
    into = path.with_name("new.db")
    repair(path, into)
    take_place(into, path, 1)
    log = SqliteLog(path)
    found = contents(log)
    log.close()
    return found


FRAME = 24 + 4096
FLIPS = [0, 5, 17, 25, 32, 40, 45, 50, 60, 32 + 10 * FRAME + 5, 32 + 20 * FRAME + 4000, -30, -5000]


@pytest.mark.parametrize("at", FLIPS)
@pytest.mark.parametrize("synced", [True, False], ids=["synced", "not synced"])
def test_a_bit_flipped_anywhere_in_the_wal_is_no_shorter_log(
    tmp_path: Path, at: int, synced: bool
) -> None:
    """At 5a5a85b a flipped bit made a log of 6 events out of 95, ready and without a word."""
    path = _killed(tmp_path, synced=synced)
    wal = Path(f"{path}-wal")
    content = bytearray(wal.read_bytes())
    content[at] ^= 0x10
    wal.write_bytes(content)
    if at == -30 and not synced:  # of the very last frame, which a crash may have cut off
        log = SqliteLog(path)
        assert contents(log) == expected(LAST - 1)
        log.close()
        return
    assert "the log is damaged at offset" in str(_refused(path))
    found = dict(_repaired(path))
    whole = dict(expected(LAST))
    assert sum(found.get(i) == whole[i] for i in whole) >= LAST - 1
    assert all(found.get(i, b"") in (whole[i], b"") for i in whole)


def test_any_flipped_bit_of_the_wal_is_refused_or_harmless(tmp_path: Path) -> None:
    path = _killed(tmp_path)
    wal = Path(f"{path}-wal")
    whole, refused = wal.read_bytes(), 0
    for at in np.random.default_rng(1).integers(0, len(whole), 40).tolist():
        content = bytearray(whole)
        content[at] ^= 1 << (at % 8)
        (tmp_path / "one").mkdir()
        copy = tmp_path / "one" / path.name
        for each in (path, Path(f"{path}-synced")):
            shutil.copy(each, copy.parent)
        Path(f"{copy}-wal").write_bytes(content)
        try:
            log = SqliteLog(copy)
        except Corrupt:
            refused += 1
        else:
            assert contents(log) == expected(LAST)
            log.close()
        shutil.rmtree(copy.parent)
    assert refused > 30


@pytest.mark.parametrize("kept", [0, 31, 32, 5000, 32 + 3 * FRAME, 32 + 100 * FRAME, -1, -FRAME])
def test_a_wal_that_was_cut_off_after_a_sync_is_no_shorter_log(tmp_path: Path, kept: int) -> None:
    """At 5a5a85b it was: acknowledged rewards were gone, and nothing said so."""
    path = _killed(tmp_path)
    size = Path(f"{path}-wal").stat().st_size
    os.truncate(f"{path}-wal", kept if kept >= 0 else size + kept)
    said = _refused(path)
    assert f"but {LAST} events were on disk" in said.reason
    assert "-synced" in said.reason
    report = examine(path)
    assert report.last == LAST
    assert report.lost[-1][1] == LAST
    found = dict(_repaired(path))
    assert len(found) == LAST


def test_files_that_are_missing_are_told(tmp_path: Path) -> None:
    path = _killed(tmp_path)
    wal = Path(f"{path}-wal")
    content = wal.read_bytes()
    wal.unlink()
    assert f"but {LAST} events were on disk" in _refused(path).reason
    wal.write_bytes(content)
    path.unlink()
    assert "is missing or empty" in _refused(path).reason
    path.write_bytes(b"")
    assert "is missing or empty" in _refused(path).reason


def test_an_older_log_put_back_on_purpose_opens_once_the_mark_is_away(tmp_path: Path) -> None:
    path = _killed(tmp_path)
    path.write_bytes(b"")
    Path(f"{path}-wal").unlink()
    Path(f"{path}-synced").unlink()
    log = SqliteLog(path)
    assert log.last == 0
    log.close()


@pytest.mark.parametrize("content", [b"", b"x" * 20, b"bandmark" + bytes(12), b"x" * 500])
def test_a_mark_that_is_damaged_itself_is_no_evidence(tmp_path: Path, content: bytes) -> None:
    path = _killed(tmp_path)
    Path(f"{path}-synced").write_bytes(content)
    log = SqliteLog(path)
    assert contents(log) == expected(LAST)
    log.append([record(LAST + 1)])
    assert log.sync() == LAST + 1
    log.close()
    assert SqliteLog(path).last == LAST + 1


def test_frames_of_a_transaction_that_was_not_finished_are_no_evidence(tmp_path: Path) -> None:
    """A disk that was full leaves frames of this salt behind the end, and a kill keeps them."""
    path = tmp_path / "events.db"
    log = SqliteLog(path)
    log.append([record(1)])
    log._db.execute("PRAGMA cache_size=1")
    log._db.execute("PRAGMA cache_spill=1")
    log._db.execute("BEGIN IMMEDIATE")
    for i in range(2, 400):
        row = (i, 1.0, 0, 0, b"", b"", record(i).body * 20)
        log._db.execute(
            "INSERT INTO batch (first, ts, before, crc, marks, gone, content) "
            "VALUES (?,?,?,?,?,?,?)",
            row,
        )
    log._db.execute("ROLLBACK")
    spilled = Path(f"{path}-wal").stat().st_size
    assert spilled > 20 * FRAME
    log.append([record(2)])
    log.sync()
    (tmp_path / "killed").mkdir()
    for each in tmp_path.glob("events.db*"):
        shutil.copy(each, tmp_path / "killed")
    log.close()
    again = SqliteLog(tmp_path / "killed" / "events.db")
    assert contents(again) == expected(2)
    again.close()


def test_frames_of_before_the_wal_began_anew_are_no_evidence(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    log = SqliteLog(path)
    for i in range(1, LAST):
        log.append([record(i)])
    log._db.execute("PRAGMA wal_checkpoint(RESTART)")
    log.append([record(LAST)])
    log.sync()
    (tmp_path / "killed").mkdir()
    for each in tmp_path.glob("events.db*"):
        shutil.copy(each, tmp_path / "killed")
    log.close()
    again = SqliteLog(tmp_path / "killed" / "events.db")
    assert contents(again) == expected(LAST)
    again.close()


def test_what_is_erased_while_it_is_read_is_not_read(tmp_path: Path) -> None:
    """At 5a5a85b replay had read 512 records ahead, and yielded bodies that were gone."""
    log = SqliteLog(tmp_path / "events.db")
    log.append([Record(f"e{i}", "k", float(i), b"body %d" % i, "ann") for i in range(1, 101)])
    reading = log.replay()
    assert next(reading) == (Offset(1), b"body 1")
    assert log.forget("ann", Offset(100)) == 100
    assert {body for _, body in reading} == {b""}
    log.close()


def test_files_are_not_for_other_users(tmp_path: Path) -> None:
    """At 5a5a85b they were 0644 under the usual umask: embeddings for every local user."""
    before = os.umask(0o022)
    try:
        path = tmp_path / "events.db"
        log = SqliteLog(path)
        log.append([record(1)])
        log.sync()
        modes = {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
        log.close()
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(["events.db", "events.db-wal", "events.db-synced"], 0o600)
    path.chmod(0o644)
    SqliteLog(path).close()
    assert path.stat().st_mode & 0o777 == 0o640
    (path.parent / "x").mkdir()
    snapshots = FileSnapshots(path.parent / "x" / "snapshots")
    snapshots.save(Offset(1), "key", b"state")
    (file,) = snapshots.directory.iterdir()
    assert (snapshots.directory.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (
        0o700,
        0o600,
    )
    file.chmod(0o644)
    FileSnapshots(snapshots.directory)
    assert file.stat().st_mode & 0o777 == 0o640


def test_refusing_keeps_what_the_main_file_and_its_wal_hold(tmp_path: Path) -> None:
    path = _killed(tmp_path)
    wal = bytearray(Path(f"{path}-wal").read_bytes())
    wal[32 + 5 * FRAME + 100] ^= 1
    Path(f"{path}-wal").write_bytes(wal)
    for _ in range(3):
        _refused(path)
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] >= 0
    db.close()
