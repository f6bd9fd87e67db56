from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from store import Closed, Offset, Snapshots
from store.memory import MemorySnapshots
from store.sqlite import SqliteLog
from tests.unit.store.snapshots_suite import SnapshotsSuite


class TestMemorySnapshots(SnapshotsSuite):
    def make(self, path: Path) -> Snapshots:
        return MemorySnapshots()


class TestSqliteSnapshots(SnapshotsSuite):
    def make(self, path: Path) -> Snapshots:
        return SqliteLog(path)

    def close(self, snapshots: Snapshots) -> None:
        assert isinstance(snapshots, SqliteLog)
        snapshots.close()


def _changed(path: Path, statement: str) -> None:
    db = sqlite3.connect(path)
    db.execute(statement)
    db.commit()
    db.close()


def test_survives_reopening_and_keeps_three(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    log = SqliteLog(path)
    for at in range(1, 8):
        log.save(Offset(at), "world", b"%d" % at)
    log.close()
    log = SqliteLog(path)
    assert log.latest("world") == (7, b"7")
    log.close()
    db = sqlite3.connect(path)
    assert db.execute("SELECT seq FROM snapshot ORDER BY seq").fetchall() == [(5,), (6,), (7,)]
    db.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE snapshot SET body = x'00' WHERE seq = 2",
        "UPDATE snapshot SET body = 'text' WHERE seq = 2",
        "UPDATE snapshot SET checksum = checksum + 1 WHERE seq = 2",
        "UPDATE snapshot SET format = format + 1 WHERE seq = 2",
        "UPDATE snapshot SET body = CAST(x'ff' AS TEXT) WHERE seq = 2",
    ],
)
def test_a_damaged_one_is_skipped(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "events.db"
    log = SqliteLog(path)
    for at in (1, 2):
        log.save(Offset(at), "world", b"%d" % at)
    log.close()
    _changed(path, damage)
    log = SqliteLog(path)
    found = log.latest("world")
    log.close()
    assert found == (1, b"1")


def test_closed_it_refuses(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "events.db")
    log.close()
    with pytest.raises(Closed):
        log.save(Offset(1), "world", b"")
    with pytest.raises(Closed):
        log.latest("world")
