"""Named metrics, sessions and routes on a log of several replicas: done once, and by all alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bandit_service import wire
from bandit_service.core import events as ev
from bandit_service.core.errors import Conflict, NotYet
from bandit_service.core.metric_spec import NamedMetric
from bandit_service.runtime import named_metrics, session_rewards
from tests.unit.shared.memory import DIM, HANG_S, Engine, MemoryShared, Running, same

Start = Callable[..., Awaitable[Running]]
BEFORE = (NamedMetric(name="good", weight=1.0), NamedMetric(name="kind", weight=1.0))
AFTER = (NamedMetric(name="good", weight=3.0), NamedMetric(name="kind", weight=1.0))
SAID = {"good": 1.0, "kind": 0.0}


@pytest.fixture
async def start(engine: Engine, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts replicas by name; the first one brings an arm, and is the keeper."""
    started: list[Running] = []

    async def starting(name: str, **rules: Any) -> Running:
        one = await Running(engine, tmp_path / name).start(**rules)
        started.append(one)
        if len(started) == 1:
            await one.put_an_arm()
            await _until(lambda: one.writer.membership.keeps)
        return one

    yield starting
    for one in started:
        if not one.dead:
            await one.close()


async def _until(there: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANG_S):
        while not there():
            await asyncio.sleep(0.001)


def _events(engine: Engine) -> list[Any]:
    return [ev.decode(record.body) for record, _, _ in engine.records]


async def _decided(one: Running, session: str = "") -> str:
    request = wire.DecideRequest(embedding=np.eye(DIM)[0].tolist(), session=session)
    return (await one.router.decide(request)).id


async def _said(one: Running, session: str, quality: float) -> tuple[str, int]:
    return await one.router.reward_session(wire.RewardRequest(session=session, quality=quality))


