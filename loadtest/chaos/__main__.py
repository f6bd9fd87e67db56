"""Kill services under load again and again, and look what is left.

    python -m loadtest.chaos [--kills 200] [--seed 0] [--keep DIR] [--markdown FILE]

The kills are made in series, each on a log of its own, some series beside each other: a log that
grows without end would have its checks take most of the time. Ends with 1, naming the promise, as
soon as one is broken; the seed of the series and `--keep` show it again. Ctrl-C ends it with the
figures of the series that had ended.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from loadtest.chaos.load import Wrong
from loadtest.chaos.run import Totals, rows, series
from loadtest.sections import put_section


def main() -> int:
    """Run; 0 when every promise held."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--series", type=int, default=25, metavar="N", help="kills of one log")
    parser.add_argument("--beside", type=int, default=2, metavar="N", help="series at one time")
    parser.add_argument("--seed", type=int, default=0, help="of the first series; then the next")
    parser.add_argument("--verify-every", type=int, default=10, metavar="N")
    parser.add_argument("--models", type=Path, help="directory with the exported models")
    parser.add_argument("--keep", type=Path, help="directory for the logs, which are kept")
    parser.add_argument("--markdown", type=Path, help="write the figures into this file's section")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.keep is not None and args.keep.exists() and any(args.keep.iterdir()):
        parser.error(f"--keep: must be empty or not there, got {args.keep}")
    with ExitStack() as stack:
        directory = args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bar = stack.enter_context(tqdm(total=args.kills, unit=" kills", disable=None))
        spawned = multiprocessing.get_context("spawn")
        pool = stack.enter_context(ProcessPoolExecutor(args.beside, spawned))
        under_way = [
            pool.submit(
                series,
                directory / f"{args.seed + i}",
                args.models,
                min(args.series, args.kills - done),
                args.seed + i,
                args.verify_every,
            )
            for i, done in enumerate(range(0, args.kills, args.series))
        ]
        runs: list[Totals] = []
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        try:
            for each in as_completed(under_way):
                runs.append(each.result())
                bar.update(runs[-1].kills)
        except Wrong as error:
            print(error, file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("stopped: the figures are of the series that had ended", file=sys.stderr)
    if not runs:
        return 1
    table = rows(sorted(runs, key=lambda each: each.seed))
    if args.json:
        print(json.dumps(dict(table)))
    else:
        print("\n".join(f"{name:50} {value}" for name, value in table))
    if args.markdown is not None:
        lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in table)]
        put_section(args.markdown, "chaos", "\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
