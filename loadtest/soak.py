"""A long run at 80 % of what the service can do: memory, latencies, and every reward in the log.

    python -m loadtest.soak [--minutes 10] [--out DIR] [--markdown FILE] [--json]

Leaves soak.json and soak.png in `--out`. Ends with 1 when an acknowledged reward is not in the log
exactly once, or one is there that nobody sent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from tqdm import tqdm

from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.core import events as ev
from loadtest.chaos.process import Service
from loadtest.openloop import Ledger, Pool, Sample, Traffic, open_loop
from loadtest.overload import capacity, prepare, seen
from loadtest.sections import put_section

# So low that memory has nothing more to fill once it is warm.
ENVIRON = {
    "BANDIT_LOG_LEVEL": "warning",
    "BANDIT_REWARD_MAX_PENDING": "10000",
    "BANDIT_HISTORY_CAPACITY": "5000",
}
SHARE, WARM, EVERY_S = 0.8, 0.3, 1.0
_LAG = 10


@dataclass
class Soak:
    """What a run saw. rss: (seconds since the begin, bytes)."""

    minutes: float
    capacity: float
    ledger: Ledger
    rss: list[tuple[float, int]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    begun: float = 0.0
    exit_code: int | None = None

    def warm_rss(self) -> list[tuple[float, int]]:
        """The memory after the warm-up."""
        return [each for each in self.rss if each[0] >= WARM * self.minutes * 60]


def slope(points: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Least squares, per x, with its 95 % interval (Newey-West with ten lags).

    >>> slope([(x, 3.0 * x + 1.0) for x in range(40)])
    (3.0, 3.0, 3.0)
    """
    x, y = np.array(points, float).T
    x = x - x.mean()
    sxx = float(x @ x)
    b = float(x @ y) / sxx
    scores = x * (y - y.mean() - b * x)
    long_run = float(scores @ scores)
    for lag in range(1, min(_LAG, len(x) - 1) + 1):
        long_run += 2 * (1 - lag / (_LAG + 1)) * float(scores[lag:] @ scores[:-lag])
    half = 1.96 * max(0.0, long_run) ** 0.5 / sxx
    return round(b, 9), round(b - half, 9), round(b + half, 9)


async def soak(directory: Path, minutes: float) -> Soak:
    """Run, stop by SIGTERM, and what was seen."""
    service = Service(directory, ENVIRON)
    try:
        host, _, port = (await service.url()).removeprefix("http://").partition(":")
        traffic, pool = Traffic(host, int(port)), Pool(host, int(port), 1000)
        busy = await capacity(traffic, pool, 8.0)
        most = seen("kept busy", busy, 8.0, 0).answered
        found = Soak(minutes, most, traffic.ledger, begun=time.perf_counter())
        with tqdm(total=int(minutes * 60), unit=" s", disable=None) as bar:
            watching = asyncio.create_task(_watch(service, found, bar))
            found.samples = await open_loop(traffic, pool, SHARE * most, minutes * 60)
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        pool.close()
        service.terminate()
        found.exit_code = await asyncio.to_thread(service.popen.wait, 60)
    finally:
        service.kill()
    return found


async def _watch(service: Service, found: Soak, bar: tqdm[Any]) -> None:
    used = psutil.Process(service.popen.pid)
    while True:
        seconds = time.perf_counter() - found.begun
        found.rss.append((seconds, used.memory_info().rss))
        bar.update(int(seconds) - bar.n)
        bar.set_postfix_str(f"{found.rss[-1][1] / 2**20:.0f} MB")
        await asyncio.sleep(EVERY_S)


def lost(directory: Path, ledger: Ledger) -> list[str]:
    """What of the ledger is not once in the log, and what is there that is not in the ledger."""
    log = assembly.open_log(settings.read(None, {"BANDIT_DATA_DIR": str(directory)}))
    try:
        events = (ev.decode(body) for _, body in log.replay() if body)
        there = Counter(each.decision_id for each in events if isinstance(each, ev.Rewarded))
    finally:
        log.close()
    wrong = [f"{id} is there {there[id]} times" for id in ledger.acknowledged if there[id] != 1]
    sent = {*ledger.acknowledged, *ledger.doubtful}
    return wrong + [f"{id} was never acknowledged" for id in there if id not in sent]


