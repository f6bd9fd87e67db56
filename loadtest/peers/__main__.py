"""Compare other libraries with our policies, each through its public API, in one protocol.

    python -m loadtest.peers --data paretobandit --data traffic.jsonl.gz --seeds 20

A query arrives, the library chooses an arm, and gets that arm's quality and cost alone; one pass.
All rows see the same queries in the same order and have the same reward. docs/peers.md says what
is compared.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

import policies
from bandit_service.cli.options import USAGE_ERROR, bounded, tell_skipped
from bandit_service.core.exploration import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.data.recordings import (
    PARETOBANDIT,
    BadRecording,
    Recorded,
    embed_all,
    load_paretobandit,
    open_recording,
)
from bandit_service.embedding import ModelUnavailable, open_backend
from bandit_service.parsing.extras import install
from bandit_service.settings import Settings
from loadtest.peers.entrants import (
    EMBEDDING,
    FEATURES,
    OURS,
    PACKAGES,
    PCA,
    SHARE,
    Entrant,
    entrants,
    installed,
)
from loadtest.peers.paretobandit import held_out, own_features
from loadtest.peers.protocol import Missing

if TYPE_CHECKING:
    from bandit_service.lab.tables import Table

_DEFAULTS = Settings()
_TEST = f"{PARETOBANDIT}-test"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 done, 1 a run failed, 2 the arguments or the data are unusable."""
    args = _parser().parse_args(argv)
    unknown = [policy for policy in args.policy if not policies.exists(policy)]
    if unknown:
        return _refuse(f"--policy {unknown[0]}: expected one of {policies.there_are()}")
    try:
        from loadtest.peers import summary  # reads scipy
    except ImportError as error:
        return _refuse(f"{error}; {install('evaluate')}")
    features = args.features or FEATURES
    rows = _there(entrants(args.policy, only=args.only, features=features, share=args.share))
    reports, tables, failed = [], [], False
    for data in args.data or [PARETOBANDIT]:
        try:
            recorded = _open(data)
            found, table, some_failed = _compare(recorded, rows, args)
        except (BadRecording, Missing, ModelUnavailable) as error:
            return _refuse(str(error))
        reports.append(found)
        tables.append(table.markdown())
        failed |= some_failed
        print(f"\n{table.text()}\n")
    if args.json is not None:
        whole = {"versions": _versions(), "seeds": args.seeds, "data": reports}
        args.json.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        print(f"results in {args.json}")
    if args.markdown is not None:
        versions = ", ".join(f"{name} {version}" for name, version in _versions().items())
        summary.write_markdown(args.markdown, "\n\n".join([*tables, f"Versions: {versions}."]))
        print(f"tables in {args.markdown}")
    return 1 if failed else 0


def _compare(
    recorded: Recorded, rows: Sequence[Entrant], args: argparse.Namespace
) -> tuple[dict[str, Any], Table, bool]:
    from loadtest.peers import compare, summary

    recorded = _answered(recorded if args.limit is None else recorded.first(args.limit))
    ids = tuple(str(arm.id) for arm in recorded.arms)
    rows = [row for row in rows if row.arms in ((), ids)]
    data = compare.Stream(
        recorded,
        _features(recorded, {row.features for row in rows}, args.data_dir),
        RewardRule(args.willingness_to_pay),
    )
    begun = time.perf_counter()
    results: list[compare.Result] = []
    failures: list[compare.Failed] = []
    total = compare.count(rows, args.seeds, args.slow_seeds)
    with tqdm(total=total, desc=recorded.name, unit=" runs", disable=None) as bar:
        for done in compare.compare(
            data, rows, seeds=args.seeds, slow_seeds=args.slow_seeds, jobs=args.jobs
        ):
            bar.set_postfix_str(done.entrant.label, refresh=False)
            bar.update()
            if isinstance(done, compare.Result):
                results.append(done)
            else:
                failures.append(done)
                tqdm.write(f"failed: {done.entrant.label}, seed {done.seed}: {done.error}")
    found = summary.rows(results, data)
    title = (
        f"{recorded.name}: {len(recorded)} queries, {len(ids)} arms, willingness to pay "
        f"{args.willingness_to_pay:g} USD, "
        f"{Exploration(share=args.share).label.replace('in all', 'of all queries explore')}"
    )
    print(f"{recorded.name}: {total} runs in {time.perf_counter() - begun:.0f} s")
    return summary.as_json(found, data, results), summary.table(found, title), bool(failures)