def _held(one: Running, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Nothing of it comes into the log until this is set."""
    append, held = one.shared.append, asyncio.Event()

    async def later(*what: Any) -> Any:
        await held.wait()
        return await append(*what)

    monkeypatch.setattr(one.shared, "append", later)
    return held


def _qualities(one: Running) -> set[float | None]:
    return {each.signals.get("quality") for each in one.world.pending.decisions.values()}


async def test_changed_weights_are_taught_once_and_crowd_out_nothing(
    start: Start, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = {"max_spool": 80}
    one, other = await start("one", **rules), await start("other", **rules)
    assert await other.router.measuring.change(BEFORE)
    await _until(lambda: not other.world.named.stale)
    ids = [await _decided(other) for _ in range(200)]
    for id in ids:
        await one.router.reward(wire.RewardRequest(decision_id=id, metrics=SAID))
    await same(one, other)
    assert _qualities(other) == {0.5}
    append, waiting = one.shared.append, list[int]()

    async def slow(*what: Any) -> Any:
        waiting.append(len(one.writer._under_way))
        for _ in range(100):
            await asyncio.sleep(0)
        return await append(*what)

    monkeypatch.setattr(one.shared, "append", slow)
    told = await asyncio.gather(*(each.router.measuring.change(AFTER) for each in (one, other)))
    assert sorted(told) == [False, True]
    await _until(lambda: not (one.world.named.stale or other.world.named.stale))
    await same(one, other)
    assert _qualities(one) == _qualities(other) == {0.75}
    again = [event for event in _events(engine) if isinstance(event, ev.Rewarded) and event.weighed]
    anew = [event.decision_id for event in again if not event.metrics]
    assert sorted(anew) == sorted(ids)
    assert isinstance(_events(engine)[-1], ev.MetricsWeighed)
    assert 1 < max(waiting) < 80


async def test_what_was_weighed_before_the_weights_changed_is_taught_anew(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await start("one"), await start("other")
    await one.router.measuring.change(BEFORE)
    await _until(lambda: not one.world.named.stale)
    id = await _decided(one)
    await same(one, other)
    held = _held(other, monkeypatch)
    request = wire.RewardRequest(decision_id=id, metrics=SAID)
    rewarding = asyncio.ensure_future(other.router.reward(request))
    await _until(lambda: bool(other.writer._appender))
    assert await one.router.measuring.change(AFTER)
    await _until(lambda: not one.world.named.stale)
    held.set()
    assert await rewarding == "accepted"
    await _until(lambda: _qualities(one) == _qualities(other) == {0.75})
    await same(one, other)


async def test_a_session_is_rewarded_at_another_before_its_decisions_are_there(
    start: Start,
) -> None:
    one, other = await start("one"), await start("other")
    for i in range(5):
        ids = [await _decided(one, f"s{i}"), await _decided(one, f"s{i}")]
        assert await _said(other, f"s{i}", 1.0) == ("accepted", 2)
        assert all(other.world.pending.decisions[id].signals for id in ids)
    await same(one, other)
    assert one.world.rewards == 10


async def test_of_a_session_whose_decisions_may_still_come_it_is_not_said_that_there_is_none(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await start("one"), await start("other", park_s=0.01)
    held = _held(one, monkeypatch)
    await _decided(one, "s")
    with pytest.raises(NotYet, match="session"):
        await _said(other, "s", 1.0)
    held.set()
    async with asyncio.timeout(HANG_S):
        while True:
            try:
                assert await _said(other, "s", 1.0) == ("accepted", 1)
                break
            except NotYet:
                await asyncio.sleep(0.01)


async def test_a_session_rewarded_at_two_at_once_counts_once(start: Start, engine: Engine) -> None:
    one, other = await start("one"), await start("other")
    ids = [await _decided(each, "s") for each in (one, other, one)]
    told = await asyncio.gather(_said(one, "s", 1.0), _said(other, "s", 1.0))
    assert sorted(told) == [("accepted", 3), ("duplicate", 3)]
    learned = [event for event in _events(engine) if isinstance(event, ev.Rewarded)]
    assert sorted(event.decision_id for event in learned) == sorted(ids)
    await _decided(one, "t")
    both = await asyncio.gather(
        _said(one, "t", 0.25), _said(other, "t", 0.75), return_exceptions=True
    )
    assert sum(isinstance(each, Conflict) for each in both) == 1
    await same(one, other)


async def test_the_decisions_of_a_session_are_in_the_order_of_their_time(
    start: Start, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await start("one"), await start("other")
    with monkeypatch.context() as patched:
        held = _held(one, patched)
        first = await _decided(one, "s")
        last = await _decided(other, "s")
        await _until(lambda: last in other.world.pending.decisions)
        held.set()
        assert await _said(other, "s", 1.0) == ("accepted", 2)
    told = next(event for event in _events(engine) if isinstance(event, ev.SessionRewarded))
    assert told.ids == (first, last)
    assert other.world.sessions.members[told.group] == [last, first]


async def test_a_decide_is_not_made_again_before_it_came_back(
    start: Start, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await start("one")
    held = _held(one, monkeypatch)

    async def asked(i: int) -> str:
        vector = np.eye(DIM)[i].tolist()
        request = wire.DecideRequest(embedding=vector, idempotency_key="k")
        return (await one.router.decide(request)).id

    id = await asked(0)
    assert id not in one.world.pending.decisions
    assert await asked(0) == id
    with pytest.raises(Conflict, match="idempotency_key"):
        await asked(1)
    held.set()
    await _until(lambda: id in one.world.pending.decisions)
    assert await asked(0) == id
    assert sum(isinstance(event, ev.Decided) for event in _events(engine)) == 1


async def test_the_keeper_finishes_the_session_of_one_that_was_killed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_rewards, "_LOOK_S", 0.01)
    one, other = await start("one"), await start("other")
    ids = [await _decided(other, "s") for _ in range(3)]

    async def killed(*_: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(other.router._crediting, "_one", killed)
    saying = asyncio.ensure_future(_said(other, "s", 1.0))
    await _until(lambda: bool(one.world.sessions.told))
    await other.die()
    saying.cancel()
    await _until(lambda: not one.world.sessions.unfinished())
    assert all(one.world.pending.decisions[id].signals for id in ids)


async def test_routes_that_two_configure_at_once_are_written_once(
    start: Start, engine: Engine
) -> None:
    one, other = await start("one"), await start("other")
    wanted = {"bot": (ev.RouteSpec(id="bot", policy="uniform"), "key")}
    for routes, kind in ((wanted, ev.RouteChanged), ({}, ev.RouteRemoved)):
        await asyncio.gather(*(each.router.catalogue.set_routes(routes) for each in (one, other)))
        assert sum(isinstance(event, kind) for event in _events(engine)) == 1
    await same(one, other)


async def test_metrics_wait_until_an_older_release_has_left(
    start: Start, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(named_metrics, "_LOOK_S", 0.01)
    older = MemoryShared(engine)
    one = await start("one")
    await older.join("older", "key", reads=1)
    await _until(lambda: one.writer.link.format == 1)
    await one.router.measuring.configure(BEFORE)
    assert not one.world.named.specs
    await older.leave()
    await _until(lambda: list(one.world.named.specs) == ["good", "kind"])
