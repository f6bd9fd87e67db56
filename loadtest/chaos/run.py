"""Rounds of start, load, kill; and the totals."""

from __future__ import annotations

import asyncio
import contextlib
import random  # noqa: TID251 - the moments of the kills, from a printed seed
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import aiohttp

from loadtest.chaos.gateway import provided, routed
from loadtest.chaos.load import Client, Ledger, OverStream, Sender, settle, worker
from loadtest.chaos.process import Service
from loadtest.chaos.trouble import DESCRIPTORS, crowd, damage, hurting_children, switching
from loadtest.chaos.verify import Found, same_state, verify
from loadtest.client import StreamClient

# Snapshots come often, so that kills fall into them, and into what follows one.
ENVIRON = {
    "BANDIT_SNAPSHOTS_EVERY_EVENTS": "150",
    "BANDIT_LOG_LEVEL": "warning",
    "BANDIT_REWARD_MAX_PENDING": "1000000",
    "BANDIT_SNAPSHOTS_STALLED_S": "2",
}
_WORKERS, _ROUTED = 6, 3
_DAMAGE_EVERY, _CROWD_EVERY = 3, 4


@dataclass
class Totals:
    """What a run saw. `moments`: how many kills fell into each phase of a process."""

    seed: int
    kills: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    moments: Counter[str] = field(default_factory=Counter)
    recoveries_s: list[float] = field(default_factory=list)
    verified: int = 0
    compared: int = 0
    fresh: bool = False
    beside: Counter[str] = field(default_factory=Counter)
    found: Found | None = None

    def rows(self) -> list[tuple[str, str]]:
        """For a table."""
        assert self.found is not None
        phases = ", ".join(f"{n} {name}" for name, n in sorted(self.moments.items()))
        return [
            ("kills", f"{self.kills} ({phases}), seed {self.seed}"),
            ("decisions answered, all found", str(len(self.ledger.decided))),
            ("outcomes acknowledged, all found once", str(self.ledger.acknowledged)),
            (
                "costs told by the gateway, all found",
                str(len(self.ledger.costs) + self.ledger.embedded),
            ),
            ("sent again after a kill, and converged", str(self.ledger.resolved)),
            ("sent twice, applied once", str(self.ledger.duplicates)),
            ("events in the log at the end", str(self.found.events)),
            ("verifications of log and fold", str(self.verified)),
            ("of those, compared with the next service's state", str(self.compared)),
            *((f"beside it: {name}", str(n)) for name, n in sorted(self.beside.items())),
            ("restart, median s", f"{median(self.recoveries_s):.2f}"),
        ]


async def chaos(
    data: Path, kills: int, seed: int, verify_every: int, tick: Callable[[Totals], None]
) -> Totals:
    """Kill a service `kills` times. Raises load.Wrong as soon as a promise is broken."""
    totals, rng = Totals(seed), random.Random(seed)  # noqa: S311 - moments, no secrets
    while totals.kills < kills:
        async with provided() as upstream:
            await _round(data, totals, rng, upstream)
        totals.kills += 1
        if totals.kills % _DAMAGE_EVERY == 0:
            await asyncio.to_thread(damage, data, rng, totals.beside)
        if totals.kills % verify_every == 0 or totals.kills == kills:
            totals.found = await asyncio.to_thread(verify, data, totals.ledger)
            totals.verified += 1
            totals.fresh = True
        tick(totals)
    return totals


async def _round(data: Path, totals: Totals, rng: random.Random, upstream: dict[str, str]) -> None:
    begun = time.perf_counter()
    crowded = totals.kills % _CROWD_EVERY == _CROWD_EVERY - 1
    service = Service(data, descriptors=DESCRIPTORS if crowded else 0, **ENVIRON, **upstream)
    phase = rng.choices(["start", "load", "stop"], [1, 8, 1])[0]
    totals.moments[
        "while starting"
        if phase == "start"
        else "under load"
        if phase == "load"
        else "while stopping"
    ] += 1
    if phase == "start" and totals.recoveries_s:
        await asyncio.sleep(rng.uniform(0.0, 1.2) * median(totals.recoveries_s))
        service.kill()
        return
    try:
        url = await service.url()
        totals.recoveries_s.append(time.perf_counter() - begun)
        timeout = aiohttp.ClientTimeout(total=30.0)
        async with aiohttp.ClientSession(timeout=timeout) as session, StreamClient(url) as stream:
            client = Client(session, url)
            if totals.fresh and totals.found is not None:
                await same_state(client, totals.found)
                totals.compared, totals.fresh = totals.compared + 1, False
            await settle(client, totals.ledger, rng)
            seeds = [random.Random(rng.random()) for _ in range(_WORKERS)]  # noqa: S311 - same
            ways: list[Sender] = [
                *[client] * (_WORKERS - 2),
                OverStream(stream),
                OverStream(stream),
            ]
            workers = [
                asyncio.create_task(worker(way, totals.ledger, each, f"{totals.kills}-{w}"))
                for w, (way, each) in enumerate(zip(ways, seeds, strict=True))
            ]
            for _ in range(_ROUTED):
                each = random.Random(rng.random())  # noqa: S311 - moments, no secrets
                asks = routed(session, url, totals.ledger, each, crowded)
                workers.append(asyncio.create_task(asks))
            hurt, change = (random.Random(rng.random()) for _ in range(2))  # noqa: S311 - same
            troubles = [
                asyncio.create_task(hurting_children(service.popen.pid, hurt, totals.beside)),
                asyncio.create_task(switching(client, change, totals.beside)),
            ]
            await asyncio.sleep(0.05)  # in which the workers have got their connections
            async with crowd(url) if crowded else contextlib.nullcontext():
                totals.beside["rounds without descriptors"] += crowded
                await asyncio.sleep(rng.uniform(0.0, rng.choice([0.8, 0.8, 3.0])))
            if phase == "stop":
                service.terminate()
                await asyncio.sleep(rng.uniform(0.0, 0.5))
            service.kill()
            troubles[0].cancel()
            await asyncio.gather(troubles[0], return_exceptions=True)
            await troubles[1]
            if phase == "stop":  # what the drain refused is no broken promise
                await asyncio.gather(*workers, return_exceptions=True)
            else:
                await asyncio.gather(*workers)
    finally:
        service.kill()
