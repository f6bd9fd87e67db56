"""Write a first configuration for the providers whose keys are in the environment.

The file names the variable of each key, never the key itself, and models with their list prices.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bandit_service import settings
from bandit_service.cli.arm_tables import arm_table, upstream_table, write_checked
from bandit_service.cli.options import USAGE_ERROR, Usage
from bandit_service.data.known_models import known_models


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `init`."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=Path("bandit.toml"),
        help="the file to write; it must not exist yet (default: bandit.toml)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the file; 2 if it exists, or if no provider's key is set."""
    known = known_models()
    there = settings.variables_there([each.key_env for each in known.providers])
    try:
        if args.config.exists():
            raise Usage(f"--config: {args.config} is there already; `arms add` adds to it")
        if not there:
            names = ", ".join(each.key_env for each in known.providers)
            raise Usage(f"no provider's key is in the environment; looked for {names}")
        providers = [each for each in known.providers if each.key_env in there]
        arms = [
            model
            for provider in providers
            for model in known.models
            if model.provider == provider.id and model.first
        ]
        text = (
            f"# Models and list prices as {known.version} had them on {known.date}: compare them\n"
            "# with the providers' pages. `bandit-service arms list --known` knows more models.\n"
        )
        text += "".join(map(upstream_table, providers))
        text += "".join(
            arm_table(model, model.model, model.provider, known.date, {}) for model in arms
        )
        write_checked(args.config, text)
    except Usage as error:
        print(f"init: {error}", file=sys.stderr)
        return USAGE_ERROR
    for provider in providers:
        mine = ", ".join(model.model for model in arms if model.provider == provider.id)
        print(f"{provider.id} ({provider.key_env}): {mine}")
    print(f"wrote {args.config}; next: bandit-service serve --config {args.config}")
    return 0
