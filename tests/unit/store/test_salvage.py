"""What is saved of damaged files: every record that is as it was written, and no other."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bandit_service.testing.log_records import owned, record, records
from loadtest.old_log import OldWriter, as_format_1
from store import Corrupt, Full, Locked, Offset, StoreError, WrongFormat
from store.salvage import Report, examine, repair, take_place
from store.sqlite import SqliteLog

_ROOT = Path(__file__).parents[3]


def _log(path: Path, last: int, size: int = 200) -> Path:
    log = SqliteLog(path)
    log.append(records(1, last) if size == 20 else [record(i, size) for i in range(1, last + 1)])
    log.close()
    return path


def _old(path: Path, last: int, size: int = 200) -> Path:
    """The same records in a log of format 2."""
    log = OldWriter(path)
    log.append([record(i, size) for i in range(1, last + 1)])
    log.close()
    return path


def _rows_of(path: Path, last: int, each: int) -> Path:
    """The same records in rows of so many."""
    log = SqliteLog(path)
    for first in range(1, last + 1, each):
        log.append([record(i, 200) for i in range(first, min(last, first + each - 1) + 1)])
    log.close()
    return path


both = pytest.mark.parametrize("made", [_log, _old], ids=["per batch", "per record"])
Made = Callable[[Path, int], Path]


def _changed(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def _saved(path: Path) -> tuple[Report, list[bytes]]:
    """Repair beside, check that the damaged file was only read, and read the new log."""
    files = [path, Path(f"{path}-wal")]
    before = [each.read_bytes() for each in files if each.exists()]
    into = path.with_name("new.db")
    into.unlink(missing_ok=True)
    report = repair(path, into)
    assert report == examine(path)
    assert [each.read_bytes() for each in files if each.exists()] == before
    assert {each.name for each in path.parent.iterdir()} <= {
        path.name,
        f"{path.name}-wal",
        into.name,
    }
    log = SqliteLog(into)
    replayed = list(log.replay(Offset(log.first - 1)))
    lost = {at for first, last in report.lost for at in range(first, last + 1)}
    assert (log.first, log.last) == (report.first, report.last)
    assert all(body == b"" for at, body in replayed if at in lost)
    bodies = [body for at, body in replayed if at not in lost]
    assert len(bodies) == report.before + report.after
    assert log.append([record(10_000)]) == report.last + 1
    log.close()
    assert not Path(f"{into}-wal").exists()
    return report, bodies


def _without(last: int, *lost: int, size: int = 200) -> list[bytes]:
    return [record(i, size).body for i in range(1, last + 1) if i not in lost]


@both
def test_of_a_whole_log_it_is_all(tmp_path: Path, made: Made) -> None:
    path = made(tmp_path / "events.db", 2000)
    report, bodies = _saved(path)
    assert report == Report(None, "", Offset(1), Offset(2000), 2000, 0, (), (), 0)
    assert bodies == _without(2000)
    assert not report.gap


def test_an_empty_log(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    SqliteLog(path).close()
    report, bodies = _saved(path)
    assert (report.damaged, report.last, bodies) == (None, 0, [])


@both
@pytest.mark.parametrize("offset", [1, 2, 511, 512, 513, 1000])
def test_a_flipped_bit_loses_one_record(tmp_path: Path, made: Made, offset: int) -> None:
    path = made(tmp_path / "events.db", 1000)
    content = bytearray(path.read_bytes())
    content[content.index(record(offset, 200).body[90:110]) + 9] ^= 1
    path.write_bytes(content)
    report, bodies = _saved(path)
    assert (report.damaged, report.why) == (offset, "its checksum does not match")
    assert (report.before, report.after) == (offset - 1, 1000 - offset)
    assert report.lost == ((offset, offset),)
    assert report.unverifiable == ()
    assert report.gap == (offset < 1000)
    assert bodies == _without(1000, offset)


@pytest.mark.parametrize(
    ("statements", "lost", "unverifiable"),
    [
        (["UPDATE log SET eid = 'other' WHERE seq = 7"], [7], []),
        (["UPDATE log SET ts = 'then' WHERE seq = 7"], [7], []),
        (["UPDATE log SET eid = CAST(x'ff' AS TEXT) WHERE seq = 7"], [7], []),
        (["UPDATE log SET body = x'' WHERE seq = 7"], [7], []),
        (["UPDATE log SET body = x'' WHERE seq = 1"], [1], []),
        (["UPDATE log SET owner = 'ann' WHERE seq = 7"], [7], []),
        (["UPDATE log SET seq = 99 WHERE seq = 7"], [7], []),
        # its content makes the checksum of the next one: only its own was damaged
        (["UPDATE log SET crc = crc + 1 WHERE seq = 7"], [], []),
        (["UPDATE log SET crc = 'x' WHERE seq = 7"], [], []),
        (["UPDATE log SET crc = crc + 1, kind = 'x' WHERE seq = 7"], [7, 8], [8]),
        (["DELETE FROM log WHERE seq = 7"], [7, 8], [8]),
        (["DELETE FROM log WHERE seq = 1"], [1, 2], [2]),
        (["DELETE FROM log WHERE seq = 20"], [20], []),
        (["DELETE FROM log WHERE seq IN (3, 4, 9)"], [3, 4, 5, 9, 10], [5, 10]),
        (["DELETE FROM log WHERE seq > 5"], list(range(6, 21)), []),
        (["UPDATE log SET kind = 'x' WHERE seq IN (7, 8)"], [7, 8], [8]),
        (["UPDATE head SET seq = 12"], [], []),
        (["UPDATE head SET seq = 25"], [], []),
        (["UPDATE head SET seq = 22, crc = 7"], [21, 22], []),
        (["UPDATE head SET seq = 1000000000000"], [], []),
        (["UPDATE head SET crc = crc + 1"], [], []),
        (["UPDATE head SET base = 3"], [], []),
        (["UPDATE head SET base = 'x'"], [], []),
        (["DELETE FROM head"], [], []),
        (["DROP TABLE head", "CREATE TABLE head (format)"], [], []),
    ],
)  # fmt: skip
def test_what_is_not_as_written_is_lost_of_an_old_log(
    tmp_path: Path, statements: list[str], lost: list[int], unverifiable: list[int]
) -> None:
    path = _old(tmp_path / "events.db", 20)
    _changed(path, *statements)
    with pytest.raises(Corrupt):
        _read(path)
    report, bodies = _saved(path)
    assert report.damaged is not None
    assert report.why
    assert [i for first, last in report.lost for i in range(first, last + 1)] == lost
    assert list(report.unverifiable) == unverifiable
    assert report.lost_count == len(lost)
    assert bodies == _without(20, *lost)


def _read(path: Path) -> list[tuple[Offset, bytes]]:
    log = SqliteLog(path)
    try:
        return list(log.replay(Offset(log.first - 1)))
    finally:
        log.close()


def _trimmed_and_erased(path: Path, each: int = 0) -> list[bytes]:
    """40 records, 8 trimmed, every fifth erased; in rows of `each`, or in a log of format 2."""
    whole = [owned(i, "ann" if i % 5 == 0 else "bob", 200) for i in range(1, 41)]
    if each:
        log = SqliteLog(path)
        for at in range(0, 40, each):
            log.append(whole[at : at + each])
        log.trim(Offset(8))
        log.forget("ann", Offset(40))
        log.close()
    else:
        old = OldWriter(path)
        old.append(whole)
        old.trim(8)
        old.forget("ann")
        old.close()
    return [b"" if i % 5 == 0 else record(i, 200).body for i in range(9, 41)]


@pytest.mark.parametrize(
    ("statement", "lost"),
    [
        ("UPDATE log SET kind = 'x' WHERE seq = 12", [12]),
        ("UPDATE log SET kind = 'x' WHERE seq = 15", [15]),
        ("UPDATE log SET kind = 'x' WHERE seq = 9", [9]),
        ("UPDATE log SET kind = 'x' WHERE seq = 8", []),
        ("DELETE FROM log WHERE seq = 14", [14]),  # the erased one after it is sealed
        ("UPDATE head SET base = 3", []),
        ("UPDATE head SET base = 0, base_crc = 7", []),
        ("DELETE FROM head", []),
        ("DELETE FROM log WHERE seq <= 8", []),
    ],
)
def test_what_was_trimmed_and_erased_stays_so_of_an_old_log(
    tmp_path: Path, statement: str, lost: list[int]
) -> None:
    path = tmp_path / "events.db"
    left = _trimmed_and_erased(path)
    _changed(path, statement)
    _stays(path, left, lost)


def _stays(path: Path, left: list[bytes], lost: list[int]) -> None:
    report, bodies = _saved(path)
    assert report.first == 9
    assert [i for first, last in report.lost for i in range(first, last + 1)] == lost
    assert bodies == [body for i, body in enumerate(left, 9) if i not in lost]
    assert report.erased == bodies.count(b"")
    again = SqliteLog(path.with_name("new.db"))
    later = [at for at in range(10, 41) if not {at - 1, at} & {*lost, 9}]
    assert [again.offset_at(record(at).ts) for at in later] == [at - 1 for at in later]
    assert again.forget("ann", Offset(40)) == 0
    assert again.forget("bob", Offset(36)) > 20
    again.close()


_CHANGES = [
    # (what is set of the row, whether that is lost)
    ("content = zeroblob(length(content))", True),
    ("content = (SELECT content FROM batch WHERE first = 10)", True),
    ("content = 'text'", True),
    ("gone = x'00000001'", False),
    ("gone = x''", False),
    ("ts = ts + 1", False),
    ("crc = crc + 1", False),
    ("before = before + 1", False),
    ("marks = zeroblob(12)", False),
    ("marks = x''", True),
    ("before = before + 1, crc = crc + 1", True),
    ("ts = 'then'", True),
]


@pytest.mark.parametrize(("change", "lost"), _CHANGES)
def test_what_is_not_as_written_is_lost(tmp_path: Path, change: str, lost: bool) -> None:
    path = _rows_of(tmp_path / "events.db", 20, 1)
    _changed(path, f"UPDATE batch SET {change} WHERE first = 7")
    _lost(path, [7] if lost else [])


@pytest.mark.parametrize(
    ("statements", "lost"),
    [
        (["DELETE FROM batch WHERE first = 5"], [5, 6, 7, 8]),
        (["DELETE FROM batch WHERE first = 1"], [1, 2, 3, 4]),
        (["DELETE FROM batch WHERE first > 5"], list(range(9, 21))),
        (["UPDATE batch SET first = 2000 WHERE first = 17"], []),
        (["UPDATE batch SET first = 6 WHERE first = 5"], []),
        (["UPDATE batch SET before = 9 WHERE first = 5"], []),
        (["UPDATE batch SET ts = 0.0 WHERE first = 5"], []),
        (["UPDATE batch SET crc = 9 WHERE first = 5"], []),
        (["UPDATE batch SET crc = 9 WHERE first = 17"], []),
        (["UPDATE batch SET marks = zeroblob(48) WHERE first = 5"], []),
        (["UPDATE batch SET gone = zeroblob(15) WHERE first = 5"], []),
        (["UPDATE batch SET gone = CAST(substr(gone, 1, 7) || 'x' || substr(gone, 9) AS BLOB) "
          "WHERE first = 5"], []),
        (["UPDATE batch SET content = substr(content, 1, 600) WHERE first = 5"], [7, 8]),
        (["UPDATE batch SET content = substr(content, 1, 600), marks = zeroblob(48) "
          "WHERE first = 5"], [5, 6, 7, 8]),
        (["UPDATE head SET seq = 12"], []),
        (["UPDATE head SET seq = 25"], []),
        (["UPDATE head SET seq = 22, crc = 7"], [21, 22]),
        (["UPDATE head SET seq = 1000000000000"], []),
        (["UPDATE head SET crc = crc + 1"], []),
        (["UPDATE head SET base = 3"], []),
        (["UPDATE head SET base = 'x'"], []),
        (["DELETE FROM head"], []),
        (["DROP TABLE head", "CREATE TABLE head (format)"], []),
    ],
)  # fmt: skip
def test_so_it_is_of_rows_of_four(tmp_path: Path, statements: list[str], lost: list[int]) -> None:
    path = _rows_of(tmp_path / "events.db", 20, 4)
    _changed(path, *statements)
    _lost(path, lost)


def _lost(path: Path, lost: list[int]) -> None:
    try:
        _read(path)
    except Corrupt:
        damaged = True
    else:
        damaged = False  # what an erasure would have left there is not looked at
    report, bodies = _saved(path)
    assert (report.damaged is not None) == damaged
    assert [i for first, last in report.lost for i in range(first, last + 1)] == lost
    assert report.unverifiable == ()
    assert bodies == _without(20, *lost)


@pytest.mark.parametrize("each", [1, 3, 40])
@pytest.mark.parametrize(
    ("statement", "lost"),
    [
        ("UPDATE head SET base = 3", []),
        ("UPDATE head SET base = 0, base_crc = 7", []),
        ("DELETE FROM head", []),
        ("UPDATE batch SET ts = ts + 1 WHERE first > 8", []),
        ("UPDATE batch SET before = before + 1", []),
    ],
)
def test_what_was_trimmed_and_erased_stays_so(
    tmp_path: Path, statement: str, lost: list[int], each: int
) -> None:
    path = tmp_path / "events.db"
    left = _trimmed_and_erased(path, each)
    _changed(path, statement)
    _stays(path, left, lost)


@pytest.mark.parametrize("seq", [9, 12, 15, 40])
def test_a_flipped_bit_beside_what_was_trimmed_and_erased(tmp_path: Path, seq: int) -> None:
    path = tmp_path / "events.db"
    left = _trimmed_and_erased(path, 10)
    eid = record(seq).eid.encode()
    content = bytearray(path.read_bytes())
    content[content.index(eid + record(seq).kind.encode())] ^= 1
    path.write_bytes(content)
    _stays(path, left, [seq])


@both
@pytest.mark.parametrize("at", [0.2, 0.5, 0.9])
def test_a_truncated_main_file(tmp_path: Path, made: Made, at: float) -> None:
    path = made(tmp_path / "events.db", 1000)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * at) // 4096 * 4096])
    report, bodies = _saved(path)
    assert report.damaged is not None
    assert report.before > 1000 * at * 0.6
    assert bodies[: report.before] == _without(report.before)
    assert set(bodies) <= set(_without(1000))
    assert report.before + report.after + report.lost_count == 1000


@both
def test_a_torn_last_page(tmp_path: Path, made: Made) -> None:
    path = made(tmp_path / "events.db", 1000)
    content = path.read_bytes()
    path.write_bytes(content[:-1500] + bytes(1500))
    report, bodies = _saved(path)
    assert report.before + report.after + report.lost_count == 1000
    assert set(bodies) <= set(_without(1000))


@both
@pytest.mark.parametrize("page", [5, 20, 31])
def test_a_page_of_zeros_in_the_middle(tmp_path: Path, made: Made, page: int) -> None:
    path = made(tmp_path / "events.db", 1000)
    content = bytearray(path.read_bytes())
    content[page * 4096 : (page + 1) * 4096] = bytes(4096)
    path.write_bytes(content)
    report, bodies = _saved(path)
    kept = set(bodies)
    assert len(kept) > 900
    assert kept <= set(_without(1000))
    assert report.before + report.after + report.lost_count == 1000


def test_any_flipped_byte_gives_nothing_that_was_not_written(tmp_path: Path) -> None:
    path = _log(tmp_path / "events.db", 120, size=20)
    whole, written = path.read_bytes(), _without(120, size=20)
    kept = list[int]()
    for at in np.random.default_rng(1).integers(0, len(whole), 60).tolist():
        content = bytearray(whole)
        content[at] ^= 1 << (at % 8)
        path.write_bytes(content)
        try:
            report, bodies = _saved(path)
        except WrongFormat:
            continue
        assert bodies == [body for body in written if body in set(bodies)]
        assert report.lost_count >= 120 - len(bodies) or report.last < 120
        kept.append(len(bodies))
    assert sum(count >= 118 for count in kept) > 50


def test_a_wal_cut_off_while_the_main_file_is_ahead(tmp_path: Path) -> None:
    """What no crash leaves, but a copy of the files at two moments may."""
    path = tmp_path / "events.db"
    log = SqliteLog(path)
    for first in range(1, 401, 10):
        log.append([record(i, 200) for i in range(first, first + 10)])
    log._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
    (tmp_path / "x").mkdir()
    copy, wal = tmp_path / "x" / "events.db", Path(f"{path}-wal").read_bytes()
    copy.write_bytes(path.read_bytes())
    log.close()
    Path(f"{copy}-wal").write_bytes(wal[: len(wal) // 2])
    report, bodies = _saved(copy)
    assert bodies == _without(len(bodies))
    assert len(bodies) + report.lost_count <= 400


@pytest.mark.parametrize("content", [b"", b"not a database at all", b"x" * 10_000])
def test_of_what_is_no_log_nothing_is_saved(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "events.db"
    path.write_bytes(content)
    report = examine(path)
    assert (report.before, report.after) == (0, 0)
    assert path.read_bytes() == content


def test_a_log_of_another_format_is_not_damaged(tmp_path: Path) -> None:
    path = _log(tmp_path / "events.db", 3)
    _changed(path, "UPDATE head SET format = 4")
    with pytest.raises(WrongFormat):
        examine(path)


def test_a_log_of_format_1(tmp_path: Path) -> None:
    path = _old(tmp_path / "events.db", 30)
    as_format_1(path)
    _changed(path, "UPDATE log SET kind = 'x' WHERE seq = 4")
    report, bodies = _saved(path)
    assert (report.damaged, report.lost) == (4, ((4, 4),))
    assert bodies == _without(30, 4)


@pytest.mark.parametrize(
    "call",
    [examine, lambda path: repair(path, path.with_name("new.db")),
     lambda path: take_place(path, path, 1)],
    ids=["examine", "repair", "take_place"],
)  # fmt: skip
def test_refuses_a_log_that_another_process_has_open(
    tmp_path: Path, call: Callable[[Path], object]
) -> None:
    path = _log(tmp_path / "events.db", 3)
    code = """
