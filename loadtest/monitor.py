"""A service, demo traffic and a Prometheus with the alert rules, until Ctrl-C.

python -m loadtest.monitor [--seconds N] [--rate N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

import aiohttp
import numpy as np

from loadtest.client import StreamClient, StreamError
from loadtest.demo import DemoFailed, serving
from loadtest.prometheus import PrometheusFailed, prometheus

_TOPICS = ("algebra", "SQL", "Rust", "a poem", "tax law", "chemistry", "a plan", "history")
_TASKS = ("Explain", "Summarise", "Prove something about", "Write a test for", "Translate")
ARMS = (
    ("llama-3.1-8b", 0.1, 0.1, 0.55),
    ("mistral-large", 0.5, 1.5, 0.7),
    ("gemini-2.5-pro", 1.25, 10.0, 0.9),
)
"""id, USD per million tokens in and out, and the mean quality of its answers in the demo."""


def config(data_dir: Path, scratch: Path) -> str:
    """The demo's arms and a budget; its log is in `scratch`, the embedding model in `data_dir`."""
    lines = [
        f"data_dir = {json.dumps(str(data_dir.absolute()))}", 'log_level = "warning"',
        "[server]", "port = 0",
        "[log]", f"path = {json.dumps(str(scratch / 'events.sqlite3'))}",
        "[snapshots]", f"directory = {json.dumps(str(scratch / 'snapshots'))}",
        "[[budgets]]", 'scope = "service"', 'per = "day"', "usd = 100.0",
    ]  # fmt: skip
    for id, cost_in, cost_out, _ in ARMS:
        lines += [
            "[[arms]]", f'id = "{id}"',
            f"usd_per_mtok_in = {cost_in}", f"usd_per_mtok_out = {cost_out}",
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


async def traffic(url: str, rate: float, seconds: float) -> int:
    """Queries at this rate, each with its reward, some with a comparison; how many."""
    chance = np.random.default_rng(0)
    quality = {id: mean for id, _, _, mean in ARMS}
    ids, sent, ends = list(quality), 0, time.monotonic() + seconds
    async with StreamClient(url) as client, aiohttp.ClientSession() as session:
        while time.monotonic() < ends:
            text = f"{chance.choice(_TASKS)} {chance.choice(_TOPICS)}, {chance.integers(50)}"
            if sent % 10 == 0:  # most go over the stream, some over HTTP
                async with session.post(f"{url}/v1/decide", json={"query": text}) as answer:
                    answer.raise_for_status()
                    decided = await answer.json()
            else:
                decided = await client.request("decide", query=text)
            arm = decided["arm"]
            reported = float(np.clip(chance.normal(quality[arm], 0.1), 0.0, 1.0))
            await client.request(
                "reward", decision_id=decided["decision_id"], quality=reported,
                cost_usd=float(chance.uniform(0.5, 1.5) * decided["expected"]["cost_usd"]),
            )  # fmt: skip
            if sent % 5 == 0:
                other = ids[(ids.index(arm) + 1) % len(ids)]
                better = quality[arm] + chance.normal(0.0, 0.2) >= quality[other]
                winner, loser = (arm, other) if better else (other, arm)
                await client.request(
                    "compare", winner=winner, loser=loser, decision_id=decided["decision_id"]
                )
            sent += 1
            await asyncio.sleep(1.0 / rate)
    return sent


def main() -> int:
    """Run until Ctrl-C, SIGTERM or for --seconds; 0 ended cleanly, 1 something did not start."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.monitor", description=__doc__)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--rate", type=float, default=20.0, help="queries per second")
    parser.add_argument("--data-dir", type=Path, default=Path("var"))
    args = parser.parse_args()
    told_to_end: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        told_to_end.append(number)
        signal.default_int_handler(number, frame)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            directory = Path(scratch)
            written = directory / "monitor.toml"
            written.write_text(config(args.data_dir, directory), encoding="utf-8")
            with (
                suppress(KeyboardInterrupt),
                serving(written) as url,
                prometheus(url, directory / "prometheus") as watching,
            ):
                print(f"service     {url}/metrics")
                print(f"prometheus  {watching}/graph  alerts: {watching}/alerts")
                print("Ctrl-C ends both and removes their data", flush=True)
                asyncio.run(traffic(url, args.rate, args.seconds))
    except (
        DemoFailed,
        PrometheusFailed,
        StreamError,
        aiohttp.ClientError,
        ConnectionError,
    ) as error:
        if not told_to_end:  # a terminal tells all at once, and the service may be gone first
            print(f"monitor: {error}", file=sys.stderr)
            return 1
    print("ended")
    return 0


if __name__ == "__main__":
    sys.exit(main())
