"""What the gateway adds to an answer, beside a bare aiohttp proxy and LiteLLM's proxy.

All of them stand in front of the same upstream, a process that answers at once, and are called by
the same client, one request after another and many at a time; rounds alternate, so that all see
the same machine. `python -m loadtest.bench.gateway --each 10 --rounds 1` is a look at it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from loadtest.proxies import a_bare_proxy, an_upstream, litellms_proxy, the_service
from loadtest.sections import put_section

ROUNDS, EACH = 5, 60
CONCURRENCY = (1, 16)
_HELD = "explain how a steam engine turns heat into motion, and why its efficiency is bounded"
_KEY = {"Authorization": "Bearer sk-none"}

Seconds = list[tuple[float, float]]
"""Of each request: until the first byte of the answer's body, and until its end."""


async def bench_gateway(
    directory: Path, rounds: int = ROUNDS, each: int = EACH
) -> list[dict[str, Any]]:
    """First byte and whole answer, ms, of each way to the upstream."""
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(an_upstream())
        bare = await stack.enter_async_context(a_bare_proxy(upstream))
        ours = await stack.enter_async_context(the_service(directory, upstream))
        litellm = await stack.enter_async_context(litellms_proxy(directory, upstream))
        ways = {
            "upstream itself (baseline)": (upstream, "m"),
            "bare aiohttp proxy": (bare, "m"),
            "gateway, an arm by name": (ours, "arm-a"),
            "gateway, auto": (ours, "auto"),
        }
        if litellm:
            ways["LiteLLM's proxy"] = (litellm, "m")
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        rows = []
        for concurrency, stream in itertools.product(CONCURRENCY, (False, True)):
            seconds: dict[str, Seconds] = {way: [] for way in ways}
            for round_ in range(rounds + 1):
                for way, (url, model) in ways.items():
                    found = await _asked(session, url, model, stream, concurrency, each)
                    if round_:  # the first one warms up
                        seconds[way] += found
            rows += _rows(seconds, concurrency, stream)
    return rows


def _rows(seconds: dict[str, Seconds], concurrency: int, stream: bool) -> list[dict[str, Any]]:
    rows = []
    base = np.median([first for first, _ in next(iter(seconds.values()))])
    for way, found in seconds.items():
        first, whole = (np.asarray(column) * 1e3 for column in zip(*found, strict=True))
        rows.append(
            {
                "what": way,
                "at a time": concurrency,
                "stream": "yes" if stream else "no",
                "first byte p50 ms": float(np.median(first)),
                "first byte p99 ms": float(np.percentile(first, 99)),
                "whole p50 ms": float(np.median(whole)),
                "whole p99 ms": float(np.percentile(whole, 99)),
                "added at p50 ms": float(np.median(first) - base * 1e3),
            }
        )
    return rows


async def _asked(
    session: aiohttp.ClientSession, url: str, model: str, stream: bool, concurrency: int, each: int
) -> Seconds:
    """`each` requests of every one of the `concurrency` callers, each after its last one."""

    async def caller(number: int) -> Seconds:
        return [await _ask(session, url, model, stream, number * each + i) for i in range(each)]

    found = await asyncio.gather(*(caller(number) for number in range(concurrency)))
    return [one for seconds in found for one in seconds]


async def _ask(
    session: aiohttp.ClientSession, url: str, model: str, stream: bool, i: int
) -> tuple[float, float]:
    body = {"model": model, "stream": stream,
            "messages": [{"role": "user", "content": f"{_HELD}, number {i}"}]}  # fmt: skip
    begun = time.perf_counter()
    async with session.post(f"{url}/v1/chat/completions", json=body, headers=_KEY) as answer:
        assert answer.status == 200, await answer.text()
        await answer.content.readany()
        first = time.perf_counter() - begun
        await answer.read()
    return first, time.perf_counter() - begun


def main(argv: Sequence[str] | None = None) -> int:
    """The section alone, as long as is wanted."""
    from loadtest.bench.tables import show

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds that count")
    parser.add_argument("--each", type=int, default=EACH, help="requests of a caller in a round")
    parser.add_argument("--markdown", type=Path, help="put the table into this document")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as directory:
        rows = asyncio.run(bench_gateway(Path(directory), args.rounds, args.each))
    print(show(rows))
    if args.markdown is not None:
        told = f"{args.rounds} rounds of {args.each} requests of each caller.\n\n"
        put_section(args.markdown, "gateway", told + show(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
