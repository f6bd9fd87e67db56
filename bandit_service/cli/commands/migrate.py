"""Copy the log of a stopped service into a database that several processes can share.

The command copies log.path in data_dir into the PostgreSQL or JetStream of log.dsn_env or
log.dsn_file, as the log log.name. If it is interrupted, run it again: it continues where it was.
Afterwards the directory is that of a replica.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from tqdm import tqdm

from bandit_service import settings
from bandit_service.app import assembly, sharing
from bandit_service.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bandit-service migrate`."""
    options.config(parser)
    options.pool(parser)


def run(args: argparse.Namespace) -> int:
    """Copy what is missing; 0."""
    chosen = options.settings_of(args)
    shared = sharing.open_shared(chosen)
    if shared is None:
        raise settings.BadSettings(
            [
                'log.engine: must be "postgres" or "jetstream", with the database to copy into '
                "(docs/scale.md)"
            ]
        )
    log = assembly.open_log(chosen)
    bar: tqdm[Any] = tqdm(
        total=int(log.last), desc="migrating", unit=" events", disable=None, leave=False
    )

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    async def copied() -> int:
        try:
            snapshots = assembly.open_snapshots(chosen)
            return await sharing.migrate(shared, log, snapshots, chosen, progress)
        finally:
            await shared.close()

    try:
        count = asyncio.run(copied())
    finally:
        bar.close()
        log.close()
    print(f"{count} events copied; the log {chosen.log.name!r} in the database has all of them")
    return 0
