"""Stream recorded traffic through policies, without a server.

Stream recorded traffic through one or more policies, with the same code as the service, and compare
them with uniform, the best single arm and the oracle.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tqdm import tqdm

import policies
from bandit_service.cli import options, replay_log
from bandit_service.cli.options import USAGE_ERROR, bounded
from bandit_service.core.exploration import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.data.recordings import (
    PARETOBANDIT,
    SPECIALISTS,
    BadRecording,
    Recorded,
    embed_all,
    open_recording,
)
from bandit_service.embedding import open_backend
from bandit_service.offline import report
from bandit_service.offline.baselines import Baselines, baselines
from bandit_service.offline.candidates import Candidate
from bandit_service.offline.simulate import Run, Watch, order_of, simulate
from policies import Policy, Vector

_EVERY = 25
_EPILOG = f"""\
baselines, on the same queries in the same order:
  uniform      every arm equally often, in expectation
  best single  always the arm with the highest mean reward in hindsight
  oracle       the best arm of each query; no policy that sees one outcome per query can reach it

columns:
  gap closed   (reward - uniform) / (oracle - uniform)
  regret       the baseline's reward minus the policy's, summed over all queries

examples:
  bandit-service replay --data {SPECIALISTS} --policy all
  bandit-service replay --data {PARETOBANDIT} --policy all
  bandit-service replay --data traffic.jsonl.gz --policy metallm:alpha=1 --seeds 10
  bandit-service replay --data traffic.jsonl.gz --policy metallm --policy eagle --plot out.png
  bandit-service replay --log --config bandit.toml --policy eagle

docs/replay.md describes the format of FILE"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `replay`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--log",
        action="store_true",
        help="replay the log of a stopped service for each policy, compare with the snapshots, "
        "and write a snapshot for each other policy (default: the serving policy)",
    )
    options.config(parser)
    options.pool(parser)
    options.data(source)
    parser.add_argument(
        "--policy",
        action="append",
        metavar=options.POLICY,
        help="a policy with its parameters, or `all`; repeatable (default: nested)",
    )
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        help=argparse.SUPPRESS,  # the old notation
    )
    _number(parser, "--seeds", 5, 1, "runs per policy, each with its own order of queries")
    options.limit(parser)
    _number(parser, "--neighbours", options.DEFAULTS.history.neighbours, 0, "past queries recalled")
    _number(parser, "--capacity", options.DEFAULTS.history.capacity, 1, "queries remembered")
    parser.add_argument(
        "--share",
        type=bounded(float, 0.0, 1.0),
        default=options.DEFAULTS.exploration.share,
        metavar="P",
        help="share of the queries that explores, evenly over all arms (default: %(default)s)",
    )
    parser.add_argument(
        "--floor",
        type=bounded(float, 0.0, 0.5),
        metavar="P",
        help="minimum probability of each arm, instead of --share; all arms together at most "
        f"{options.DEFAULTS.exploration.floor_share:g}",
    )
    options.willingness_to_pay(parser)
    options.embedding(parser)
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw reward over queries")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Replay as the arguments say; 0 done, 2 when they, or the data, cannot be used."""
    if args.log:
        given = {one.name: one.parameters for one in _candidates(args.policy or [], args.param)}
        return replay_log.run(args, given)
    try:
        chosen = chosen_policies(args.policy or ["nested"], args.param)
        if args.plot is not None:
            report.check_plot()
        recorded = open_recording(args.data)
    except (BadRecording, report.PlotUnavailable) as error:
        print(f"bandit-service: {error}", file=sys.stderr)
        return USAGE_ERROR
    if args.limit is not None:
        recorded = recorded.first(args.limit)
    options.tell_skipped(recorded)
    backend = open_backend(args.backend, args.model, args.data_dir / "models")
    embeddings = embed_all(recorded.texts, backend, args.model, args.data_dir / "embeddings")
    explore = Exploration(share=args.share, floor=args.floor)
    rule = RewardRule(args.willingness_to_pay)
    runs = replay(
        recorded,
        embeddings,
        chosen,
        seeds=args.seeds,
        explore=explore,
        rule=rule,
        neighbours=args.neighbours,
        capacity=args.capacity,
        quiet=args.json,
    )
    rows = report.rows(runs)
    if args.json:
        print(json.dumps(as_json(recorded, chosen, rows, args.seeds, explore, rule)))
    else:
        print(heading(recorded, args.seeds))
        print(report.table(rows))
    for row in rows:
        if row.fallbacks or row.failures:
            print(
                f"{row.name}: failed to propose {row.fallbacks} times and to learn "
                f"{row.failures} times",
                file=sys.stderr,
            )
    if args.plot is not None:
        report.plot(runs, heading(recorded, args.seeds), args.plot)
        print(f"plot in {args.plot}", file=sys.stderr)
    return 0


