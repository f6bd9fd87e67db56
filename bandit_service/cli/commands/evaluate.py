"""Compare routers and policies on recorded data, with curves and intervals.

Recorded data × routers and policies × seeds, under the protocols of docs/evaluation.md. Prints
tables; writes JSON, Parquet and plots to a directory.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

import bandit_service
import policies
from bandit_service.cli import offpolicy, options
from bandit_service.cli.options import USAGE_ERROR, Usage, bounded
from bandit_service.core.prior import STRENGTH
from bandit_service.data.recordings import (
    PARETOBANDIT,
    BadRecording,
    embed_all,
    open_recording,
)
from bandit_service.embedding import open_backend
from bandit_service.lab.data import Labelled
from bandit_service.lab.faithful import FAITHFUL, OURS
from bandit_service.lab.online import Entrant, Protocol
from bandit_service.lab.routers import OfflineRouter, references, standard
from bandit_service.offline.candidates import split
from bandit_service.parsing.extras import install

PROTOCOLS = ("offline", "online", "change", "regimes")
PAPER = "@paper"
_NEEDS = ("matplotlib", "pyarrow", "scipy", "sklearn", "threadpoolctl")
_EPILOG = f"""\
protocols, defined in docs/evaluation.md:
  offline  train on 70 % with every model's outcome, route the rest; cost-quality curves
  online   one pass, only the chosen model's outcome is shown; reward and regret
  change   the same, but half-way the best model joins, degrades, gets dearer or retires
  regimes  bandit feedback, warm start and full information, and the feedback each used

