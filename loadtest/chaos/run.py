"""Rounds of start, load, kill; and the totals."""

from __future__ import annotations

import asyncio
import contextlib
import random  # noqa: TID251 - the moments of the kills, from a printed seed
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import aiohttp

from bandit_service import settings
from bandit_service.embedding.backends import export
from loadtest.chaos.gateway import asked_while_full, provided, routed
from loadtest.chaos.load import Client, Ledger, OverStream, Sender, Wrong, settle, worker
from loadtest.chaos.process import Service
from loadtest.chaos.trouble import (
    DESCRIPTORS,
    crowd,
    damage,
    full_disk,
    hurting_children,
    switching,
)
from loadtest.chaos.verify import Found, same_state, verify
from loadtest.client import StreamClient

# Snapshots come often, so that kills fall into them, and into what follows one.
ENVIRON = {
    "BANDIT_SNAPSHOTS_EVERY_EVENTS": "150",
    "BANDIT_LOG_LEVEL": "warning",
    "BANDIT_REWARD_MAX_PENDING": "1000000",
}
# Within a round a child that stands still is ended; or one that is only slow gets to its end.
_STALLED_S = ("2", "20")
_WORKERS, _ROUTED = 6, 3
_STARTS_S = 600.0
_DAMAGE_EVERY, _CROWD_EVERY, _FULL_EVERY = 3, 4, 5
_ROOM_S = 60.0


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


def rows(runs: Sequence[Totals]) -> list[tuple[str, str]]:
    """What all runs together saw, for a table."""
    found = [each.found for each in runs if each.found is not None]
    ledgers = [each.ledger for each in runs]
    phases = sum((each.moments for each in runs), Counter[str]())
    beside = sum((each.beside for each in runs), Counter[str]())
    told = ", ".join(f"{n} {name}" for name, n in sorted(phases.items()))
    starts = [each for run in runs for each in run.recoveries_s]
    return [
        ("kills", f"{sum(each.kills for each in runs)} ({told})"),
        ("logs, each from its beginning", f"{len(runs)}, seeds from {runs[0].seed}"),
        ("decisions answered, all found", str(sum(len(each.decided) for each in ledgers))),
        ("outcomes acknowledged, all found once", str(sum(each.acknowledged for each in ledgers))),
        (
            "costs told by the gateway, all found",
            str(sum(len(each.costs) + each.embedded for each in ledgers)),
        ),
        ("sent again after a kill, and converged", str(sum(each.resolved for each in ledgers))),
        ("sent twice, applied once", str(sum(each.duplicates for each in ledgers))),
        ("events in the logs at the end", str(sum(each.events for each in found))),
        ("verifications of log and fold", str(sum(each.verified for each in runs))),
        (
            "of those, compared with the next service's state",
            str(sum(each.compared for each in runs)),
        ),
        *((f"beside it: {name}", str(n)) for name, n in sorted(beside.items())),
        ("restart, median s", f"{median(starts):.2f}"),
    ]


async def chaos(
    data: Path, kills: int, seed: int, verify_every: int, tick: Callable[[Totals], None]
) -> Totals:
    """Kill a service `kills` times. Raises load.Wrong as soon as a promise is broken."""
    totals, rng = Totals(seed), random.Random(seed)  # noqa: S311 - moments, no secrets
    packaged = settings.read(None, {}).embedding.model
    # As a directory it is loaded as it is; by its name all of it is hashed at each start.
    model = {"BANDIT_EMBEDDING_MODEL": str(export("onnx", packaged, data / "models"))}
    while totals.kills < kills:
        async with provided() as upstream:
            await _round(data, totals, rng, upstream | model)
        totals.kills += 1
        if totals.kills % _DAMAGE_EVERY == 0:
            await asyncio.to_thread(damage, data, rng, totals.beside)
        if totals.kills % verify_every == 0 or totals.kills == kills:
            totals.found = await asyncio.to_thread(verify, data, totals.ledger)
            totals.verified += 1
            totals.fresh = True
        tick(totals)
    return totals


def series(
    directory: Path, models: Path | None, kills: int, seed: int, verify_every: int
) -> Totals:
    """The kills of one log, in a process of its own. Raises load.Wrong naming the seed."""
    data = directory / "var"
    data.mkdir(parents=True)
    if models is not None:
        (data / "models").symlink_to(models.resolve(), target_is_directory=True)

    def tick(totals: Totals) -> None:
        if totals.kills % verify_every == 0:
            said = f"seed {seed}: {totals.kills} kills, {totals.ledger.acknowledged} acknowledged"
            print(said, file=sys.stderr, flush=True)

    try:
        return asyncio.run(chaos(data, kills, seed, verify_every, tick))
    except Wrong as error:
        raise Wrong(f"seed {seed}: {error}") from None


async def _without_space(
    client: Client,
    session: aiohttp.ClientSession,
    url: str,
    totals: Totals,
    service: Service,
) -> None:
    """A full disk: what was answered meanwhile is in the log once there is room, unless a kill
    comes before, which then takes what waited with it.
    """
    with full_disk(service.popen.pid):
        owed = await asked_while_full(client, session, url)
        if totals.kills // _FULL_EVERY % 4 == 3:
            totals.beside["killed while the disk was full"] += 1
            service.kill()
            return
    async with asyncio.timeout(_ROOM_S):
        while (await client.get("/readyz"))[1].get("why"):  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.05)
    ledger = totals.ledger
    ledger.decided += owed.decided
    ledger.costs |= owed.costs
    ledger.embedded += owed.embedded
    waited = len(owed.costs) + owed.embedded
    totals.beside["costs that waited for space, all found"] += waited


async def _round(data: Path, totals: Totals, rng: random.Random, environ: dict[str, str]) -> None:
    begun = time.perf_counter()
    crowded = totals.kills % _CROWD_EVERY == _CROWD_EVERY - 1
    few = DESCRIPTORS if crowded else 0
    environ = ENVIRON | environ | {"BANDIT_SNAPSHOTS_STALLED_S": rng.choice(_STALLED_S)}
    service = Service(data, environ, descriptors=few, forked=True)
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
        url = await service.url(_STARTS_S)
        totals.recoveries_s.append(time.perf_counter() - begun)
        timeout = aiohttp.ClientTimeout(total=30.0)
        async with aiohttp.ClientSession(timeout=timeout) as session, StreamClient(url) as stream:
            client = Client(session, url)
            if totals.fresh and totals.found is not None:
                await same_state(client, totals.found)
                totals.compared, totals.fresh = totals.compared + 1, False
            await settle(client, totals.ledger, rng)
            if totals.kills % _FULL_EVERY == 1 and not crowded:
                await _without_space(client, session, url, totals, service)
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
