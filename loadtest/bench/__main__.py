"""Speed and memory, each figure beside its baseline from the same run.

    python -m loadtest.bench [--only SECTION] [--past N] [--json FILE]
                               [--markdown docs/performance.md]

Figures are medians and 99th percentiles of many repetitions; machines differ, so compare the
ratios. What each section measures is said in docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bandit_service.cli.options import bounded
from loadtest.bench.alone import bench_linear, bench_policies
from loadtest.bench.durable import bench_durable
from loadtest.bench.embeddings import bench_embeddings
from loadtest.bench.evaluate import bench_evaluate
from loadtest.bench.experiments import bench_experiments
from loadtest.bench.fold import bench_fold
from loadtest.bench.gateway import bench_gateway
from loadtest.bench.inside import bench_decide, bench_learn, bench_memory, bench_query
from loadtest.bench.log import bench_log
from loadtest.bench.metrics import bench_metrics
from loadtest.bench.recall import bench_recall
from loadtest.bench.results import bench_results
from loadtest.bench.start import bench_beside, bench_handed, bench_start
from loadtest.bench.tables import show
from loadtest.bench.turns import bench_turns
from loadtest.bench.wire import bench_http, serve_bench
from loadtest.bench.world import PAST, filled_world, vectors
from loadtest.sections import put_section

SECTIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    "decide": ("inside decide, client's embedding, 11 arms, 10,000 past queries", bench_decide),
    "policies": (
        "each policy alone, after 2,000 outcomes, 11 arms, 384 dimensions",
        lambda _: bench_policies(),
    ),
    "arms": (
        "linear policies and the default by arms and dimensions, after 2,000 outcomes",
        lambda _: bench_linear(),
    ),
    "experiments": (
        "what experiments cost a decision, the default policy, 11 arms, 10,000 past queries",
        lambda _: bench_experiments(filled_world, vectors(2000, seed=2)),
    ),
    "recall": ("recall of 20 neighbours, CPU time of a query", bench_recall),
    "query": (
        "decide on a text of 20 words, concurrency 1, the default policy, learned past",
        bench_query,
    ),
    "http": (
        "decides at concurrency 32, client's embedding, the default policy, 11 arms, learned past",
        bench_http,
    ),
    "turns": (
        "server's CPU for a decide on a stream, 32 in flight, nested, 11 arms, 10,000 past queries",
        bench_turns,
    ),
    "learn": ("learning from one reward, the default policy, 11 arms", bench_learn),
    "memory": ("memory of one remembered query", bench_memory),
    "start": ("start-up", bench_start),
    "fold": ("the fold of a log, and worlds to bytes and back, CPU time", bench_fold),
    "gateway": ("what each proxy adds, to the first byte and to the whole answer", bench_gateway),
    "handed": ("what the loop does for the child that makes a snapshot, CPU time", bench_handed),
    "snapshot": ("decisions, 100 a second, metallm, 11 arms, 10,000 events", bench_beside),
    "durable": ("rewards acknowledged as durable, uniform, the router without HTTP", bench_durable),
    "log": ("the log: an event appended, and read with its checksums, CPU time", bench_log),
    "embeddings": (
        "log.embeddings: bytes of the log, CPU time, and what nested earns with rounded vectors",
        bench_embeddings,
    ),
    "metrics": (
        "what the metrics cost: the router without HTTP, 11 arms; a scrape at 50 arms x 5 policies",
        lambda directory: bench_metrics(directory, filled_world, vectors(100, seed=3)),
    ),
    "results": (
        "an experiment: counting one value of one unit, and its results as JSON, CPU time",
        lambda _: bench_results(),
    ),
    "evaluate": (
        "one policy online over 10,000 recorded queries, 11 arms, embeddings at hand",
        lambda _: bench_evaluate(),
    ),
}


WITH_PAST = ("http", "turns", "query", "start", "fold", "gateway")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sections and print a table each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=SECTIONS, action="append", help="these sections only")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--markdown", type=Path, help="put each table into this document")
    parser.add_argument(
        "--past",
        type=bounded(int, 20, 10_000_000),
        action="append",
        help=f"with so many past queries: recall with each given, {', '.join(WITH_PAST)} with the "
        f"last ({PAST:,})",
    )
    parser.add_argument("--serve", metavar="DIR", help=argparse.SUPPRESS)
    parser.add_argument("--one-by-one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve is not None:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve_bench(args.serve, together=not args.one_by_one))
        return 0
    if args.past:
        takes = ("recall", *WITH_PAST)
        for name in args.only or ():
            if name not in takes:
                parser.error(f"--past: {name} has a past of its own; it is for {', '.join(takes)}")
        title, _ = SECTIONS["recall"]
        SECTIONS["recall"] = title, partial(bench_recall, past=args.past)
    results = {}
    print(f"load of the machine: {', '.join(f'{each:.1f}' for each in os.getloadavg())}")
    for name in args.only or SECTIONS:
        title, section = SECTIONS[name]
        with tempfile.TemporaryDirectory() as directory:
            more = {"past": args.past[-1]} if args.past and name in WITH_PAST else {}
            found = section(Path(directory), **more)
            rows = asyncio.run(found) if asyncio.iscoroutine(found) else found
        results[name] = {"title": title, "rows": rows}
        print(f"\n### {title}\n\n{show(rows)}", flush=True)
        if args.markdown is not None:
            put_section(args.markdown, name, show(rows))
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
