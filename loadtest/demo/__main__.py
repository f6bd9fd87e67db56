"""Three acts of real recorded traffic through a running service, then in other orders without it.

    python -m loadtest.demo --data paretobandit --seeds 10

Starts `bandit-service serve` with the recording's arms, asks it for a decision on every query over
the WebSocket, and sends back as the reward what the chosen model really scored and cost. In act 2
the favourite gets dearer; in act 3 an arm joins and the favourite gets worse. Then the same acts
in other orders by the service's own fold, beside every fixed choice, epsilon-greedy and chance.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from bandit_service.cli import terminal
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.settings import Settings
from loadtest.demo import live, show
from loadtest.demo.acts import ACTS, Stage
from loadtest.demo.running import parser, run
from loadtest.demo.serve import config_of, own_data, serving
from loadtest.demo.tell import Acts
from policies import Vector


def main() -> int:
    """Run the demo; 0 done, 1 failed, 2 the arguments or the data cannot be used."""
    return run(parser("python -m loadtest.demo", __doc__), _demo)


def _demo(stage: Stage, settings: Settings, args: argparse.Namespace) -> None:
    begun = time.perf_counter()
    print(
        f"{len(stage.recorded):,} real queries of {stage.recorded.name} with the recorded answers "
        f"of {len(stage.recorded.arms)} models, in {ACTS} acts.\n"
        + (
            "All policies and queries: this takes long; a bar shows the rest.\n"
            if args.full
            else "This takes one to two minutes on two cores: half live, half the other orders.\n"
        )
        + "reward = quality from 0 to 1, less the bill over "
        f"{settings.reward.willingness_to_pay:.2f} USD"
    )
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "demo.toml"
        first = [stage.recorded.arms[k] for k in stage.there(0)]
        own = own_data(Path(scratch), args.data_dir)
        config.write_text(config_of(first, args.policy, own), encoding="utf-8")
        with serving(config) as url:
            print(f"\nwatch it: {url}/", flush=True)
            served, embeddings = _served(url, stage, settings)
            print(f"\nserved in {show.lasting(time.perf_counter() - begun)}", flush=True)
            results = show.the_rest(stage, served, embeddings, settings, args)
            print(show.agreement(stage, served, embeddings, settings, args.policy))
            show.conclude(results, served, settings, args)
            print(f"{show.lasting(time.perf_counter() - begun)} in all", flush=True)
            if args.stay:
                show.stay(url)


def _served(url: str, stage: Stage, settings: Settings) -> tuple[live.Live, Vector]:
    async def streamed() -> live.Live:
        async with live.StreamSide(url) as side:
            return await live.perform(stage, side, RouterRules.of(settings).reward, Acts())

    done = asyncio.run(streamed())
    return done, live.embeddings_of(url, done)


if __name__ == "__main__":
    sys.exit(terminal.kept(main))
