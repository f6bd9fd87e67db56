"""The log in a JetStream of three servers: the suite, and what it keeps when one is gone."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from loadtest import nats as nats_servers
from loadtest.nats import NatsServers
from store import Duplicate, Offset, Outdated, SharedLog, StoreError, Unfit, Unsure
from store.jetstream import JetStreamLog
from tests import shared_log
from tests.unit.store.shared_suite import Joined, SharedSuite, all_of, entries

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cluster() -> Iterator[NatsServers]:
    shared_log.nats_wanted()
    with nats_servers.running(3) as servers:
        yield servers


@pytest.fixture
async def joined(cluster: NatsServers, tmp_path: Path) -> AsyncIterator[Joined]:
    """Opens replicas of this test's log."""
    logs: list[JetStreamLog] = []

    async def joining(name: str, key: str = "key", log: str = "") -> JetStreamLog:
        opened = JetStreamLog(cluster.address, f"{tmp_path}{log}", timeout_s=10.0)
        logs.append(opened)
        async with asyncio.timeout(90):
            while True:
                await connected(opened)
                try:
                    await opened.join(name, key)
                except Unsure:  # the servers elect a leader
                    await asyncio.sleep(0.1)
                else:
                    return opened

    yield joining
    for log in logs:
        await log.close()


async def connected(log: JetStreamLog) -> None:
    """As a replica does it: again, until there is a leader."""
    async with asyncio.timeout(90):
        while True:
            try:
                await log.connect()
            except Unfit:
                raise
            except StoreError:
                await asyncio.sleep(0.1)
            else:
                return


class TestSharedCluster(SharedSuite):
    """By the fixture `joined` above."""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_one_of_three_servers_is_gone_and_nothing_acknowledged_is_lost(
    joined: Joined, cluster: NatsServers, how: signal.Signals
) -> None:
    """Two writers of one decision each turn; whatever one is told is there, and once."""
    logs = [await joined(f"r{i}") for i in range(2)]
    leader = await _leader(logs[0], cluster)
    told: list[str] = []

    async def write(log: JetStreamLog, i: int) -> None:
        """One record, until it is known to be there or another's is."""
        (one,) = entries(i, i, f"d{i // 2}", 0)
        while True:
            try:
                await log.append([one], 0.0)
            except (Duplicate, Outdated):
                if one.record.eid in await _found(log, one.record.eid):
                    told.append(one.record.eid)
                return
            except StoreError:
                await connected(log)
                with suppress(StoreError):
                    await log.join(f"r{i % 2}", "key")
            else:
                told.append(one.record.eid)
                return

    async def writes(which: int) -> None:
        log = logs[which]
        assert isinstance(log, JetStreamLog)
        for turn in range(1, 61):
            await write(log, 2 * turn + which)

    async with asyncio.timeout(200):
        writing = asyncio.gather(writes(0), writes(1))
        while len(told) < 20:
            await asyncio.sleep(0.01)
        cluster.servers[leader].send(how)
        try:
            await writing
        finally:
            cluster.servers[leader].send(signal.SIGCONT)
            if how == signal.SIGKILL:
                cluster.servers[leader].kill()
                cluster.servers[leader].start()
            await asyncio.to_thread(cluster.servers[leader].ready)
    there = await _all(await joined("reader"))
    assert len(set(there)) == len(there)
    assert set(told) == set(there)
    assert len(there) == 60  # one of each two


async def _found(log: JetStreamLog, eid: str) -> dict[str, Offset]:
    async with asyncio.timeout(90):
        while True:
            try:
                return await log.find([eid])
            except StoreError:
                await connected(log)


async def _all(log: SharedLog) -> list[str]:
    """The ids of all records; asked again, as a replica does, while the servers elect a leader."""
    assert isinstance(log, JetStreamLog)
    async with asyncio.timeout(90):
        while True:
            try:
                return [each.record.eid for each in await all_of(log)]
            except StoreError:
                await connected(log)


async def _leader(log: object, cluster: NatsServers) -> int:
    assert isinstance(log, JetStreamLog)
    told = await log._wire.ask(f"STREAM.INFO.{log._names.stream}")
    return int(told["cluster"]["leader"][1:])
