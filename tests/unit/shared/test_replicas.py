"""Replicas on one log, as a client sees them, through every failure of the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bandit_service import cli, clock
from bandit_service.core import events as ev
from bandit_service.core.errors import Behind, Conflict, Expired, NotYet, Unavailable, Unknown
from bandit_service.core.experiments.spec import Experiment, Variant
from bandit_service.core.outcomes import Signals
from bandit_service.runtime.shared import tailing
from bandit_service.runtime.shared.digests import Digests
from bandit_service.runtime.shared.fold_load import Busy
from bandit_service.runtime.shared.link import ClockOff
from bandit_service.runtime.shared.spool import SpoolDamaged
from store import Corrupt, Full, Mark, Offset, Outdated, Record, Replica, Tailed, Unsure
from tests.unit.shared.memory import HANG_S, Engine, Running, same

Start = Callable[..., Awaitable[Running]]


@pytest.fixture
async def start(engine: Engine, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts replicas by name; the first one brings an arm."""
    started: list[Running] = []

    async def starting(name: str, **rules: Any) -> Running:
        one = await Running(engine, tmp_path / name).start(**rules)
        started.append(one)
        if not one.world.arms:
            await one.put_an_arm()
        return one

    yield starting
    engine.down = False
    for one in started:
        if not one.writer.tasks.failing and not one.writer.broken.done():
            await one.close()


async def _rewarded(start: Start) -> tuple[Running, Running, str]:
    """Two replicas, and a decision whose outcome both have."""
    one, other = await start("one"), await start("other")
    id = await one.decide()
    assert await one.reward(id) == "accepted"
    await same(one, other)
    return one, other, id


async def test_a_decision_of_one_is_rewarded_at_another_before_it_is_there(start: Start) -> None:
    one, other = await start("one"), await start("other")
    for i in range(20):
        assert await other.reward(await one.decide(i)) == "accepted"
    await same(one, other)
    assert one.world.rewards == 20
    assert {event.seen > 0 for event in _events(one, ev.Decided)} == {True}


def _events(one: Running, kind: type[Any]) -> list[Any]:
    events = [ev.decode(record.body) for record, _, _ in one.shared.engine.records]
    return [event for event in events if isinstance(event, kind)]


async def test_the_same_outcome_at_two_at_once_counts_once(start: Start) -> None:
    one, other = await start("one"), await start("other")
    for i in range(20):
        id = await one.decide(i)
        told = await asyncio.gather(one.reward(id), other.reward(id), other.reward(id))
        assert sorted(told) == ["accepted", "duplicate", "duplicate"]
    await same(one, other)
    assert len(_events(one, ev.Rewarded)) == 20


async def test_of_two_values_at_once_one_is_a_conflict(start: Start) -> None:
    one, other = await start("one"), await start("other")
    id = await one.decide()
    told = await asyncio.gather(
        one.reward(id, 0.25), other.reward(id, 0.75), return_exceptions=True
    )
    assert [each for each in told if each == "accepted"] == ["accepted"]
    assert len([each for each in told if isinstance(each, Conflict)]) == 1
    assert len(_events(one, ev.Rewarded)) == 1
    assert await other.reward(id, 0.75, correction=True) in ("accepted", "duplicate")
    await same(one, other)


