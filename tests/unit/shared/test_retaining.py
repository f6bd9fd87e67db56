"""What the keeper orders of old records, and what a replica does that was away when they went."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bandit_service.core.retention import Retention
from bandit_service.runtime.maintenance import Maintenance
from bandit_service.runtime.shared import retaining
from bandit_service.runtime.shared.checkpoint import Checkpoint, Place
from bandit_service.runtime.shared.copying import OtherLog, copied
from bandit_service.runtime.shared.retaining import SharedRetention
from bandit_service.runtime.shared.writer import SharedWriter
from bandit_service.testing.log_records import contents, expected, record, records
from store import Duplicate, Entry, Offset, Trimmed
from store.memory import MemoryLog
from store.sqlite import SqliteLog
from tests.unit.shared.memory import HANG_S, Engine, MemoryShared, Running

LATER = 1e10


@dataclass
class _World:
    building: bool = False
    retention: Retention = field(default_factory=Retention)


class _Keeper:
    """As much of a writer as is asked; an event is applied at once."""

    def __init__(self, log: MemoryLog) -> None:
        self.log, self.world = log, _World()
        self.membership = SimpleNamespace(keeps=True)

    def now(self) -> float:
        return 5.0

    async def submit(self, prepare: Any, key: str) -> Any:
        assert key == "catalogue"
        if (event := prepare()) is not None:
            self.world.retention._order(event, cast(Any, None))
        return event


class _Maintenance:
    """limit: up to where the rules say. trimmed: what was deleted of the copy."""

    key = "key"
    retaining: Any = None

    def __init__(self, log: MemoryLog) -> None:
        self.limit, self._log = 0, log

    def beyond_the_limits(self) -> int:
        return self.limit

    async def trim_copy(self, upto: Offset) -> None:
        while self._log.trim(upto):
            pass


@pytest.fixture
def parts(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> tuple[SharedRetention, _Keeper, _Maintenance]:
    monkeypatch.setattr(retaining, "_EVERY_S", 0.0)
    log = MemoryLog()
    log.append(records(1, 1000))
    writer, maintenance = _Keeper(log), _Maintenance(log)
    made = SharedRetention(
        cast(SharedWriter, writer), cast(Maintenance, maintenance), MemoryShared(engine), 0.0
    )
    return made, writer, maintenance


@pytest.mark.parametrize(
    ("limit", "snapshots", "ordered"),
    [
        (500, {("key", 700): b"x"}, 500),
        (500, {("key", 300): b"x", ("key", 700): b"x"}, 300),  # any of them may be begun from
        (500, {}, 0),
        (500, {("other", 700): b"x"}, 0),
        (500, {("key", 600): b"x", ("key", 700): b""}, 0),  # the newest is damaged
        (9, {("key", 700): b"x"}, 0),  # it waits until it is worth an event
        (10, {("key", 700): b"x"}, 10),
        (0, {("key", 700): b"x"}, 0),
    ],
)
async def test_nothing_goes_that_no_snapshot_covers(
    parts: tuple[SharedRetention, _Keeper, _Maintenance],
    engine: Engine,
    limit: int,
    snapshots: dict[tuple[str, Offset], bytes],
    ordered: int,
) -> None:
    made, writer, maintenance = parts
    maintenance.limit, engine.kept = limit, snapshots
    if b"" in snapshots.values():
        with pytest.raises(Exception, match="planted"):
            await made.look()
    else:
        await made.look()
    assert writer.world.retention.upto == ordered
    assert (writer.log.first, engine.base) == (1, 0)
    engine.kept = {}
    await made.look()
    assert (writer.log.first, engine.base) == (ordered + 1, ordered)


async def test_what_must_not_be_ordered_is_not(
    parts: tuple[SharedRetention, _Keeper, _Maintenance], engine: Engine
) -> None:
    made, writer, maintenance = parts
    maintenance.limit, engine.kept = 500, {("key", Offset(700)): b"x"}
    writer.membership.keeps = False
    await made.look()
    writer.membership.keeps, writer.world.building = True, True
    await made.look()
    writer.world.building = False
    made._keep_s = LATER  # all records are younger
    await made.look()
    assert writer.world.retention.upto == 0
    made._keep_s = 0.0
    await made.look()
    assert writer.world.retention.upto == 500


async def test_the_shared_log_waits_for_open_replicas_that_have_not_applied_it(
    parts: tuple[SharedRetention, _Keeper, _Maintenance], engine: Engine
) -> None:
    made, writer, _ = parts
    slow = MemoryShared(engine)
    await slow.join("slow", "key")
    await slow.beat(0.0, 499)
    writer.world.retention.upto = 500
    await made.look()
    assert (writer.log.first, engine.base) == (501, 0)
    await slow.beat(0.0, 500)
    await made.look()
    assert engine.base == 500


async def test_a_replica_that_was_away_ends_and_does_not_append_again_what_went(
    engine: Engine, tmp_path: Path
) -> None:
    two = await Running(engine, tmp_path / "two").start()
    await two.put_an_arm()
    one = await Running(engine, tmp_path / "one").start()
    engine.down = True
    gone = await one.decide(0)
    engine.base = len(engine.records) + 1
    engine.records.append((record(1), b"", b"chain"))
    engine.down = False
    async with asyncio.timeout(HANG_S):
        why = await asyncio.shield(one.writer.broken)
    assert "were deleted while this replica was away" in why
    assert "at its next start it begins from a snapshot" in why
    await one.die()
    await two.die()
    assert len(one.spool) == 1
    # its next start has the world of a snapshot, which does not know the decision any more
    engine.base, engine.records = 0, engine.records[:1]
    one = Running(engine, tmp_path / "one")
    one.begins_ts = LATER
    await one.start()
    assert gone not in [each.eid for each, _, _ in engine.records]
    assert len(one.spool) == 0
    await one.close()


async def _appended(engine: Engine, first: int, last: int) -> None:
    shared = MemoryShared(engine)
    await shared.join("writer", "key")
    await shared.append([Entry(each) for each in records(first, last)], 0.0)


@pytest.mark.parametrize("had", [0, 2, 5, 9])
async def test_a_copy_begins_where_the_log_begins(engine: Engine, tmp_path: Path, had: int) -> None:
    await _appended(engine, 1, 9)
    copy, checkpoint = SqliteLog(tmp_path / "log"), Checkpoint(tmp_path / "replica.json", "main")
    copy.append(records(1, had))
    checkpoint.place = Place(had, engine.chain(had).hex())
    engine.base = 5
    assert await copied(MemoryShared(engine), copy, checkpoint) is (had < 5)
    first = 1 if had >= 5 else 6
    assert (copy.first, copy.last) == (first, 9)
    assert contents(copy, first - 1) == expected(9, first - 1)
    assert checkpoint.place == Place(9, engine.chain(9).hex())
    assert await copied(MemoryShared(engine), copy, checkpoint) is False
    copy.close()


async def test_a_copy_of_another_past_is_refused_although_the_place_is_trimmed(
    engine: Engine, tmp_path: Path
) -> None:
    await _appended(engine, 1, 9)
    copy, checkpoint = SqliteLog(tmp_path / "log"), Checkpoint(tmp_path / "replica.json", "main")
    copy.append([*records(1, 6), record(77), record(78)])
    checkpoint.place = Place(5, "00")
    engine.base = 5
    with pytest.raises(OtherLog, match="differ at or before 7"):
        await copied(MemoryShared(engine), copy, checkpoint)
    copy.close()


def test_a_log_that_begins_anew_goes_on_after_an_offset(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log")
    log.append(records(1, 700))
    with pytest.raises(ValueError, match="at least 700, got 699"):
        log.begin_after(Offset(699))
    for offset in (700, 5000):
        log.begin_after(Offset(offset))
        assert (log.first, log.last, contents(log, offset)) == (offset + 1, offset, [])
    assert log.append(records(1, 3)) == 5003  # nothing is known of what was deleted
    with pytest.raises(Trimmed):
        contents(log, 4999)
    log.sync()
    log.close()
    log = SqliteLog(tmp_path / "log")
    assert (log.first, log.last) == (5001, 5003)
    assert [body for _, body in contents(log, 5000)] == [record(i).body for i in (1, 2, 3)]
    with pytest.raises(Duplicate):
        log.append(records(2, 2))
    log.close()
