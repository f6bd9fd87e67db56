"""Run the service."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import logging
import os
import sys
from functools import partial
from pathlib import Path

from bandit_service import logs, settings
from bandit_service.cli import imports, options
from bandit_service.cli.file_modes import open_to_others
from bandit_service.core.world import World
from bandit_service.embedding import MODELS, open_backend, opening

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
    of, models = chosen.embedding, Path(chosen.data_dir) / MODELS
    model = opening(partial(open_backend, of.backend, of.model, models, of.threads), models)
    with imports.kept(unless="bandit_service.cli.serving" in sys.modules):
        # what serves is imported while the model is loaded
        from bandit_service.cli import serving

    def ready(url: str, world: World) -> None:
        if args.ready_file is not None:
            unfinished = args.ready_file.with_suffix(".partial")
            unfinished.write_text(json.dumps({"url": url}), encoding="utf-8")
            unfinished.rename(args.ready_file)
        if args.hints:
            print(hints(url, chosen, world), flush=True)

    return asyncio.run(serving.until_stopped(chosen, model, ready))


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
