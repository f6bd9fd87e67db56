"""List the recordings behind docs/results.md, or check that a file is an exact copy of one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bandit_service.data.known_files import Checked, checked, known_files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `data`."""
    actions = parser.add_subparsers(required=True, metavar="list|check")
    listing = actions.add_parser("list", help="list the files, with size and SHA-256")
    listing.set_defaults(run=_list)
    check = actions.add_parser(
        "check", help="compare files with the recordings that the results were computed from"
    )
    check.add_argument("files", type=Path, nargs="+", metavar="FILE")
    check.set_defaults(run=_check)


def _list(_: argparse.Namespace) -> int:
    for each in known_files():
        size, queries = each.bytes or "-", each.queries or "-"
        print(f"{each.name:32} {size:>9} bytes {queries:>6} queries  {each.sha256}")
    return 0


def _check(args: argparse.Namespace) -> int:
    """0 each is the file it should be; 1 one differs, or is of no known name; 2 not there."""
    differ = 0
    for path in args.files:
        try:
            found = checked(path)
        except OSError as error:
            print(f"bandit-service: {path}: {error.strerror or error}", file=sys.stderr)
            return 2
        print(f"{path}: {_said(found)}")
        differ += not found.same
    return 1 if differ else 0


def _said(found: Checked) -> str:
    if found.known is None:
        return f"no file of the results has this name or hash; SHA-256 {found.sha256}"
    if found.same:
        return f"is {found.known.name} of the results, to the byte"
    size = f"{found.known.bytes} bytes and " if found.known.bytes else ""
    return (
        f"differs from {found.known.name} of the results: {found.bytes} bytes and SHA-256 "
        f"{found.sha256}, there {size}{found.known.sha256}"
    )
