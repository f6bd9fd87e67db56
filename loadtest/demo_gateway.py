"""The three acts of the demo through the gateway, as an application would send them; no key needed.

    python -m loadtest.demo_gateway --data paretobandit --limit 480

Starts `bandit-service upstream` and a service in front of it, asks `model: "auto"` by Chat
Completions, Responses and Messages in turn, and rewards the recorded quality of the model that
answered; the bill is what the gateway reckons from the tokens that the provider reported. Then
other orders as `loadtest.demo` has them.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import msgspec

from bandit_service.cli import terminal
from bandit_service.core import events as ev
from bandit_service.offline.provider import config_toml
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.settings import Settings
from loadtest.demo import live, show
from loadtest.demo.acts import ACTS, Stage
from loadtest.demo.running import parser, run
from loadtest.demo.serve import DemoFailed, own_data, serving
from loadtest.demo.tell import Acts

_MAX_TOKENS = 100_000  # which Messages must say; no recorded answer is cut
_START_S = 60.0
_QUERIES, _SPEED = 480, 400.0


def main() -> int:
    """Run the demo; 0 done, 1 failed, 2 the arguments or the data cannot be used."""
    made = parser("python -m loadtest.demo_gateway", __doc__)
    made.set_defaults(
        limit=_QUERIES, plot=Path("demo-results/demo-gateway.png"), section="demo gateway"
    )
    made.add_argument("--speed", type=float, default=_SPEED, help="times faster than recorded")
    return run(made, _demo)


def _demo(stage: Stage, settings: Settings, args: argparse.Namespace) -> None:
    begun = time.perf_counter()
    print(
        f"{len(stage.recorded):,} real queries of {stage.recorded.name} through the gateway, in "
        f"{ACTS} acts; the provider is here and answers what was recorded, so no key is needed.\n"
        "This takes about a minute on two cores.\n"
        "reward = quality from 0 to 1, less the bill over "
        f"{settings.reward.willingness_to_pay:.2f} USD"
    )
    with tempfile.TemporaryDirectory() as scratch:
        here = own_data(Path(scratch), args.data_dir)
        with recorded_upstream(args.data, args.speed, Path(scratch)) as provider:
            config = Path(scratch) / "service.toml"
            first = replace(
                stage.recorded, arms=tuple(stage.recorded.arms[k] for k in stage.there(0))
            )
            head = f"data_dir = {json.dumps(str(here))}\n[server]\nport = 0\n"
            named = f"[policy]\nname = {json.dumps(args.policy)}\n\n"
            config.write_text(head + named + config_toml(first, provider), encoding="utf-8")
            with serving(config) as url:
                print(f"\nwatch it: {url}/", flush=True)
                served = asyncio.run(_ask(url, stage, settings))
                embeddings = live.embeddings_of(url, served)
                print(f"\nserved in {show.lasting(time.perf_counter() - begun)}", flush=True)
                results = show.the_rest(stage, served, embeddings, settings, args)
                show.conclude(results, served, settings, args)
                print(f"{show.lasting(time.perf_counter() - begun)} in all", flush=True)
                if args.stay:
                    show.stay(url)


@contextmanager
def recorded_upstream(data: str, speed: float, scratch: Path, *more: str) -> Iterator[str]:
    """The URL of a `bandit-service upstream`; the service's configuration is gateway.toml there."""
    ready = scratch / "upstream.json"
    command = [
        sys.executable,
        "-m",
        "bandit_service.cli",
        "upstream",
        "--data",
        data,
        "--port",
        "0",
        "--speed",
        str(speed),
        "--ready-file",
        str(ready),
        "--write-config",
        str(scratch / "gateway.toml"),
        *more,
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
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


async def _ask(url: str, stage: Stage, settings: Settings) -> live.Live:
    async with aiohttp.ClientSession() as session:
        side = GatewaySide(session, url)
        return await live.perform(stage, side, RouterRules.of(settings).reward, Acts())


class GatewaySide:
    """Questions to `auto` by each API in turn; of a reward only the quality is sent."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url
        self._fronts = itertools.cycle(("chat/completions", "responses", "messages"))

    async def ask(self, text: str, arms: list[str] | None) -> live.Asked:
        """One answer."""
        front, turns = next(self._fronts), [{"role": "user", "content": text}]
        said: dict[str, object] = {"input": turns} if front == "responses" else {"messages": turns}
        more = {"max_tokens": _MAX_TOKENS} if front == "messages" else {}
        body = {"model": "auto", **said, **more}
        headers = {} if arms is None else {"x-arms": ",".join(arms)}
        async with self._session.post(
            f"{self._url}/v1/{front}", json=body, headers=headers
        ) as response:
            if response.status != 200:
                raise DemoFailed(f"status {response.status}: {await response.text()}")
            await response.read()
            told = response.headers
            return live.Asked(told["x-decision-id"], told["x-arm"], float(told["x-cost-usd"]))

    async def reward(self, asked: live.Asked, signals: dict[str, float]) -> None:
        """What the user thought of it."""
        body = {"decision_id": asked.id, **signals}
        async with self._session.post(f"{self._url}/v1/rewards", json=body) as response:
            response.raise_for_status()

    async def put_arm(self, arm: ev.ArmSpec) -> None:
        """The arm is behind the recorded provider, as the others are."""
        behind = msgspec.structs.replace(arm, upstream="recorded")
        await live.put_arm(self._session, self._url, behind)


if __name__ == "__main__":
    sys.exit(terminal.kept(main))