examples:
  bandit-service evaluate --data {PARETOBANDIT} --protocol online --seeds 5
  bandit-service evaluate --data traffic.jsonl.gz --policy metallm --policy metallm{PAPER}
  bandit-service evaluate --data traffic.jsonl.gz --protocol offline --router knn --router ridge
  bandit-service evaluate --from-log var --policy metallm:alpha=0.5 --since 2026-03-01"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `evaluate`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add = parser.add_argument
    options.data(parser, more="RouterBench's .pkl or .csv, ", action="append")
    add(
        "--protocol",
        action="append",
        choices=(*PROTOCOLS, "all"),
        help="repeatable (default: all)",
    )
    add(
        "--policy",
        action="append",
        metavar=f"NAME[{PAPER}][:KEY=VALUE...]",
        help=f"a policy with its parameters; {PAPER} uses its paper's settings; repeatable "
        f"(default: all, with and without {PAPER}; in `change` and `regimes` without)",
    )
    add(
        "--router",
        action="append",
        metavar="NAME",
        help="an offline router; repeatable (default: all)",
    )
    add(
        "--seeds",
        type=bounded(int, 1, 10_000),
        default=20,
        metavar="N",
        help="orders of the stream in the online protocol (default: %(default)s)",
    )
    add(
        "--few",
        type=bounded(int, 1, 10_000),
        default=5,
        metavar="N",
        help="splits, and orders of the stream in the other protocols; no more than --seeds "
        "(default: %(default)s)",
    )
    options.willingness_to_pay(parser, several=True)
    options.limit(parser)
    options.strength(parser, "--warm-strength", STRENGTH, "in `regimes`, ")
    add(
        "--jobs",
        type=bounded(int, 1, 1024),
        default=os.cpu_count() or 1,
        metavar="N",
        help="number of processes (default: %(default)s)",
    )
    options.embedding(parser)
    add(
        "--out",
        type=Path,
        default=Path("evaluate-results"),
        metavar="DIR",
        help="directory for JSON, Parquet, PNG and SVG (default: %(default)s)",
    )
    offpolicy.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate as the arguments say; 0 done, 2 when they, or the data, cannot be used."""
    try:
        if _of_a_log(args):
            return offpolicy.run(args)
        offpolicy.check_none_given(args)
        _check_extra()
        entrants = entrants_of(args.policy)
        learners = entrants if args.policy else [e for e in entrants if "@" not in e.label]
        routers = routers_of(args.router)
        recordings = [open_recording(data) for data in args.data]
    except (Usage, BadRecording) as error:
        print(f"bandit-service: {error}", file=sys.stderr)
        return USAGE_ERROR
    from bandit_service.lab import output, reports

    protocols = PROTOCOLS if not args.protocol or "all" in args.protocol else args.protocol
    worths = tuple(args.willingness_to_pay or (options.DEFAULTS.reward.willingness_to_pay,))
    protocol = Protocol(
        seeds=args.seeds,
        worths=worths,
        neighbours=options.DEFAULTS.history.neighbours,
        capacity=options.DEFAULTS.history.capacity,
        warm_strength=args.warm_strength,
    )
    for recorded in recordings:
        options.tell_skipped(recorded)
        if args.limit is not None:
            recorded = recorded.first(args.limit)
        backend = open_backend(args.backend, args.model, args.data_dir / "models")
        vectors = embed_all(recorded.texts, backend, args.model, args.data_dir / "embeddings")
        data = Labelled(recorded, vectors)
        print(f"\n{recorded.name}: {len(data)} queries, {len(data.arms)} arms\n")
        found = reports.evaluate(
            data,
            entrants,
            learners,
            routers,
            protocols,
            protocol,
            few=min(args.few, args.seeds),
            jobs=args.jobs,
            out=args.out,
        )
        records = {
            "version": bandit_service.__version__,
            "data": recorded.name,
            "queries": len(data),
            "left_out": len(recorded.left_out),
            "arms": data.arms,
            "protocol": protocol,
            "entrants": entrants,
            "routers": routers,
        }
        for report in found:
            for table in report.tables:
                tqdm.write(table.text() + "\n")
            for name, points in report.points.items():
                output.write_parquet(args.out / f"{recorded.name}-{name}.parquet", points)
            records |= report.records
            output.write_json(args.out / f"{recorded.name}.json", records)
            report.draw()
            for warning in report.warnings:
                print(warning, file=sys.stderr)
    print(f"JSON, Parquet and plots in {args.out}", file=sys.stderr)
    return 0


def entrants_of(names: Sequence[str] | None) -> list[Entrant]:
    """Policies by name; every one both ways where none is named.

    The paper's Eagle learns from comparisons only, so it is shown one per query in place of the
    outcome.
    """
    variants: dict[str, Mapping[str, Any]] = {
        f"{name}{PAPER}": parameters for name, parameters in FAITHFUL.items()
    } | {f"{name}@{one}": own for name, of in OURS.items() for one, own in of.items()}
    every = [
        variant
        for name in policies.names()
        if name != "fixed"  # the best single arm, which is a baseline
        for variant in (name, *(one for one in variants if one.startswith(f"{name}@")))
    ]
    found = []
    for wanted in dict.fromkeys(names or every):
        variant, texts = split(wanted)
        name, at, _ = variant.partition("@")
        if not policies.exists(name) or (at and variant not in variants):
            raise Usage(f"--policy {wanted}: expected one of {policies.there_are(every)}")
        own = ":".join(texts)
        given = options.candidate(f"{name}:{own}").parameters if own else {}
        parameters = {**(variants[variant] if at else {}), **given}
        duels = parameters.get("compare_on") == "off"
        found.append(Entrant(wanted, name, parameters, "duel" if duels else "bandit"))
    return found


def routers_of(names: Sequence[str] | None) -> dict[str, OfflineRouter]:
    """Offline routers by the name they have in the tables, upper and lower case being the same."""
    every = standard()
    if not names:
        return every
    by_name = {name.lower(): name for name in every}
    for name in names:
        if name.lower() not in by_name:
            raise Usage(f"--router {name}: expected one of {', '.join(every)}")
    wanted = {by_name[name.lower()] for name in names} | set(references())
    return {name: router for name, router in every.items() if name in wanted}


def _of_a_log(args: argparse.Namespace) -> bool:
    """Whether the input is a log, not a recording of every model's outcome."""
    given = (args.data, args.from_log, args.from_dsjson, args.from_obd)
    if sum(each is not None for each in given) != 1:
        raise Usage("evaluate needs one of --data, --from-log, --from-dsjson and --from-obd")
    return args.data is None


def _check_extra() -> None:
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise Usage(f"evaluate needs {', '.join(missing)}: {install('evaluate')}")
