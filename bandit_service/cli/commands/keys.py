"""Create API keys and keys of texts, and change the secret of feedback tokens."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import msgspec

from bandit_service.cli import options
from bandit_service.cli.options import USAGE_ERROR
from bandit_service.runtime import feedback
from bandit_service.settings import keys, texts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `keys`."""
    there_are = "{new,rotate-feedback,texts-key}"
    actions = parser.add_subparsers(required=True, dest="action", metavar=there_are)
    new = actions.add_parser(
        "new", help="print a new key, once, and its entry for the configuration"
    )
    new.add_argument("--id", required=True, help="a name for the key")
    scopes = ", ".join(keys.SCOPES)
    new.add_argument("--scopes", required=True, help=f"comma-separated scopes: {scopes}")
    new.add_argument("--tenant", default="", help="limit the key to this tenant")
    rotate = actions.add_parser(
        "rotate-feedback",
        help="sign feedback tokens with a new secret; tokens of the old one stay valid",
    )
    options.config(rotate)
    options.pool(rotate)
    actions.add_parser("texts-key", help="print a new key that encrypts texts, for [texts]")


def run(args: argparse.Namespace) -> int:
    """Run the subcommand; 2 if the service would refuse the result."""
    if args.action == "texts-key":
        print(texts.new_key())
        return 0
    return _rotate(args) if args.action == "rotate-feedback" else _new(args)


def _rotate(args: argparse.Namespace) -> int:
    chosen = options.settings_of(args)
    path = Path(chosen.data_dir) / feedback.NAME
    if chosen.feedback.secret_env:
        print(
            f"bandit-service: feedback.secret_env: the secrets are those of "
            f"{chosen.feedback.secret_env}; put a new one first there",
            file=sys.stderr,
        )
        return USAGE_ERROR
    try:
        count = feedback.rotate(path, chosen.feedback.ttl_s)
    except (OSError, ValueError) as error:
        print(f"bandit-service: {path}: {error}", file=sys.stderr)
        return USAGE_ERROR
    print(f"{path}: a new secret signs; {count - 1} older are still good")
    return 0


def _new(args: argparse.Namespace) -> int:
    """Print a key and its entry."""
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