def _open(data: str) -> Recorded:
    if data == _TEST:
        return dataclasses.replace(held_out(load_paretobandit()), name=_TEST)
    recorded = open_recording(data)
    tell_skipped(recorded)
    return recorded


def _answered(recorded: Recorded) -> Recorded:
    """Only queries that every arm answered: not every peer can be told who may be chosen."""
    whole = ~np.isnan(recorded.quality).any(axis=1)
    if not whole.all():
        left = int((~whole).sum())
        print(f"left out {left} of {len(recorded)} queries that some arm has no answer to")
    if not whole.any():
        raise BadRecording(f"{recorded.name}: no query was answered by every arm")
    return recorded.take(np.flatnonzero(whole).astype(np.int64))


def _features(recorded: Recorded, wanted: set[str], data_dir: Path) -> dict[str, Any]:
    setting = _DEFAULTS.embedding
    backend = open_backend(setting.backend, setting.model, data_dir / "models")
    embeddings = embed_all(recorded.texts, backend, setting.model, data_dir / "embeddings")
    features = {EMBEDDING: embeddings.astype(np.float64)}
    if PCA in wanted:
        features[PCA] = own_features(recorded, embeddings)
    return features


def _there(rows: Sequence[Entrant]) -> list[Entrant]:
    """The rows that can run here; of the others it is told what they lack."""
    for package in dict.fromkeys(row.package for row in rows):
        if not installed(package):
            print(f"{package}: skipped, it is not installed; {PACKAGES[package][1]}")
    if any(row.features == PCA for row in rows) and not installed("paretobandit"):
        command = PACKAGES["paretobandit"][1]
        print(f"{PCA}: skipped, the projection is in the package paretobandit; {command}")
        rows = [row for row in rows if row.features != PCA]
    return [row for row in rows if installed(row.package)]


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in PACKAGES if installed(name)}


def _refuse(why: str) -> int:
    print(f"peers: {why}", file=sys.stderr)
    return USAGE_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--data",
        action="append",
        metavar="FILE",
        help=f"as of `bandit-service replay`, {PARETOBANDIT} for all queries of that package, "
        f"{_TEST} for its test split; repeatable (default: {PARETOBANDIT})",
    )
    add("--seeds", type=bounded(int, 1, 10**6), default=20, help="runs per row (default: 20)")
    add(
        "--slow-seeds",
        type=bounded(int, 1, 10**6),
        default=5,
        metavar="SEEDS",
        help="maximum runs of a row that takes a minute per run (default: 5)",
    )
    add("--limit", type=bounded(int, 1, 10**9), metavar="N", help="first N queries of each file")
    add(
        "--only",
        action="append",
        default=[],
        choices=(OURS, *PACKAGES),
        help="only this library, beside our default; repeatable",
    )
    add(
        "--features",
        action="append",
        choices=FEATURES,
        help=f"{EMBEDDING}: the service's; {PCA}: ParetoBandit's whitened PCA of it; repeatable "
        "(default: both)",
    )
    add(
        "--policy",
        action="append",
        default=[],
        metavar="NAME",
        help="another policy of this project, beside the default; repeatable",
    )
    add(
        "--share",
        type=bounded(float, 0.0, 1.0),
        default=SHARE,
        metavar="P",
        help="share of the queries that goes to all arms evenly, in every row: the others get our "
        "floor as well (default: %(default)s)",
    )
    add(
        "--willingness-to-pay",
        type=bounded(float, 1e-9, 1e6),
        default=_DEFAULTS.reward.willingness_to_pay,
        metavar="USD",
        help="reward = quality - cost / this (default: %(default)s)",
    )
    add(
        "--jobs",
        type=bounded(int, 1, 1024),
        default=os.cpu_count() or 1,
        help="number of processes",
    )
    add("--data-dir", type=Path, default=Path(_DEFAULTS.data_dir), metavar="DIR")
    add("--json", type=Path, metavar="FILE", help="write rows and runs")
    add(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="write the tables into this file, between its two marks",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
