"""Serve recorded answers in OpenAI's wire format.

A provider that answers from recorded traffic at recorded cost and latency, to try the gateway
without a key.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

from aiohttp import web

from bandit_service.app.port_check import check_address
from bandit_service.cli import options
from bandit_service.data.recordings import (
    PARETOBANDIT,
    SPECIALISTS,
    BadRecording,
    Recorded,
    open_recording,
)
from bandit_service.offline.provider import RecordedUpstream, config_toml


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `upstream`."""
    parser.add_argument(
        "--data", default=PARETOBANDIT, help=f"a recording, {SPECIALISTS} or {PARETOBANDIT}"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    options.port(parser, "port to listen on; 0 uses a free one", 8090)
    parser.add_argument(
        "--speed", type=float, default=10.0, help="speed relative to the recorded times"
    )
    parser.add_argument(
        "--fail-rate", type=float, default=0.0, help="share of requests answered with 503"
    )
    parser.add_argument(
        "--redirect-rate",
        type=float,
        default=0.0,
        help="share of requests that another model answers, which says so",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of failures and redirects")
    parser.add_argument(
        "--ready-file",
        type=Path,
        help='write {"url": …} to this file once the service is listening',
    )
    parser.add_argument(
        "--write-config", type=Path, help="write a configuration for a service in front of it"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal; 2 where the arguments or the recording cannot be used."""
    wrong = "" if args.speed > 0.0 else "--speed: must be above 0"
    for name, rate in (("fail", args.fail_rate), ("redirect", args.redirect_rate)):
        if not 0.0 <= rate <= 1.0:
            wrong = wrong or f"--{name}-rate: from 0 to 1"
    if wrong:
        print(f"upstream: {wrong}", file=sys.stderr)
        return 2
    try:
        recorded = open_recording(args.data)
    except BadRecording as error:
        print(f"upstream: {error}", file=sys.stderr)
        return 2
    check_address(args.host, args.port)
    asyncio.run(_serve(args, recorded))
    return 0


async def _serve(args: argparse.Namespace, recorded: Recorded) -> None:
    upstream = RecordedUpstream(recorded, args.speed, args.fail_rate, args.redirect_rate, args.seed)
    runner = web.AppRunner(upstream.app(), shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, args.host, args.port).start()
        url = f"http://{args.host}:{runner.addresses[0][1]}/v1"
        if args.write_config:
            args.write_config.write_text(config_toml(recorded, url), encoding="utf-8")
        if args.ready_file:
            args.ready_file.write_text(json.dumps({"url": url}), encoding="utf-8")
        print(f"{len(recorded)} queries of {recorded.name}, {len(recorded.arms)} models: {url}")
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        await ended.wait()
    finally:
        await runner.cleanup()
