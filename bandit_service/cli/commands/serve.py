"""Run the service."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bandit_service import logs, settings
from bandit_service.app import pools, service
from bandit_service.cli import options
from bandit_service.cli.file_modes import open_to_others
from bandit_service.core.world import World
from bandit_service.http import middleware

_MIN_END_S = 2.0
_log = logging.getLogger("bandit.cli")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `serve`."""
    options.config(parser)
    parser.add_argument("--host", help="overrides [server] host")
    options.port(parser, "overrides [server] port; 0 uses a free port")
    parser.add_argument(
        "--from-file",
        action="store_true",
        help="make the configuration equal the file, and undo all changes made at run time",
    )
    parser.add_argument(
        "--ready-file",
        type=Path,
        help='write {"url": …} to this file once the service is listening',
    )
    parser.add_argument(
        "--hints", action="store_true", help="print the address of the page and commands to try"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal ends it; 0 then, 1 where the log broke."""
    chosen = settings.read(args.config)
    said = {name: each for name in ("host", "port") if (each := getattr(args, name)) is not None}
    chosen = dataclasses.replace(
        chosen,
        server=dataclasses.replace(chosen.server, **said),
        origins={**chosen.origins, **{f"server.{name}": f"--{name}" for name in said}},
        from_file=args.from_file,
    )
    logs.configure(chosen.log_level, sys.stderr, chosen.log_format)
    for file in open_to_others(chosen, args.config):
        told = {"path": str(file), "why": f"chown {os.getuid()} {file} && chmod 400 {file}"}
        _log.warning("other users can read a file with keys", extra=told)
    return asyncio.run(_serve_until_stopped(chosen, args))


_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_NOT_USED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)
"""Sent to open files anew; by default they end the process at once."""


async def _serve_until_stopped(chosen: settings.Settings, args: argparse.Namespace) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGHUP, *_NOT_USED):
        signal.signal(number, signal.SIG_IGN)  # a terminal that is closed ends no service
    signal.signal(signal.SIGTERM, _end)  # while it recovers there is nothing to drain
    why = ""
    bar: tqdm[Any] = tqdm(desc="recovering", unit=" events", disable=None, leave=False)

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    async with service.serving(chosen, progress) as (url, running):
        bar.close()
        for number in _ENDING:
            loop.add_signal_handler(number, stop.set)
        reloads: set[asyncio.Task[bool]] = set()

        def reload() -> None:
            task = loop.create_task(pools.reload(running))
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        loop.add_signal_handler(signal.SIGHUP, reload)
        for number in _NOT_USED:
            what = f"{number.name}: does nothing; SIGHUP reads the configuration again"
            loop.add_signal_handler(number, _log.warning, what)
        if args.ready_file is not None:
            partial = args.ready_file.with_suffix(".partial")
            partial.write_text(json.dumps({"url": url}), encoding="utf-8")
            partial.rename(args.ready_file)
        if args.hints:
            print(hints(url, chosen, running[middleware.ROUTER].world), flush=True)
        stopping = asyncio.ensure_future(stop.wait())
        broken = running[middleware.ROUTER].writer.broken
        await asyncio.wait((stopping, broken), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if broken.done():
            why = broken.result()
        for number in _ENDING:
            loop.remove_signal_handler(number)
            signal.signal(number, _end)  # a second one ends the process at once
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _end_after(chosen.server.drain_s + chosen.server.shutdown_s)
    if why:
        print(f"bandit-service: {why}", file=sys.stderr)
    return int(bool(why))


def _end_after(seconds: float) -> None:
    """End the process then, whatever it does: acknowledged events are in the log. Only the last
    snapshot may be lost, and then the next start applies a few more events.
    """
    timer = threading.Timer(max(seconds, _MIN_END_S), _late)
    timer.daemon = True
    timer.start()


def _late() -> None:
    _log.warning("server.shutdown_s is over: ended without the rest, such as the last snapshot")
    os._exit(0)


def _end(number: int, _: object) -> None:
    """End at once, as by kill -9: acknowledged events are in the log."""
    os._exit(128 + number)


def hints(url: str, chosen: settings.Settings, world: World) -> str:
    """What a newcomer needs first: addresses, where the command is, three commands to try.

    world: which policy and arms are in force, whoever set them.
    """
    arms = ", ".join(record.spec.id for record in world.catalogue.present())
    return f"""
bandit-service is listening on {url}   (Ctrl-C stops it)
  policy   {world.serving}
  arms     {arms}
  state    {chosen.data_dir}/{chosen.log.path}
  page     {url}/   (open it in a browser)
  command  {Path(sys.executable).parent}/bandit-service   (or activate that environment)
  look at  {url}/v1/arms   {url}/metrics   {url}/openapi.json

Three commands to try:

  curl -s {url}/v1/decide -d '{{"query": "Prove that the square root of two is irrational."}}'

  curl -s {url}/v1/rewards -d '{{"decision_id": "<from above>", "quality": 0.9}}'

  curl -s {url}/v1/decide -d '{{"query": "Good morning in French?", "max_cost_usd": 0.001}}'
"""
