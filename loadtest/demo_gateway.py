"""Recorded queries through the gateway, as an application would send them; no key is needed.

    python -m loadtest.demo_gateway --data paretobandit --limit 500

Starts `bandit-service upstream` and a service in front of it, asks `model: "auto"` by OpenAI's wire
format, rewards the recorded quality of the model that answered, and prints quality and cost beside
what always asking one model, or any model by chance, would have come to on the same queries.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from tqdm import tqdm

from bandit_service.replay.recorded import PARETOBANDIT, BadRecording, Recorded, open_recording
from bandit_service.replay.simulate import order_of
from loadtest.demo import DemoFailed, serving

_START_S = 60.0


def main() -> int:
    """Run the demo; 0 done, 1 failed, 2 the data cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", default=PARETOBANDIT, help="a recording")
    parser.add_argument("--limit", type=int, default=500, help="queries sent")
    parser.add_argument("--speed", type=float, default=200.0, help="times faster than recorded")
    parser.add_argument("--in-flight", type=int, default=8, help="queries at a time")
    parser.add_argument("--data-dir", type=Path, default=Path("var"), help="where models/ is")
    args = parser.parse_args()
    try:
        recorded = open_recording(args.data)
    except BadRecording as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    rows = order_of(recorded, 0)[: args.limit]
    try:
        with tempfile.TemporaryDirectory() as scratch:
            config = Path(scratch) / "gateway.toml"
            with recorded_upstream(args.data, args.speed, Path(scratch)):
                here = Path(scratch) / "data"
                here.mkdir()
                (here / "models").symlink_to((args.data_dir / "models").resolve())
                text = config.read_text(encoding="utf-8")
                head = f'data_dir = "{here}"\n[server]\nport = 0\n\n'
                config.write_text(head + text, encoding="utf-8")
                with serving(config) as url:
                    served = asyncio.run(_ask(url, recorded, rows.tolist(), args.in_flight))
    except (DemoFailed, OSError, aiohttp.ClientError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(_table(recorded, rows, served))
    return 0


@contextmanager
def recorded_upstream(data: str, speed: float, scratch: Path) -> Iterator[str]:
    """The URL of a `bandit-service upstream`; the service's configuration is gateway.toml there."""
    ready = scratch / "upstream.json"
    command = [sys.executable, "-m", "bandit_service.cli", "upstream", "--data", data,
               "--port", "0", "--speed", str(speed), "--ready-file", str(ready),
               "--write-config", str(scratch / "gateway.toml")]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + _START_S
        while not ready.exists() or not ready.read_text(encoding="utf-8"):
            if process.poll() is not None or time.monotonic() > until:
                raise DemoFailed("the recorded upstream did not start")
            time.sleep(0.05)
        yield str(json.loads(ready.read_text(encoding="utf-8"))["url"])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


async def _ask(
    url: str, recorded: Recorded, rows: list[int], in_flight: int
) -> list[tuple[str, float, float]]:
    """(arm, quality, cost) of every answer, in the order in which they came."""
    column = {str(arm.id): k for k, arm in enumerate(recorded.arms)}
    done: list[tuple[str, float, float]] = []
    left = iter(rows)

    async def worker(session: aiohttp.ClientSession, bar: tqdm[Any]) -> None:
        for row in left:
            message = {"role": "user", "content": recorded.texts[row]}
            async with session.post(
                f"{url}/v1/chat/completions", json={"model": "auto", "messages": [message]}
            ) as response:
                if response.status != 200:
                    raise DemoFailed(f"status {response.status}: {await response.text()}")
                arm, id = response.headers["x-arm"], response.headers["x-decision-id"]
                cost = float(response.headers["x-cost-usd"])
                await response.read()
            quality = float(recorded.quality[row, column[arm]])
            reward = {"decision_id": id, "quality": quality}
            async with session.post(f"{url}/v1/rewards", json=reward) as response:
                response.raise_for_status()
            done.append((arm, quality, cost))
            last = done[-100:]
            bar.set_postfix_str(
                f"last 100: quality {np.mean([each[1] for each in last]):.3f}, "
                f"{1e3 * float(np.mean([each[2] for each in last])):.3f} USD/1000"
            )
            bar.update()

    with tqdm(total=len(rows), desc="asking auto", disable=None) as bar:
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(worker(session, bar) for _ in range(in_flight)))
    return done


def _table(recorded: Recorded, rows: Any, served: list[tuple[str, float, float]]) -> str:
    quality, cost = recorded.quality[rows], recorded.cost[rows]
    lines = [f"{'':40} {'quality':>8} {'USD/1000':>10}"]

    def row(name: str, worth: float, usd: float) -> None:
        lines.append(f"{name:40} {worth:8.4f} {1e3 * usd:10.4f}")

    half = served[len(served) // 2 :]
    for name, part in (("auto", served), ("auto, second half", half)):
        row(name, float(np.mean([s[1] for s in part])), float(np.mean([s[2] for s in part])))
    for k, arm in enumerate(recorded.arms):
        row(f"always {arm.id}", float(np.nanmean(quality[:, k])), float(np.nanmean(cost[:, k])))
    row("any by chance", float(np.nanmean(quality)), float(np.nanmean(cost)))
    shares = Counter(each[0] for each in served)
    told = ", ".join(f"{arm} {count / len(served):.0%}" for arm, count in shares.most_common())
    return "\n".join([*lines, f"auto asked: {told}"])


if __name__ == "__main__":
    sys.exit(main())