def replay(
    recorded: Recorded,
    embeddings: Vector,
    chosen: Mapping[str, Policy[Any]],
    *,
    seeds: int,
    explore: Exploration,
    rule: RewardRule,
    neighbours: int,
    capacity: int,
    quiet: bool,
) -> dict[str, list[Run]]:
    """Every policy once per seed 0 … seeds − 1, with a bar on a terminal unless `quiet`."""
    beside = baselines(recorded, rule)
    runs: dict[str, list[Run]] = {name: [] for name in chosen}
    total = len(chosen) * seeds * len(recorded)
    with tqdm(total=total, unit=" q", disable=True if quiet else None, dynamic_ncols=True) as bar:
        for name, policy in chosen.items():
            for seed in range(seeds):
                bar.set_description(f"{name} {seed + 1}/{seeds}", refresh=False)
                watch = _watch(bar, beside.take(order_of(recorded, seed)))
                runs[name].append(
                    simulate(
                        recorded,
                        embeddings,
                        policy,
                        seed=seed,
                        explore=explore,
                        rule=rule,
                        neighbours=neighbours,
                        capacity=capacity,
                        watch=watch,
                    )
                )
    return runs


def chosen_policies(texts: Sequence[str], params: Sequence[str]) -> dict[str, Policy[Any]]:
    """The policies by their labels. Raises Usage for an unknown one.

    By the old notation, `params`, a policy is called by its name, whatever its parameters.
    """
    return {
        one.name if params else one.label: policies.load(one.name, **one.parameters)
        for one in _candidates(texts, params)
    }


def _candidates(texts: Sequence[str], params: Sequence[str]) -> list[Candidate]:
    return options.with_params(options.candidates(texts, policies.names()), params)


def progress_text(steps: int, earned: float, beside: Mapping[str, float]) -> str:
    """The mean reward so far beside the baselines' (sums so far), and the regret."""
    means = "  ".join(f"{name} {total / steps:.3f}" for name, total in beside.items())
    regret = beside["best single"] - earned
    return f"reward {earned / steps:.3f}  {means}  regret {regret:.1f}"


def heading(recorded: Recorded, seeds: int) -> str:
    """What was replayed, in one line."""
    every = "seed" if seeds == 1 else "seeds"
    return f"{recorded.name}: {len(recorded)} queries, {len(recorded.arms)} arms, {seeds} {every}"


def as_json(
    recorded: Recorded,
    chosen: Mapping[str, Policy[Any]],
    rows: Sequence[report.Row],
    seeds: int,
    explore: Exploration,
    rule: RewardRule,
) -> dict[str, Any]:
    """The results with everything they depend on."""
    return {
        "data": recorded.name,
        "queries": len(recorded),
        "left_out": len(recorded.left_out),
        "arms": [arm.id for arm in recorded.arms],
        "seeds": seeds,
        "share": explore.share if explore.floor is None else None,
        "floor": explore.floor,
        "willingness_to_pay": rule.willingness_to_pay,
        "policies": {name: msgspec.to_builtins(policy) for name, policy in chosen.items()},
        "rows": [dataclasses.asdict(row) for row in rows],
    }


def _watch(bar: tqdm[Any], beside: Baselines) -> Watch:
    sums = {
        "uniform": np.cumsum(beside.uniform.reward),
        "best single": np.cumsum(beside.best.reward),
        "oracle": np.cumsum(beside.oracle.reward),
    }
    n = len(beside.uniform.reward)

    def watch(steps: int, earned: float) -> None:
        if steps % _EVERY and steps != n:
            return
        shown = {name: float(total[steps - 1]) for name, total in sums.items()}
        bar.set_postfix_str(progress_text(steps, earned, shown), refresh=False)
        bar.update(steps % _EVERY or _EVERY)

    return watch


def _number(
    parser: argparse.ArgumentParser, name: str, default: int | None, least: int, what: str
) -> None:
    told = "all" if default is None else default
    parser.add_argument(
        name,
        type=bounded(int, least, 10**9),
        default=default,
        metavar="N",
        help=f"{what} (default: {told})",
    )
