"""Kill a service under load again and again, and look what is left.

    python -m loadtest.chaos [--kills 200] [--seed 0] [--keep DIR] [--markdown FILE]

Ends with 1, naming the promise, as soon as one is broken; the seed and `--keep` show it again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from loadtest.chaos.load import Wrong
from loadtest.chaos.run import Totals, chaos
from loadtest.sections import put_section


def main() -> int:
    """Run; 0 when every promise held."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verify-every", type=int, default=10, metavar="N")
    parser.add_argument("--keep", type=Path, help="directory for the log, which is kept")
    parser.add_argument("--markdown", type=Path, help="write the figures into this file's section")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        directory = args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.mkdir(parents=True, exist_ok=True)
        bar = stack.enter_context(tqdm(total=args.kills, unit=" kills", disable=None))

        def tick(totals: Totals) -> None:
            bar.update(totals.kills - bar.n)
            bar.set_postfix_str(f"{totals.ledger.acknowledged} acknowledged")

        try:
            totals = asyncio.run(
                chaos(directory / "var", args.kills, args.seed, args.verify_every, tick)
            )
        except Wrong as error:
            print(f"seed {args.seed}: {error}", file=sys.stderr)
            return 1
    rows = totals.rows()
    if args.json:
        print(json.dumps(dict(rows)))
    else:
        print("\n".join(f"{name:40} {value}" for name, value in rows))
    if args.markdown is not None:
        table = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
        put_section(args.markdown, "chaos", "\n".join(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
