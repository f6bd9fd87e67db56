"""Choose a policy's parameters on a validation split of recorded data.

Search a policy's parameters on a validation split. The test split is used once, with the chosen
parameters and the defaults.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

import bandit_service
from bandit_service.cli import options
from bandit_service.cli.options import USAGE_ERROR, Usage, bounded
from bandit_service.core.outcomes import RewardRule
from bandit_service.data.recordings import (
    PARETOBANDIT,
    BadRecording,
    embed_all,
    open_recording,
)
from bandit_service.embedding import open_backend
from bandit_service.lab.data import Labelled
from bandit_service.parsing.extras import install

if TYPE_CHECKING:
    from bandit_service.lab.tune import Range, Tuning, TuningTrial

_SHOWN = 10
_EPILOG = f"""\
The queries are split by a hash of their id. All candidates run on the validation part; at the end
the chosen and the default parameters run on the test part, once each, and both are shown.

examples:
  bandit-service tune --data {PARETOBANDIT} --policy metallm --grid alpha=0.1,0.5,1
  bandit-service tune --data traffic.jsonl.gz --grid alpha=0.1,0.5 --grid ridge=1,12.94
  bandit-service tune --data traffic.jsonl.gz --policy metallm --trials 30 \\
      --range alpha=0.01:2:log --range ridge=0.1:100:log --grid bias=true,false"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `tune`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add = parser.add_argument
    options.data(parser, required=True)
    add(
        "--policy",
        default="nested",
        metavar=options.POLICY,
        help="a policy, with its fixed parameters (default: %(default)s)",
    )
    add(
        "--grid",
        action="append",
        default=[],
        metavar="KEY=V1,V2,...",
        help="values to try; several keys are combined; repeatable",
    )
    add(
        "--range",
        action="append",
        default=[],
        metavar="KEY=LOW:HIGH[:log]",
        help="range of numbers to draw from, with --trials; repeatable",
    )
    add(
        "--trials",
        type=bounded(int, 1, 100_000),
        metavar="N",
        help="number of candidates that Optuna (TPE) draws, instead of the whole grid",
    )
    add(
        "--search-seed",
        type=bounded(int, 0, 2**31),
        default=0,
        metavar="N",
        help="seed of Optuna's draws (default: %(default)s)",
    )
    add(
        "--seeds",
        type=bounded(int, 1, 10_000),
        default=5,
        metavar="N",
        help="runs of each candidate, each with its own order of queries (default: %(default)s)",
    )
    add(
        "--share",
        type=bounded(float, 0.01, 0.99),
        default=0.5,
        metavar="P",
        help="share of the queries to choose on (default: %(default)s)",
    )
    options.limit(parser, 2)
    options.willingness_to_pay(parser)
    options.embedding(parser)
    add("--json", type=Path, metavar="FILE", help="write all trials to this JSON file")


def run(args: argparse.Namespace) -> int:
    """Tune as the arguments say; 0 done, 2 when they, or the data, cannot be used."""
    try:
        _check_extra(args.trials is not None)
    except Usage as error:
        print(f"bandit-service: {error}", file=sys.stderr)
        return USAGE_ERROR
    from bandit_service.lab import output, tune

    try:
        policy = options.candidate(args.policy)
        fixed = {name: [value] for name, value in policy.parameters.items()}
        space = fixed | space_of(args.grid, args.range, args.trials is not None)
        whole = tune.check_space(policy.name, space)
        recorded = open_recording(args.data)
        options.tell_skipped(recorded)
        if args.limit is not None:
            recorded = recorded.first(args.limit)
        backend = open_backend(args.backend, args.model, args.data_dir / "models")
        vectors = embed_all(recorded.texts, backend, args.model, args.data_dir / "embeddings")
        world = tune.TuningWorld(
            seeds=args.seeds,
            share=args.share,
            rule=RewardRule(args.willingness_to_pay),
            neighbours=options.DEFAULTS.history.neighbours,
            capacity=options.DEFAULTS.history.capacity,
        )
        if args.trials is None:
            search: tune.Search = tune.Grid(space)
            candidates = math.prod(
                len(values) for values in space.values() if isinstance(values, list)
            )
        else:
            search = tune.Guided(space, args.trials, args.search_seed, whole)
            candidates = args.trials
        with tqdm(total=candidates + 3, unit=" trials", disable=None, dynamic_ncols=True) as bar:
            best = [-1e9]

            def watch(trial: TuningTrial, on_validation: bool) -> None:
                best[0] = max(best[0], trial.reward) if on_validation else best[0]
                bar.set_description("choosing" if on_validation else "testing", refresh=False)
                bar.set_postfix_str(f"best reward {best[0]:.4f}", refresh=False)
                bar.update()

            found = tune.tune(Labelled(recorded, vectors), policy.name, search, world, watch)
    except (Usage, BadRecording, tune.BadSearch) as error:
        print(f"bandit-service: {error}", file=sys.stderr)
        return USAGE_ERROR
    print(text_of(found, args.seeds))
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    section = tune.toml_of(args.policy, found.chosen.parameters)
    print(f"\nfor the service's configuration:\n\n{section}")
    if args.json is not None:
        output.write_json(args.json, as_json(found, recorded.name, args))
        print(f"JSON in {args.json}", file=sys.stderr)
    return 0


