"""The table of faults sees what it is there to see, and a relay stands still like a network."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from bandit_service.core import events as ev
from bandit_service.core.vector_bytes import pack
from loadtest import scale_faults
from loadtest.relay import Relay, through
from loadtest.scale import Ledger
from policies import ArmId
from store import Record
from store.sqlite import SqliteLog

HANG_S = 60.0


def _decided(id: str) -> ev.Decided:
    return ev.Decided(
        ts=1.0,
        id=id,
        embedding=pack(np.eye(4, dtype=np.float32)[0]),
        tokens=1,
        willingness_to_pay=0.1,
        arms=(ArmId("a"),),
        propensities=(1.0,),
        scores=(0.0,),
        drawn=0,
        policy="nested",
        key="k",
        list_cost_usd=0.0,
        expected_cost_usd=0.0,
        price=0.0,
    )


def _rewarded(id: str, quality: float) -> ev.Rewarded:
    return ev.Rewarded(ts=1.0, decision_id=id, quality=quality, reward=quality)


def _copy(directory: Path, *events: ev.AnyEvent) -> Path:
    directory.mkdir()
    spec = ev.ArmSpec(id=ArmId("a"), usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
    whole = [ev.ArmAdded(ts=0.0, arm=spec, source="config"), *events]
    log = SqliteLog(directory / "events.sqlite3")
    log.append([Record(f"e{i}", ev.kind(one), 1.0, ev.encode(one)) for i, one in enumerate(whole)])
    log.close()
    return directory


@pytest.mark.parametrize(
    ("events", "wrong"),
    [
        ([_decided("x"), _rewarded("x", 0.5)], {}),
        ([_rewarded("x", 0.5)], {"missing": 1}),
        ([_decided("x")], {"lost": 1}),
        ([_decided("x"), _rewarded("x", 0.75)], {"lost": 1}),
        ([_decided("x"), _rewarded("x", 0.5), _rewarded("x", 0.5)], {"twice": 1}),
        ([_decided("x"), _decided("x"), _rewarded("x", 0.5)], {"twice": 1}),
    ],
    ids=["whole", "decision", "reward", "value", "reward twice", "decision twice"],
)
def test_what_a_copy_of_the_log_lacks_is_counted(
    tmp_path: Path, events: list[ev.AnyEvent], wrong: dict[str, int]
) -> None:
    whole = _copy(tmp_path / "whole", _decided("x"), _rewarded("x", 0.5))
    ledger = Ledger(decided=["x"], rewarded={"x": 0.5})
    found = scale_faults.read([whole, _copy(tmp_path / "other", *events)], ledger)
    counted = {name: getattr(found, name) for name in ("missing", "lost", "twice", "gaps")}
    assert {name: count for name, count in counted.items() if count} == wrong
    if not wrong:
        assert len(found.states) == 1
    elif "lost" in wrong:
        assert len(found.states) == 2


async def test_a_relay_that_is_held_carries_nothing_and_breaks_nothing() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    async with asyncio.timeout(HANG_S), await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        relay = Relay(server.sockets[0].getsockname()[1])
        async with relay.listening():
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            writer.write(b"a")
            assert await reader.readexactly(1) == b"a"
            relay.hold()
            writer.write(b"b")
            late_reader, late = await asyncio.open_connection("127.0.0.1", relay.port)
            late.write(b"c")
            waiting = asyncio.gather(reader.readexactly(1), late_reader.readexactly(1))
            for _ in range(50):  # turns of the loop in which it would have come
                await asyncio.sleep(0.001)
            assert not waiting.done()
            relay.let_go()
            assert list(await waiting) == [b"b", b"c"]
            writer.close()
            late.close()


def test_an_address_leads_through_the_relays() -> None:
    relays = [Relay(1001), Relay(1002)]
    for i, each in enumerate(relays):
        each.port = 2000 + i
    address = "nats://u:p@127.0.0.1:1001,127.0.0.1:1002"
    assert through(address, relays, [1001, 1002]) == "nats://u:p@127.0.0.1:2000,127.0.0.1:2001"
