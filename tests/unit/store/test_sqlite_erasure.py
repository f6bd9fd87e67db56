"""What was erased is in no file any more, whatever else was done before and after."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bandit_service.testing.log_records import contents, owned
from loadtest.old_log import OldWriter, as_format_1
from store import Corrupt, Full, Offset, Record
from store.sqlite import SqliteLog

_ROOT = Path(__file__).parents[3]


def _marked(i: int, owner: str, size: int) -> Record:
    return Record(f"e{i}", "decision", float(i), (b"[mark%06d]" % i) * (size // 12 + 1), owner)


def _there(path: Path) -> set[int]:
    """The offsets whose text is somewhere in the files beside `path`."""
    raw = b"".join(each.read_bytes() for each in path.parent.glob(f"{path.name}*"))
    return {int(found) for found in re.findall(rb"\[mark(\d{6})\]", raw)}


@pytest.mark.parametrize("sizes", [(20, 300, 3000, 9000), (1, 13)], ids=["mixed", "tiny"])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_erased_or_trimmed_is_in_no_file(
    tmp_path: Path, seed: int, sizes: tuple[int, ...]
) -> None:
    rng, path = np.random.default_rng(seed), tmp_path / "events.db"
    log, live, owners = SqliteLog(path), set[int](), dict[int, str]()
    for _ in range(25):
        new = [
            _marked(i, f"owner {rng.integers(8)}", int(rng.choice(sizes)))
            for i in range(log.last + 1, log.last + int(rng.integers(2, 150)))
        ]
        log.append(new)
        live |= {int(each.ts) for each in new}
        owners |= {int(each.ts): each.owner for each in new}
        if rng.random() < 0.5:
            log.trim(Offset(log.first + int(rng.integers(300))), most=int(rng.integers(1, 400)))
            live = {i for i in live if i >= log.first}
        owner = f"owner {rng.integers(8)}"
        upto = int(log.last if rng.random() < 0.5 else rng.integers(log.last + 1))
        erased = {i for i in live if owners[i] == owner and i <= upto}
        assert log.forget(owner, Offset(upto)) == len(erased)
        live -= erased
        if erased:
            assert _there(path) == live
    log.forget("owner 0", log.last)
    live = {i for i in live if owners[i] != "owner 0"}
    assert _there(path) == live
    log.close()
    assert _there(path) == live


@pytest.mark.parametrize(("records", "step"), [(1200, 7), (3000, 37)])
def test_trimming_leaves_no_copy_of_what_stays(tmp_path: Path, records: int, step: int) -> None:
    """SQLite moves rows together where others were deleted; what it moved is erased then."""
    log = SqliteLog(tmp_path / "events.db")
    log.append([_marked(i, f"owner {i}", 13) for i in range(1, records + 1)])
    for upto in range(step, records - 100, step):
        log.trim(Offset(upto))
        for i in range(upto + 1, upto + 80, 11):
            log.forget(f"owner {i}", log.last)
    kept = {int(at) for at, body in log.replay(Offset(log.first - 1)) if body}
    assert _there(log.path) == kept
    log.close()


def test_what_was_trimmed_is_gone_with_the_next_erasure_of_its_owner(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "events.db")
    log.append([_marked(1, "ann", 100), _marked(2, "bob", 100)])
    log.trim(Offset(1))
    assert log.forget("ann", Offset(2)) == 0
    assert _there(log.path) == {2}
    log.close()


def test_the_file_that_is_synced_stays_the_one_that_sqlite_writes(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "events.db")
    wal = Path(f"{log.path}-wal")
    for i in range(1, 21, 2):
        log.append([owned(i, "ann", 3000), owned(i + 1, "", 3000)])
        log.forget("ann", log.last)
        assert wal.stat().st_size == 0
        assert os.path.samestat(os.fstat(log._wal), wal.stat())
    assert log.sync() == 20
    shutil.copy(log.path, tmp_path / "copy.db")  # all of it is in the main file
    copy = SqliteLog(tmp_path / "copy.db")
    assert contents(copy) == contents(log)
    copy.close()
    log.close()


def test_syncs_from_another_thread_while_it_erases(tmp_path: Path) -> None:
    log, stop, reached = SqliteLog(tmp_path / "events.db"), threading.Event(), list[int]()

    def syncing() -> None:
        while not stop.is_set():
            reached.append(log.sync())

    with ThreadPoolExecutor() as pool:
        done = pool.submit(syncing)
        try:
            for i in range(1, 301):
                log.append([owned(i, "ann" if i % 2 else "", 3000)])
                if i % 3 == 0:
                    log.forget("ann", Offset(i))
                    log.trim(Offset(i - 20))
        finally:
            stop.set()
        done.result()
    assert reached == sorted(reached)
    assert log.sync() == 300
    assert [int(at) for at, _ in log.replay(Offset(log.first - 1))] == list(range(281, 301))
    log.close()


def test_an_erasure_cut_off_by_a_crash_is_finished_at_opening(tmp_path: Path) -> None:
    """Between the commit and the cutting off of the WAL."""
    path = tmp_path / "events.db"
    code = """
