"""List the policies and their parameters."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

import policies
from bandit_service.cli.options import USAGE_ERROR


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `policies`."""
    parser.add_argument("name", nargs="?", help="show the full description of this policy")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print them; 2 if there is none of that name."""
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
