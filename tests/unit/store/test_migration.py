"""A log of an old format becomes a new one at opening: all or nothing, whenever it is killed."""

from __future__ import annotations

import logging
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bandit_service.testing.log_records import contents, expected, owned, record, records
from loadtest.old_log import OldWriter, as_format_1
from store import Corrupt, Full, Locked, Offset, Record, StoreError, Unsupported, open_to_read
from store import _migrate as migrate
from store.sqlite import SqliteLog

ROOT = Path(__file__).parents[3]


def _old(path: Path, last: int) -> Path:
    """Records of two owners, of which some are trimmed and some erased."""
    log = OldWriter(path)
    log.append([owned(i, "ann" if i % 5 == 0 else "bob") for i in range(1, last + 1)])
    log.forget("ann")
    log.trim(last // 10)
    log.close()
    return path


def _left(last: int) -> list[tuple[int, bytes]]:
    first = last // 10 + 1
    return [(i, b"" if i % 5 == 0 else record(i).body) for i in range(first, last + 1)]


def _format(path: Path) -> int:
    db = sqlite3.connect(path)
    (found,) = db.execute("SELECT format FROM head").fetchone()
    db.close()
    return int(found)


def test_everything_stays_where_it_was(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = _old(tmp_path / "events.db", 1000)
    with caplog.at_level(logging.INFO, "bandit.store"):
        log = SqliteLog(path)
    told = [each.getMessage() for each in caplog.records]
    assert told == ["the log is changed to a new format", "the log has the new format"]
    assert vars(caplog.records[0])["events"] == 1000
    assert vars(caplog.records[0])["bytes"] > 100_000
    assert (log.first, log.last) == (101, 1000)
    assert contents(log, 100) == _left(1000)
    assert log.offset_at(record(500).ts) == 499
    assert log.append([owned(1001, "ann")]) == 1001
    assert log.forget("ann", Offset(1001)) == 1
    assert log.forget("bob", Offset(110)) == 8
    log.close()
    assert _format(path) == 3
    assert {each.name for each in tmp_path.iterdir()} == {path.name}
    assert path.stat().st_mode & 0o077 == 0


def test_ids_stay_unique(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    old = OldWriter(path)
    old.append([Record(eid, "k", 1.0, b"x") for eid in ("b", "import 7", "a", "", "é")])
    old.close()
    log = SqliteLog(path)
    for eid in ("b", "import 7", "a", "", "é"):
        with pytest.raises(Exception, match="already in the log"):
            log.append([Record("new", "k", 1.0, b"x"), Record(eid, "k", 1.0, b"x")])
    log.close()


def test_a_log_of_format_1(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    old = OldWriter(path)
    old.append(records(1, 1000))
    old.close()
    as_format_1(path)
    for last in (1000, 1001):  # also when it is opened the second time
        log = SqliteLog(path)
        assert contents(log) == expected(last)
        log.append([owned(last + 1, "")])
        log.close()


def test_reading_changes_nothing(tmp_path: Path) -> None:
    path = _old(tmp_path / "events.db", 1000)
    for _ in range(2):
        before = path.read_bytes()
        log = open_to_read(path)
        assert (log.last, contents(log, 100)) == (1000, _left(1000))
        with pytest.raises(Unsupported, match="cannot be written: it is of an old format"):
            log.append([record(1001)])
        with pytest.raises(Locked):
            open_to_read(path)
        log.close()
        assert path.read_bytes() == before
        assert {each.name for each in tmp_path.iterdir()} == {path.name}
        Path(f"{path}-wal").unlink(missing_ok=True)


def test_what_only_the_wal_has_comes_along(tmp_path: Path) -> None:
    """As of a service that was killed, and then replaced by a newer version."""
    (tmp_path / "live").mkdir()
    old = OldWriter(tmp_path / "live" / "events.db")
    for first in range(1, 301, 3):
        old.append(records(first, first + 2))
    for each in (tmp_path / "live").iterdir():
        shutil.copy(each, tmp_path)
    old.close()
    assert Path(tmp_path, "events.db-wal").stat().st_size > 100_000
    log = SqliteLog(tmp_path / "events.db")
    assert contents(log) == expected(300)
    log.close()


@pytest.mark.parametrize("offset", [1, 700, 900])
def test_a_damaged_one_is_named_and_stays(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "events.db"
    old = OldWriter(path)
    old.append(records(1, 900))
    old.close()
    content = bytearray(path.read_bytes())
    content[content.index(record(offset).body) + 3] ^= 4
    path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(Corrupt) as found:
            SqliteLog(path)
        assert found.value.offset == offset
        assert path.read_bytes() == bytes(content)


_CHILD = """
import sys
from store import _migrate
from store.sqlite import SqliteLog
_migrate._AT_ONCE = 50
pieces = _migrate._in_pieces
def told(*asked):
    for each in pieces(*asked):
        yield each
        print("copied", flush=True)
_migrate._in_pieces = told
log = SqliteLog(sys.argv[1])
print("done", flush=True)
log.close()
"""


def _killed(path: Path, pieces: int) -> bool:
    """Whether a migration was killed, after so many transactions or a little later."""
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as child:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(pieces)]
        child.send_signal(signal.SIGKILL)
        said += list(child.stdout)
    return "done\n" not in said


def test_killed_at_any_moment_it_is_the_old_log_or_the_new_one(tmp_path: Path) -> None:
    """kill -9, again and again; what was copied is not copied again."""
    path, last, reached = _old(tmp_path / "events.db", 2000), 2000, list[int]()
    for pieces in np.random.default_rng(17).integers(1, 8, 5).tolist():
        assert _killed(path, pieces)
        log = open_to_read(path)
        assert (log.last, contents(log, last // 10)) == (last, _left(last))
        log.close()
        assert _format(path) == 2
        db = sqlite3.connect(migrate.beside(path))
        reached.append(db.execute("SELECT seq FROM head").fetchone()[0])
        db.close()
    assert reached == sorted(set(reached))
    assert reached[-1] > 1000
    log = SqliteLog(path)
    assert contents(log, last // 10) == _left(last)
    assert log.append([record(last + 1)]) == last + 1
    log.close()
    assert {each.name for each in tmp_path.iterdir()} == {path.name}


@pytest.mark.parametrize("step", ["replace", "sync_directory"])
def test_killed_while_the_new_log_takes_the_place(tmp_path: Path, step: str) -> None:
    path = _old(tmp_path / "events.db", 500)
    code = """
import os, sys
from pathlib import Path
from store import _migrate
from store.sqlite import SqliteLog
if sys.argv[2] == "replace":
    Path.replace = lambda *_: os._exit(9)
else:
    _migrate.sync_directory = lambda *_: os._exit(9)
SqliteLog(sys.argv[1])
"""
    done = subprocess.run([sys.executable, "-c", code, path, step], cwd=ROOT, check=False)
    assert done.returncode == 9
    assert _format(path) == (2 if step == "replace" else 3)
    log = SqliteLog(path)
    assert contents(log, 50) == _left(500)
    log.close()


def test_what_was_made_of_another_state_of_the_old_log_is_made_again(tmp_path: Path) -> None:
    """As when an older version ran in between, and erased something."""
    path = _old(tmp_path / "events.db", 500)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrate, "_verify", _fails)
        with pytest.raises(Full, match=r"about \d+ bytes must be free beside it"):
            SqliteLog(path)
    assert record(499).body in migrate.beside(path).read_bytes()
    db = sqlite3.connect(path)
    db.close()
    old = OldWriter.__new__(OldWriter)
    old._db = sqlite3.connect(path, isolation_level=None)
    old.forget("bob")
    old.close()
    log = SqliteLog(path)
    assert {body for _, body in contents(log, 50)} == {b""}
    log.close()
    assert record(499).body not in path.read_bytes()


def _fails(*_: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


def test_a_damaged_beginning_of_the_new_log_is_made_again(tmp_path: Path) -> None:
    path = _old(tmp_path / "events.db", 2000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrate, "_verify", _fails)
        with pytest.raises(Full):
            SqliteLog(path)
    content = bytearray(migrate.beside(path).read_bytes())
    content[content.index(record(1999).body) + 2] ^= 8
    migrate.beside(path).write_bytes(content)
    log = SqliteLog(path)
    assert contents(log, 200) == _left(2000)
    log.close()


def test_a_disk_that_gives_back_something_else_is_not_told_as_a_full_one(tmp_path: Path) -> None:
    path = _old(tmp_path / "events.db", 500)
    before = path.read_bytes()

    def differs(*_: object) -> None:
        raise sqlite3.DatabaseError("its checksum does not match")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrate, "_verify", differs)
        with pytest.raises(StoreError, match="does not hold what was written to it") as found:
            SqliteLog(path)
    assert "must be free" not in str(found.value)
    assert {each.name for each in tmp_path.iterdir()} == {path.name}
    assert path.read_bytes() == before
    log = SqliteLog(path)
    assert contents(log, 50) == _left(500)
    log.close()


@pytest.mark.parametrize("refused", [Locked("new"), Full("new")])
def test_a_new_log_that_cannot_be_held_lets_go_of_the_old_one(
    tmp_path: Path, refused: StoreError
) -> None:
    path = _old(tmp_path / "events.db", 500)

    def held(_: Path) -> None:
        raise refused

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrate, "held", held)
        with pytest.raises(type(refused)):
            SqliteLog(path)
    log = SqliteLog(path)  # while the error, and so the connection, is still there
    assert contents(log, 50) == _left(500)
    log.close()


def test_what_is_left_of_one_that_was_given_up_goes(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    SqliteLog(path).close()
    migrate.beside(path).write_bytes(b"of a log that lay here before")
    SqliteLog(path).close()
    assert {each.name for each in tmp_path.iterdir()} == {path.name}


def test_no_space_leaves_the_old_log(tmp_path: Path) -> None:
    path = _old(tmp_path / "events.db", 3000)
    before = path.read_bytes()
    code = """
import resource, sys
from store import Full
from store.sqlite import SqliteLog
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    SqliteLog(sys.argv[1])
except Full as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "-migrating cannot be written" in done.stdout
    assert "must be free beside it" in done.stdout
    assert path.read_bytes() == before
    log = SqliteLog(path)
    assert contents(log, 300) == _left(3000)
    log.close()
    assert {each.name for each in tmp_path.iterdir()} == {path.name}
