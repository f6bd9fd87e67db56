"""What the gateway adds to an answer, beside a bare aiohttp proxy and LiteLLM's proxy.

All of them stand in front of the same upstream, a process that answers at once, and are called by
the same client, one request after another and many at a time; rounds alternate, so that all see
the same machine. The client writes prepared bytes to plain sockets, so that it is not the limit.
`python -m loadtest.bench.gateway --each 10 --rounds 1` is a look at it; `--beside DIR` has the
gateway of another checkout in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.bench.lean import Loaded, asked_load, idle, learned_log
from loadtest.proxies import (
    WORDS,
    Running,
    a_bare_proxy,
    an_upstream,
    litellms_proxy,
    the_arms,
    the_least_proxy,
    the_service,
)
from loadtest.sections import put_section

ROUNDS, EACH, PAST = 5, 60, 10_000
CONCURRENCY = (1, 16)
ALONE = 5
"""A caller alone asks so many times as often, so that a round of its is no shorter."""
BARE = "bare aiohttp proxy"
_READ = 'The engine has a boiler, a valve and a piston; its "cycle" begins with steam.\n'
_HELD = "explain how a steam engine turns heat into motion, and why its efficiency is bounded"

Ways = dict[str, tuple[Running, str]]
"""What is asked, and for which model."""


async def bench_gateway(
    directory: Path,
    rounds: int = ROUNDS,
    each: int = EACH,
    past: int = PAST,
    beside: Path | None = None,
    others: bool = True,
    prompt: int = 0,
    answer: int = WORDS,
) -> list[dict[str, Any]]:
    """First byte, whole answer and CPU of each way to the upstream.

    past: queries that the gateways have learned from. beside: a checkout whose gateway is asked
    too. others: ask LiteLLM's proxy and an arm by name too. prompt: characters of a message before
    the question. answer: words of a whole one.
    """
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(an_upstream(answer))
        bare = await stack.enter_async_context(a_bare_proxy(upstream.url))
        least = await stack.enter_async_context(the_least_proxy(upstream.url))
        ways: Ways = {"upstream itself (baseline)": (upstream, "m"), BARE: (bare, "m")}
        ways["proxy with the gateway's client"] = least, "m"
        gateways = {"gateway": Path.cwd()} | ({"gateway before": beside} if beside else {})
        for name, checkout in gateways.items():
            data = directory / name.replace(" ", "-")
            await asyncio.to_thread(data.mkdir)
            await asyncio.to_thread(learned_log, data / "events.sqlite3", past, the_arms())
            ours = await stack.enter_async_context(the_service(data, upstream.url, checkout))
            await idle(ours.process)
            if others:
                ways[f"{name}, an arm by name"] = ours, "arm-a"
            ways[f"{name}, auto"] = ours, "auto"
        if others:
            litellm = await stack.enter_async_context(litellms_proxy(directory, upstream.url))
            if litellm:
                ways["LiteLLM's proxy"] = litellm, "m"
        rows = []
        for concurrency, stream in itertools.product(CONCURRENCY, (False, True)):
            found = await _by_turns(ways, concurrency, stream, rounds, each, prompt)
            rows += _rows(found, concurrency, stream)
    return rows


async def _by_turns(
    ways: Ways, concurrency: int, stream: bool, rounds: int, each: int, prompt: int
) -> dict[str, list[Loaded]]:
    """What each round found of each way; the first one warms up."""
    found: dict[str, list[Loaded]] = {way: [] for way in ways}
    count = each * (concurrency if concurrency > 1 else ALONE)
    for round_ in range(rounds + 1):
        for way, (running, model) in sorted(ways.items(), reverse=bool(round_ % 2)):
            bodies = [_body(model, stream, i, prompt) for i in range(count)]
            url = f"{running.url}/v1/chat/completions"
            loaded = await asked_load(running.process, url, bodies, concurrency)
            if round_:
                found[way].append(loaded)
    return found


def _body(model: str, stream: bool, i: int, prompt: int) -> bytes:
    messages = [{"role": "user", "content": f"{_HELD}, number {i}"}]
    if prompt:
        text = (_READ * (prompt // len(_READ) + 1))[:prompt]
        messages.insert(0, {"role": "user", "content": text})
    return json.dumps({"model": model, "stream": stream, "messages": messages}).encode()


def _rows(found: dict[str, list[Loaded]], concurrency: int, stream: bool) -> list[dict[str, Any]]:
    rows = []
    base = float(np.median(_ms([one.firsts for one in next(iter(found.values()))])))
    for way, loads in found.items():
        first, whole = _ms([one.firsts for one in loads]), _ms([one.taken for one in loads])
        pairs = zip(found[BARE], loads, strict=True)
        rows.append(
            {
                "what": way,
                "at a time": concurrency,
                "stream": "yes" if stream else "no",
                "first byte p50 ms": float(np.median(first)),
                "first byte p99 ms": float(np.percentile(first, 99)),
                "whole p50 ms": float(np.median(whole)),
                "whole p99 ms": float(np.percentile(whole, 99)),
                "added at p50 ms": float(np.median(first) - base),
                "CPU us": statistics.median(one.cpu_us for one in loads),
                "x bare": statistics.median(one.cpu_us / bare.cpu_us for bare, one in pairs),
            }
        )
    return rows


def _ms(rounds: Sequence[Sequence[float]]) -> list[float]:
    """Of all rounds, in milliseconds."""
    return [seconds * 1e3 for one in rounds for seconds in one]


def main(argv: Sequence[str] | None = None) -> int:
    """The section alone, as long as is wanted."""
    from loadtest.bench.tables import show

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds that count")
    parser.add_argument("--each", type=int, default=EACH, help="requests of a caller in a round")
    parser.add_argument("--past", type=int, default=PAST, help="queries learned from before")
    parser.add_argument(
        "--beside",
        type=lambda path: Path(path).resolve(),
        help="a checkout whose gateway is asked too",
    )
    parser.add_argument("--prompt", type=int, default=0, help="characters before the question")
    parser.add_argument("--answer", type=int, default=WORDS, help="words of a whole answer")
    parser.add_argument("--auto-only", action="store_true", help="no named arm, no LiteLLM")
    parser.add_argument("--markdown", type=Path, help="put the table into this document")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as directory:
        rows = asyncio.run(
            bench_gateway(
                Path(directory),
                args.rounds,
                args.each,
                args.past,
                args.beside,
                not args.auto_only,
                args.prompt,
                args.answer,
            )
        )
    print(show(rows))
    if args.markdown is not None:
        load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
        told = (
            f"{args.rounds} rounds of {args.each} requests of each caller, {args.past:,} past "
            f"queries; load of the machine at the end: {load}.\n\n"
        )
        put_section(args.markdown, "gateway", told + show(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
