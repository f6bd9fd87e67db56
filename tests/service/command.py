"""A command of `bandit-service` in a process of its own, and what it said."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from loadtest.forks import fork


class Said(NamedTuple):
    status: int
    out: bytes
    err: str


async def command(*arguments: str, **environ: str) -> Said:
    """Its exit code and both outputs. It is forked, since to import it takes most of its time."""
    with tempfile.TemporaryDirectory() as directory:
        out, err = Path(directory, "out"), Path(directory, "err")
        whole = os.environ | environ  # noqa: TID251 - passed on
        process = fork(list(arguments), whole, err, out=out)
        status = await asyncio.to_thread(process.wait, 120)
        said = out.read_bytes(), err.read_text(encoding="utf-8")  # noqa: ASYNC240 - it is over
        return Said(status, *said)
