from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bandit_service.testing.log_records import contents, expected, owned, record, records
from store import Closed, Corrupt, Full, Locked, Offset, Record, WrongFormat
from store.sqlite import SqliteLog


def _copy(source: Path, target: Path, wal: int) -> None:
    """What a crash could leave: the file, and the first `wal` bytes of what was written ahead."""
    shutil.copy(source, target)
    content = Path(f"{source}-wal").read_bytes()
    Path(f"{target}-wal").write_bytes(content[:wal])


def test_a_torn_wal_leaves_a_gapless_prefix(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    log = SqliteLog(path)
    for first in range(1, 201, 4):
        log.append(records(first, first + 3))
    size, reached = Path(f"{path}-wal").stat().st_size, []
    moments = sorted(np.random.default_rng(1).integers(0, size, 25).tolist())
    for i, at in enumerate([0, 1, 31, 32, *moments, size]):
        _copy(path, tmp_path / f"{i}.db", at)
        copy = SqliteLog(tmp_path / f"{i}.db")
        reached.append(int(copy.last))
        assert contents(copy) == expected(copy.last)
        assert copy.append([record(10_000)]) == reached[-1] + 1
        copy.close()
    log.close()
    assert reached == sorted(reached)
    assert all(last % 4 == 0 for last in reached)
    assert len(set(reached)) > 10
    assert (reached[0], reached[-1]) == (0, 200)


def _closed(path: Path, last: int, each: int = 1000) -> Path:
    log = SqliteLog(path)
    for first in range(1, last + 1, each):
        log.append(records(first, min(last, first + each - 1)))
    log.close()
    return path


def _changed(path: Path, statement: str, *values: bytes) -> None:
    db = sqlite3.connect(path)
    db.execute(statement, values)
    db.commit()
    db.close()


def _asked(path: Path, query: str) -> Any:
    db = sqlite3.connect(path)
    found = db.execute(query).fetchone()
    db.close()
    return found


def test_a_head_that_is_lost_is_not_made_again(tmp_path: Path) -> None:
    """A repair would trust it."""
    path = _closed(tmp_path / "events.db", 10)
    Path(f"{path}-synced").unlink(missing_ok=True)
    _changed(path, "DELETE FROM head")
    with pytest.raises(Corrupt, match="the row that holds the end of the log is damaged"):
        SqliteLog(path)
    assert _asked(path, "SELECT count(*) FROM head") == (0,)


def _damage(path: Path) -> int:
    """The offset that opening or replaying names."""
    with pytest.raises(Corrupt, match="the log is damaged at offset") as found:
        _opened_and_replayed(path)
    return found.value.offset


def _opened_and_replayed(path: Path) -> list[tuple[int, bytes]]:
    log = SqliteLog(path)
    try:
        return contents(log, log.first - 1)
    finally:
        log.close()


@pytest.mark.parametrize("offset", [1, 2, 255, 511, 512, 513, 700, 899, 900])
@pytest.mark.parametrize("at", [0, 10, 19])
def test_a_flipped_byte_is_named(tmp_path: Path, offset: int, at: int) -> None:
    path = _closed(tmp_path / "events.db", 900)
    content = bytearray(path.read_bytes())
    assert content.count(record(offset).body) == 1
    content[content.index(record(offset).body) + at] ^= 0x40
    path.write_bytes(content)
    assert _damage(path) == offset


def test_any_flipped_byte_of_a_record_is_an_error_or_harmless(tmp_path: Path) -> None:
    """Lengths, types, ids and times too, whatever that does to the file's structure."""
    path = _closed(tmp_path / "events.db", 40)
    whole, named = path.read_bytes(), list[int]()
    middle = whole.index(record(20).body)
    for at in range(middle - 40, middle + 20):
        content = bytearray(whole)
        content[at] ^= 1 << (at % 8)
        path.write_bytes(content)
        try:
            assert _opened_and_replayed(path) == expected(40)
        except Corrupt as error:
            named.append(error.offset)
    # what lies before and after it in the page belongs to its neighbours
    assert set(named) <= {0, 19, 20, 21}
    assert len(named) >= 50


_HEAD = [
    ("DELETE FROM head", 0),
    ("UPDATE head SET seq = 12", 11),
    ("UPDATE head SET seq = 8", 9),
    ("UPDATE head SET crc = crc + 1", 10),
    ("UPDATE head SET base = 3", 4),
    ("UPDATE head SET base = -1", 1),
    ("UPDATE head SET base = 11", 11),
    ("UPDATE head SET base_crc = 1", 1),
    ("UPDATE head SET base = 'x'", 0),
    ("UPDATE head SET crc = 'x'", 0),
]


@pytest.mark.parametrize(
    ("statement", "offset"),
    [
        *((f"UPDATE batch SET {change} WHERE first = 7", 7) for change in (
            "content = 'text'",
            "content = x''",
            "content = zeroblob(length(content))",
            "content = (SELECT content FROM batch WHERE first = 8)",
            "ts = 'then'",
            "ts = ts + 1",
            "crc = crc + 1",
            "crc = 'text'",
            "before = before + 1",
            "before = 'text'",
            "marks = 'text'",
            "marks = x''",
            "marks = x'00'",
            "marks = zeroblob(12)",
            "marks = zeroblob(24)",
            "gone = 'text'",
            "gone = x''",
            "gone = x'00000001'",
            "(crc, marks) = (SELECT crc, marks FROM batch WHERE first = 8)",
            "(before, crc, marks, content) = (SELECT before, crc, marks, content FROM batch "
            "WHERE first = 8)",
        )),
        ("DELETE FROM batch WHERE first = 7", 7),
        ("DELETE FROM batch WHERE first > 7", 8),
        ("DELETE FROM batch", 1),
        ("UPDATE batch SET first = 11 WHERE first = 10", 11),
        *_HEAD,
    ],
)  # fmt: skip
def test_whatever_is_not_as_written_is_named(tmp_path: Path, statement: str, offset: int) -> None:
    path = _closed(tmp_path / "events.db", 10, each=1)
    _changed(path, statement)
    assert _damage(path) == offset


@pytest.mark.parametrize(
    ("statement", "offset"),
    [
        ("UPDATE batch SET ts = ts + 1 WHERE first = 4", 4),
        ("UPDATE batch SET first = 5 WHERE first = 4", 4),
        ("UPDATE batch SET before = 7 WHERE first = 4", 4),
        ("UPDATE batch SET marks = substr(marks, 1, 24) WHERE first = 4", 4),
        ("UPDATE batch SET gone = substr(gone, 1, 8) WHERE first = 4", 4),
        ("UPDATE batch SET gone = x'000000000000000100000000' WHERE first = 4", 5),
        ("UPDATE batch SET content = substr(content, 1, length(content) - 1) WHERE first = 4", 6),
        ("UPDATE batch SET content = CAST(substr(content, 1, 100) || 'x' AS BLOB) "
         "WHERE first = 4", 5),
        ("DELETE FROM batch WHERE first = 4", 4),
        *_HEAD,
    ],
)  # fmt: skip
def test_so_it_is_in_rows_of_three(tmp_path: Path, statement: str, offset: int) -> None:
    path = _closed(tmp_path / "events.db", 10, each=3)
    _changed(path, statement)
    assert _damage(path) == offset


def _trimmed_and_erased(path: Path, each: int) -> Path:
    """Ten records, four of them trimmed, and an owner's erased."""
    log = SqliteLog(path)
    whole = [owned(i, "ann" if i in (6, 7, 8) else "") for i in range(1, 11)]
    for at in range(0, 10, each):
        log.append(whole[at : at + each])
    log.trim(Offset(4))
    log.forget("ann", Offset(9))
    log.close()
    return path


@pytest.mark.parametrize(
    ("statement", "offset"),
    [
        ("UPDATE batch SET ts = ts + 1 WHERE first = 7", 7),
        ("UPDATE batch SET crc = crc + 1 WHERE first = 7", 7),
        ("UPDATE batch SET content = x'' WHERE first = 7", 7),
        ("UPDATE batch SET content = zeroblob(length(content)) WHERE first = 7", 7),
        ("UPDATE batch SET gone = (SELECT gone FROM batch WHERE first = 8) WHERE first = 7", 7),
        ("UPDATE batch SET gone = x'00000000' WHERE first = 7", 7),
        ("UPDATE batch SET gone = x'00000001' WHERE first = 5", 5),
        ("DELETE FROM batch WHERE first = 7", 7),
        ("DELETE FROM batch WHERE first = 5", 5),
        ("DELETE FROM batch", 5),
        ("UPDATE head SET base = 3", 4),
        ("UPDATE head SET base = 5", 6),
        ("UPDATE head SET base = 0, base_crc = 0", 1),
        ("UPDATE head SET base_crc = base_crc + 1", 5),
        ("UPDATE batch SET crc = crc + 1 WHERE first = 4", 5),
    ],
)
def test_so_it_is_in_a_log_that_was_trimmed_and_erased(
    tmp_path: Path, statement: str, offset: int
) -> None:
    path = _trimmed_and_erased(tmp_path / "events.db", each=1)
    _changed(path, statement)
    assert _damage(path) == offset


@pytest.mark.parametrize(
    ("statement", "offset"),
    [
        ("UPDATE head SET base = 3", 4),
        ("UPDATE head SET base = 5", 6),
        ("UPDATE head SET base = 0, base_crc = 0", 1),
        ("UPDATE head SET base = 10, base_crc = crc", 10),
        ("UPDATE head SET base_crc = base_crc + 1", 5),
        ("UPDATE batch SET gone = zeroblob(40)", 6),
        ("UPDATE batch SET ts = ts - 1", 5),
    ],
)
def test_so_it_is_where_the_cut_is_inside_a_row(
    tmp_path: Path, statement: str, offset: int
) -> None:
    path = _trimmed_and_erased(tmp_path / "events.db", each=10)
    assert [body == b"" for _, body in _opened_and_replayed(path)] == [
        False, True, True, True, False, False
    ]  # fmt: skip
    _changed(path, statement)
    if offset == 10:  # everything is said to be trimmed, and a row says that it is not
        assert _opened_and_replayed(path) == []
        return
    assert _damage(path) == offset


def test_any_flipped_bit_of_a_row_that_was_trimmed_and_erased(tmp_path: Path) -> None:
    """It is named, or it is where the zeros are that took the place of what is gone."""
    path = _trimmed_and_erased(tmp_path / "events.db", each=10)
    (content,) = _asked(path, "SELECT content FROM batch")
    whole, named = _opened_and_replayed(path), list[int]()
    for at in range(0, len(content), 3):
        changed = bytearray(content)
        changed[at] ^= 1 << (at % 8)
        _changed(path, "UPDATE batch SET content = ?", bytes(changed))
        try:
            assert _opened_and_replayed(path) == whole
            assert content[at] == 0
        except Corrupt as error:
            named.append(error.offset)
    assert sorted(set(named)) == [5, 6, 7, 8, 9, 10]


def test_replaying_after_an_offset_that_is_missing(tmp_path: Path) -> None:
    log = SqliteLog(_closed(tmp_path / "events.db", 10))
    with pytest.raises(Corrupt) as found:
        list(log.replay(Offset(11)))
    log.close()
    assert found.value.offset == 11


@pytest.mark.parametrize("content", [b"not a database at all", b"x" * 10_000])
def test_refuses_what_is_not_sqlite(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "events.db"
    path.write_bytes(content)
    assert _damage(path) == 0
    assert path.read_bytes() == content


def test_leaves_the_database_of_another_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    _changed(path, "CREATE TABLE precious (x)")
    before = path.read_bytes()
    with pytest.raises(Corrupt, match="is a database, not an event log"):
        SqliteLog(path)
    assert path.read_bytes() == before


def test_leaves_a_log_of_another_format_alone(tmp_path: Path) -> None:
    path = _closed(tmp_path / "events.db", 3)
    _changed(path, "UPDATE head SET format = 4, epoch = 77")
    before = path.read_bytes()
    with pytest.raises(WrongFormat, match="has format 4, this version reads 3"):
        SqliteLog(path)
    assert path.read_bytes() == before


def _child(code: str, *arguments: object) -> list[str]:
    before = "import sys; from store import *; from store.sqlite import SqliteLog\n"
    return [sys.executable, "-c", before + code, *map(str, arguments)]


_ROOT = Path(__file__).parents[3]


def test_a_second_opener_is_told_at_once(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "events.db")
    code = """
import time
begun = time.monotonic()
try:
    SqliteLog(sys.argv[1])
except Locked as error:
    print(time.monotonic() - begun, error)
"""
    done = subprocess.run(
        _child(code, log.path), check=True, capture_output=True, text=True, cwd=_ROOT
    )
    seconds, message = done.stdout.split(" ", 1)
    assert float(seconds) < 4.0  # SQLite itself would wait for five
    assert str(log.path) in message
    with pytest.raises(Locked, match="is open in another process"):
        SqliteLog(log.path)
    assert log.append([record(1)]) == 1
    log.close()


def test_the_lock_of_a_killed_process_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    code = """
log = SqliteLog(sys.argv[1])
log.append([Record("e1", "decision", 1.0, b"x")])
print("open", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        _child(code, path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_ROOT
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        with pytest.raises(Locked):
            SqliteLog(path)
        child.send_signal(signal.SIGKILL)
        child.wait()
    log = SqliteLog(path)
    assert contents(log) == [(1, b"x")]
    log.close()


def test_a_full_disk_refuses_and_writes_nothing(tmp_path: Path) -> None:
    """The child's files may not grow beyond a limit, which is then lifted."""
    path = tmp_path / "events.db"
    code = """
import resource
from bandit_service.testing.log_records import records, contents, expected
log = SqliteLog(sys.argv[1])
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
last, refused = 0, 0
while refused < 3:
    try:
        last = log.append(records(last + 1, last + 50))
    except Full as error:
        assert "nothing was written" in str(error)
        assert log.last == last, (log.last, last)
        refused += 1
assert contents(log) == expected(last)
assert log.sync() == last
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert log.append(records(last + 1, last + 50)) == last + 50
assert contents(log) == expected(last + 50)
log.close()
print(last)
"""
    done = subprocess.run(_child(code, path), capture_output=True, text=True, cwd=_ROOT)
    assert done.returncode == 0, done.stderr
    last = int(done.stdout)
    assert last >= 100
    log = SqliteLog(path)
    assert contents(log) == expected(last + 50)
    log.close()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 300_000


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Full, match="cannot be opened"):
        SqliteLog(tmp_path / "none" / "events.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write in a read-only directory")
def test_a_directory_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(Full):
            SqliteLog(tmp_path / "events.db")
    finally:
        tmp_path.chmod(0o700)


def test_a_failed_sync_breaks_it_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = SqliteLog(tmp_path / "events.db")
    log.append(records(1, 3))

    def failing(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing)
        with pytest.raises(Closed, match=r"could not be made durable \(Input/output error\)"):
            log.sync()
    calls: list[Callable[[], object]] = [
        log.sync,
        lambda: log.append([record(4)]),
        lambda: list(log.replay()),
        lambda: log.forget("ann", Offset(1)),
        lambda: log.trim(Offset(1)),
        lambda: log.size_bytes,
    ]
    for call in calls:
        with pytest.raises(Closed, match="open it again"):
            call()
    log.close()
    log = SqliteLog(log.path)
    assert contents(log) == expected(3)
    log.close()


class Failing:
    """A connection on which one kind of statement fails, as SQLite says it."""

    def __init__(self, db: sqlite3.Connection, statement: str, errorname: str) -> None:
        self._db, self._statement, self._errorname = db, statement, errorname

    def execute(self, statement: str, *values: Any) -> object:
        if statement.startswith(self._statement):
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = self._errorname
            raise error
        return self._db.execute(statement, *values)

    def __getattr__(self, name: str) -> object:
        return getattr(self._db, name)


def _failing(log: SqliteLog, statement: str, errorname: str) -> None:
    db: Any = Failing(log._db, statement, errorname)
    log._db = db


def test_a_commit_that_cannot_be_synced_breaks_it(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "events.db")
    log.append(records(1, 3))
    _failing(log, "COMMIT", "SQLITE_IOERR_FSYNC")
    with pytest.raises(Closed, match=r"could not be made durable \(disk I/O error\)"):
        log.append([record(4)])
    with pytest.raises(Closed, match="open it again"):
        log.sync()
    log.close()
    assert _opened_and_replayed(log.path) == expected(3)


@pytest.mark.parametrize(
    "call",
    [
        lambda log: log.append([record(2)]),
        lambda log: log.trim(Offset(1)),
        lambda log: log.forget("ann", Offset(1)),
    ],
    ids=["append", "trim", "forget"],
)
def test_a_commit_that_fails_otherwise_may_be_tried_again(
    tmp_path: Path, call: Callable[[SqliteLog], object]
) -> None:
    log = SqliteLog(tmp_path / "events.db")
    log.append([owned(1, "ann")])
    whole = log._db
    _failing(log, "COMMIT", "SQLITE_IOERR_WRITE")
    with pytest.raises(Full, match="nothing was written"):
        call(log)
    log._db = whole
    assert contents(log) == expected(1)
    assert log.append([record(2)]) == log.sync() == 2
    log.close()
    assert _opened_and_replayed(log.path) == expected(2)


@pytest.mark.parametrize(
    ("errorname", "breaks"), [("SQLITE_IOERR_FSYNC", True), ("SQLITE_FULL", False)]
)
def test_a_checkpoint_that_fails(tmp_path: Path, errorname: str, breaks: bool) -> None:
    """The append before it stands; a failed fsync is told by the next call."""
    log = SqliteLog(tmp_path / "events.db")
    _failing(log, "PRAGMA wal_checkpoint", errorname)
    large = [record(i, 8000) for i in range(1, 601)]
    assert log.append(large) == 600
    if breaks:
        with pytest.raises(Closed, match="could not be made durable"):
            log.sync()
    else:
        assert log.sync() == 600
        assert log.append(records(601, 602)) == 602
    log.close()
    assert _opened_and_replayed(log.path) == [
        *((i, each.body) for i, each in enumerate(large, 1)),
        *([] if breaks else expected(602, 600)),
    ]


def test_what_cannot_be_written_leaves_no_transaction_open(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "events.db")
    with pytest.raises(UnicodeEncodeError):
        log.append([record(1), Record("\ud800", "decision", 1.0, b"x")])
    assert log.append([record(1)]) == 1
    log.close()


def test_what_is_synced_is_the_file_that_sqlite_writes(tmp_path: Path) -> None:
    """After many checkpoints, and when the file is opened again, too."""
    path = tmp_path / "events.db"
    for _ in range(2):
        log = SqliteLog(path)
        before = path.stat().st_size
        for _ in range(30):
            last = int(log.last)
            log.append([record(i, 20_000) for i in range(last + 1, last + 51)])
        assert path.stat().st_size > before + 10_000_000  # so there were checkpoints
        assert os.path.samestat(os.fstat(log._wal), Path(f"{path}-wal").stat())
        log.close()
        assert not Path(f"{path}-wal").exists()


def test_one_sync_is_one_fdatasync_and_an_append_is_none_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, synced = SqliteLog(tmp_path / "events.db"), list[int]()
    monkeypatch.setattr(os, "fdatasync", synced.append)
    for i in range(1, 20):
        log.append([record(i)])
    assert synced == []
    log.sync()
    assert synced == [log._wal]
    log.close()
