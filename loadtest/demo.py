"""Real recorded traffic through a running service, then through every policy.

    python -m loadtest.demo --data paretobandit --policy metallm --seeds 5

Starts `bandit-service serve` with the recording's arms, streams every query through it over the
WebSocket, and sends back as the reward what the chosen model really scored and cost. Then it
stops the service, runs all policies over the same traffic, and writes a table, a plot and JSON.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import policies
from bandit_service.cli import replay as replay_cli
from bandit_service.core.decide import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.embedding import open_backend
from bandit_service.replay import report
from bandit_service.replay.baselines import Track, baselines
from bandit_service.replay.recorded import (
    PARETOBANDIT,
    BadRecording,
    Recorded,
    embed_all,
    open_recording,
)
from bandit_service.replay.simulate import Run, order_of
from bandit_service.settings import Settings
from loadtest.client import StreamClient, StreamError

_DEFAULTS = Settings()
_START_S, _STOP_S = 120.0, 30.0


class DemoFailed(Exception):
    """The service did not start, or did not stop; the message has the end of its output."""


def main() -> int:
    """Run the demo; 0 done, 1 failed, 2 the arguments or the data cannot be used."""
    args = _parser().parse_args()
    if not policies.exists(args.policy):
        print(f"demo: --policy: there are {policies.there_are()}", file=sys.stderr)
        return replay_cli.USAGE_ERROR
    try:
        recorded = open_recording(args.data)
    except BadRecording as error:
        print(f"demo: {error}", file=sys.stderr)
        return replay_cli.USAGE_ERROR
    if args.limit is not None:
        recorded = recorded.first(args.limit)
    replay_cli.tell_left_out(recorded)
    try:
        _demo(recorded, args)
    except (DemoFailed, ConnectionError, StreamError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _demo(recorded: Recorded, args: argparse.Namespace) -> None:
    explore = Exploration()
    rule = RewardRule(_DEFAULTS.reward.willingness_to_pay, _DEFAULTS.reward.latency_weight)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "demo.toml"
        config.write_text(
            config_of(recorded, args.policy, args.data_dir, Path(scratch)), encoding="utf-8"
        )
        print(f"starting the service with the {len(recorded.arms)} arms of {recorded.name}")
        with serving(config) as url:
            print(f"listening on {url}")
            streamed = time.perf_counter()
            served = asyncio.run(stream(url, recorded, rule, args.in_flight))
            seconds = time.perf_counter() - streamed
    print(f"{len(recorded)} decisions and rewards in {seconds:.1f} s; now every policy")
    backend = open_backend(
        _DEFAULTS.embedding.backend, _DEFAULTS.embedding.model, args.data_dir / "models"
    )
    model = _DEFAULTS.embedding.model
    embeddings = embed_all(recorded.texts, backend, model, args.data_dir / "embeddings")
    chosen = replay_cli.chosen_policies(["all"], [])
    runs = replay_cli.replay(
        recorded,
        embeddings,
        chosen,
        seeds=args.seeds,
        explore=explore,
        rule=rule,
        neighbours=_DEFAULTS.history.neighbours,
        capacity=_DEFAULTS.history.capacity,
        quiet=False,
    )
    runs[f"{args.policy}, served"] = [served]
    rows = report.rows(runs)
    title = replay_cli.heading(recorded, args.seeds)
    print(f"\n{title}\n{report.table(rows)}\n")
    args.out.mkdir(parents=True, exist_ok=True)
    results = replay_cli.as_json(recorded, chosen, rows, args.seeds, explore, rule)
    results["served"] = {
        "policy": args.policy,
        "in_flight": args.in_flight,
        "seconds": seconds,
        "decisions_per_s": len(recorded) / seconds,
        "fallbacks": served.fallbacks,
    }
    file = args.out / f"{recorded.name}.json"
    file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"results in {file}")
    try:
        report.plot(runs, title, args.out / f"{recorded.name}.png")
    except report.PlotUnavailable as error:
        print(error)
    else:
        print(f"plot in {args.out / f'{recorded.name}.png'}")
    print(f"{time.perf_counter() - begun:.0f} s in all")


async def stream(url: str, recorded: Recorded, rule: RewardRule, in_flight: int) -> Run:
    """Every query decided and rewarded by the service, `in_flight` at a time, with a bar."""
    rows = iter(order_of(recorded, 0).tolist())
    answered = ~np.isnan(recorded.quality)
    column = {str(arm.id): k for k, arm in enumerate(recorded.arms)}
    beside = baselines(recorded, rule)
    columns = {
        "uniform": beside.uniform.reward,
        "best single": beside.best.reward,
        "oracle": beside.oracle.reward,
    }
    done: list[tuple[int, int, float, bool]] = []
    sums = dict.fromkeys(columns, 0.0)
    earned = 0.0

    async def worker(client: StreamClient, bar: tqdm[Any]) -> None:
        nonlocal earned
        for row in rows:
            asked: dict[str, Any] = {"query": recorded.texts[row]}
            if not answered[row].all():
                asked["arms"] = [arm for arm, k in column.items() if answered[row, k]]
            decided = await client.request("decide", **asked)
            k = column[decided["arm"]]
            quality, cost = float(recorded.quality[row, k]), float(recorded.cost[row, k])
            await client.request(
                "reward", decision_id=decided["decision_id"], quality=quality, cost_usd=cost
            )
            reward = rule.scalar(quality, cost, 0.0, rule.willingness_to_pay)
            done.append((row, k, reward, "fallback" in decided))
            earned += reward
            for name, rewards in columns.items():
                sums[name] += float(rewards[row])
            bar.set_postfix_str(replay_cli.progress_text(len(done), earned, sums), refresh=False)
            bar.update()

    with tqdm(total=len(recorded), desc="streaming", unit=" q", dynamic_ncols=True) as bar:
        async with StreamClient(url) as client:
            some = min(in_flight, client.credits)
            await asyncio.gather(*(worker(client, bar) for _ in range(some)))
    order = np.array([row for row, _, _, _ in done], np.int64)
    arm = np.array([k for _, k, _, _ in done], np.int64)
    return Run(
        seed=0,
        order=order,
        arm=arm,
        track=Track(
            np.array([reward for _, _, reward, _ in done]),
            recorded.quality[order, arm],
            recorded.cost[order, arm],
        ),
        baselines=beside.take(order),
        outcomes=len(done),
        fallbacks=sum(fallback for _, _, _, fallback in done),
        failures=0,
    )


def config_of(recorded: Recorded, policy: str, data_dir: Path, scratch: Path) -> str:
    """The recording's arms; the log is in `scratch`, the embedding model in `data_dir`."""
    lines = [
        f"data_dir = {_toml(str(data_dir.absolute()))}",
        'log_level = "warning"',
        "[server]",
        "port = 0",
        "[policy]",
        f"name = {_toml(policy)}",
        "[log]",
        f"path = {_toml(str(scratch / 'events.sqlite3'))}",
    ]
    for arm in recorded.arms:
        lines += [
            "[[arms]]",
            f"id = {_toml(arm.id)}",
            f"usd_per_mtok_in = {arm.usd_per_mtok_in!r}",
            f"usd_per_mtok_out = {arm.usd_per_mtok_out!r}",
            f"context_window = {arm.context_window}",
        ]
    return "\n".join(lines) + "\n"


