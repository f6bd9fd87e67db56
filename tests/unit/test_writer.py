"""The writer on a log that cannot be written, or is broken."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

import policies
from bandit_service.core import events as ev
from bandit_service.core.errors import Unavailable
from bandit_service.core.world import new_world
from bandit_service.monitoring.telemetry import Telemetry
from bandit_service.writer import Writer
from store import Closed, Full, Offset, Record
from store.history import HybridIndex
from store.memory import MemoryLog


class _Disk(MemoryLog):
    """A log whose disk can be full, or fail to sync."""

    full = False
    broken = False

    def append(self, records: Sequence[Record]) -> Offset:
        if self.full:
            raise Full("no space left")
        return super().append(records)

    def sync(self) -> Offset:
        if self.broken:
            raise Closed("fdatasync failed")
        return super().sync()


def _writer(log: _Disk, max_backlog: int = 10) -> Writer:
    world = new_world({"uniform": policies.load("uniform")}, "uniform", 10)
    telemetry = Telemetry(pending=lambda: 0, remembered=lambda: 0)
    index = HybridIndex(4, 10)
    return Writer(world, log, index, telemetry, sync_interval_s=60.0, max_backlog=max_backlog)


def _decided(id: str) -> ev.Decided:
    return ev.Decided(
        ts=1.0, id=id, embedding=bytes(16), tokens=1, willingness_to_pay=0.1,
        arms=(policies.ArmId("a"),), propensities=(1.0,), scores=(0.0,), drawn=0, policy="p",
        key="k", list_cost_usd=0.0, expected_cost_usd=0.0, price=0.0,
    )  # fmt: skip


def _ids(log: MemoryLog) -> list[str]:
    events = [ev.decode(body) for _, body in log.replay()]
    return [event.id for event in events if isinstance(event, ev.Decided)]


async def test_while_the_disk_is_full_decisions_go_on_and_outcomes_do_not() -> None:
    log = _Disk()
    writer = _writer(log)
    writer.start()
    await writer.submit(lambda: _decided("before"), durable=False)
    log.full = True
    answered = await writer.submit(lambda: _decided("during"), durable=False)
    assert isinstance(answered, ev.Decided)
    assert writer.in_backlog("during")
    assert "no space left" in writer.degraded
    with pytest.raises(Unavailable, match="no space left"):
        await writer.submit(lambda: ev.DecisionsExpired(ts=2.0, ids=("before",)))
    assert list(writer.world.pending) == ["before"]
    assert not writer.append_now(ev.DecisionsExpired(ts=2.0, ids=("before",)))
    log.full = False
    await writer.submit(lambda: _decided("after"), durable=False)
    assert _ids(log) == ["before", "during", "after"]
    assert list(writer.world.pending) == ["before", "during", "after"]
    assert (writer.degraded, writer.in_backlog("during")) == ("", False)
    await writer.close()


async def test_the_backlog_is_bounded_and_the_oldest_is_given_up() -> None:
    log = _Disk()
    log.full = True
    writer = _writer(log, max_backlog=2)
    for id in ("a", "b", "c"):
        await writer.submit(lambda id=id: _decided(id), durable=False)  # type: ignore[misc]
    assert [writer.in_backlog(id) for id in ("a", "b", "c")] == [False, True, True]
    log.full = False
    await writer.close()
    assert _ids(log) == ["b", "c"]


async def test_a_failed_sync_refuses_what_it_covered_and_is_told() -> None:
    log = _Disk()
    writer = _writer(log)
    writer.start()
    log.broken = True
    with pytest.raises(Unavailable, match="fdatasync"):
        await writer.submit(lambda: ev.DecisionsExpired(ts=2.0, ids=()))
    async with asyncio.timeout(60):
        assert "fdatasync" in await writer.broken
    await writer.close()
