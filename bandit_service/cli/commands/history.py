"""Show decisions, rewards and spend by hour, day, week or month.

Show decisions, rewards and spend of a log by hour, day, week or month, for each model, route,
tenant, key, tag or policy.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime

import msgspec

from bandit_service import clock
from bandit_service.cli import options
from bandit_service.cli.log_reading import events_of
from bandit_service.cli.options import Usage, key_for
from bandit_service.core.errors import Refused
from bandit_service.offline.history.asked import MAX_GROUPS, asked_of
from bandit_service.offline.history.fold import (
    GROUPS,
    PERIODS,
    Asked,
    Figures,
    History,
    HistoryFold,
)
from bandit_service.offline.offpolicy.sources import opened
from store import Locked

_EPILOG = """\
Costs are as reported, or estimated if none was reported, plus those of judges. An outcome counts
in the period of its decision. Times are UTC; weeks begin on Monday.

examples:
  bandit-service history --from-log http://127.0.0.1:8080
  bandit-service history --from-log var --per week --by tenant
  bandit-service history --per month --by tag --since 2026-01-01 --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `history`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("--per", choices=PERIODS, default="day", help="length of a period (default: %(default)s)")
    add("--by", choices=GROUPS, default="arm", help="what to group by (default: %(default)s)")
    add("--since", type=options.moment, metavar="TIME", help="decisions from here on, ISO 8601")
    add("--until", type=options.moment, metavar="TIME", help="decisions before this time")
    add(
        "--groups",
        type=options.bounded(int, 1, MAX_GROUPS),
        metavar="N",
        help="show the N groups with the highest spend, and the rest as one (default: 20)",
    )
    add(
        "--from-log",
        default="",
        metavar="DIR|FILE|URL",
        help="a data directory, an event log, an export of JSON lines or a running service "
        "(default: the configured log)",
    )
    options.log_key(parser)
    options.config(parser)
    options.pool(parser)
    add("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Add up, and print; 0 done, 1 the log cannot be read, 2 usage."""
    given = {
        name: str(value)
        for name in ("per", "by", "since", "until", "groups")
        if (value := getattr(args, name)) is not None
    }
    try:
        asked = asked_of(given, clock.now())
    except Refused as refused:
        raise Usage(f"--{refused.message}") from None
    try:
        found = _read(args, asked)
    except Locked as error:
        print(
            f"bandit-service: {error}; or ask the service that has it: --from-log URL",
            file=sys.stderr,
        )
        return 1
    print(json.dumps(msgspec.to_builtins(found)) if args.json else shown(found))
    return 0


def _read(args: argparse.Namespace, asked: Asked) -> History:
    fold, chosen = HistoryFold(asked), options.settings_of(args, args.from_log)
    key = key_for(args.from_log, args.key)
    with opened(args.from_log, chosen, key, args.ca, args.pool) as (source, _):
        for event in events_of(source, source.first - 1, "reading"):
            fold.take(event)
    return fold.history()


def shown(found: History) -> str:
    """The figures as a table, the newest period last."""
    if not found.periods:
        return f"No decisions from {_day(found.since)} to {_day(found.until)} (UTC)."
    width = max(12, *(len(name) for one in found.periods for name in one.groups))
    head = f"{found.per:17} {found.by:{width}} {'decisions':>10} {'rewarded':>9} {'reward':>8} "
    lines = [head + f"{'quality':>8} {'USD':>12}"]
    for one in found.periods:
        lines.append(_line(one.name, "all", one.total, width))
        lines += [_line("", name, figures, width) for name, figures in one.groups.items()]
    if found.uncounted:
        lines.append(
            f"not counted: {found.uncounted} outcomes of decisions that are no longer known"
        )
    return "\n".join(lines)


def _line(period: str, group: str, of: Figures, width: int) -> str:
    reward, quality = (
        f"{'-':>8}" if value is None else f"{value:8.4f}"
        for value in (of.mean_reward, of.mean_quality)
    )
    counts = f"{of.decisions:10d} {of.rewarded:9d}"
    return f"{period:17} {group:{width}} {counts} {reward} {quality} {of.spent_usd:12.6f}"


def _day(ts: float) -> str:
    return datetime.fromtimestamp(ts, UTC).strftime("%Y-%m-%d %H:%M")
