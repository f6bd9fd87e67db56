"""Write the event log as JSON lines, Parquet, Vowpal Wabbit's DSJSON or one table.

Write the event log of a stopped or a running service for other tools.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bandit_service.app import assembly
from bandit_service.cli import options
from bandit_service.cli.options import USAGE_ERROR, key_for
from bandit_service.data import dsjson, jsonl, open_bandit
from bandit_service.data.log_source import LogSource, ServiceSource, Source
from bandit_service.data.scan import Scan
from bandit_service.parsing.extras import install

_EMBEDDINGS = {
    "jsonl": ("base64", "list", "none"),
    "dsjson": ("list", "none"),
    "obd": ("list", "none"),
    "parquet": ("list", "none"),
}
_EPILOG = """\
formats:
  jsonl    one event per line, as stored
  parquet  tables of decisions with their outcomes, comparisons and self-contained outcomes
  dsjson   Vowpal Wabbit's format, one rewarded decision per line; read it with
           vw --dsjson --cb_explore_adf -d FILE
  obd      a table like the Open Bandit Dataset's: CSV, or Parquet if --to ends with .parquet

Erased records, and records of units being erased, are left out and counted on stderr.

examples:
  bandit-service export --config bandit.toml > events.jsonl
  bandit-service export --url http://127.0.0.1:8080 --after 120000 --to new.jsonl
  bandit-service export --format parquet --to tables/
  bandit-service export --format dsjson --unrewarded skip-learn --to log.dsjson

docs/export.md describes each format"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `export`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("--format", choices=tuple(_EMBEDDINGS), default="jsonl", help="default: jsonl")
    add("--config", type=Path, metavar="FILE", help="TOML configuration file of a stopped service")
    options.pool(parser)
    add("--url", metavar="URL", help="read from the running service at this URL instead")
    add(
        "--key",
        metavar="KEY",
        help="with --url: an API key with admin; @FILE reads it from a file; default: BANDIT_KEY",
    )
    add("--ca", type=Path, metavar="FILE", help="with --url https: trust this PEM file")
    offset = options.bounded(int, 0, 2**63 - 1)
    add("--after", type=offset, default=0, metavar="OFFSET", help="only events after this offset")
    options.route(parser, "export only decisions of this route, and their outcomes")
    options.tags(parser, "export only decisions with this tag, and their outcomes")
    add(
        "--to",
        type=Path,
        metavar="PATH",
        help="a file, or for parquet a directory; default: standard output",
    )
    add(
        "--embeddings",
        choices=("base64", "list", "none"),
        help="encoding of embeddings; default: base64 in jsonl, list elsewhere",
    )
    add(
        "--unrewarded",
        choices=dsjson.UNREWARDED,
        default="skip",
        help="dsjson and obd, decisions without a reward: leave out, use reward 0, or write a "
        "line that VW does not learn from or a row without reward; default: skip",
    )


def run(args: argparse.Namespace) -> int:
    """Export; 0 done, 1 the log or the service cannot be read, 2 usage."""
    if wrong := _wrong(args):
        print(f"bandit-service: {wrong}", file=sys.stderr)
        return USAGE_ERROR
    with _source(args) as source:
        print(f"bandit-service: {_export(source, args)}", file=sys.stderr)
    return 0


def _wrong(args: argparse.Namespace) -> str:
    allowed = _EMBEDDINGS[args.format]
    args.embeddings = args.embeddings or allowed[0]
    if args.embeddings not in allowed:
        return f"--embeddings: with --format {args.format} must be one of {', '.join(allowed)}"
    if args.after < 0:
        return f"--after: must be an offset from 0 up, got {args.after}"
    if args.url and args.config:
        return "--url: takes the place of --config, give one of them"
    if (args.key or args.ca) and not args.url:
        return "--key, --ca: are for --url"
    if args.format != "parquet" and not _is_table(args):
        return ""
    if args.to is None:
        return "--to: with --format parquet must be a directory"
    try:
        import pyarrow  # noqa: F401 - an extra, which only this format needs
    except ImportError:
        return f"Parquet needs pyarrow: {install('evaluate', 'pyarrow')}"
    return ""


def _is_table(args: argparse.Namespace) -> bool:
    """Whether to write the Open Bandit table as Parquet."""
    return args.format == "obd" and args.to is not None and args.to.suffix == ".parquet"


@contextlib.contextmanager
def _source(args: argparse.Namespace) -> Iterator[Source]:
    if args.url:
        yield ServiceSource(args.url, key_for(args.url, args.key or ""), args.ca, pool=args.pool)
        return
    log = assembly.open_log(options.settings_of(args), to_read=True)
    try:
        yield LogSource(log)
    finally:
        log.close()


def _export(source: Source, args: argparse.Namespace) -> str:
    """Write it; returns what was written and left out."""
    if args.after < source.first - 1 and source.first > 1:
        print(
            f"bandit-service: events up to {source.first - 1} were deleted by retention",
            file=sys.stderr,
        )
    joined = args.format != "jsonl"
    bar: tqdm[Any] = tqdm(
        desc="exporting",
        unit=" events",
        disable=None,
        leave=False,
        file=sys.stderr,
        total=2 * max(0, source.last - max(source.first - 1, 0 if joined else args.after)),
    )
    with (
        bar,
        Scan(
            source, args.after, joined=joined, progress=bar.update, tags=args.tag, route=args.route
        ) as scan,
    ):
        if args.format == "parquet":
            from bandit_service.data import parquet

            parquet.write(scan, args.to, embeddings=args.embeddings != "none")
        elif args.format == "dsjson":
            _write(dsjson.lines(scan, args.embeddings != "none", args.unrewarded), args.to)
        elif _is_table(args):
            open_bandit.write_parquet(scan, args.to, args.embeddings != "none", args.unrewarded)
        elif args.format == "obd":
            rows = open_bandit.csv_lines(scan, args.embeddings != "none", args.unrewarded)
            _write(rows, args.to)
        else:
            _write(jsonl.lines(scan, args.embeddings), args.to)
        return scan.summary()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write(what: Iterable[bytes], to: Path | None) -> None:
    """To standard output, or to a file that is there when it is whole, and is not for others."""
    if to is None:
        for each in what:
            sys.stdout.buffer.write(each)
        sys.stdout.buffer.flush()
        return
    partial = to.with_name(to.name + ".partial")
    try:
        with open(partial, "wb", opener=_private) as file:
            for each in what:
                file.write(each)
        shutil.move(partial, to)
    finally:
        partial.unlink(missing_ok=True)
