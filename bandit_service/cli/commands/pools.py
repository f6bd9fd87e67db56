"""List the pools of tenants of a running service, or move one to another log.

docs/pools.md says what a pool is, how it is configured, and what a move does.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from bandit_service.cli import options, refusals
from bandit_service.cli.service_calls import asked

_HEADS = ("pool", "state", "cell", "log", "events", "pending", "tenants")
_LOOK_S = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `pools`."""
    options.service(parser, " with the scope read, of no tenant; --move needs admin")
    parser.add_argument(
        "--move",
        default="",
        metavar="NAME",
        help="move this pool's log to the database that the service's file names now, and wait",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """List or move; 0 done, and all of this service are ready; 1 not so, or nobody answered."""
    try:
        if args.move:
            return _move(args)
        rows = _rows(args)
    except refusals.ANY as error:
        print(f"bandit-service: {refusals.said(error, args.url)}", file=sys.stderr)
        return 1
    shown = [row for row in rows if args.pool in ("", row["name"])]
    if not shown:
        there_are = ", ".join(row["name"] for row in rows)
        what = f"--pool: no pool {args.pool!r}; there are {there_are}"
        print(f"bandit-service: {what}", file=sys.stderr)
        return options.USAGE_ERROR
    print(json.dumps(shown) if args.json else _table(shown))
    return int(any(row["state"] not in ("ready", "elsewhere") for row in shown))


def _rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = asked(args.url, args.key, "GET", "/v1/pools")["pools"]
    return rows


def _move(args: argparse.Namespace) -> int:
    """Begin, and wait until the log is there; it goes on without whoever waits."""
    asked(args.url, args.key, "POST", f"/v1/pools/{args.move}/move")
    with tqdm(disable=None, bar_format="{desc} ({elapsed})", leave=False) as bar:
        while True:
            row = next(each for each in _rows(args) if each["name"] == args.move)
            state = row["moving"]
            bar.set_description_str(f"moving {args.move}: {state}")
            if state == "moved" or state.startswith("failed"):
                break
            time.sleep(_LOOK_S)
    if args.json:
        print(json.dumps(row))
    else:
        print(f"{args.move}: {state}; its log is {row['engine']}:{row['log']}")
    return int(state != "moved")


def _table(rows: list[dict[str, Any]]) -> str:
    cells = [_HEADS, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(_HEADS))]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
    lines += [f"{row['name']}: {row['why']}" for row in rows if row["why"]]
    lines += [f"{row['name']}: move: {row['moving']}" for row in rows if row["moving"]]
    return "\n".join(lines)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    here = bool(row["engine"])  # it is open in this process
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
