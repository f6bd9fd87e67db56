"""kill -9 under load: what was acknowledged is there, what was decided can be rewarded."""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - the moments of the kills, from a fixed seed
from pathlib import Path
from typing import Any

import aiohttp

from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.core import events as ev
from bandit_service.runtime import recovery
from tests.service.running import Client, Process, a_vector

ROUNDS = 3


class Ledger:
    """What the service has acknowledged: decisions by id, and those of them that were rewarded."""

    def __init__(self) -> None:
        self.decided: set[str] = set()
        self.rewarded: dict[str, float] = {}
        self.in_doubt: set[str] = set()


async def _load(
    client: Client, ledger: Ledger, worker: int, least: int, enough: asyncio.Event
) -> None:
    i = worker * 1000
    while True:
        i += 1
        try:
            decided = await client.decide(embedding=a_vector(i))
            ledger.decided.add(decided["decision_id"])
            if i % 3:
                quality = (i % 10) / 10
                ledger.in_doubt.add(decided["decision_id"])
                await client.reward(decided["decision_id"], quality=quality)
                ledger.rewarded[decided["decision_id"]] = quality
                ledger.in_doubt.discard(decided["decision_id"])
        except aiohttp.ClientError:
            return  # killed
        if len(ledger.decided) >= least:
            enough.set()


async def test_everything_acknowledged_survives_kill_9(tmp_path: Path, models: Path) -> None:
    ledger, moments = Ledger(), random.Random(4)
    data = tmp_path / "var"
    for _ in range(ROUNDS):
        process = Process(data, models)
        async with aiohttp.ClientSession() as session:
            client = Client(session, await process.url())
            await _rewards_of_old_decisions(client, ledger)
            enough = asyncio.Event()
            before = len(ledger.decided)
            workers = [
                asyncio.create_task(_load(client, ledger, before + w, before + 40, enough))
                for w in range(4)
            ]
            await enough.wait()
            await asyncio.sleep(moments.uniform(0.05, 0.4))
            process.kill()
            await asyncio.gather(*workers)
    assert len(ledger.rewarded) > 50
    _holds(data, ledger)


async def _rewards_of_old_decisions(client: Client, ledger: Ledger) -> None:
    """A decision that was answered before the kill can still be rewarded after it."""
    waiting = sorted(ledger.decided - set(ledger.rewarded) - ledger.in_doubt)[:5]
    for id in waiting:
        assert await client.reward(id, quality=0.5) == "accepted"
        ledger.rewarded[id] = 0.5
    for id, quality in list(ledger.rewarded.items())[:5]:
        assert await client.reward(id, quality=quality) == "duplicate"


def _holds(data: Path, ledger: Ledger) -> None:
    chosen = settings.read(None, {"BANDIT_DATA_DIR": str(data)})
    log = assembly.open_log(chosen)
    try:
        decided: set[str] = set()
        rewarded: list[ev.Rewarded] = []
        for _, body in log.replay():
            event: Any = ev.decode(body)
            if isinstance(event, ev.Decided):
                decided.add(event.id)
            elif isinstance(event, ev.Rewarded):
                rewarded.append(event)
        once = recovery.replayed(log, chosen).world
        again = recovery.replayed(log, chosen).world
    finally:
        log.close()
    assert ledger.decided <= decided
    found = {event.decision_id: event.quality for event in rewarded}
    assert len(found) == len(rewarded), "a reward was applied twice"
    assert ledger.rewarded.items() <= found.items()
    assert set(found) <= set(ledger.rewarded) | ledger.in_doubt
    assert once.digest() == again.digest()
    for id, quality in ledger.rewarded.items():
        assert once.pending.decisions[id].settled
        assert once.pending.decisions[id].signals["quality"] == quality


async def test_sigterm_drains_and_a_second_service_finds_the_log_locked(
    tmp_path: Path, models: Path
) -> None:
    data = tmp_path / "var"
    first = Process(data, models)
    async with aiohttp.ClientSession() as session:
        client = Client(session, await first.url())
        decided = await client.decide()
        assert await client.reward(decided["decision_id"], quality=1.0) == "accepted"
        second = Process(data, models)
        assert await asyncio.to_thread(second.popen.wait, 60) == 1
        assert "open in another process" in second.log_path.read_text()
        assert await asyncio.to_thread(first.stop) == 0
    third = Process(data, models)
    async with aiohttp.ClientSession() as session:
        client = Client(session, await third.url())
        status, body = await client.get(f"/v1/decisions/{decided['decision_id']}")
        assert (status, body["signals"]) == (200, {"quality": 1.0})
        assert await asyncio.to_thread(third.stop) == 0
