"""`bandit-service serve` as a process that can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path

import psutil

from loadtest.forks import fork, start


def _children(pid: int) -> list[psutil.Process]:
    """The children of a service that is to be killed, which may stand still and would stay."""
    with contextlib.suppress(psutil.Error):
        return list(psutil.Process(pid).children(recursive=True))
    return []


class Service:
    """One process on a free port. Its log is `stderr.log` in its data directory."""

    def __init__(
        self, data_dir: Path, environ: dict[str, str], *, descriptors: int = 0, forked: bool = False
    ) -> None:
        """environ: settings beside those of this process.

        descriptors: its `ulimit -n`, where that is not to be this process's.
        forked: by a process that has imported the service, which spares most of a start.
        """
        data_dir.mkdir(exist_ok=True)
        self.ready = data_dir / "ready.json"
        self.ready.unlink(missing_ok=True)
        self.stderr = data_dir / "stderr.log"
        arguments = ["serve", "--port", "0", "--ready-file", str(self.ready)]
        whole = os.environ | {"BANDIT_DATA_DIR": str(data_dir)} | environ  # noqa: TID251 - passed on
        self.popen = (fork if forked else start)(arguments, whole, self.stderr, descriptors)

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
            for child in children:  # ours where the service was forked, and to be taken note of
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(child.pid, 0)
        self.popen.wait(30)

    def terminate(self) -> None:
        """SIGTERM, and no waiting."""
        self.popen.send_signal(signal.SIGTERM)