import sys
from store.sqlite import SqliteLog
log = SqliteLog(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
log.close()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=_ROOT,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        with pytest.raises(Locked, match="is open in another process"):
            call(path)
    call(path)


def test_other_processes_are_kept_out_meanwhile(tmp_path: Path) -> None:
    from store._disk import held

    path = _log(tmp_path / "events.db", 3)
    code = "import sys; from store.sqlite import SqliteLog; SqliteLog(sys.argv[1]).close()"
    with held(path):
        done = subprocess.run(
            [sys.executable, "-c", code, path], capture_output=True, text=True, cwd=_ROOT
        )
    assert "store.errors.Locked" in done.stderr


def test_it_takes_the_place_of_the_damaged_one(tmp_path: Path) -> None:
    path, new = _log(tmp_path / "events.db", 9), _log(tmp_path / "new.db", 5)
    Path(f"{path}-wal").write_bytes(b"old")
    damaged = path.read_bytes()
    kept = take_place(new, path, 2)
    assert kept == tmp_path / "events.db.damaged-2"
    assert kept.read_bytes() == damaged
    assert Path(f"{kept}-wal").read_bytes() == b"old"
    assert {each.name for each in tmp_path.iterdir()} == {path.name, kept.name, f"{kept.name}-wal"}
    assert [body for _, body in _read(path)] == _without(5)


def test_a_kill_before_it_is_in_its_place_leaves_no_shorter_log_that_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, path = SqliteLog(tmp_path / "open.db"), tmp_path / "events.db"
    log.append(records(1, 9))
    log.sync()
    for ending in ("", "-wal", "-synced"):  # as a kill leaves them: all records are in the WAL
        shutil.copy(f"{log.path}{ending}", f"{path}{ending}")
    log.close()
    repaired = tmp_path / "new.db"
    repair(path, repaired)

    def killed(*_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            take_place(repaired, path, 1)
    with pytest.raises(Corrupt, match="it ends at 0, but 9 events were on disk"):
        SqliteLog(path)
    take_place(repaired, path, 2)
    assert len(_read(path)) == 9


def test_writes_over_nothing(tmp_path: Path) -> None:
    path, other = _log(tmp_path / "events.db", 9), tmp_path / "new.db"
    other.write_bytes(b"precious")
    with pytest.raises(Full, match="already exists"):
        repair(path, other)
    assert other.read_bytes() == b"precious"


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        examine(tmp_path / "none.db")