def summary(found: Soak, wrong: Sequence[str]) -> dict[str, Any]:
    """Everything that the table, the plot and a reader need."""
    per_s, low, high = slope([(at, rss / 2**20) for at, rss in found.warm_rss()])
    whole = seen("soak", found.samples, found.minutes * 60, found.rss[-1][1])
    other = Counter(each.status for each in found.samples)
    windows = []
    width = max(5.0, found.minutes * 60 / 60)
    for at in np.arange(0.0, found.minutes * 60, width).tolist():
        within = [s for s in found.samples if at <= s.due - found.begun < at + width]
        good = [s.seconds * 1e3 for s in within if s.status == 200]
        if good:
            p50, p99 = np.percentile(good, [50, 99])
            windows.append({"at_s": at, "p50_ms": float(p50), "p99_ms": float(p99)})
    return {
        "minutes": found.minutes,
        "capacity_per_s": found.capacity,
        "offered_per_s": whole.offered,
        "answered_per_s": whole.answered,
        "p50_ms": whole.p50_ms,
        "p99_ms": whole.p99_ms,
        "requests": len(found.samples),
        "statuses": {str(status): n for status, n in sorted(other.items())},
        "rewards_acknowledged": len(found.ledger.acknowledged),
        "rewards_in_doubt": len(found.ledger.doubtful),
        "rewards_wrong": list(wrong),
        "rss_warm_mb": found.warm_rss()[0][1] / 2**20,
        "rss_end_mb": found.rss[-1][1] / 2**20,
        "slope_mb_per_hour": [3600 * per_s, 3600 * low, 3600 * high],
        "exit_code": found.exit_code,
        "rss_mb": [(at, rss / 2**20) for at, rss in found.rss],
        "windows": windows,
    }


def rows(told: dict[str, Any]) -> list[tuple[str, str]]:
    """For a table."""
    per_hour, low, high = told["slope_mb_per_hour"]
    statuses = ", ".join(f"{n} × {status}" for status, n in told["statuses"].items())
    return [
        ("minutes", f"{told['minutes']:g}"),
        ("kept busy, requests/s", f"{told['capacity_per_s']:.0f}"),
        (
            "offered and answered, requests/s",
            f"{told['offered_per_s']:.0f} and {told['answered_per_s']:.0f}",
        ),
        ("answers (0: none)", statuses),
        ("latency p50, p99, ms", f"{told['p50_ms']:.0f}, {told['p99_ms']:.0f}"),
        ("rewards acknowledged", str(told["rewards_acknowledged"])),
        ("of those not once in the log, or there unasked", str(len(told["rewards_wrong"]))),
        (
            "memory when warm and at the end, MB",
            f"{told['rss_warm_mb']:.0f} and {told['rss_end_mb']:.0f}",
        ),
        ("slope after the warm-up, MB/hour", f"{per_hour:.0f} [{low:.0f}, {high:.0f}]"),
        ("exit code after SIGTERM", str(told["exit_code"])),
    ]


def plot(told: dict[str, Any], path: Path) -> None:
    """Memory and latencies over time."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(9, 6))
    above.plot(*zip(*told["rss_mb"], strict=True), color="tab:blue")
    above.axvline(WARM * told["minutes"] * 60, color="grey", linestyle=":", label="warm")
    above.set(ylabel="memory, MB", ylim=(0, None), title="80 % of what the service can do")
    above.legend(loc="lower right")
    at = [each["at_s"] for each in told["windows"]]
    for name in ("p50_ms", "p99_ms"):
        below.plot(at, [each[name] for each in told["windows"]], label=name.split("_")[0])
    below.set(xlabel="seconds", ylabel="latency, ms", yscale="log")
    below.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> int:
    """Run; 0 when no reward was lost and the service ended as it should."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=Path("var/soak"), help="for plot and JSON")
    parser.add_argument("--markdown", type=Path, help="write the figures into this file's section")
    parser.add_argument("--json", action="store_true", help="for machines")
    args = parser.parse_args()
    if args.minutes * 60 < 20:
        parser.error("--minutes: less than 20 seconds say nothing")
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        found = asyncio.run(soak(Path(name), args.minutes))
        told = summary(found, lost(Path(name), found.ledger))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "soak.json").write_text(json.dumps(told), encoding="utf-8")
    plot(told, args.out / "soak.png")
    table = rows(told)
    print(json.dumps(told) if args.json else "\n".join(f"{a:48} {b}" for a, b in table))
    for each in told["rewards_wrong"][:5]:
        print(each, file=sys.stderr)
    if args.markdown is not None:
        lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in table)]
        put_section(args.markdown, "soak", "\n".join(lines))
    return 1 if told["rewards_wrong"] or told["exit_code"] else 0


if __name__ == "__main__":
    sys.exit(main())