@contextmanager
def serving(config: Path) -> Iterator[str]:
    """The URL of a `bandit-service serve` of its own process, stopped by SIGTERM at the end."""
    ready, output = config.with_name("ready.json"), config.with_name("output.txt")
    with output.open("wb") as file:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "bandit_service.cli", "serve",
                "--config", str(config), "--ready-file", str(ready),
            ],
            stdout=file,
            stderr=file,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + _START_S
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise DemoFailed(f"the service did not start\n{_end_of(output)}")
            time.sleep(0.05)
        yield str(json.loads(ready.read_text(encoding="utf-8"))["url"])
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise DemoFailed(f"the service ended with {process.returncode}\n{_end_of(output)}")


def _end_of(output: Path) -> str:
    return "\n".join(output.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", default=PARETOBANDIT, metavar="FILE", help="as of `bandit-service replay`"
    )
    parser.add_argument("--policy", default=_DEFAULTS.policy.name, help="the one that serves")
    parser.add_argument("--seeds", type=replay_cli.bounded(int, 1, 10**6), default=5)
    parser.add_argument("--limit", type=replay_cli.bounded(int, 1, 10**9), help="first N queries")
    parser.add_argument(
        "--in-flight", type=replay_cli.bounded(int, 1, 65_535), default=16, metavar="N"
    )
    parser.add_argument("--out", type=Path, default=Path("demo-results"), metavar="DIR")
    parser.add_argument("--data-dir", type=Path, default=Path(_DEFAULTS.data_dir), metavar="DIR")
    return parser


if __name__ == "__main__":
    sys.exit(main())
