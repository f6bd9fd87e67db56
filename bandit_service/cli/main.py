"""The command line: serving, replaying, evaluating, and looking into a log."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import importlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from tqdm import tqdm

import bandit_service
import policies
from bandit_service import clock, logs, settings
from bandit_service.app import assembly, service
from bandit_service.cli import terminal
from bandit_service.cli.file_modes import open_to_others
from bandit_service.embedding import ModelUnavailable, export
from bandit_service.http import frame
from bandit_service.settings import keys
from store import StoreError

USAGE_ERROR = 2
_LEAST_END_S = 2.0
_log = logging.getLogger("bandit.cli")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 done, 1 failed, 2 the command or the configuration is wrong."""
    return terminal.kept(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    words = sys.argv[1:] if argv is None else list(argv)
    args = _parser(next((word for word in words if not word.startswith("-")), "")).parse_args(words)
    try:
        return int(args.run(args))
    except settings.BadSettings as error:
        for mistake in error.mistakes:
            print(f"config: {mistake}", file=sys.stderr)
        return USAGE_ERROR
    except (ModelUnavailable, StoreError, assembly.WrongDimension, OSError) as error:
        if isinstance(error, BrokenPipeError) and terminal.reader_left():
            return 0
        print(f"bandit-service: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


_MODULES = {
    "upstream": (
        "bandit_service.cli.upstream",
        "serve recorded answers by OpenAI's wire format",
        "A provider that answers from recorded traffic at recorded cost and latency, to try the "
        "gateway without a key.",
    ),
    "replay": (
        "bandit_service.cli.replay",
        "stream recorded traffic through policies, without a server",
        "Stream recorded traffic through one or more policies, by the same fold that the service "
        "runs, and compare them with uniform, the best single arm and the oracle.",
    ),
    "evaluate": (
        "bandit_service.cli.evaluate",
        "judge routers and policies on recorded data, with curves and intervals",
        "Recorded data × routers and policies × seeds, under the protocols of docs/evaluation.md. "
        "Prints tables; leaves JSON, Parquet and plots in a directory.",
    ),
    "learn": (
        "bandit_service.cli.learn",
        "warm start: teach recorded outcomes to the event log, before serving",
        "Teach every recorded outcome to the event log of a stopped service.",
    ),
    "import": (
        "bandit_service.cli.importing",
        "warm start: a log of Vowpal Wabbit, or a table of decisions, becomes the past",
        "Create a new event log from another system's log.",
    ),
    "convert": (
        "bandit_service.cli.convert",
        "make a recording of logs with a line per answer, or of RouterBench's files",
        "Make NAME.jsonl.gz and NAME.meta.json, which replay, evaluate and tune read.",
    ),
    "tune": (
        "bandit_service.cli.tune",
        "choose a policy's parameters on a validation split of recorded data",
        "Search a policy's parameters on a validation split; the test split is looked at once, "
        "with the chosen ones and the defaults.",
    ),
    "try": (
        "bandit_service.cli.ask",
        "ask a running service a question: the decision, why, and the answer",
        "",
    ),
    "experiments": (
        "bandit_service.cli.experiments",
        "list, start, ramp and stop experiments, and show their results",
        "",
    ),
    "inspect": (
        "bandit_service.cli.inspect",
        "verify an event log, say what is in it, and repair it",
        "Verify the event log of a stopped service and say what is in it.",
    ),
    "export": (
        "bandit_service.cli.export",
        "write the event log as JSON lines, Parquet, Vowpal Wabbit's DSJSON or one table",
        "Write the event log of a stopped or a running service for other tools.",
    ),
}
"""Commands by name: the module, which is imported when the command is called and not before, so
that serving loads nothing that only studies need; the help in short and at length."""


def _parser(called: str) -> argparse.ArgumentParser:
    """The parser, with the arguments of the command that is called."""
    parser = terminal.Parser(
        prog="bandit-service",
        description="An online-learning router for large language models.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=bandit_service.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run the service")
    _with_config(serve)
    serve.add_argument("--host", help="overrides [server] host")
    serve.add_argument("--port", type=int, help="overrides [server] port; 0 takes a free one")
    serve.add_argument(
        "--ready-file",
        type=Path,
        help='write {"url": …} to this file once the service is listening',
    )
    serve.add_argument("--hints", action="store_true", help="print where to look and what to try")
    serve.set_defaults(run=_serve)

    for name, (path, short, long) in _MODULES.items():
        command = commands.add_parser(
            name, help=short, description=long or short,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter
            if name == "upstream" else argparse.HelpFormatter,
        )  # fmt: skip
        if name == called:
            module = importlib.import_module(path)
            module.add_arguments(command)
            command.set_defaults(run=module.run)

    making = commands.add_parser("keys", help="make API keys")
    actions = making.add_subparsers(required=True, metavar="new")
    new = actions.add_parser("new", help="print a fresh key, once, and the entry to configure")
    new.add_argument("--id", required=True, help="a name for the key")
    new.add_argument("--scopes", required=True, help=f"some of {', '.join(keys.SCOPES)}, by commas")
    new.add_argument("--tenant", default="", help="the only tenant that the key acts for")
    new.set_defaults(run=_keys_new)

    config = commands.add_parser("config", help="check or show the configuration")
    actions = config.add_subparsers(required=True, metavar="check|show")
    check = actions.add_parser("check", help="every mistake at once; exit 2 if there is one")
    _with_config(check)
    check.set_defaults(run=_config_check)
    show = actions.add_parser(
        "show", help="every key with its value, where it came from, and what it is for"
    )
    _with_config(show)
    show.add_argument("--json", action="store_true", help="for machines")
    show.set_defaults(run=_config_show)

    listing = commands.add_parser("policies", help="list the policies and their parameters")
    listing.add_argument("name", nargs="?", help="one of them, with its whole description")
    listing.add_argument("--json", action="store_true", help="for machines")
    listing.set_defaults(run=_policies)

    model = commands.add_parser(
        "export-model", help="build the embedding model for the onnx or static backend"
    )
    _with_config(model)
    model.add_argument(
        "--backend", choices=("onnx", "static"), help="overrides [embedding] backend"
    )
    model.set_defaults(run=_export_model)
    return parser


def _with_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML configuration file (optional)"
    )


def _settings(args: argparse.Namespace) -> settings.Settings:
    return settings.read(args.config)


def _serve(args: argparse.Namespace) -> int:
    chosen = _settings(args)
    server = chosen.server
    if args.host is not None:
        server = dataclasses.replace(server, host=args.host)
    if args.port is not None:
        server = dataclasses.replace(server, port=args.port)
    logs.configure(chosen.log_level, sys.stderr, chosen.log_format)
    for file in open_to_others(chosen, args.config):
        told = {"path": str(file), "why": f"chmod 600 {file}"}
        _log.warning("other users can read a file with keys", extra=told)
    return asyncio.run(_serve_until_stopped(dataclasses.replace(chosen, server=server), args))


async def _serve_until_stopped(chosen: settings.Settings, args: argparse.Namespace) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal that is closed ends no service
    signal.signal(signal.SIGTERM, _end)  # while it recovers there is nothing to drain
    bar: tqdm[Any] = tqdm(desc="recovering", unit=" events", disable=None, leave=False)

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    async with service.serving(chosen, progress) as (url, running):
        bar.close()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, _log.warning, "SIGHUP: nothing is read again; "
                                "restart to take a changed configuration")  # fmt: skip
        if args.ready_file is not None:
            partial = args.ready_file.with_suffix(".partial")
            partial.write_text(json.dumps({"url": url}), encoding="utf-8")
            partial.rename(args.ready_file)
        if args.hints:
            print(_hints(url, chosen), flush=True)
        stopping = asyncio.ensure_future(stop.wait())
        broken = running[frame.ROUTER].writer.broken
        await asyncio.wait((stopping, broken), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if broken.done():
            print(f"bandit-service: {broken.result()}", file=sys.stderr)
            return 1
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            signal.signal(number, _end)  # a second one ends the process at once
        _end_after(chosen.server.drain_s + chosen.server.shutdown_s)
    return 0


def _end_after(seconds: float) -> None:
    """End the process then, wherever it is: what was acknowledged is in the log. All that this can
    cost is the last snapshot, without which the next start folds a little more.
    """
    timer = threading.Timer(max(seconds, _LEAST_END_S), _late)
    timer.daemon = True
    timer.start()


def _late() -> None:
    _log.warning("server.shutdown_s is over: ended without the rest, such as the last snapshot")
    os._exit(0)


def _end(number: int, _: object) -> None:
    """End at once, as by kill -9: what was acknowledged is in the log."""
    os._exit(128 + number)


def _hints(url: str, chosen: settings.Settings) -> str:
    arms = ", ".join(arm.id for arm in chosen.arms)
    return f"""
bandit-service is listening on {url}   (Ctrl-C stops it)
  policy   {chosen.policy.name}
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


def _keys_new(args: argparse.Namespace) -> int:
    key, hashed = keys.new_key()
    entry = keys.ApiKey(
        id=args.id, hash=hashed, scopes=tuple(args.scopes.split(",")), tenant=args.tenant
    )
    try:
        keys.check_key(entry)
    except ValueError as error:
        print(f"bandit-service: --{error}", file=sys.stderr)
        return USAGE_ERROR
    print(f"# the key, shown only now: {key}")
    print("[[keys]]")
    for name, value in msgspec.to_builtins(entry).items():
        if value not in ("", 0, 0.0, 1.0, False):
            print(f"{name} = {json.dumps(value)}")
    return 0


def _config_check(args: argparse.Namespace) -> int:
    chosen = _settings(args)
    if refused := settings.exposure(chosen):  # which would end the start
        raise settings.BadSettings([refused])
    for note in settings.not_configured(chosen):
        print(f"note: {note}", file=sys.stderr)
    print(f"the configuration is right: {len(chosen.arms)} arms, policy {chosen.policy.name}")
    return 0


def _config_show(args: argparse.Namespace) -> int:
    chosen = _settings(args)
    rows = []
    for key, (default, rule) in settings.rules().items():
        value: Any = chosen
        for part in key.split("."):
            value = getattr(value, part)
        rows.append(
            {
                "key": key,
                "value": value,
                "default": default,
                "origin": chosen.origins[key],
                "help": rule.help,
            }
        )
    arms = [msgspec.to_builtins(arm) for arm in chosen.arms]
    if args.json:
        print(json.dumps({"settings": rows, "arms": arms, "arms_origin": chosen.origins["arms"]}))
        return 0
    for row in rows:
        print(f"{row['key']} = {json.dumps(row['value'])}    # {row['help']} ({row['origin']})")
    for arm in arms:
        print(f"arms: {json.dumps(arm)} ({chosen.origins['arms']})")
    return 0


def _policies(args: argparse.Namespace) -> int:
    names = [args.name] if args.name else [*policies.names(), *policies.river_names()]
    described = []
    for name in names:
        try:
            cls = policies.policy_class(name)
        except ValueError as error:
            print(f"bandit-service: {error}", file=sys.stderr)
            return USAGE_ERROR
        text = (cls.__doc__ or "").strip()
        parameters = dataclasses.asdict(policies.load(name))  # type: ignore[call-overload]
        described.append(
            {"name": name, "summary": text.splitlines()[0], "parameters": parameters, "text": text}
        )
    if args.json:
        print(json.dumps(described))
        return 0
    for each in described:
        values = ", ".join(f"{key}={value!r}" for key, value in each["parameters"].items())
        print(f"{each['name']}: {each['text'] if args.name else each['summary']}")
        print(f"    {values or 'no parameters'}")
    return 0


def _export_model(args: argparse.Namespace) -> int:
    chosen = _settings(args)
    backend = args.backend or chosen.embedding.backend
    begun = clock.now()
    path = export(backend, chosen.embedding.model, Path(chosen.data_dir) / "models")
    print(f"{backend} model in {path} ({clock.now() - begun:.1f} s)")
    return 0
