"""`bandit-service evaluate --from-log`: what other policies would have earned on a log."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

import policies
from bandit_service import settings
from bandit_service.cli import options
from bandit_service.cli.log_reading import events_of
from bandit_service.cli.options import Usage, bounded, key_for
from bandit_service.core.routes import AUTO
from bandit_service.data import dsjson, open_bandit
from bandit_service.data.log_source import Source, Unreadable
from bandit_service.data.logged import ForeignSource, source_of
from bandit_service.offline.candidates import Candidate, parsed
from bandit_service.offline.offpolicy.fold import METRICS, Asked, LogEvaluation
from bandit_service.offline.offpolicy.report import How, report, shown
from bandit_service.offline.offpolicy.sources import beginning, opened
from bandit_service.parsing.suggestions import did_you_mean
from store import Locked

_MOST = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `evaluate` that are for logs alone."""
    log = parser.add_argument_group("evaluation on a log (docs/off-policy.md)")
    add = log.add_argument
    add(
        "--from-log",
        nargs="?",
        const="",
        metavar="DIR|FILE|URL",
        help="evaluate policies on the decisions of a data directory, an event log, an export of "
        "JSON lines or a running service; by default the configured log",
    )
    add(
        "--from-dsjson",
        type=Path,
        metavar="FILE",
        help="the same on Vowpal Wabbit's DSJSON from any system",
    )
    add(
        "--from-obd",
        type=Path,
        metavar="FILE",
        help="the same on a table like the Open Bandit Dataset's, CSV or Parquet",
    )
    add("--experiment", default="", metavar="ID", help="only decisions of this experiment's units")
    options.route(log, "evaluate the policy of this route on its decisions", AUTO)
    options.tags(log, "only decisions with this tag")
    add(
        "--since",
        type=options.moment,
        metavar="TIME",
        help="only decisions from this time on, ISO 8601",
    )
    add("--until", type=options.moment, metavar="TIME", help="only decisions before this time")
    add(
        "--frozen",
        action="store_true",
        help="policies stop learning at --since, or after half of the log",
    )
    add(
        "--metric",
        default="reward",
        metavar="NAME",
        help=f"the metric to estimate: {', '.join(METRICS)}, or a metric of your own that came "
        "with rewards (default: %(default)s)",
    )
    add(
        "--clip",
        type=bounded(float, 1.0, 1e9),
        default=How().clip,
        metavar="M",
        help="the largest weight of clipped IPS and Switch-DR (default: %(default)s)",
    )
    add(
        "--alpha",
        type=bounded(float, 1e-6, 0.5),
        default=How().alpha,
        metavar="A",
        help="error rate of every interval (default: %(default)s)",
    )
    add(
        "--last",
        type=bounded(int, 1, _MOST),
        default=200_000,
        metavar="N",
        help="only the newest N decisions (default: %(default)s)",
    )
    add(
        "--bounds",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="bounds of the metric, for the confidence sequence (default: -1 1 for "
        "reward, 0 1 for quality)",
    )
    add("--anyway", action="store_true", help="show figures even if they are refused")
    add("--json", action="store_true", help="print JSON")
    add("--config", type=Path, metavar="FILE", help="TOML configuration file (optional)")
    options.pool(log)
    options.log_key(log)


def check_none_given(args: argparse.Namespace) -> None:
    """Usage where an argument that is for logs alone was given, and a recording is evaluated."""
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    for name, default in vars(parser.parse_args([])).items():
        if getattr(args, name) != default:
            option = f"--{name.replace('_', '-')}"
            raise Usage(f"{option}: is for --from-log, --from-dsjson and --from-obd; leave it out")


