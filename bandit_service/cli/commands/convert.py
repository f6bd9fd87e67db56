"""Convert logs with one line per answer, other tools' exports, or RouterBench to a recording.

Write NAME.jsonl.gz and NAME.meta.json, which replay, evaluate and tune read.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bandit_service.cli.options import USAGE_ERROR, bounded
from bandit_service.data import answer_logs, benchmarks, exports, routerbench
from bandit_service.data.convert import Prices, read_prices, suffix_of, write
from bandit_service.data.recorded import Recorded
from bandit_service.data.rows import MAX_LEFT_OUT, BadRecording, BadRow, Scale

_SHOWN, _REASONS = 5, 8
_SAID = {"routerbench": "RouterBench", "long": "a line per answer"}
_EPILOG = f"""\
formats:
  long         one line per query and model, with the columns
               {", ".join(answer_logs.COLUMNS)};
               optional columns {", ".join(answer_logs.OPTIONAL)}:
               .csv, .tsv, .jsonl, .ndjson, .json (each also compressed: .gz, .zst, .bz2, .xz) or
               .parquet; cells separated by comma, semicolon, tab or bar; UTF-8 or UTF-16
  routerbench  the wide table of RouterBench, .pkl or .csv, with sample_id, prompt, eval_name
               and for each model the columns MODEL and MODEL|total_cost
  langfuse     traces, observations and scores: pages of its API, or exports
  litellm      the table LiteLLM_SpendLogs, with prompts kept
  openai-batch the requests and the answers of batches
  otel         spans and evaluation events of OpenTelemetry's GenAI conventions, OTLP in JSON
  tensorzero   the tables ChatInference, ModelInference and feedback
               These are of .csv, .jsonl, .json or .parquet too. Further files and tables of the
               same export come with --with, scores by another tool with --scores.

  llmrouter, mmlu-pro, routellm, zeroeval
               the published answers of these benchmarks, files or directories; docs/data.md says
               which. Their list prices are known; tokens are counted by tiktoken, if it is there

quality:
  From 0 to 1, or true and false. For ratings of another scale, --scale must name the worst and
  the best value: --scale 1 5 for stars, --scale 6 1 where 1 is the best.

prices:
  JSON or TOML, USD per million tokens: {{"MODEL": {{"input": 1.0, "output": 2.0}}, ...}}
  Without --prices one price per model is estimated: its costs divided by its tokens.

examples:
  bandit-service convert logs.csv --to traffic.jsonl.gz --prices prices.toml
  bandit-service convert routerbench_0shot.pkl --to routerbench.jsonl.gz
  bandit-service convert traces.jsonl --from langfuse --with scores.jsonl --metric helpful \\
    --to traffic.jsonl.gz"""


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
        help="output file, written with NAME.meta.json; existing files are replaced",
    )
    parser.add_argument(
        "--from",
        dest="format",
        choices=("long", "routerbench", *exports.names(), *benchmarks.names()),
        help="the format of INPUT (default: long or routerbench, by its name and its header)",
    )
    parser.add_argument(
        "--with",
        dest="more",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="another file of the same export or benchmark; repeatable",
    )
    parser.add_argument(
        "--metric",
        default="",
        metavar="NAME",
        help="the metric of an export whose scores are the quality",
    )
    parser.add_argument(
        "--scores",
        type=Path,
        metavar="FILE",
        help="a table of scores of an export's answers, with the columns id and quality",
    )
    parser.add_argument(
        "--scale",
        type=float,
        nargs=2,
        metavar=("WORST", "BEST"),
        help="worst and best quality in INPUT (default: 0 1)",
    )
    parser.add_argument(
        "--max-left-out",
        type=bounded(float, 0.0, 1.0),
        default=MAX_LEFT_OUT,
        metavar="SHARE",
        help="refuse the file if a larger share of its rows is unusable (default: %(default)s)",
    )
    parser.add_argument("--prices", type=Path, metavar="FILE", help="list prices, see below")


def run(args: argparse.Namespace) -> int:
    """Convert as the arguments say; 0 done, 2 when they, or the data, cannot be used."""
    try:
        suffix_of(args.to)
        scale = Scale() if args.scale is None else _scale(*args.scale)
        prices = None if args.prices is None else read_prices(args.prices)
        kind, recorded = _loaded(args, prices, scale)
    except BadRecording as error:
        print(f"bandit-service: {error}", file=sys.stderr)
        return USAGE_ERROR
    _tell(recorded.left_out)
    told = "as given" if prices is not None else "estimated: cost over tokens, in and out alike"
    known = benchmarks.about(kind) if kind in benchmarks.names() else {}
    if known and prices is None:
        told = "list prices of 2024"
    about = {
        "prices": told,
        "source": f"{args.input.name}, {_SAID.get(kind, kind)}",
        "left_out": len(recorded.left_out),
        **({} if args.scale is None else {"scale": args.scale}),
        **known,
    }
    meta = write(recorded, args.to, about)
    answers = int((recorded.quality == recorded.quality).sum())
    print(
        f"{args.to}: {len(recorded)} queries, {len(recorded.arms)} models, {answers} answers\n"
        f"{meta}: prices {told}"
    )
    return 0


def _loaded(
    args: argparse.Namespace, prices: Prices | None, scale: Scale | None
) -> tuple[str, Recorded]:
    """The format, and the recording."""
    if args.format in benchmarks.names():
        for option, given in (
            ("metric", args.metric),
            ("scores", args.scores),
            ("scale", args.scale),
        ):
            if given:
                raise BadRecording(f"--{option}: is not of benchmarks, whose scores are known")
        paths = [args.input, *args.more]
        return args.format, benchmarks.load(args.format, paths, prices, args.max_left_out)
    if args.format in exports.names():
        return args.format, exports.load(
            args.format,
            [args.input, *args.more],
            prices,
            scale,
            args.max_left_out,
            metric=args.metric,
            scores=args.scores,
        )
    for option, given in (("with", args.more), ("metric", args.metric), ("scores", args.scores)):
        if given:
            raise BadRecording(
                f"--{option}: is of exports; name one with --from: {', '.join(exports.names())}"
            )
    wide = args.format == "routerbench" or (
        args.format is None and args.input.is_file() and routerbench.looks_like(args.input)
    )
    load = routerbench.load_routerbench if wide else answer_logs.load_long
    name = "routerbench" if wide else "long"
    return name, load(args.input, prices, scale, args.max_left_out)


def _scale(worst: float, best: float) -> Scale:
    try:
        return Scale(worst, best)
    except ValueError as error:
        raise BadRecording(f"--scale: {error}") from None


def _tell(left_out: Sequence[BadRow]) -> None:
    for bad in left_out[:_SHOWN]:
        print(f"skipped {bad}", file=sys.stderr)
    if not left_out:
        return
    print(f"{len(left_out)} rows were skipped", file=sys.stderr)
    for why, n in Counter(bad.reason for bad in left_out).most_common(_REASONS):
        if n > 1:
            print(f"  {n} of them: {why}", file=sys.stderr)
