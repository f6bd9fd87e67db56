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

import aiohttp

import policies
from bandit_service.cli import options, terminal
from bandit_service.data.log_source import Unreadable
from bandit_service.data.recordings import PARETOBANDIT, BadRecording, open_recording
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.settings import Settings
from loadtest.client import StreamError
from loadtest.demo import live, show
from loadtest.demo.acts import ACTS, Stage, TooSmall, stage_of
from loadtest.demo.serve import DemoFailed, config_of, own_data, serving
from loadtest.demo.tell import Acts
from policies import Vector

_QUERIES, _SEEDS, _FULL_SEEDS = 1200, 10, 20


def main() -> int:
    """Run the demo; 0 done, 1 failed, 2 the arguments or the data cannot be used."""
    args = parsed(parser(), sys.argv[1:])
    if not policies.exists(args.policy):
        print(f"demo: --policy: expected one of {policies.there_are()}", file=sys.stderr)
        return options.USAGE_ERROR
    settings = Settings()
    try:
        recorded = open_recording(args.data)
        options.tell_skipped(recorded)
        stage = stage_of(recorded, args.limit, RouterRules.of(settings).reward)
    except (BadRecording, TooSmall) as error:
        print(f"demo: {error}", file=sys.stderr)
        return options.USAGE_ERROR
    try:
        _demo(stage, settings, args)
    except (DemoFailed, ConnectionError, StreamError, Unreadable, aiohttp.ClientError) as error:
        if isinstance(error, BrokenPipeError) and terminal.reader_left():
            return 0
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


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


def parser() -> argparse.ArgumentParser:
    """The arguments, which the gateway's demo shares."""
    defaults = Settings()
    made = argparse.ArgumentParser(
        prog="python -m loadtest.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--data", default=PARETOBANDIT, metavar="FILE", help="as of `bandit-service replay`"
    )
    made.add_argument(
        "--policy", default=defaults.policy.name, help="the one that serves (default: %(default)s)"
    )
    made.add_argument("--seeds", type=options.bounded(int, 1, 10**6), help="other orders")
    made.add_argument("--limit", type=options.bounded(int, 1, 10**9), help="queries in all")
    made.add_argument("--full", action="store_true", help="all policies and all queries")
    made.add_argument("--stay", action="store_true", help="keep the page until Ctrl-C")
    made.add_argument(
        "--plot", type=Path, default=Path("demo-results/demo.png"), metavar="FILE.png"
    )
    made.add_argument("--markdown", type=Path, metavar="FILE", help="a document with a section")
    made.add_argument("--section", default=show.SECTION, help="its name (default: %(default)s)")
    made.add_argument("--data-dir", type=Path, default=Path(defaults.data_dir), metavar="DIR")
    return made


def parsed(made: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """The arguments with what follows from --full."""
    args = made.parse_args(words)
    args.seeds = args.seeds or (_FULL_SEEDS if args.full else _SEEDS)
    args.limit = args.limit or (None if args.full else _QUERIES)
    return args


if __name__ == "__main__":
    sys.exit(terminal.kept(main))