def run(args: argparse.Namespace) -> int:
    """Evaluate; 0 done, 1 the log cannot be read, 2 usage."""
    if args.bounds is not None and not args.bounds[0] < args.bounds[1]:
        raise Usage("--bounds: LOW must be below HIGH")
    candidates = candidates_of(args.policy)
    chosen = options.settings_of(args, args.from_log)
    try:
        with _opened(args, chosen) as (source, snapshots):
            found = evaluated(source, _asked(args, candidates, chosen, source), snapshots, args)
    except Locked as error:
        print(
            f"bandit-service: {error}; or evaluate the service that has it: --from-log URL",
            file=sys.stderr,
        )
        return 1
    print(json.dumps(found) if args.json else shown(found))
    return 0


@contextlib.contextmanager
def _opened(
    args: argparse.Namespace, chosen: settings.Settings
) -> Iterator[tuple[Source, Path | None]]:
    if args.from_log is None:
        path = args.from_dsjson or args.from_obd
        if not path.is_file():
            raise Unreadable(f"there is no file {path}")
        lines = dsjson.read(path) if args.from_dsjson else open_bandit.read(path)
        told = tqdm(lines, "reading", unit=" decisions", disable=None, leave=False, file=sys.stderr)
        history = chosen.history
        yield source_of(told, path, chosen.arms, history.neighbours, history.capacity), None
        return
    key = key_for(str(args.from_log), args.key)
    with opened(args.from_log, chosen, key, args.ca, args.pool) as found:
        yield found


def candidates_of(texts: list[str] | None) -> tuple[Candidate, ...]:
    """NAME[:PARAMETER=VALUE…] each; every policy but `fixed` where none is named."""
    if not texts:
        return tuple(Candidate(name=name) for name in policies.names() if name != "fixed")
    found = []
    for text in texts:
        try:
            found.append(parsed(text))
        except (ValueError, TypeError) as error:
            raise Usage(f"--policy {text}: {error}") from None
    return tuple(found)


def evaluated(
    source: Source, asked: Asked, snapshots: Path | None, args: argparse.Namespace
) -> dict[str, Any]:
    """Run the candidates along the source, with a bar on stderr; returns the results."""
    after, world = beginning(source.first, asked, snapshots)
    if source.first > 1:
        print(
            f"bandit-service: events up to {source.first - 1} were deleted by retention; the "
            "policies begin after them with nothing learned",
            file=sys.stderr,
        )
    known = source.known if isinstance(source, ForeignSource) else True
    along = LogEvaluation(asked, world, known)
    for event in events_of(source, after, "folding"):
        along.take(event)
    if asked.route and asked.route not in along.routes:
        there_are = ", ".join(sorted(each or AUTO for each in along.routes)) or "none"
        raise Usage(
            f"--route: no decision is of the route {asked.route!r}; the log has {there_are}"
        )
    _check_metric(asked.metric, along.measured)
    bounds = None if args.bounds is None else (args.bounds[0], args.bounds[1])
    how = How(alpha=args.alpha, clip=args.clip, anyway=args.anyway, bounds=bounds)
    try:
        return report(along, how)
    except ValueError as error:
        raise Usage(f"--{error}") from None


def _check_metric(metric: str, measured: Collection[str]) -> None:
    """Usage where no reward of the log has this metric."""
    known = (*METRICS, *sorted(measured))
    if metric not in known:
        there_are = ", ".join(known)
        raise Usage(
            f"--metric {metric}: no reward of these decisions has it{did_you_mean(metric, known)}; "
            f"expected one of {there_are}"
        )


def _asked(
    args: argparse.Namespace,
    candidates: tuple[Candidate, ...],
    chosen: settings.Settings,
    source: Source,
) -> Asked:
    half = source.first + (source.last - source.first) // 2
    return Asked(
        candidates=candidates,
        route="" if args.route == AUTO else args.route,
        experiment=args.experiment,
        tags=tuple(args.tag),
        since=args.since,
        until=args.until,
        frozen=args.frozen,
        frozen_at=half if args.frozen and args.since is None else 0,
        metric=args.metric,
        most=args.last,
        explore=settings.exploration(chosen.exploration),
        capacity=chosen.history.capacity,
    )