async def test_who_waits_to_be_checked_again_is_told_that_the_log_is_gone(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, id = await _rewarded(start)
    append, engine = one.shared.append, one.shared.engine

    async def nothing(*_: Any) -> list[Any]:
        return []

    async def refused_last(*what: Any) -> Any:
        try:
            return await append(*what)
        except Outdated:
            engine.down = True
            raise

    with monkeypatch.context() as patched:
        patched.setattr(one.shared, "tail", nothing)
        patched.setattr(one.shared, "append", refused_last)
        assert await other.reward(id, 0.7, correction=True) == "accepted"
        with pytest.raises(Unavailable):
            async with asyncio.timeout(HANG_S):
                await one.reward(id, 0.9, correction=True)


async def test_what_was_told_to_have_failed_is_not_applied_later(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sender may have sent another word since, which counts."""
    one, other, id = await _rewarded(start)
    engine, append = one.shared.engine, one.shared.append
    held = asyncio.Event()

    async def slow(*what: Any) -> Any:
        await held.wait()
        return await append(*what)

    monkeypatch.setattr(one.shared, "append", slow)
    under_way = asyncio.create_task(one.reward(id, 0.6, correction=True))
    await asyncio.sleep(0)
    waits = asyncio.create_task(one.reward(id, 0.7, correction=True))
    await asyncio.sleep(0.01)
    engine.down = True
    told = await asyncio.gather(under_way, waits, return_exceptions=True)
    assert [type(each) for each in told] == [Unavailable, Unavailable]
    engine.down = False
    assert await _patiently(other, id, quality=0.9, correction=True) == "accepted"
    held.set()
    monkeypatch.undo()
    again = await one.decide()
    assert await _patiently(one, again) == "accepted"
    await same(one, other)
    values = [event.quality for event in _events(one, ev.Rewarded) if event.decision_id == id]
    assert 0.7 not in values


async def test_a_damaged_log_ends_the_process(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another connection would find the same damage, again and again."""
    one = await start("one")

    async def damaged(*_: Any) -> list[Any]:
        raise Corrupt(7, "its checksum in the database does not match")

    monkeypatch.setattr(one.shared, "tail", damaged)
    async with asyncio.timeout(HANG_S):
        why = await one.writer.broken
    assert "the log in the database is damaged" in str(why)
    assert "7" in str(why)


async def test_where_nothing_can_be_applied_outcomes_are_refused(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await start("one")
    id = await one.decide()
    await same(one)

    def full(*_: Any) -> Any:
        raise Full("no room")

    with monkeypatch.context() as patched:
        patched.setattr(one.writer.log, "append", full)
        with pytest.raises(Unavailable, match="cannot be applied: Full: no room"):
            async with asyncio.timeout(HANG_S):
                await one.reward(id)
        assert "cannot be applied: Full: no room" in one.writer.degraded
    async with asyncio.timeout(HANG_S):
        while one.writer.degraded:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("done", [True, False])
async def test_an_append_without_an_answer_is_there_once(start: Start, done: bool) -> None:
    one, other = await start("one"), await start("other")
    for i in range(5):
        one.shared.engine.unsure[one.name] = done
        id = await one.decide(i)
        assert await other.reward(id) == "accepted"
        one.shared.engine.unsure[one.name] = done
        assert await one.reward(id, correction=True, quality=0.1) == "accepted"
    await same(one, other)
    assert len(_events(one, ev.Decided)) == 5
    assert len(_events(one, ev.Rewarded)) == 10
    assert await other.reward(id, 0.1) == "duplicate"


async def test_without_the_log_decisions_go_on_and_outcomes_do_not(start: Start) -> None:
    one, other = await start("one"), await start("other")
    before = await one.decide()
    assert await one.reward(before) == "accepted"
    one.shared.engine.down = True
    during = [await one.decide(i) for i in range(5)]
    async with asyncio.timeout(HANG_S):
        while not one.writer.degraded:
            await asyncio.sleep(0.001)
    with pytest.raises(Unavailable, match="the shared log cannot be reached"):
        await one.reward(before, correction=True, quality=0.1)
    with pytest.raises(Unavailable):
        await one.reward(during[0])
    assert len(one.spool) == 5
    one.shared.engine.down = False
    for id in during:
        assert await _patiently(other, id) == "accepted"
    await same(one, other)
    assert one.writer.degraded == ""
    assert len(one.spool) == 0
    assert [event.id for event in _events(one, ev.Decided)] == [before, *during]


async def _patiently(one: Running, id: str, **more: Any) -> str:
    async with asyncio.timeout(HANG_S):
        while True:
            try:
                return await one.reward(id, **more)
            except Unavailable:
                await asyncio.sleep(0.01)


async def test_what_was_answered_and_not_appended_comes_at_the_next_start(start: Start) -> None:
    one, other = await start("one"), await start("other", park_s=0.05)
    appended = await one.decide()
    await same(one, other)
    one.shared.engine.down = True
    answered = [await one.decide(i) for i in range(3)]
    await one.die()
    one.shared.engine.down = False
    with pytest.raises(NotYet):  # it may still come, so it is not unknown
        await _when_up(other, answered[0])
    again = await start("one")
    assert [event.id for event in _events(again, ev.Decided)] == [appended, *answered]
    for id in answered:
        assert await other.reward(id) == "accepted"
    await same(again, other)


async def _when_up(one: Running, id: str) -> str:
    async with asyncio.timeout(HANG_S):
        while True:
            try:
                return await one.reward(id)
            except NotYet:
                raise
            except Unavailable:
                await asyncio.sleep(0.01)


async def test_a_damaged_spool_is_told_and_what_can_be_read_of_it_is_appended(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = await Running(engine, tmp_path / "one").start()
    await one.put_an_arm()
    await same(one)
    engine.down = True
    async with asyncio.timeout(HANG_S):
        while one.writer.link.up.is_set():
            await asyncio.sleep(0.001)
    ids = [await one.decide(i) for i in range(5)]
    await one.die()
    engine.down = False
    path = tmp_path / "one" / "spool.sqlite3"
    content = bytearray(path.read_bytes())
    content[content.index(b"embedding", content.index(ids[2].encode())) + 12] ^= 4
    path.write_bytes(content)
    ended = Running(engine, tmp_path / "one")
    with pytest.raises(SpoolDamaged, match=r"spool\.sqlite3.*is damaged at offset 3: .*--spool"):
        await ended.start()
    await ended.die()
    config = tmp_path / "config.toml"
    config.write_text(f'data_dir = "{path.parent}"\n')
    inspect = ["inspect", "--config", str(config), "--spool"]
    assert cli.main(inspect) == 1
    assert "to save it: bandit-service inspect --spool --repair" in capsys.readouterr().out
    assert cli.main([*inspect, "--repair"]) == 0
    assert "lost: 1 records, at offsets 3" in capsys.readouterr().out
    assert cli.main(inspect) == 0
    assert "'decided': 4" in capsys.readouterr().out
    again = await Running(engine, tmp_path / "one").start()
    for id in (*ids[:2], *ids[3:]):
        assert await again.reward(id) == "accepted"
    assert again.world.decisions == 4
    await again.close()


async def test_an_id_that_nobody_gave_is_unknown_soon(start: Start) -> None:
    one, other = await start("one"), await start("other")
    for id in ("nonsense", "7b1f2c3e-0000-4000-8000-000000000000"):
        with pytest.raises(Unknown):
            await other.reward(id)
    made_up = clock.Ids().new(clock.now())
    with pytest.raises((Unknown, Expired)):
        await other.reward(made_up)
    with pytest.raises((Unknown, Expired)):
        await one.reward(made_up)
    with pytest.raises(Expired):
        await one.reward(clock.Ids().new(clock.now() - 2000.0))


async def test_one_that_was_closed_joins_again_and_loses_nothing(start: Start) -> None:
    one, other = await start("one"), await start("other")
    epoch = one.writer.link.epoch
    one.shared.engine.members[one.name][3] = True
    ids = [await one.decide(i) for i in range(3)]
    for id in ids:
        assert await _patiently(other, id) == "accepted"
    await same(one, other)
    assert one.writer.link.epoch > epoch


async def test_a_log_that_went_back_ends_the_process(start: Start) -> None:
    one = await start("one")
    for i in range(3):
        await one.reward(await one.decide(i))
    engine = one.shared.engine
    engine.down = True
    async with asyncio.timeout(HANG_S):
        while not one.writer.link.why:
            await asyncio.sleep(0.001)
    del engine.records[-2:]
    engine.down = False
    why = await asyncio.wait_for(one.writer.broken, HANG_S)
    assert "it went back" in why
    await one.die()


def _with_one_chain(rows: list[Tailed]) -> list[Tailed]:
    """As of one append: only its last row has the chain."""
    return [*(replace(row, chain=b"") for row in rows[:-1]), *rows[-1:]]


async def _in_the_middle_of_a_page(
    start: Start, monkeypatch: pytest.MonkeyPatch, lost: int, as_one: bool
) -> tuple[Running, Running, Callable[[], None]]:
    """One whose disk is full after 32 of 80 records, another that has all, of which the last are
    lost and 100 of its own stand there instead; what gives the first one room again.
    """
    one, writes = await start("one"), await start("writes")
    await same(one, writes)
    engine, tail, put = one.shared.engine, one.shared.tail, one.writer.log.append
    before, parts = len(engine.records), 0
    is_asked = is_open = has_room = False

    async def held(after: Offset, most: int = 512) -> list[Tailed]:
        nonlocal is_asked
        is_asked = True
        if not is_open:
            return await _nothing()
        rows = await tail(after, most)
        return _with_one_chain(rows) if as_one else rows

    def append(records: Sequence[Record]) -> Offset:
        nonlocal parts
        parts += 1
        if parts > 1 and not has_room:
            raise Full("no room")
        return put(records)

    def room() -> None:
        nonlocal has_room
        has_room = True

    monkeypatch.setattr(tailing, "_FULL_S", 0.001)
    monkeypatch.setattr(one.shared, "tail", held)
    await _until(lambda: is_asked)
    for i in range(80):
        await writes.decide(i)
    await _until(lambda: writes.writer.seen == before + 80)
    monkeypatch.setattr(one.writer.log, "append", append)
    is_open = True
    await _until(lambda: one.writer.seen == before + 32 and parts > 1)
    await writes.die()
    writes.writer._end("it died")
    del engine.records[-lost:]
    other = await start("other")
    for i in range(100):
        await other.decide(i + 1)
    await _until(lambda: other.writer.seen == before + 180 - lost)
    return one, other, room


@pytest.mark.parametrize("as_one", [False, True])
async def test_a_log_that_went_back_in_the_middle_of_a_page_ends_the_process(
    start: Start, monkeypatch: pytest.MonkeyPatch, as_one: bool
) -> None:
    one, _, room = await _in_the_middle_of_a_page(start, monkeypatch, 70, as_one)
    seen = one.writer.seen
    one.writer.link.down(Unsure("a failover"))
    why = await asyncio.wait_for(one.writer.broken, HANG_S)
    assert "it went back" in why
    room()
    await asyncio.sleep(0.02)
    assert one.writer.seen == seen
    await one.die()


@pytest.mark.parametrize("as_one", [False, True])
async def test_what_was_read_before_a_failover_that_lost_it_is_read_again(
    start: Start, monkeypatch: pytest.MonkeyPatch, as_one: bool
) -> None:
    one, other, room = await _in_the_middle_of_a_page(start, monkeypatch, 40, as_one)
    one.writer.link.down(Unsure("a failover"))
    await _until(one.writer.link.up.is_set)
    room()
    await same(one, other)
    assert not one.writer.broken.done()


async def test_what_a_failover_kept_and_calls_durable_no_more_is_no_loss(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await start("one")
    await same(one)
    place, tail = one.writer.link.place, one.shared.tail

    async def unchained(after: Offset, most: int = 512) -> list[Tailed]:
        return [replace(row, chain=b"") for row in await tail(after, most)]

    monkeypatch.setattr(one.shared, "tail", unchained)
    for i in range(3):
        await one.reward(await one.decide(i))
    assert one.writer.link.place == place
    one.shared.engine.durable = place.offset
    one.writer.link.down(Unsure("a failover"))
    await _until(lambda: one.writer.link.up.is_set() or one.writer.broken.done())
    assert not one.writer.broken.done()
    await one.reward(await one.decide())
    await same(one)


async def test_only_the_keeper_lets_decisions_expire(start: Start) -> None:
    one, other = await start("one"), await start("other")
    id = await one.decide()
    async with asyncio.timeout(HANG_S):
        while not (one.writer.membership.keeps and id in one.world.pending.decisions):
            await asyncio.sleep(0.01)
    await same(one, other)
    later = clock.now() + 5000.0
    assert other.router.pending.sweep(later) == 0
    assert one.router.pending.sweep(later) == 1
    assert one.router.pending.sweep(later) == 0  # it is under way
    async with asyncio.timeout(HANG_S):
        while not _events(one, ev.DecisionsExpired):
            await asyncio.sleep(0.001)
    await same(one, other)
    assert len(_events(one, ev.DecisionsExpired)) == 1
    with pytest.raises((Expired, Unknown)):
        await other.reward(id)


async def test_an_outcome_whose_decision_left_meanwhile_is_gone(start: Start) -> None:
    one, other = await start("one"), await start("other")
    id = await other.decide()
    async with asyncio.timeout(HANG_S):
        while not (one.writer.membership.keeps and id in one.world.pending.decisions):
            await asyncio.sleep(0.01)
    await same(one, other)
    one.shared.engine.unsure[other.name] = False  # so that the other appends after the keeper
    coming = asyncio.ensure_future(other.reward(id))
    await asyncio.sleep(0)
    one.router.pending.sweep(clock.now() + 5000.0)
    told = await asyncio.gather(coming, return_exceptions=True)
    if isinstance(told[0], Unavailable):  # that the log was away, and it asks again
        told = await asyncio.gather(_patiently(other, id), return_exceptions=True)
    assert isinstance(told[0], Expired)
    assert await same(one, other)
    assert one.world.rewards == other.world.counts.rewards


async def test_what_the_gateway_saw_holds_up_no_answer_and_is_not_lost(start: Start) -> None:
    one, other = await start("one"), await start("other")
    one.shared.engine.down = True
    ids = [await one.decide(i) for i in range(3)]
    async with asyncio.timeout(60):
        for id in ids:
            assert await one.router.observe(id, Signals(cost_usd=0.01)) == "accepted"
    async with asyncio.timeout(HANG_S):
        while not one.writer.degraded:
            await asyncio.sleep(0.001)
    async with asyncio.timeout(60):
        assert await one.router.observe(ids[0], Signals(latency_s=0.5)) == "accepted"
    one.shared.engine.down = False
    async with asyncio.timeout(HANG_S):
        while len(_events(one, ev.Rewarded)) < 4:
            await asyncio.sleep(0.001)
    await same(one, other)
    found = [one.world.pending.decisions[id].signals for id in ids]
    assert found == [{"cost_usd": 0.01, "latency_s": 0.5}, *[{"cost_usd": 0.01}] * 2]


async def test_a_full_spool_gives_up_the_oldest_and_says_so(start: Start) -> None:
    one = await start("one", max_spool=3)
    one.shared.engine.down = True
    async with asyncio.timeout(HANG_S):
        while not one.writer.degraded:
            await asyncio.sleep(0.001)
    ids = [await one.decide(i) for i in range(5)]
    assert len(one.spool) == 3
    one.writer._look()
    assert one.writer._metrics.spool_ratio._value.get() == 1.0
    one.shared.engine.down = False
    assert await _patiently(one, ids[-1]) == "accepted"
    assert [event.id for event in _events(one, ev.Decided)] == ids[2:]
    assert one.writer._telemetry.metrics.unlogged._value.get() == 2


async def test_where_the_disk_of_the_spool_is_full_decisions_go_on_and_it_is_told(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await start("one"), await start("other")

    def no_room(_: Sequence[Record]) -> None:
        raise Full("no space is left")

    with monkeypatch.context() as full:
        full.setattr(one.spool, "keep", no_room)
        id = await one.decide()
        assert "decisions are kept in memory only" in one.writer.degraded
        assert "no space is left" in one.writer.degraded
    assert await other.reward(id) == "accepted"  # it came to the log from memory
    assert await one.reward(await one.decide(1)) == "accepted"
    assert one.writer.degraded == ""


async def test_a_cost_that_a_full_spool_has_no_room_for_waits_and_is_in_the_log_once(
    start: Start,
) -> None:
    one, told = await start("one", max_spool=3), list[str]()
    one.shared.engine.down = True
    async with asyncio.timeout(HANG_S):
        while not one.writer.degraded:
            await asyncio.sleep(0.001)
    for i in range(3):
        await one.decide(i)
    cost = ev.Spent(ts=one.writer.now(), usd=0.25)
    with pytest.raises(Unavailable):
        await one.writer.submit(lambda: cost, durable=False)
    for i in range(4):
        assert one.writer.owe(cost, partial(told.append, str(i)))
    # as many as a spool may have; the oldest is given up
    assert (told, one.writer.owed_usd) == (["0"], 0.75)
    lost = one.writer._telemetry.metrics.cost_lost._value
    assert lost.get() == 0.25
    one.shared.engine.down = False
    await _until(lambda: not one.writer.owed_usd)
    assert told == ["0", "1", "2", "3"]
    assert len(_events(one, ev.Spent)) == 3
    assert (lost.get(), one.writer._under_way.led, one.writer._under_way._owed) == (0.25, 0, set())
    one.writer._end("planted")
    assert not one.writer.owe(cost, partial(told.append, "4"))
    assert (told[-1], lost.get()) == ("4", 0.5)


async def test_what_a_failover_lost_unapplied_is_appended_again_without_a_restart(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await start("one"), await start("other")
    before = await one.decide()
    await same(one, other)
    engine = one.shared.engine
    with monkeypatch.context() as patched:
        patched.setattr(one.shared, "tail", _nothing)
        patched.setattr(other.shared, "tail", _nothing)
        last = len(engine.records)
        settled = {name: member[2] for name, member in engine.members.items()}
        ids = [await one.decide(i) for i in range(3)]
        corrected = asyncio.ensure_future(one.reward(before))
        await _until(lambda: len(engine.records) == last + 4)
        engine.down = True
        await _until(lambda: one.writer.degraded and other.writer.degraded)
        await _until(corrected.done)  # before the log is back, however slow it is here
        del engine.records[-4:]
        for name, member in engine.members.items():
            member[2] = settled[name]  # which stands in the same commits
    engine.down = False
    with pytest.raises(Unavailable):  # whoever waited was told that it is not sure
        await corrected
    for id in ids:
        assert await _patiently(other, id) == "accepted"
    assert await _patiently(other, before) in ("accepted", "duplicate")
    await same(one, other)
    assert [event.id for event in _events(one, ev.Decided)] == [before, *ids]
    assert len(_events(one, ev.Rewarded)) == 4
    assert not one.writer._appender.sent


async def test_what_is_appended_while_the_log_is_read_is_read_at_once(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await start("one")
    one.writer._tailer._poll_s = 10 * HANG_S
    await one.decide()  # from now on it is not polled
    await _until(lambda: one.world.decisions == 1)
    tail, appended = one.shared.tail, one.writer._appender.appended
    read = list[int]()

    async def late(after: Offset, most: int = 512) -> list[Tailed]:
        """The answer of before another append, which is answered first."""
        rows = await tail(after, most)
        read.append(len(rows))
        if len(read) == 1:
            assert rows == []
            appended.clear()
            await one.decide()
            await appended.wait()
        return rows

    monkeypatch.setattr(one.shared, "tail", late)
    appended.set()
    await _until(lambda: one.world.decisions == 2)
    assert read[:2] == [0, 1]


async def test_what_is_applied_before_its_append_is_answered_is_kept_no_more(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await start("one")
    put = one.shared.append

    async def slowly(*given: Any) -> Offset:
        last = await put(*given)
        await _until(lambda: one.writer.seen >= last)  # it is read on another connection
        return last

    monkeypatch.setattr(one.shared, "append", slowly)
    for i in range(3):
        assert await one.reward(await one.decide(i)) == "accepted"
    await one.writer._appender.empty.wait()
    assert len(_events(one, ev.Rewarded)) == 3
    assert not one.writer._appender.sent


async def _nothing(*_: Any) -> list[Any]:
    await asyncio.sleep(0)
    return []


async def _until(there: Callable[[], object]) -> None:
    async with asyncio.timeout(HANG_S):
        while not there():
            await asyncio.sleep(0.001)


async def test_the_spool_is_bounded_also_while_the_log_is_up_and_slow(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await start("one", max_spool=3)
    held, append = asyncio.Event(), one.shared.append

    async def slow(*what: Any) -> Any:
        await held.wait()
        return await append(*what)

    first = await one.decide()
    await same(one)
    monkeypatch.setattr(one.shared, "append", slow)
    under_way = await one.decide()
    await _until(lambda: one.writer._appender._doubtful)
    ids = [await one.decide(i) for i in range(5)]
    assert len(one.spool) == 3
    assert one.writer._telemetry.metrics.unlogged._value.get() == 3
    with pytest.raises(Unavailable, match=r"log\.max_spool = 3 events wait for the shared log"):
        await one.reward(first)
    assert "log.max_spool = 3" in one.writer.degraded
    held.set()
    await _until(lambda: not one.writer.degraded)
    assert await one.reward(first) == "accepted"
    assert [event.id for event in _events(one, ev.Decided)] == [first, under_way, *ids[-2:]]


async def test_the_spool_is_bounded_where_nothing_can_be_applied(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the log already is let go of first: it is not lost."""
    one = await start("one", max_spool=3)
    with monkeypatch.context() as patched:
        patched.setattr(one.shared, "tail", _nothing)
        ids = [await one.decide(i) for i in range(3)]
        await _until(lambda: len(_events(one, ev.Decided)) == 3)
        ids += [await one.decide(i) for i in range(3)]
        await _until(lambda: len(_events(one, ev.Decided)) == 6)
        assert len(one.spool) == 3
        assert len(one.writer._under_way) == 3
        assert one.writer._telemetry.metrics.unlogged._value.get() == 0
    await same(one)
    assert one.world.decisions == 6
    assert len(one.spool) == 0


async def test_a_decision_whose_append_is_in_doubt_is_not_given_up(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be in the log: then it was not lost, and its reward is not unknown."""
    one = await start("one", max_spool=2)
    engine, append = one.shared.engine, one.shared.append

    async def unanswered(*what: Any) -> Any:
        await append(*what)
        engine.down = True
        raise Unsure("no answer")

    monkeypatch.setattr(one.shared, "append", unanswered)
    monkeypatch.setattr(one.shared, "tail", _nothing)
    doubtful = await one.decide()
    await _until(lambda: engine.down and one.writer.degraded)
    monkeypatch.undo()
    ids = [await one.decide(i) for i in range(4)]
    assert one.writer._telemetry.metrics.unlogged._value.get() == 3
    engine.down = False
    assert await _patiently(one, doubtful) == "accepted"
    await same(one)
    assert [event.id for event in _events(one, ev.Decided)] == [doubtful, ids[-1]]


async def _live(one: Running, other: Running) -> None:
    """Both learn, and say their newest digests."""
    for i in range(8):
        await one.reward(await other.decide(i))
    last = len(one.shared.engine.records)
    await _until(lambda: one.writer.seen == other.writer.seen == last)
    for each in (one, other):
        await each.shared.beat(0.0, each.writer.seen, each.writer.digests.newest)


async def test_states_that_differ_are_told_once_and_until_they_are_equal(start: Start) -> None:
    one, other = await start("one", digest_every=4), await start("other", digest_every=4)

    async def live() -> None:
        await _live(one, other)

    await live()
    for each in (one, other):
        assert each.writer.digests.newest.offset > 0
        await each.writer.link._upkeep()
        assert "digest" not in each.writer.tasks.failing
        assert [
            each.writer.membership.differs(row) for row in await each.writer.membership.replicas()
        ] == [False] * 2
    other.world.counts.rewards += 1  # a bit of its memory turned round
    await live()
    for each, theirs in ((one, other), (other, one)):
        counted = []
        for _ in range(2):
            await each.writer.link._upkeep()
            counted.append(each.writer._metrics.mismatches._value.get())
            assert (
                f"replica {theirs.writer.membership.slot} and this one"
                in each.writer.tasks.failing["digest"]
            )
            assert each.writer._metrics.differing._value.get() == 1
        # once for an offset; the upkeep of this second may have seen one before the newest
        assert counted[0] == counted[1] >= 1
        assert [
            row.slot
            for row in await each.writer.membership.replicas()
            if each.writer.membership.differs(row)
        ] == [theirs.writer.membership.slot]
    other.world.counts.rewards -= 1
    await live()
    for each in (one, other):
        await each.writer.link._upkeep()
        assert "digest" not in each.writer.tasks.failing
        assert each.writer._metrics.differing._value.get() == 0


@pytest.mark.parametrize("how", ["closed", "absent", "joined anew"])
async def test_a_difference_is_over_when_its_replica_is_gone_or_joined_anew(
    start: Start, how: str
) -> None:
    one = await start("one", digest_every=4, keep_snapshots=2)
    other = await start("other", digest_every=4)
    await _until(lambda: one.writer.membership.keeps)
    saved: list[int] = []

    async def save(key: str, at: int, state: bytes, keep: int) -> None:
        saved.append(at)

    one.shared.save_snapshot = save  # type: ignore[method-assign]

    async def shared() -> bool:
        saved.clear()
        await one.writer.membership.share_snapshot("key", Offset(1), lambda: b"")
        return bool(saved)

    other.world.counts.rewards += 1
    await _live(one, other)
    await one.writer.link._upkeep()
    assert "digest" in one.writer.tasks.failing
    assert not await shared()
    members, name = one.shared.engine.members, other.name
    mismatches = one.writer._metrics.mismatches._value.get()
    assert mismatches > 0
    await (other.close() if how == "closed" else other.die())
    row = members[name]
    if how == "absent":
        del members[name]
    elif how == "joined anew":  # what it said before is there until it says something else
        row[1] += 1
    rows = await one.writer.membership.replicas()
    for _ in range(2):
        one.writer.digests.compare(rows, one.writer.membership.slot)
        assert "digest" not in one.writer.tasks.failing
        assert one.writer._metrics.differing._value.get() == 0
    assert one.writer._metrics.mismatches._value.get() == mismatches
    assert await shared()
    members[name] = row
    if how == "joined anew":  # and is as wrong as before
        wrong = replace(rows[1], mark=Mark(one.writer.digests.newest.offset - 4, "other"))
        one.writer.digests.compare([rows[0], wrong], one.writer.membership.slot)
        assert "digest" in one.writer.tasks.failing


async def test_who_names_an_offset_waits_until_it_is_learned(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await start("one"), await start("other", max_parked=0)
    id = await one.decide()
    await same(one, other)
    with monkeypatch.context() as patched:
        patched.setattr(other.shared, "tail", _nothing)
        patched.setattr(other.writer._reached, "_most", 1)
        assert await one.reward(id) == "accepted"
        offset = one.writer.seen
        assert other.writer.seen < offset
        waits = asyncio.create_task(other.writer.reached(offset))
        await asyncio.sleep(0.01)
        assert not waits.done()
        with pytest.raises(Behind, match=f"not yet up to {offset}"):  # too many wait
            await other.writer.reached(offset)
    await waits
    assert other.writer.seen >= offset
    await other.writer.reached(offset)


async def test_an_offset_that_is_not_learned_in_time_is_told(start: Start) -> None:
    one = await start("one", after_wait_s=0.01)
    with pytest.raises(Behind, match="not yet up to 1000000"):
        await one.writer.reached(1_000_000)
    assert not one.writer._reached._waiting


async def test_nobody_waits_for_longer_than_it_says(start: Start) -> None:
    one = await start("one", after_wait_s=60.0)
    async with asyncio.timeout(HANG_S):
        with pytest.raises(Behind):
            await one.writer.reached(1_000_000, 0.01)


async def test_an_event_that_this_version_cannot_read_stops_the_fold(start: Start) -> None:
    one = await start("one")
    await one.reward(await one.decide())
    events = one.world.events
    record = Record("new", "unheard_of", clock.now(), b"\x81\xa4kind\xaaunheard_of")
    one.shared.engine.records.append((record, b"", b"chain"))
    async with asyncio.timeout(HANG_S):
        while not one.writer.membership.barred:
            await asyncio.sleep(0.001)
    assert (
        f"the event at offset {events + 1} is not known to this version"
        in one.writer.membership.barred
    )
    id = await one.decide()  # what it knows is enough to decide by
    with pytest.raises(Unavailable, match="is not known to this version"):
        await one.reward(id)
    async with asyncio.timeout(HANG_S):
        while one.writer.membership.keeps:  # its lease is not taken again
            await asyncio.sleep(0.01)
    assert one.world.events == events  # it is never skipped
    await one.die()


async def test_others_by_another_key_bar_a_replica_until_they_leave(
    start: Start, engine: Engine
) -> None:
    one = await start("one")
    engine.down = True
    async with asyncio.timeout(HANG_S):
        while one.writer.link.up.is_set():
            await asyncio.sleep(0.001)
    engine.down, engine.other_key = False, "knn"
    async with asyncio.timeout(HANG_S):
        while not one.writer.membership.barred:
            await asyncio.sleep(0.001)
    assert "another replica of this log folds by 'knn'" in one.writer.membership.barred
    assert "another replica of this log folds by 'knn'" in one.writer.degraded
    assert not one.writer.broken.done()
    id = await one.decide()
    with pytest.raises(Unavailable, match="folds by 'knn'"):
        await one.reward(id)
    engine.other_key = ""
    async with asyncio.timeout(HANG_S):
        while one.writer.membership.barred:
            await asyncio.sleep(0.001)
    assert await one.reward(id) == "accepted"


async def test_a_clock_that_goes_wrong_bars_its_replica_alone_until_it_is_set(
    start: Start, engine: Engine
) -> None:
    one, other = await start("one"), await start("other")
    id = await other.decide()
    engine.skew_s[one.name] = 3600.0
    async with asyncio.timeout(HANG_S):
        while not one.writer.membership.barred:
            await asyncio.sleep(0.001)
    why = "the clock of this machine is 3600.0 s ahead of that of the database"
    assert why in one.writer.membership.barred
    assert why in one.writer.degraded
    assert one.writer.link.skew_s == pytest.approx(3600.0, abs=HANG_S)
    with pytest.raises(Unavailable, match=why):
        await one.reward(id)
    assert await other.reward(id) == "accepted"
    assert not other.writer.membership.barred
    before = len(engine.records)
    kept = await one.decide()  # it waits in the spool
    assert len(engine.records) == before
    engine.skew_s.clear()
    async with asyncio.timeout(HANG_S):
        while one.writer.membership.barred:
            await asyncio.sleep(0.001)
    assert await other.reward(kept) == "accepted"


@pytest.mark.parametrize(("skew_s", "said"), [(3600.0, "ahead of"), (-3600.0, "behind")])
async def test_a_clock_that_is_wrong_is_no_start(
    engine: Engine, tmp_path: Path, skew_s: float, said: str
) -> None:
    one = await Running(engine, tmp_path / "one").start()
    name = one.name
    await one.close()
    engine.skew_s[name] = skew_s
    told = rf"3600\.0 s {said} .*log\.max_skew_s is 0\.5: set the clock"
    with pytest.raises(ClockOff, match=told):
        await Running(engine, tmp_path / "one").start()


async def test_an_answer_that_took_long_is_no_wrong_clock(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the process stood still between the question and the answer."""
    one = await start("one")
    state = await one.shared.state()
    times = [state.now - 4.0, state.now + 3.0]
    with monkeypatch.context() as patched:
        patched.setattr(clock, "now", lambda: times.pop(0) if len(times) > 1 else times[0])
        patched.setattr(one.shared, "state", lambda: asyncio.sleep(0, state))
        await one.writer.link._check_clock()


async def test_nobody_writes_what_an_open_replica_cannot_read(start: Start, engine: Engine) -> None:
    one, other = await start("one"), await start("other")
    event = ev.BudgetLeased(
        ts=one.writer.now(), replica=1, account="service", per="hour", window="w", usd=1.0
    )
    engine.reads[other.name] = 1  # as a release before says it
    one.writer.link.rows = await one.shared.replicas()
    before = len(engine.records)
    with pytest.raises(
        Unavailable, match="older release is open, which cannot read 'budget_leased'"
    ):
        await one.writer.submit(lambda: event)
    assert len(engine.records) == before
    await other.close()
    one.writer.link.rows = await one.shared.replicas()
    await one.writer.submit(lambda: event)
    assert one.world.leases.of("hour", "w", "service") == {1: 1.0}


@pytest.mark.parametrize("field", ["weights", "latency_weight", "route"])
async def test_nobody_writes_of_a_route_what_an_open_replica_would_overlook(
    start: Start, engine: Engine, field: str
) -> None:
    """It would let the default route take part in the experiment, or reward by other weights."""
    one, other = await start("one"), await start("other")
    spec = ev.RouteSpec(id="bot", policy="uniform")
    variants = (Variant(key="a", arm="a", weight=0.5), Variant(key="b", arm="b", weight=0.5))

    def event(value: Any) -> ev.AnyEvent:
        ts = one.writer.now()
        if field == "route":
            made = Experiment(id="e", variants=variants, route=value or "")
            return ev.ExperimentChanged(ts=ts, experiment=made, status="draft")
        changed = msgspec.structs.replace(spec, **{field: value} if value else {})
        return ev.RouteChanged(ts=ts, route=changed, key="k")

    engine.reads[other.name] = 3  # as the release before says it
    one.writer.link.rows = await one.shared.replicas()
    value = {"weights": {"stars": 2.0}, "latency_weight": 0.5, "route": "bot"}[field]
    with pytest.raises(Unavailable, match="older release is open, which cannot read"):
        await one.writer.submit(lambda: event(value))
    await one.writer.submit(lambda: event(None))
    await other.close()
    one.writer.link.rows = await one.shared.replicas()
    await one.writer.submit(lambda: event(value))


@pytest.mark.parametrize("section", ["settings", "policies"])
async def test_nobody_writes_a_section_that_an_open_replica_would_overlook(
    start: Start, engine: Engine, section: str
) -> None:
    """It would go on by its own settings, while the log says that others are in force."""
    one, other = await start("one"), await start("other")

    def event(section: str, revision: int) -> ev.AnyEvent:
        ts = one.writer.now()
        return ev.ConfigurationChanged(ts=ts, revision=revision, sections={section: ()})

    engine.reads[other.name] = 5  # it knows the other sections
    one.writer.link.rows = await one.shared.replicas()
    with pytest.raises(Unavailable, match="older release is open, which cannot read"):
        await one.writer.submit(lambda: event(section, 1))
    await one.writer.submit(lambda: event("budgets", 1))
    await other.close()
    one.writer.link.rows = await one.shared.replicas()
    await one.writer.submit(lambda: event(section, 2))


def test_of_three_states_the_one_alone_may_not_lead() -> None:
    def digests() -> Digests:
        quiet: dict[str, Any] = {"failed": lambda _: None, "well": lambda: None}
        found = Digests(1, "key", differing=lambda *_: None, **quiet)
        found.note(1, "right")
        return found

    def row(slot: int, digest: str) -> Replica:
        return Replica(slot, "", 1, 1, 1, 0.0, 0.0, False, "key", (), Mark(1, digest))

    for others, alone in (
        (["right", "right"], False),
        (["right", "wrong"], False),
        (["wrong", "wrong"], True),
        (["wrong"], False),  # of two nobody can say
        ([], False),
    ):
        one = digests()
        one.compare([row(i, each) for i, each in enumerate(others, 2)], 1)
        assert one.in_minority is alone, others


def test_how_busy_the_fold_is_is_told_of_whole_windows() -> None:
    busy = Busy(100.0)
    busy.took(2.0)
    assert busy.ratio(105.0) == 0.0
    busy.took(3.0)
    assert busy.ratio(120.0) == 0.25
    busy.took(99.0)
    assert busy.ratio(121.0) == 0.25
