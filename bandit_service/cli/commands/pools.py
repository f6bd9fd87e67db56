"""List the pools of tenants of a running service, with the state of each log.

docs/pools.md says what a pool is, and how it is configured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from bandit_service.cli import options, refusals
from bandit_service.cli.asking import asked

_HEADS = ("pool", "state", "cell", "log", "events", "pending", "tenants")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `pools`."""
    options.service(parser, " with the scope read, of no tenant")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """List them; 0 all of this service are ready, 1 one is not, or nobody answered."""
    try:
        rows = asked(args.url, args.key, "GET", "/v1/pools")["pools"]
        shown = [row for row in rows if args.pool in ("", row["name"])]
    except refusals.ANY as error:
        print(f"bandit-service: {refusals.said(error, args.url)}", file=sys.stderr)
        return 1
    if not shown:
        there_are = ", ".join(row["name"] for row in rows)
        print(
            f"bandit-service: --pool: no pool {args.pool!r}; there are {there_are}", file=sys.stderr
        )
        return options.USAGE_ERROR
    print(json.dumps(shown) if args.json else _table(shown))
    return int(any(row["state"] not in ("ready", "elsewhere") for row in shown))


def _table(rows: list[dict[str, Any]]) -> str:
    cells = [_HEADS, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(_HEADS))]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
    lines += [f"{row['name']}: {row['why']}" for row in rows if row["why"]]
    return "\n".join(lines)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    here = row["state"] != "elsewhere"
    tenants = [*row["tenants"], *([f"share {row['share']}"] if row["share"] else [])]
    return (
        row["name"],
        row["state"],
        row["cell"] or "-",
        f"{row['engine']}:{row['log']}" if here else "-",
        f"{row['events']:,}" if here else "-",
        f"{row['pending']:,}" if here else "-",
        "all others" if row["default"] else ", ".join(tenants),
    )
