"""Answer an assistant's questions about a running service, by the Model Context Protocol.

A read-only server over stdio. It answers why a request went to its model, what routing saved, and
how arms, policies and experiments are doing. docs/mcp.md shows how to configure assistants.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys

from bandit_service.cli import options
from bandit_service.cli.mcp_server.asking import service
from bandit_service.cli.options import USAGE_ERROR
from bandit_service.parsing.extras import install


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mcp`."""
    options.service(parser, " with the scope read, @FILE for one in a file")


def run(args: argparse.Namespace) -> int:
    """Serve until the assistant leaves; 0 done, 2 the command line is wrong."""
    if importlib.util.find_spec("mcp") is None:
        print(f"bandit-service: mcp needs a package: {install('mcp')}", file=sys.stderr)
        return USAGE_ERROR
    try:
        asked = service(args.url, options.key_for(None, args.key), args.pool)
    except ValueError as error:
        print(f"bandit-service: {error}", file=sys.stderr)
        return USAGE_ERROR
    from bandit_service.cli.mcp_server.server import server

    server(asked).run("stdio")
    return 0