def space_of(
    grids: Sequence[str], ranges: Sequence[str], drawn: bool
) -> dict[str, list[Any] | Range]:
    """The search space, by parameter. Raises Usage if the command line is wrong."""
    from bandit_service.lab.tune import Range

    space: dict[str, list[Any] | Range] = {}
    if not grids and not ranges:
        raise Usage("needs --grid KEY=V1,V2,... or --trials N with --range KEY=LOW:HIGH")
    if ranges and not drawn:
        raise Usage("--range needs --trials, how many candidates to draw")
    for option, texts in (("--grid", grids), ("--range", ranges)):
        for text in texts:
            key, equals, rest = text.partition("=")
            if not equals or not key or not rest:
                raise Usage(
                    f"{option} {text}: must be KEY={'V1,V2' if texts is grids else 'LOW:HIGH'}"
                )
            if key in space:
                raise Usage(f"{option} {text}: duplicate key {key}")
            space[key] = _values(rest) if option == "--grid" else _range(text, rest, Range)
    return space


def text_of(found: Tuning, seeds: int) -> str:
    """The tables, and their inputs."""
    from bandit_service.lab.tables import Table, number, with_half

    def row(label: str, trial: TuningTrial, gain: str) -> tuple[str, ...]:
        return (label, number(trial.reward), gain, number(trial.quality), f"{1e3 * trial.cost:.4f}")

    headings = ("parameters", "reward", "gain ± 95 %", "quality", "USD/1000")
    best = [
        row(
            _shown(trial),
            trial,
            with_half(found.gain) if trial is found.chosen is not found.default else "",
        )
        for place, trial in enumerate(found.trials)
        if place < _SHOWN or trial is found.default
    ]
    left = len(found.trials) - len(best)
    choosing = Table(
        f"{found.policy} on the validation part: {found.validation} queries, {seeds} seeds",
        headings,
        tuple(best),
        f"{left} more, which are worse." if left else "",
    )
    testing = Table(
        f"On the test part, which nothing was chosen on: {found.test} queries, {seeds} seeds",
        headings,
        (
            row(
                f"{_shown(found.test_chosen)} (chosen)",
                found.test_chosen,
                with_half(found.test_gain),
            ),
            row("default", found.test_default, ""),
        ),
    )
    runs = len(found.trials) * seeds
    feedback = (
        f"Feedback used for choosing: {found.outcomes} outcomes, one per query in each of {runs} "
        f"runs over the validation part; live, each run would take that traffic again."
    )
    return f"{choosing.text()}\n\n{testing.text()}\n\n{feedback}"


def as_json(found: Tuning, data: str, args: argparse.Namespace) -> dict[str, Any]:
    """All trials, with everything that they depend on."""
    return {
        "version": bandit_service.__version__,
        "data": data,
        "limit": args.limit,
        "policy": found.policy,
        "seeds": args.seeds,
        "share": args.share,
        "willingness_to_pay": args.willingness_to_pay,
        "grid": args.grid,
        "range": args.range,
        "candidates": args.trials,
        "search_seed": args.search_seed,
        "queries": {"validation": found.validation, "test": found.test},
        "outcomes_shown": found.outcomes,
        "chosen": dict(found.chosen.parameters),
        "validation": {
            "gain": found.gain,
            "trials": [
                {**dataclasses.asdict(trial), "reward": trial.reward} for trial in found.trials
            ],
        },
        "test": {
            "gain": found.test_gain,
            "chosen": found.test_chosen,
            "default": found.test_default,
        },
        "warnings": found.warnings,
    }


def _shown(trial: TuningTrial) -> str:
    return (
        " ".join(f"{key}={_short(value)}" for key, value in trial.parameters.items()) or "default"
    )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _values(text: str) -> list[Any]:
    found: list[Any] = []
    for part in text.split(","):
        try:
            found.append(json.loads(part))
        except json.JSONDecodeError:
            found.append(part)
    return found


def _range(text: str, rest: str, kind: type[Range]) -> Range:
    low, _, more = rest.partition(":")
    high, colon, scale = more.partition(":")
    try:
        if colon and scale != "log":
            raise ValueError
        found = kind(float(low), float(high), bool(colon))
    except ValueError:
        raise Usage(f"--range {text}: must be KEY=LOW:HIGH or KEY=LOW:HIGH:log") from None
    if not math.isfinite(found.low) or not math.isfinite(found.high):
        raise Usage(f"--range {text}: must be finite")
    return found


def _check_extra(drawn: bool) -> None:
    needs = ("scipy", *(("optuna",) if drawn else ()))
    missing = [name for name in needs if importlib.util.find_spec(name) is None]
    if missing:
        raise Usage(f"tune needs {', '.join(missing)}: {install('evaluate')}")
