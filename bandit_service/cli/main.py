"""The command line: parse, run one command, and report its errors in one line each."""

from __future__ import annotations

import argparse
import ast
import gc
import importlib
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bandit_service
from bandit_service import settings
from bandit_service.cli import commands, imports, terminal
from bandit_service.cli.options import USAGE_ERROR, Usage
from bandit_service.data.log_source import Unreadable
from bandit_service.embedding import ModelUnavailable, WrongDimension
from store import StoreError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 done, 1 failed, 2 the command or the configuration is wrong, 130 Ctrl-C.

    Ctrl-C may also come while the command's modules are imported, which takes a second or more.
    """
    try:
        return terminal.kept(lambda: _run(argv))
    except KeyboardInterrupt:
        return 130


def _run(argv: Sequence[str] | None) -> int:
    words = sys.argv[1:] if argv is None else list(argv)
    called = next((word for word in words if not word.startswith("-")), "")
    args = _parser(called, listing=words[:1] != [called]).parse_args(words)
    try:
        return int(args.run(args))
    except settings.BadSettings as error:
        for mistake in error.mistakes:
            print(f"config: {mistake}", file=sys.stderr)
        return USAGE_ERROR
    except Usage as error:
        print(f"bandit-service: {error}", file=sys.stderr)
        return USAGE_ERROR
    except (ModelUnavailable, StoreError, Unreadable, WrongDimension, OSError) as error:
        if isinstance(error, BrokenPipeError) and terminal.reader_left():
            return 0
        print(f"bandit-service: {error}", file=sys.stderr)
        return 1


def names() -> dict[str, str]:
    """The module of each command by its name, sorted by name."""
    found = sorted(module.name for module in pkgutil.iter_modules(commands.__path__))
    return {name.strip("_").replace("_", "-"): f"{commands.__name__}.{name}" for name in found}


def _parser(called: str, listing: bool) -> argparse.ArgumentParser:
    """The parser, with the arguments of the command that is called.

    listing: every command's help may be shown, for which their files are read.
    """
    parser = terminal.Parser(
        prog="bandit-service",
        description="An online-learning router for large language models.",
    )
    parser.add_argument("--version", action="version", version=bandit_service.__version__)
    actions = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, path in names().items():
        short, long = _help_of(path) if listing or name == called else ("", "")
        command = actions.add_parser(name, help=short, description=long or short)
        if name == called:
            module = _imported(path)
            command.set_defaults(run=getattr(module, "run", None))
            module.add_arguments(command)
    return parser


def _imported(path: str) -> Any:
    """The module of a command; later ones of one process are left to the garbage collector."""
    with imports.kept(unless=gc.get_freeze_count() > 0):
        return importlib.import_module(path)


def _help_of(path: str) -> tuple[str, str]:
    """The docstring of a command that is not imported: its first line as help, and the rest."""
    file = Path(commands.__path__[0], path.rpartition(".")[2] + ".py")
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    short, _, long = text.partition("\n")
    return short.removesuffix("."), " ".join(long.split())
