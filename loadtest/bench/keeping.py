"""What a snapshot made beside serving does to the decisions that are made meanwhile."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import msgspec
import numpy as np

from policies import Vector

RATE, SECONDS = 100, 6.0


async def bench_snapshot(url: str, queries: Vector) -> list[dict[str, Any]]:
    """Decisions at a steady rate: alone, while snapshots are made, while a policy is folded."""
    bodies = [
        msgspec.json.encode({"embedding": base64.b64encode(row.astype("<f4").tobytes()).decode()})
        for row in queries
    ]
    async with aiohttp.ClientSession() as session:
        await _steady(session, url, bodies)  # caches and connections are warm then
        rows = [_row("no snapshot (baseline)", await _steady(session, url, bodies))]
        made: list[tuple[float, int]] = []

        async def snapshots() -> None:
            while True:
                begun = time.perf_counter()
                async with session.post(f"{url}/v1/snapshots") as answer:
                    size = (await answer.json())["bytes"]
                made.append((time.perf_counter() - begun, size))

        rows.append(_row("snapshots all the time", await _beside(session, url, bodies, snapshots)))
        if made:  # a machine that is busy enough ends none in time
            rows[-1]["snapshot s"] = float(np.median([seconds for seconds, _ in made]))
            rows[-1]["snapshot MB"] = made[-1][1] / 1e6

        async def folding() -> None:
            while True:
                asked = {"name": "metallm", "parameters": {"alpha": 0.5 + 0.01 * len(made)}}
                made.append((0.0, 0))
                async with session.put(f"{url}/v1/policy", json=asked) as answer:
                    await answer.read()
                await asyncio.sleep(0.5)

        rows.append(_row("another policy folded", await _beside(session, url, bodies, folding)))
    for row in rows:
        row["x p99"] = row["p99 ms"] / rows[0]["p99 ms"]
    return rows


async def _beside(
    session: aiohttp.ClientSession,
    url: str,
    bodies: list[bytes],
    work: Callable[[], Awaitable[None]],
) -> list[float]:
    task = asyncio.ensure_future(work())
    try:
        return await _steady(session, url, bodies)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _steady(session: aiohttp.ClientSession, url: str, bodies: list[bytes]) -> list[float]:
    """Seconds of each decision, from the moment at which it was due."""
    seconds: list[float] = []
    begun = time.perf_counter() + 0.01

    async def one(i: int) -> None:
        due = begun + i / RATE
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        async with session.post(f"{url}/v1/decide", data=bodies[i % len(bodies)]) as answer:
            await answer.read()
            assert answer.status == 200, answer.status
        seconds.append(time.perf_counter() - due)

    await asyncio.gather(*(one(i) for i in range(int(RATE * SECONDS))))
    return seconds


def _row(what: str, seconds: list[float]) -> dict[str, Any]:
    p50, p99 = np.percentile(np.asarray(seconds) * 1e3, [50, 99])
    return {
        "what": what,
        "p50 ms": float(p50),
        "p99 ms": float(p99),
        "longest ms": max(seconds) * 1e3,
    }
