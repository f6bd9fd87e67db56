"""What the demos share: their arguments, and how each is played."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import aiohttp

import policies
from bandit_service.cli import options, terminal
from bandit_service.data.log_source import Unreadable
from bandit_service.data.recordings import PARETOBANDIT, BadRecording, open_recording
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.settings import Settings
from loadtest.client import StreamError
from loadtest.demo import show
from loadtest.demo.acts import Stage, TooSmall, stage_of
from loadtest.demo.serve import DemoFailed

_QUERIES, _SEEDS, _FULL_SEEDS = 1200, 10, 20


def run(
    made: argparse.ArgumentParser, play: Callable[[Stage, Settings, argparse.Namespace], None]
) -> int:
    """Play the demo that the arguments ask for.

    0 done, 1 failed, 2 the arguments or the data cannot be used.
    """
    args = _parsed(made, sys.argv[1:])
    if not policies.exists(args.policy):
        print(f"demo: --policy: {policies.no_such(args.policy)}", file=sys.stderr)
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
        play(stage, settings, args)
    except (DemoFailed, OSError, StreamError, Unreadable, aiohttp.ClientError) as error:
        if isinstance(error, BrokenPipeError) and terminal.reader_left():
            return 0
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def parser(prog: str, description: str | None) -> argparse.ArgumentParser:
    """The arguments that every demo takes."""
    defaults = Settings()
    made = argparse.ArgumentParser(
        prog=prog,
        description=description,
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


def _parsed(made: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """The arguments with what follows from --full."""
    args = made.parse_args(words)
    args.seeds = args.seeds or (_FULL_SEEDS if args.full else _SEEDS)
    args.limit = args.limit or (None if args.full else _QUERIES)
    return args
