"""What a replica does about erasures at its start, and where it meets one too late."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bandit_service.core import events as ev
from bandit_service.runtime.shared.checkpoint import Checkpoint
from bandit_service.runtime.shared.erasing import carry_out_at_start
from store import Offset, Record, Unsure
from store.sqlite import SqliteLog
from tests.unit.shared.memory import HANG_S, Engine, Running, same

ANN, BOB = ev.owner_of("", "ann"), ev.owner_of("", "bob")


async def test_what_waits_of_a_unit_that_was_forgotten_is_not_appended(
    engine: Engine, tmp_path: Path
) -> None:
    one = await Running(engine, tmp_path / "one").start()
    await one.put_an_arm()
    engine.down = True
    ids = [await one.decide(i, unit) for i, unit in enumerate(("ann", "bob"))]
    newest = one.writer.now()
    await one.die()
    engine.down = False
    two = await Running(engine, tmp_path / "two").start()
    one = await Running(engine, tmp_path / "one").start(forgotten={ANN: newest, BOB: 1.0})
    await same(one, two)
    assert [record.eid for record, _, _ in engine.records if record.eid in ids] == ids[1:]
    async with asyncio.timeout(HANG_S):
        while len(one.spool):
            await asyncio.sleep(0.001)
    assert _forgotten(engine) == [(ANN, newest)]  # the log might have had what the spool has
    for each in (one, two):
        await each.close()


def _forgotten(engine: Engine) -> list[tuple[str, float]]:
    events = [ev.decode(record.body) for record, _, _ in engine.records]
    return [(each.owner, each.ts) for each in events if isinstance(each, ev.Forgotten)]


async def test_a_replica_that_was_cut_off_brings_nothing_back_of_a_unit_that_was_forgotten(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await Running(engine, tmp_path / "one").start()
    two = await Running(engine, tmp_path / "two").start()
    await one.put_an_arm()
    await _forgotten_while_one_is_cut_off(one, two, monkeypatch)
    async with asyncio.timeout(HANG_S):
        while len(_forgotten(engine)) < 2 or len(one.spool):
            await asyncio.sleep(0.001)
    await same(one, two)
    assert _units(two) == ["bob"]
    assert len(set(_forgotten(engine))) == 1  # as of one moment
    # what comes after it stays
    later = await one.decide(4, "ann")
    assert await two.reward(later) == "accepted"
    await same(one, two)
    assert len(_forgotten(engine)) == 2
    for each in (one, two):
        await each.close()


async def test_what_a_killed_replica_brought_back_is_forgotten_by_its_next_start(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await Running(engine, tmp_path / "one").start()
    two = await Running(engine, tmp_path / "two").start()
    await one.put_an_arm()
    one.writer._latecomers._forget = lambda *_: None  # it is killed before it has said so
    await _forgotten_while_one_is_cut_off(one, two, monkeypatch)
    async with asyncio.timeout(HANG_S):
        while len(two.world.pending.decisions) < 4 or len(one.spool) > 3:
            await asyncio.sleep(0.001)
    one.spool.trim()
    await one.die()
    one = await Running(engine, tmp_path / "one").start(forgotten=dict(_forgotten(engine)))
    async with asyncio.timeout(HANG_S):
        while len(_forgotten(engine)) < 2 or len(one.spool):
            await asyncio.sleep(0.001)
    await same(one, two)
    assert _units(two) == ["bob"]
    for each in (one, two):
        await each.close()


def _units(replica: Running) -> list[str]:
    return [each.decided.unit for each in replica.world.pending.decisions.values()]


async def _forgotten_while_one_is_cut_off(
    one: Running, two: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers decisions of the unit and of another before the unit is forgotten."""
    await same(one, two)
    with monkeypatch.context() as patched:
        for name in ("append", "tail", "beat", "connect"):
            patched.setattr(one.shared, name, _cut_off)
        async with asyncio.timeout(HANG_S):
            while not one.writer.link.why:
                await asyncio.sleep(0.001)
        for i in range(3):
            await one.decide(i, "ann")
        await one.decide(3, "bob")
        await two.writer.submit(lambda: ev.Forgotten(ts=two.writer.now(), owner=ANN))


async def _cut_off(*_: object) -> None:
    await asyncio.sleep(0)
    raise Unsure("it is cut off")


async def test_a_record_that_was_erased_before_it_was_read_ends_the_process(
    engine: Engine, tmp_path: Path
) -> None:
    one = await Running(engine, tmp_path / "one").start()
    await one.put_an_arm()
    before, last = one.world.digest(), one.writer.seen
    engine.records.append((Record("erased", "rewarded", 2.0, b"", ANN), b"", b"chain"))
    async with asyncio.timeout(HANG_S):
        why = await asyncio.shield(one.writer.broken)
    assert why.startswith(f"the record at offset {last + 1} was erased while this replica was away")
    assert (one.writer.seen, one.world.digest()) == (last, before)
    await one.die()


def _written(log: SqliteLog, *events: tuple[ev.AnyEvent, str]) -> None:
    first = int(log.last)
    log.append(
        [
            Record(f"e{first + i}", ev.kind(event), event.ts, ev.encode(event), owner)
            for i, (event, owner) in enumerate(events)
        ]
    )


def _reward(ts: float) -> ev.Rewarded:
    subject = ev.Subject(embedding=b"", tokens=1, willingness_to_pay=0.1)
    return ev.Rewarded(ts=ts, subject=subject, quality=0.5, reward=0.5)


def test_a_start_erases_what_was_ordered_since_the_one_before(tmp_path: Path) -> None:
    log, checkpoint = SqliteLog(tmp_path / "log"), Checkpoint(tmp_path / "replica.json", "main")
    _written(
        log,
        (_reward(1.0), ANN),
        (_reward(1.0), BOB),
        (ev.Forgotten(ts=2.0, owner=ANN), ""),
        (_reward(3.0), ANN),
        (ev.ErasureOrdered(ts=4.0, owner=ANN, upto=3), ""),
        (ev.Forgotten(ts=5.0, owner=BOB), ""),
    )
    for _ in range(2):  # cut off before it was noted, it is done again
        found = carry_out_at_start(log, checkpoint)
        assert (found.upto, found.forgotten) == (3, {ANN: 2.0, BOB: 5.0})
        gone = [int(at) for at, body in log.replay(Offset(0)) if not body]
        assert gone == [1]
    checkpoint.erased = int(log.last)
    checkpoint.write()
    again = Checkpoint(tmp_path / "replica.json", "main")
    _written(log, (ev.Forgotten(ts=6.0, owner=BOB), ""))
    found = carry_out_at_start(log, again)
    assert (found.upto, found.forgotten) == (0, {BOB: 6.0})
    # a copy that was put there anew, and has less than was noted
    again.erased = 99
    assert carry_out_at_start(log, again).forgotten == {}
    log.close()
