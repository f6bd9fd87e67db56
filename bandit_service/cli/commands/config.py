"""Check or show the configuration."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import msgspec

from bandit_service import settings
from bandit_service.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `config`."""
    actions = parser.add_subparsers(required=True, metavar="check|show")
    check = actions.add_parser(
        "check", help="check the configuration and report every mistake; exit 2 if there is one"
    )
    options.config(check)
    check.set_defaults(run=_config_check)
    show = actions.add_parser(
        "show", help="print every key with its value, its origin and its meaning"
    )
    options.config(show)
    show.add_argument("--json", action="store_true", help="for machines")
    show.set_defaults(run=_config_show)


def _config_check(args: argparse.Namespace) -> int:
    chosen = settings.read(args.config)
    if refused := settings.exposure(chosen):  # which would end the start
        raise settings.BadSettings([refused])
    for note in [*settings.not_configured(chosen), *settings.following(chosen)]:
        print(f"note: {note}", file=sys.stderr)
    print(f"configuration OK: {len(chosen.arms)} arms, policy {chosen.policy.name}")
    return 0


def _config_show(args: argparse.Namespace) -> int:
    chosen = settings.read(args.config)
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
