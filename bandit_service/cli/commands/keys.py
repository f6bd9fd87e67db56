"""Create API keys."""

from __future__ import annotations

import argparse
import json
import sys

import msgspec

from bandit_service.cli.options import USAGE_ERROR
from bandit_service.settings import keys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `keys`."""
    actions = parser.add_subparsers(required=True, metavar="new")
    new = actions.add_parser(
        "new", help="print a new key, once, and its entry for the configuration"
    )
    new.add_argument("--id", required=True, help="a name for the key")
    scopes = ", ".join(keys.SCOPES)
    new.add_argument("--scopes", required=True, help=f"comma-separated scopes: {scopes}")
    new.add_argument("--tenant", default="", help="limit the key to this tenant")


def run(args: argparse.Namespace) -> int:
    """Print a key and its entry; 2 where the entry would be refused."""
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
