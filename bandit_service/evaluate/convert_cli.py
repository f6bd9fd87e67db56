"""`bandit-service convert`: other formats to the one that `replay` and `evaluate` read."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bandit_service.evaluate import longlogs, routerbench
from bandit_service.evaluate.convert import read_prices, suffix_of, write
from bandit_service.replay.recorded import BadRecording, BadRow

USAGE_ERROR = 2
_SHOWN = 5
_EPILOG = f"""\
formats:
  long         a line per query and model, .csv, .jsonl (also .gz) or .parquet, with the columns
               {", ".join(longlogs.COLUMNS)};
               where known also {", ".join(longlogs.OPTIONAL)}
  routerbench  the wide table of RouterBench, .pkl or .csv, with sample_id, prompt, eval_name
               and for each model MODEL and MODEL|total_cost

prices:
  JSON or TOML, USD per million tokens: {{"MODEL": {{"input": 1.0, "output": 2.0}}, ...}}
  Without them one price per model is estimated: its costs over its tokens.

examples:
  bandit-service convert logs.csv --to traffic.jsonl.gz --prices prices.toml
  bandit-service convert routerbench_0shot.pkl --to routerbench.jsonl.gz"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `convert`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("input", type=Path, metavar="INPUT", help="the file to convert")
    parser.add_argument(
        "--to",
        type=Path,
        required=True,
        metavar="NAME.jsonl.gz",
        help="where to write; NAME.meta.json goes beside it, and what was there is replaced",
    )
    parser.add_argument(
        "--from",
        dest="format",
        choices=("long", "routerbench"),
        help="the format of INPUT (default: told from its name and its header)",
    )
    parser.add_argument("--prices", type=Path, metavar="FILE", help="list prices, see below")


def run(args: argparse.Namespace) -> int:
    """Convert as the arguments say; 0 done, 2 when they, or the data, cannot be used."""
    try:
        suffix_of(args.to)
        prices = None if args.prices is None else read_prices(args.prices)
        wide = args.format == "routerbench" or (
            args.format is None and args.input.is_file() and routerbench.looks_like(args.input)
        )
        load = routerbench.load_routerbench if wide else longlogs.load_long
        recorded = load(args.input, prices)
    except BadRecording as error:
        print(f"bandit-service: {error}", file=sys.stderr)
        return USAGE_ERROR
    _tell(recorded.left_out)
    told = "as given" if prices is not None else "estimated: cost over tokens, in and out alike"
    about = {
        "prices": told,
        "source": f"{args.input.name}, {'RouterBench' if wide else 'a line per answer'}",
        "left_out": len(recorded.left_out),
    }
    meta = write(recorded, args.to, about)
    answers = int((recorded.quality == recorded.quality).sum())
    print(
        f"{args.to}: {len(recorded)} queries, {len(recorded.arms)} models, {answers} answers\n"
        f"{meta}: prices {told}"
    )
    return 0


def _tell(left_out: Sequence[BadRow]) -> None:
    for bad in left_out[:_SHOWN]:
        print(f"left out {bad}", file=sys.stderr)
    if left_out:
        print(f"{len(left_out)} rows were left out", file=sys.stderr)
