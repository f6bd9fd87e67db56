"""kill -9 of any of three services on one log, again and again, under load on all of them."""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - who is killed and rewarded where, from a fixed seed
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.core import events as ev
from bandit_service.runtime import recovery
from loadtest.postgres import Postgres
from tests.service.running import Client, Process, a_vector
from tests.service.small_model import small_model
from tests.service.test_replicas import shared


class _Ledger:
    """What was answered, and what was acknowledged."""

    def __init__(self) -> None:
        self.decided: list[str] = []
        self.rewarded: dict[str, float] = {}
        self.wrong: list[Any] = []


async def _traffic(urls: list[str], ledger: _Ledger, worker: int, stop: asyncio.Event) -> None:
    """Decide at any, and reward at any other until one acknowledges it; some of them twice."""
    chance = random.Random(worker)
    async with aiohttp.ClientSession() as session:

        def client() -> Client:
            return Client(session, chance.choice(urls))  # where it listens after its last start

        i = 1000 * worker
        while not stop.is_set():
            await asyncio.sleep(_PAUSE_S)
            i += 1
            try:
                decided = await client().decide(embedding=a_vector(i))
            except aiohttp.ClientError:
                continue
            id, quality = decided["decision_id"], (i % 10) / 10
            ledger.decided.append(id)
            if chance.random() < 0.2:
                both = await asyncio.gather(
                    *(_rewarded(client, ledger, id, quality) for _ in range(2))
                )
                if both.count("accepted") > 1:
                    ledger.wrong.append((id, both))
            else:
                await _rewarded(client, ledger, id, quality)


async def _rewarded(client: Callable[[], Client], ledger: _Ledger, id: str, quality: float) -> str:
    async with asyncio.timeout(90):
        while True:
            body = {"decision_id": id, "quality": quality}
            try:
                status, told = await client().post("/v1/rewards", body)
            except aiohttp.ClientError:
                await asyncio.sleep(0.01)
                continue
            if status == 200:
                ledger.rewarded[id] = quality
                return str(told["results"][0]["status"])
            if status != 503:
                ledger.wrong.append((status, told))
                return "refused"
            await asyncio.sleep(0.02)


_KILLS, _WORKERS, _PAUSE_S = 12, 3, 0.2
"""The pause leaves the processor to the starts, of which there are more than a dozen."""


@pytest.mark.long
async def test_kills_of_any_of_three_lose_nothing_acknowledged(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    """Most are killed while another starts, so that one of three is left."""
    chance = random.Random(18)
    async with under_load(tmp_path, models, shared(tmp_path, postgres)) as load:
        starting: dict[int, asyncio.Task[None]] = {}
        for _ in range(_KILLS):
            while len(starting) > 1:
                await asyncio.wait(starting.values(), return_when=asyncio.FIRST_COMPLETED)
                starting = {i: task for i, task in starting.items() if not _is_over(task)}
            victim = chance.choice([i for i in range(3) if i not in starting])
            load.started[victim].kill()
            await load.goes_on(chance.randrange(4))
            starting[victim] = asyncio.create_task(load.starts_again(victim))
        await asyncio.gather(*starting.values())
        await load.goes_on()


def _is_over(task: asyncio.Task[None]) -> bool:
    return task.done() and task.result() is None


class Load:
    """Three services on one log with traffic on all of them."""

    def __init__(self, path: Path, models: Path, environ: dict[str, str]) -> None:
        self._path, self._models, self._environ = path, models, environ
        self.ledger = _Ledger()
        self.started: list[Process] = []
        self.urls: list[str] = []

    async def starts(self) -> None:
        """All three."""
        self.started = [self._process(i) for i in range(3)]
        self.urls += [await each.url() for each in self.started]

    def _process(self, i: int) -> Process:
        return Process(self._path / f"r{i}", self._models, **self._environ)

    async def starts_again(self, i: int) -> None:
        """What it had answered and not appended is in its spool, and comes at its next start."""
        self.started[i] = self._process(i)
        self.urls[i] = await self.started[i].url()

    async def goes_on(self, count: int = 10) -> None:
        """Until so many more rewards are acknowledged."""
        there = len(self.ledger.rewarded)
        await _until(lambda: len(self.ledger.rewarded) > there + count)


@asynccontextmanager
async def under_load(path: Path, models: Path, environ: dict[str, str]) -> AsyncIterator[Load]:
    """At the end nothing that was acknowledged is lost, and all worlds are one."""
    environ = environ | small_model(models, path / "model")
    load, stop = Load(path, models, environ), asyncio.Event()
    await load.starts()
    running = [
        asyncio.create_task(_traffic(load.urls, load.ledger, w, stop)) for w in range(_WORKERS)
    ]
    await load.goes_on()
    yield load
    stop.set()
    await asyncio.gather(*running)
    async with aiohttp.ClientSession() as session:
        for url in load.urls:
            for id, quality in list(load.ledger.rewarded.items())[-5:]:
                assert await Client(session, url).reward(id, quality=quality) == "duplicate"
    assert [await asyncio.to_thread(each.stop) for each in load.started] == [0, 0, 0]
    assert not load.ledger.wrong
    _holds(path, load.ledger, environ)


async def _until(there: Any) -> None:
    async with asyncio.timeout(120):
        while not there():
            await asyncio.sleep(0.02)


def _holds(path: Path, ledger: _Ledger, environ: dict[str, str]) -> None:
    """Each copy has the log, each acknowledged outcome once; all worlds are one."""
    bodies, live, replayed = [], set(), set()
    for i in range(3):
        chosen = settings.read(None, {"BANDIT_DATA_DIR": str(path / f"r{i}"), **environ})
        log = assembly.open_log(chosen)
        try:
            bodies.append([body for _, body in log.replay()])
            snapshots = assembly.open_snapshots(chosen)
            went_on = recovery.recover(log, chosen, snapshots)
            assert went_on.after == log.last  # the snapshot of the world as it served
            live.add(went_on.world.digest())
            replayed.add(recovery.replayed(log, chosen).world.digest())
        finally:
            log.close()
    assert len(live) == 1
    assert live == replayed
    assert bodies[0] == bodies[1] == bodies[2]
    events = [ev.decode(body) for body in bodies[0]]
    decided = [event.id for event in events if isinstance(event, ev.Decided)]
    rewarded = [event for event in events if isinstance(event, ev.Rewarded)]
    assert len(set(decided)) == len(decided)
    assert set(ledger.decided) <= set(decided)
    found = {event.decision_id: event.quality for event in rewarded}
    assert len(found) == len(rewarded)
    assert ledger.rewarded.items() <= found.items()
