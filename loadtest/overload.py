"""What is kept of speed and answers when three times too much comes.

    python -m loadtest.overload [--seconds 20] [--text] [--markdown FILE] [--json]

Measures what the service can do when it is kept busy, then sends 80 % of that and three times as
much, each as a Poisson process (see loadtest/openloop.py). The load is made on the same machine as
the service, so figures of a box with few cores are worse than they would be apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
from tqdm import tqdm

from loadtest.chaos.process import Service
from loadtest.openloop import Pool, Sample, Traffic, closed_loop, open_loop
from loadtest.sections import put_section

_WORKERS = 32
_CONNECTIONS = 1000
SHARES = (0.8, 3.0)


@dataclass(frozen=True)
class Seen:
    """One run at one rate. Rates are per second, times in milliseconds, memory in MB."""

    name: str
    offered: float
    answered: float
    p50_ms: float
    p99_ms: float
    decides_refused: float
    outcomes_refused: float
    refused_p99_ms: float
    unanswered: int
    rss_mb: float


def seen(name: str, samples: Sequence[Sample], seconds: float, rss: int) -> Seen:
    """The figures of one run; rates over its length, latencies from when each was due."""
    good = [each.seconds for each in samples if each.status == 200]
    refused = [each for each in samples if each.status in (429, 503)]
    last = max(each.due + each.seconds for each in samples)
    # what is answered after the end was still asked in it, and took longer to answer
    took = max(seconds, last - min(each.due for each in samples))
    return Seen(
        name=name,
        offered=len(samples) / seconds,
        answered=len(good) / took,
        p50_ms=_percentile(good, 50),
        p99_ms=_percentile(good, 99),
        decides_refused=_share(refused, samples, "decide"),
        outcomes_refused=_share(refused, samples, "reward"),
        refused_p99_ms=_percentile([each.seconds for each in refused], 99),
        unanswered=sum(each.status == 0 for each in samples),
        rss_mb=rss / 2**20,
    )


def _percentile(seconds: Sequence[float], q: int) -> float:
    return float(np.percentile(seconds, q)) * 1e3 if seconds else 0.0


def _share(some: Sequence[Sample], of: Sequence[Sample], kind: str) -> float:
    return sum(each.kind == kind for each in some) / max(1, sum(each.kind == kind for each in of))


async def capacity(traffic: Traffic, pool: Pool, seconds: float) -> list[Sample]:
    """What is answered when there is always something to do, after a while of warming up."""
    await closed_loop(traffic, pool, _WORKERS, seconds / 4)
    return await closed_loop(traffic, pool, _WORKERS, seconds)


async def overload(directory: Path, seconds: float, text: bool) -> list[Seen]:
    """Kept busy, at 80 %, and at three times as much, of one service."""
    service = Service(directory, {"BANDIT_LOG_LEVEL": "warning"})
    rows: list[Seen] = []
    bar = tqdm(total=2 + len(SHARES), desc="capacity", disable=None, leave=False)
    try:
        host, _, port = (await service.url()).removeprefix("http://").partition(":")
        used = psutil.Process(service.popen.pid)
        traffic = Traffic(host, int(port), text=text)
        pool = Pool(host, int(port), _CONNECTIONS)
        busy = await capacity(traffic, pool, seconds)
        rows.append(seen("kept busy", busy, seconds, used.memory_info().rss))
        bar.update(2)
        for share in SHARES:
            bar.set_description(f"{share:g} x")
            samples = await open_loop(traffic, pool, share * rows[0].answered, seconds)
            rows.append(seen(f"{share:g} x", samples, seconds, used.memory_info().rss))
            bar.update()
        pool.close()
    finally:
        bar.close()
        service.kill()
    return rows


def table(rows: Sequence[Seen]) -> str:
    """Markdown, which is also read well on a terminal."""
    lines = [
        "| load | offered/s | answered/s | of busy | p50 ms | p99 ms | decides refused "
        "| outcomes refused | refused in p99 ms | unanswered | memory MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.name} | {row.offered:.0f} | {row.answered:.0f} "
        f"| {row.answered / rows[0].answered:.0%} | {row.p50_ms:.0f} | {row.p99_ms:.0f} "
        f"| {row.decides_refused:.0%} | {row.outcomes_refused:.0%} | {row.refused_p99_ms:.0f} "
        f"| {row.unanswered} | {row.rss_mb:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


def prepare(directory: Path) -> None:
    """Give a new data directory the model that was exported before, so that none is made."""
    models = Path("var/models")
    directory.mkdir(parents=True, exist_ok=True)
    if models.exists():
        with suppress(FileExistsError):
            (directory / "models").symlink_to(models.resolve(), target_is_directory=True)


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each run")
    parser.add_argument("--text", action="store_true", help="queries that the service embeds")
    parser.add_argument("--markdown", type=Path, help="write the figures into this file's section")
    parser.add_argument("--json", action="store_true", help="for machines")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        rows = asyncio.run(overload(Path(name), args.seconds, args.text))
    print(json.dumps([asdict(row) for row in rows]) if args.json else table(rows))
    if args.markdown is not None:
        put_section(args.markdown, "overload-text" if args.text else "overload", table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