import os, sys
from store import *
from store.sqlite import SqliteLog
from tests.unit.store.test_sqlite_erasure import _marked
log = SqliteLog(sys.argv[1])
log.append([_marked(1, "ann", 100), _marked(2, "", 100)])
log._empty_wal = lambda: os._exit(9)
log.forget("ann", Offset(2))
"""
    done = subprocess.run([sys.executable, "-c", code, path], cwd=_ROOT, check=False)
    assert done.returncode == 9
    assert _there(path) == {1, 2}
    log = SqliteLog(path)
    assert contents(log)[0] == (1, b"")
    assert _there(path) == {2}
    log.close()


def test_an_erasure_that_could_not_be_finished_is_finished_by_the_next(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "events.db")
    log.append([_marked(1, "ann", 100), _marked(2, "", 100)])

    class Failing:
        """A connection that has no space for a checkpoint."""

        def execute(self, statement: str, *values: Any) -> object:
            if "wal_checkpoint" in statement:
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorname = "SQLITE_FULL"
                raise error
            return whole.execute(statement, *values)

        def __getattr__(self, name: str) -> object:
            return getattr(whole, name)

    whole, failing = log._db, Failing()
    db: Any = failing
    log._db = db
    with pytest.raises(
        Full, match="the WAL, which still holds the erased records, cannot be written"
    ):
        log.forget("ann", Offset(2))
    log._db = whole
    assert _there(log.path) == {1, 2}
    assert log.forget("ann", Offset(2)) == 0
    assert _there(log.path) == {2}
    log.close()


def test_trimming_a_file_of_format_1_leaves_nothing_of_it(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    old = OldWriter(path)
    old.append([_marked(i, "", 300) for i in range(1, 1501)])
    old.close()
    as_format_1(path)
    log = SqliteLog(path)
    for upto in range(50, 1500, 50):
        log.trim(Offset(upto))
        log.forget("nobody", log.last)
        assert _there(path) == set(range(upto + 1, 1501))
    log.close()


@pytest.mark.parametrize("of", ["time", "owner"])
def test_an_erasure_in_a_damaged_row_is_refused(tmp_path: Path, of: str) -> None:
    """Else it seals what is damaged as if it were whole, or finds nothing and reports success."""
    path = tmp_path / "events.db"
    log = SqliteLog(path)
    log.append([_marked(1, "bob", 100), _marked(2, "ann", 100), _marked(3, "bob", 100)])
    log.close()
    content = bytearray(path.read_bytes())
    owner = content.index(b"ann[mark000002]")
    content[owner if of == "owner" else owner - len("e2decision") - 24] ^= 1
    path.write_bytes(content)
    log = SqliteLog(path)
    with pytest.raises(Corrupt, match="damaged at offset 2"):
        log.forget("ann", log.last)
    with pytest.raises(Corrupt, match="damaged at offset 2"):
        contents(log)
    log.close()
