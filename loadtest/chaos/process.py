"""`bandit-service serve` as a process that can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil


def _children(pid: int) -> list[psutil.Process]:
    """The children of a service that is to be killed, which may stand still and would stay."""
    with contextlib.suppress(psutil.Error):
        return list(psutil.Process(pid).children(recursive=True))
    return []


def _few(descriptors: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))


class Service:
    """One process on a free port. Its log is `stderr.log` in its data directory."""

    def __init__(self, data_dir: Path, *, descriptors: int = 0, **environ: str) -> None:
        """descriptors: its `ulimit -n`, where that is not to be this process's."""
        data_dir.mkdir(exist_ok=True)
        self.ready = data_dir / "ready.json"
        self.ready.unlink(missing_ok=True)
        self.stderr = data_dir / "stderr.log"
        with self.stderr.open("ab") as log:
            self.popen = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "bandit_service.cli",
                    "serve",
                    "--port",
                    "0",
                    "--ready-file",
                    str(self.ready),
                ],
                env=os.environ | {"BANDIT_DATA_DIR": str(data_dir), **environ},  # noqa: TID251 - passed on
                stdout=log,
                stderr=log,
                preexec_fn=partial(_few, descriptors) if descriptors else None,
            )

    async def url(self, within_s: float = 60.0) -> str:
        """Where it listens, once it does; RuntimeError with its last words when it ended."""
        async with asyncio.timeout(within_s):
            while not self.ready.exists():
                if self.popen.poll() is not None:
                    raise RuntimeError(self.stderr.read_text()[-2000:])
                await asyncio.sleep(0.01)
        return str(json.loads(self.ready.read_text())["url"])

    def kill(self) -> None:
        """kill -9, whatever it is doing."""
        if self.popen.poll() is None:
            children = _children(self.popen.pid)
            self.popen.send_signal(signal.SIGKILL)
            for child in children:  # one that stands still would not see that the service is gone
                with contextlib.suppress(psutil.Error):
                    child.kill()
        self.popen.wait(30)

    def terminate(self) -> None:
        """SIGTERM, and no waiting."""
        self.popen.send_signal(signal.SIGTERM)
